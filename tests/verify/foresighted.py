"""A verifier that says how many items it was shown ahead together with one; ahead of a negative one it raises."""

from __future__ import annotations

from collections.abc import Sequence

from distill.verify import Outcome

_shown: list[int] = []


def ahead(items: Sequence[tuple[int]]) -> None:
    _shown[:] = []
    if any(number < 0 for (number,) in items):
        raise ValueError("no item may be below zero")
    _shown[:] = [number for (number,) in items]


def count(number: int) -> Outcome:
    return Outcome("pass", score=float(len(_shown)) if number in _shown else 0.0)
