"""Pairs of rows that share a key, in arrays: among them near-duplicates of prompts and of traces are looked for.

Knows nothing about what a key is made of, or about when two rows are alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Pairs = NDArray[np.uint64]
"""Row × 2^32 + earlier row: sorted, the pairs of a row stand together."""
_LOW, _32 = np.uint64(2**32 - 1), np.uint64(32)


def neighbours(keys: NDArray[np.generic], rows: Rows, per_key: int) -> Pairs:
    """For each row the first row with its key, and the nearest earlier ones, `per_key` in all; zero is no key."""
    order = np.argsort(keys, kind="stable")
    order = order[keys[order] != 0]
    keys, rows = keys[order], rows[order].astype(np.uint64)
    if not len(keys):
        return np.empty(0, np.uint64)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    first = np.repeat(rows[starts], np.diff(np.r_[starts, len(keys)]))
    found = [(rows << _32 | first)[rows != first]]
    for lag in range(1, per_key):
        same = keys[lag:] == keys[:-lag]
        found.append((rows[lag:] << _32 | rows[:-lag])[same])
    return distinct(found)


def parted(pairs: Pairs) -> tuple[Rows, Rows]:
    """The rows of pairs, and the earlier rows."""
    return (pairs >> _32).astype(np.int64), (pairs & _LOW).astype(np.int64)


def distinct(parts: Sequence[Pairs]) -> Pairs:
    """Sorted. numpy 2.4's `unique` hashes such integers by their lower half, which takes 10 times as long."""
    values = np.sort(np.concatenate(parts))
    new: NDArray[np.bool_] = np.diff(values, prepend=values[:1] + np.uint64(1)) != 0
    return values[new]


def capped(pairs: Pairs, per_row: int) -> Pairs:
    """At most `per_row` pairs of a row: the ones with the earliest rows."""
    if len(pairs) <= per_row:
        return pairs
    later = pairs >> _32
    return pairs[np.r_[np.ones(per_row, np.bool_), later[per_row:] != later[:-per_row]]]
