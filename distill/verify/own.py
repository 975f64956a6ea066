"""Verifiers that are the user's own: a function named `module:function`, or one that an installed package announces.

Its module is looked for in the working directory, too. Knows nothing about processes; `judge` is what a pool's workers
call, with the name as a part of every item, so that they load the function themselves.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from distill.errors import SpecError, near
from distill.records import Prompt
from distill.verify import Outcome

DISTILLS = ("math", "numeric", "exact", "choice", "code")
"""The verifiers that are no one's own; `verifiers.BUILT_IN` has their modules."""
GROUP = "distill.verifiers"
"""The group of entry points under which an installed package announces its verifiers."""
JUDGE = "distill.verify.own:judge"
"""The verifier of a VerifierPool for any verifier of one's own; its items are (name, prompt, answer)."""
SECONDS = 10.0
"""Limit of one item where the module has no `seconds` of its own; that of the other verifiers."""

Verify: TypeAlias = Callable[[Prompt, str], Outcome]
_SHOULD = (
    'write it as `verify(prompt: Prompt, answer: str) -> Outcome`; PASS, failing("reason") and abstaining("reason")'
)
_RETURNS = 'return PASS, failing("reason") or abstaining("reason") of distill.verify'
_log = logging.getLogger(__name__)
_TOLD: set[tuple[str, str]] = set()
"""Verifiers and kinds of errors that this process has logged."""


@functools.cache
def load(name: str) -> Verify:
    """The verifier of that name. What it returns is checked at every call: anything but an Outcome is a SpecError.

    Raises SpecError for a module, function or entry point that is not there, a module that cannot be imported, and
    what cannot be called with a prompt and an answer. The working directory is put on sys.path, behind all else, so
    that no file in it hides an installed module; processes that are spawned later inherit it.
    """
    function = _found(name)[1]
    try:
        inspect.signature(function).bind(None, "")
    except TypeError as error:
        given = f"{name}{inspect.signature(function)}"
        raise SpecError(f"verifier '{name}' does not take a prompt and an answer", given=given, todo=_SHOULD) from error
    except ValueError:  # a builtin without a signature: the first call tells
        pass

    @functools.wraps(function)
    def checked(prompt: Prompt, answer: str) -> Outcome:
        found = function(prompt, answer)
        if not isinstance(found, Outcome):
            given = f"{found!r:.80} ({type(found).__name__})"
            raise SpecError(f"verifier '{name}' returned no Outcome", given=given, todo=_RETURNS)
        return found

    return checked


def judge(name: str, prompt: Prompt, answer: str) -> Outcome:
    """What the verifier says. Raises what it raises, after logging it once per kind of error and process: the pool
    makes `verifier_error` of it, and that alone would tell nobody what to mend."""
    verify = load(name)
    try:
        return verify(prompt, answer)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        _tell(name, type(error).__name__, _described(error, name), prompt.id)
        raise


def warm_up(name: str) -> None:
    """Imports the verifier's module and calls its `prepare()`, if it has one."""
    home, _ = _found(name)
    load(name)
    own = getattr(home, "prepare", None)
    if callable(own):
        own()


def limit(name: str, prompt: Prompt) -> float:
    """The limit of one item: what the module's `seconds(prompt)` says, if it has one."""
    home, _ = _found(name)
    own = getattr(home, "seconds", None)
    return float(own(prompt)) if callable(own) else SECONDS


def fingerprint(name: str) -> str:
    """16 hex digits that change with the verifier's source, so that its verdicts are made anew: over its module's file,
    and over all Python files of its package where it is in one. Other modules that it imports are not looked at.

    Raises SpecError as `load`.
    """
    home, _ = _found(name)
    digest = hashlib.sha256(f"{name}\0{home.__name__}".encode())
    for path in _sources(home):
        digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def known() -> dict[str, str]:
    """Name → `module:function` of the verifiers that installed packages announce."""
    return {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}


@functools.cache
def _found(name: str) -> tuple[ModuleType, Verify]:
    """The module and the function that a name stands for."""
    target = name
    if ":" not in name:
        announced = known()
        if name not in announced:
            listed = (
                f"of distill: {', '.join(DISTILLS)}; announced by packages: {', '.join(sorted(announced)) or 'none'}"
            )
            todo = f"{listed}; or name a function of your own, `module:function`"
            raise SpecError(f"there is no verifier '{name}'{near(name, [*DISTILLS, *announced])}", todo=todo)
        target = announced[name].split("[")[0].strip()
    module, _, attribute = target.partition(":")
    home = _imported(module.strip(), name)
    function: object = home
    for part in attribute.strip().split("."):
        function = getattr(function, part, None)
    if function is None:
        callables = [key for key, value in vars(home).items() if callable(value) and not key.startswith("_")]
        raise SpecError(
            f"module '{module}' has no function '{attribute}'{near(attribute, callables)}",
            given=f"{name}, found at {getattr(home, '__file__', None) or 'no file'}",
            todo=f"functions there: {', '.join(callables) or 'none'}",
        )
    if not callable(function):
        raise SpecError(f"'{target}' is no function", given=type(function).__name__, todo=_SHOULD)
    return home, function


def _imported(module: str, name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()  # the file may be younger than the folder's listing
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise _broken(name, error) from error
        raise SpecError(
            f"there is no module '{module}'{near(module, _modules_here())}",
            given=name,
            todo=f"write it as a file in the working directory, {here}, or install it; Python files there: "
            + (", ".join(_modules_here()[:10]) or "none"),
        ) from error
    except (Exception, SystemExit) as error:  # whatever a module does when imported
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> SpecError:
    todo = "mend the module, or install what it needs"
    return SpecError(f"the module of verifier '{name}' cannot be imported", given=_described(error, name), todo=todo)


def _modules_here() -> list[str]:
    return sorted(path.stem for path in Path.cwd().glob("*.py"))


def _described(error: BaseException, name: str) -> str:
    """The error with the last place outside of this file, as `chem.py:12: KeyError: 'x'`."""
    if isinstance(error, SpecError):
        return str(error)
    trace, place = error.__traceback__, ""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path != Path(__file__) and "importlib" not in str(path):
            place = f"{path.name}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return f"{place}{type(error).__name__}: {error}"


def _tell(name: str, error: str, description: str, prompt_id: str) -> None:
    if (name, error) not in _TOLD:
        _TOLD.add((name, error))
        _log.warning("verifier '%s' failed at prompt %s: %s", name, prompt_id, description)


def _sources(home: ModuleType) -> list[Path]:
    file = getattr(home, "__file__", None)
    if file is None:
        return []
    package = sys.modules.get(home.__name__.partition(".")[0])
    folder = getattr(package, "__file__", None) if hasattr(package, "__path__") else None
    return sorted(Path(folder).parent.rglob("*.py")) if folder is not None else [Path(file)]
