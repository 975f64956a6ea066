"""Which verifier judges an answer, by the kind of its prompt or by what a recipe says; and judging by it.

A verifier is a module with `verify(prompt, answer) -> Outcome`, or a function of the user's own (verify/own.py). Knows
nothing about processes: `judge` is what a VerifierPool's workers run.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

from distill import __version__
from distill.records import Kind, Prompt
from distill.verify import Outcome, failing, own
from distill.verify.pool import SECONDS_PER_ITEM

BUILT_IN: Mapping[str, str] = {
    name: f"distill.verify.{name}" for name in ("math", "numeric", "exact", "choice", "code")
}
"""Name → module."""
OF_KIND: Mapping[str, str] = {
    "math": "math",
    "numeric": "numeric",
    "choice": "choice",
    "code": "code",
    "exact": "exact",
}
"""Kind of a prompt → the verifier that judges it unless the recipe names another; `open` has none."""
JUDGE = "distill.verify.verifiers:judge"
"""For a VerifierPool: its items are (verifier, prompt, answer), its setup the verifiers to get ready."""
NEEDS_GOLD: tuple[Kind, ...] = ("math", "numeric", "choice", "exact")
"""Kinds whose verifiers compare with a gold answer; `code` has tests."""
_LIBRARIES = {"math": ("math-verify", "sympy", "mpmath"), "numeric": ("mpmath",), "choice": ("mpmath",)}

Chosen: TypeAlias = str | Mapping[Any, str]
"""A recipe's `verify`: one verifier for every prompt, or one for some kinds."""


def verifier_of(kind: str, chosen: Chosen) -> str | None:
    """The name of the verifier of prompts of this kind; None where there is none, as for `open` ones."""
    return chosen if isinstance(chosen, str) else chosen.get(kind) or OF_KIND.get(kind)


def names_of(kinds: Iterable[str], chosen: Chosen) -> tuple[str, ...]:
    """The verifiers that prompts of these kinds need."""
    return tuple(sorted({name for kind in kinds if (name := verifier_of(kind, chosen)) is not None}))


def told_without(name: str | None, answer: str | None) -> Outcome | None:
    """What is known before a verifier looks: a pass, `open`, where there is none, `no_answer`, or None."""
    if name is None:
        return Outcome("pass", "open")
    return None if (answer or "").strip() else failing("no_answer")


def judge(name: str, prompt: Prompt, answer: str | None) -> Outcome:
    """What the verifier says of `answer`, that which follows the reasoning; a blank one is `no_answer`."""
    if not (answer or "").strip():
        return failing("no_answer")
    assert answer is not None
    return own.judge(name, prompt, answer) if name not in BUILT_IN else _function(name)(prompt, answer)


def seconds(name: str, prompt: Prompt, answer: str | None) -> float:
    """How long judging may take."""
    if name not in BUILT_IN:
        return own.limit(name, prompt)
    limit: Any = getattr(_module(name), "seconds", None)
    return float(limit(prompt)) if limit is not None else SECONDS_PER_ITEM


def prepare(*names: str) -> None:
    """Loads what the first answer would otherwise wait for."""
    for name in names:
        if name in BUILT_IN:
            getattr(_module(name), "prepare", lambda: None)()
        else:
            own.warm_up(name)


def ready(name: str, prompt: Prompt, answer: str | None) -> None:
    """The same for the verifier of one item, where nobody knew before which ones there would be. What is wrong with it
    is left to `judge` to say."""
    with contextlib.suppress(Exception):
        _prepared(name)


@functools.cache
def _prepared(name: str) -> None:
    prepare(name)


def wants_of(prompt: Prompt, verifier: str | None = None) -> list[Any]:
    """All of a prompt that a verdict on a trace may depend on, as plain JSON; what is asked is in the trace's key. A
    verifier of one's own may look at anything."""
    if verifier is not None and verifier not in BUILT_IN:
        return [prompt.to_json()]
    tests = [[test.input, test.output, test.function] for test in prompt.tests or ()]
    return [prompt.kind, prompt.reasoning, prompt.answer, prompt.choices, prompt.language, tests]


@functools.cache
def fingerprint(name: str) -> str:
    """Changes with anything that may change what this verifier says."""
    if name not in BUILT_IN:
        return f"{name} {own.fingerprint(name)}"
    here = getattr(_module(name), "fingerprint", lambda: "")()
    libraries = (f"{library} {_version(library)}" for library in _LIBRARIES.get(name, ()))
    return " ".join((name, __version__, *libraries, here)).rstrip()


def require(names: Iterable[str]) -> None:
    """Raises what keeps one of these from judging anything, before anything is paid for: SpecError for a verifier of
    one's own that cannot be loaded, MissingError for programs without a sandbox."""
    for name in names:
        if name not in BUILT_IN:
            own.load(name)
        else:
            getattr(_module(name), "require", lambda: None)()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "?"


@functools.cache
def _module(name: str) -> Any:
    return importlib.import_module(BUILT_IN[name])


@functools.cache
def _function(name: str) -> Callable[[Prompt, str], Outcome]:
    found: Callable[[Prompt, str], Outcome] = _module(name).verify
    return found
