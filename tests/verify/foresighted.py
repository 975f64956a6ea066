"""A verifier that says how many items it was shown ahead together with one; ahead of a negative one it raises.

Shown 13 it dies, whether ahead or not; shown 99 with others it never comes back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from distill.verify import Outcome

_shown: list[int] = []


def ahead(items: Sequence[tuple[int]]) -> None:
    _shown[:] = []
    for (number,) in items:
        _look(number)
        if number == 99 and len(items) > 1:
            time.sleep(60)
    if any(number < 0 for (number,) in items):
        raise ValueError("no item may be below zero")
    _shown[:] = [number for (number,) in items]


def _look(number: int) -> None:
    if number == 13:
        os._exit(1)


def count(number: int) -> Outcome:
    _look(number)
    return Outcome("pass", score=float(len(_shown)) if number in _shown else 0.0)
