"""Placeholder until the branch with the real one is merged."""

from __future__ import annotations

from collections.abc import Sequence


def cycle(ids: Sequence[int]) -> int | None:
    for period in range(1, 200):
        if len(ids) >= period * 20 and tuple(ids[-period * 20 :]) == tuple(ids[-period:]) * 20:
            return period
    return None
