"""How many requests one server is sent at once: more while it gets no slower by it, fewer when it says so.

A pure rule over what was observed; knows nothing about requests, servers or clocks.
"""

from __future__ import annotations

import statistics
from collections import deque

TOLERANCE = 2.0
"""Replies may take so many times as long per token as they took at best before the limit stops growing. A server that
batches gets slower per request while it still gets more done; Netflix's concurrency-limits, whose gradient rule this
follows, has 1.5 to 2.0 as its tolerance (github.com/Netflix/concurrency-limits)."""
WINDOW = 16
"""Replies over which the time per token is taken (their median)."""
BACK_OFF = 0.5
"""What is left of the limit after a 429, a 503 or a time-out: multiplicative decrease, as TCP's (RFC 5681)."""


class Concurrency:
    """The limit of one server, between 1 and `most`, beginning with `start`."""

    def __init__(self, start: int, most: int) -> None:
        self.start, self.most = min(start, most), most
        self._limit = float(self.start)
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._since = self._round = 0
        self._best: float | None = None
        self._met_a_bound = False
        self._backed_off = 0.0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def is_used(self, in_flight: int) -> bool:
        """Whether `in_flight` requests are so many of the limit that replies tell whether a larger one would hold."""
        return in_flight >= self._limit / 2

    def answered(self, seconds: float, tokens: int | None, *, used: bool) -> None:
        """A reply came after `seconds`; `used` is what `is_used` said when it was asked for."""
        self._recent.append(seconds / max(1, tokens or 1))
        self._since += 1
        if self._since >= WINDOW:
            self._since = 0
            median = statistics.median(self._recent)
            self._best = median if self._best is None else min(self._best, median)
        self._round += 1
        if self._round >= self._limit:
            self._round = 0
            self._give_way()
        if not used or self._limit >= self.most or not self.holds:
            return
        step = 1 / self._limit if self._met_a_bound else 1.0  # doubling per round first, later one more per round
        self._limit = min(float(self.most), self._limit + step)

    def _give_way(self) -> None:
        """Once a round: what was too much, because its effect shows only a round later, is taken back."""
        if self._best is None or self.holds:
            return
        share = TOLERANCE * self._best / statistics.median(self._recent)
        self._limit = max(min(float(self.start), self._limit), self._limit * max(BACK_OFF, share))
        self._met_a_bound = True

    @property
    def holds(self) -> bool:
        """Whether replies take no longer than they may; unknown counts as no."""
        if self._best is None or len(self._recent) < WINDOW:
            return False
        return statistics.median(self._recent) <= TOLERANCE * self._best

    def back_off(self, asked: float, now: float) -> None:
        """The server wants less: a request sent at time `asked` was turned away at `now`, both in seconds.

        Those that were sent before the limit was last lowered tell nothing new.
        """
        if asked < self._backed_off:
            return
        self._backed_off = now
        self._met_a_bound = True
        self._limit = max(1.0, self._limit * BACK_OFF)

    def begin_again(self) -> None:
        """The server was away: what is known about its speed may no longer hold."""
        self._limit = min(self._limit, float(self.start))
        self._recent.clear()
        self._since, self._best = 0, None
