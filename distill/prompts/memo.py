"""A bounded dictionary of what a function says of short texts: words of a text have mostly been met before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

MOST, LONGEST = 16_384, 24
"""Texts that are remembered, and characters of one: long ones are hardly met twice."""
T = TypeVar("T")


class Memo(dict[str, T]):
    """Text → what `make` says of it. Faster than functools.lru_cache where `map` looks up many: no call for a hit."""

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, text: str) -> T:
        found = self._make(text)
        if len(text) <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[text] = found
        return found
