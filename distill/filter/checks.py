"""The checks that only filtering has: small functions that return a named reason and delete nothing.

Those of a trace's form are in verify/form.py. What a verdict means for training is decided by the recipe's `keep` rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome, failing

Check: TypeAlias = Callable[[Prompt, Trace], Outcome]


class Duplicates:
    """Exact duplicates among the traces of one prompt, white space aside: the first passes, others are `duplicate`."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def __call__(self, prompt: Prompt, trace: Trace) -> Outcome:
        parts = (trace.reasoning or "", trace.answer or trace.raw)
        text = (prompt.id, *(" ".join(part.split()) for part in parts))
        if text in self._seen:
            return failing("duplicate")
        self._seen.add(text)
        return PASS
