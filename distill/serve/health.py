"""When a replica counts as stuck, and when it is started again: rules over what was seen, without clock or network.

Alive means that tokens are produced. An open port says nothing: a server whose engine died goes on answering /metrics,
and one that is stopped goes on taking connections. Times are seconds of any steady clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_DELAY, LONGEST_DELAY = 2.0, 300.0
"""Seconds before a failed replica is started again: doubling from the former up to the latter."""
STEADY_SECONDS = 600.0
"""A replica that was well for so long has no failures behind it any more."""
FAILURES_UNREADY = 3
"""Starts in a row that came to nothing, not one of them to a token, after which there is no other."""


@dataclass(slots=True)
class Pulse:
    """Whether one replica still produces tokens. Begins when it has produced its first."""

    stall: float
    """Seconds without a token, while it has work or was asked for one, that make it stuck."""
    probe_every: float
    """Seconds after which an idle one is asked for a token: well below `stall`, so that one that becomes busy has most
    of that left for its first token."""
    last_token: float
    tokens: float | None = None
    """Prompt and generated tokens that it told last."""
    busy: bool = False
    why: str = ""

    def told(self, tokens: float, requests: float, now: float) -> None:
        """What its metrics say: tokens since it started, requests running and waiting."""
        if self.tokens is not None and tokens != self.tokens:
            self.answered(now)
        self.tokens, self.busy = tokens, requests > 0
        if self.busy:
            self.why = "requests are in it and none gets a token"

    def slept(self, seconds: float) -> None:
        """Nobody looked for so long: the looker was stopped, or its machine slept, which is no fault of the replica."""
        self.last_token += seconds

    def silent(self, why: str) -> None:
        """Its metrics, or a probe, did not answer."""
        self.why = why

    def answered(self, now: float) -> None:
        """A probe got its token."""
        self.last_token, self.why = now, ""

    def wants_probe(self, now: float) -> bool:
        """Nothing is in it that would show tokens, and the last was a while ago."""
        return not self.busy and now - self.last_token >= self.probe_every

    def stuck(self, now: float) -> str | None:
        """Why it is to be started again, None while it is not."""
        quiet = now - self.last_token
        return f"no token for {quiet:.0f} s: {self.why or 'it does not answer'}" if quiet > self.stall else None


@dataclass(slots=True)
class Failures:
    """A replica's failures, and what follows from them."""

    most: int
    in_a_row: int = 0
    ever_ready: bool = False
    total: int = field(default=0)

    def ready(self) -> None:
        self.ever_ready = True

    def failed(self, good_seconds: float, *, final: bool) -> float | None:
        """Seconds to wait before the next start, None when there is to be none.

        `good_seconds`: for how long it was well before; `final`: starting again would end the same way.
        """
        self.in_a_row = 1 if good_seconds >= STEADY_SECONDS else self.in_a_row + 1
        self.total += 1
        limit = self.most if self.ever_ready else min(self.most, FAILURES_UNREADY)
        if final or self.in_a_row >= limit:
            return None
        return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** (self.in_a_row - 1)))
