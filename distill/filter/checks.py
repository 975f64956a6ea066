"""All checks by name, and the fingerprint of each: what its outcomes depend on besides the trace and its prompt.

Those of one trace and its prompt are functions; the others are made where they can be: `correct` and `contaminated`
while looking at a trace, `majority` over the samples of a prompt, `judge` by asking, duplicates over the whole run.
What a verdict means for training is decided by the keep rule. Knows nothing about processes and files.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distill import __version__
from distill.files import sha256_of
from distill.filter.evidence import evidence
from distill.filter_specs import FilterSettings
from distill.records import Prompt, Trace
from distill.verify import Outcome


@dataclass(frozen=True, slots=True)
class OfOne:
    """A check of one trace: `module:function`, called with prompt and trace, and with its settings where it has any."""

    function: str
    settings: str | None = None
    """Its settings' name in FilterSettings."""


OF_ONE: Mapping[str, OfOne] = {
    "finished": OfOne("distill.verify.form:finished"),
    "think_format": OfOne("distill.verify.form:think_format"),
    "language": OfOne("distill.filter.language:language", "language"),
    "loop": OfOne("distill.filter.loops:loop", "loop"),
    "paragraphs": OfOne("distill.filter.r1_rules:paragraphs", "paragraphs"),
    "code_in_reasoning": OfOne("distill.filter.r1_rules:code_in_reasoning", "code_in_reasoning"),
    "answer_present": OfOne("distill.filter.answers:answer_present", "answer_present"),
    "refusal": OfOne("distill.filter.refusal:refusal", "refusal"),
    "secrets": OfOne("distill.filter.secrets:secrets", "secrets"),
}
ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "correct": (),
    "contaminated": (),
    "length": ("length",),
    "score": ("score",),
    "majority": ("majority",),
    "judge": ("judge",),
    "duplicate": (),
    "near_duplicate": (),
}
"""Checks that are more than a function of one trace → their settings' names in FilterSettings."""
OF_ALL = ("duplicate", "near_duplicate")
"""Those that compare traces of the whole run."""
OF_BUCKET = ("score", "judge", "majority")
"""Those that are made a bucket at a time, after its traces were looked at."""
_functions: dict[str, Callable[..., Outcome]] = {}


def names() -> tuple[str, ...]:
    return (*OF_ONE, *ELSEWHERE)


def prepare(settings: FilterSettings) -> None:
    """Loads the functions of the checks that these settings run, and what they would otherwise load at first use."""
    for name in settings.made:
        if name in OF_ONE:
            home = importlib.import_module(_function(name).__module__)
            getattr(home, "prepare", lambda: None)()


def check(name: str, prompt: Prompt, trace: Trace, settings: FilterSettings) -> Outcome:
    """The outcome of a check of one trace."""
    own = OF_ONE[name].settings
    function = _function(name)
    return function(prompt, trace) if own is None else function(prompt, trace, getattr(settings, own))


def seen(name: str, prompt: Prompt, trace: Trace, settings: FilterSettings) -> str | None:
    """What a check of one trace that failed has seen, for a person; None where its reason says all."""
    own = OF_ONE[name].settings
    return evidence(prompt, trace, getattr(settings, own)) if own is not None else None


def fingerprint(name: str, settings: FilterSettings, more: Any = None) -> str:
    """Changes with the version of distill, with the check's settings and with `more`."""
    own = [OF_ONE[name].settings] if name in OF_ONE and OF_ONE[name].settings else ELSEWHERE.get(name, ())
    plain = settings.model_dump(mode="json", include={one for one in own if one is not None})
    return sha256_of([__version__, name, plain, more])[:16]


def _function(name: str) -> Callable[..., Outcome]:
    if name not in _functions:
        module, _, function = OF_ONE[name].function.partition(":")
        _functions[name] = getattr(importlib.import_module(module), function)
    return _functions[name]
