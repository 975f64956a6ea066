"""Is a reply so far caught in a loop that will not end? Looks at token ids alone, at the end of what was written.

Used between the slices of a long reply, so that a cycle is not paid for up to the token limit. To stop a sound reply
costs more than to let a cycle run for another slice, so both rules ask for thousands of tokens: reasoning repeats
phrases, tables and digits, but not for that long. Knows nothing about tokenizers, requests or what a reply means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_PERIOD = 1_024
"""Tokens of a cycle: the default proposed for llama.cpp's server (ggml-org/llama.cpp#26039)."""
FEWEST_TIMES = 8
"""How often a cycle must have been gone through: twice that proposal's, since a long division of a fraction whose
period is long goes through hundreds of tokens a few times, and rightly."""
EXACT_TOKENS = 3_000
"""Tokens that an exact cycle must cover. MiniMax-M1 cuts a rollout after as many tokens in a row that were all but
certain (arXiv:2506.13585, section 3.2)."""
FEWEST_IDS = 8
"""A cycle of fewer different tokens is perhaps a grid, a table or a row of digits, and those are long."""
GRID_TOKENS = 8_192
"""Tokens that such a cycle must cover: 64 by 64 numbers with what stands between them."""
GRAM = 20
"""Tokens of the pieces by which repetition that is not exact is measured: AM-team leaves out traces in which 20-token
pieces occur more than 20 times (arXiv:2504.17565)."""
NEAR_TOKENS = 8_192
"""Tokens at the end over which it is measured."""
MOST_NEW = 0.2
"""Share of different pieces among them up to which they are a cycle. The least in the hard cases of our tests is 0.37
(lists of Collatz sequences), as a 49,152-token BPE vocabulary cuts them; in 128 real replies in a row it is 0.92."""
AT_THE_END = 1_024
"""Tokens at the end of which no larger share may be new: a reply that found its way out goes on."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """What was found: an `exact` cycle of `period` tokens at the end of a reply, or a `near` one, whose period nobody
    knows (None); `tokens` at the end belong to it, at least."""

    kind: Literal["exact", "near"]
    tokens: int
    period: int | None = None


def cycle(ids: Sequence[int]) -> Cycle | None:
    """The loop at the end of a reply of these token ids, None when it is in none. Looks at the last 8,192 of them, so
    it takes the same time however long a reply is."""
    import numpy as np

    if len(ids) < EXACT_TOKENS:
        return None
    tail = np.asarray(ids[-max(NEAR_TOKENS, GRID_TOKENS) :], dtype=np.int64)
    return _exact(tail) or _near(tail)


def _exact(tail: NDArray[np.int64]) -> Cycle | None:
    """The shortest period with which enough of the tail repeats."""
    import numpy as np

    last = tail[-LONGEST_PERIOD - 1 :]
    periods = len(last) - 1 - np.flatnonzero(last[:-1] == last[-1])[::-1]
    for period in periods.tolist():
        wanted = max(EXACT_TOKENS, FEWEST_TIMES * period)
        if wanted > len(tail):
            return None
        if np.array_equal(tail[-wanted + period :], tail[-wanted:-period]):
            reach = _reach(tail, period)
            grid = len(set(tail[-period:].tolist())) < FEWEST_IDS
            return Cycle("exact", reach, period) if not grid or reach >= GRID_TOKENS else None
    return None


def _reach(tail: NDArray[np.int64], period: int) -> int:
    """Tokens at the end that have this period."""
    import numpy as np

    differing = np.flatnonzero(tail[period:] != tail[:-period])
    return len(tail) - (int(differing[-1]) + 1 if len(differing) else 0)


def _near(tail: NDArray[np.int64]) -> Cycle | None:
    """Hardly a piece is new, over the whole of the tail and among the last ones."""
    import numpy as np

    tail = tail[-NEAR_TOKENS:]
    if len(tail) < NEAR_TOKENS or len(set(tail.tolist())) < FEWEST_IDS:
        return None
    hashes = _hashes(tail)
    if _new_share(hashes) > MOST_NEW:
        return None
    unseen = 1 - np.isin(hashes[-AT_THE_END:], hashes[:-AT_THE_END]).mean()
    return Cycle("near", len(tail)) if unseen <= MOST_NEW else None


def new_share(ids: Sequence[int]) -> float:
    """Different pieces of GRAM tokens, as a share of all pieces: near 1 in text, near 0 in a cycle."""
    import numpy as np

    return _new_share(_hashes(np.asarray(ids, dtype=np.int64))) if len(ids) >= GRAM else 1.0


def _hashes(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One number for each GRAM tokens in a row: a polynomial in them, modulo 2**64, with odd factors."""
    import numpy as np

    count = len(ids) - GRAM + 1
    mixed = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    found = np.zeros(count, dtype=np.uint64)
    for place in range(GRAM):
        found = found * np.uint64(0xD1342543DE82EF95) + mixed[place : place + count]
    return found


def _new_share(hashes: NDArray[np.uint64]) -> float:
    import numpy as np

    ordered = np.sort(hashes)
    return (1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))) / len(ordered)
