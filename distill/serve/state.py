"""What the teacher service is doing, replica by replica: for its state file, its page and its metrics.

Knows nothing about how a replica is started, asked or stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from distill.serve.metrics import REPLICA, Reading
from distill.serve.prometheus_text import Family, Sample, written

State = Literal["starting", "ready", "draining", "stuck", "waiting", "failed", "stopped"]
"""starting: not answered yet; ready: gives tokens; draining: finishes what it has, gets nothing new; stuck: lives but
gives none; waiting: ended, will be started again after a pause; failed: given up; stopped: ended as asked."""
STATES: tuple[State, ...] = get_args(State)
FORMAT = 1
"""Of `to_json`; a reader refuses a number that it does not know."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica. `since`: seconds since the epoch; `url` and `pid` None where there is no server; `restarts` since
    the service began; `tokens_per_second` generated, over the last minute, None before two readings."""

    name: str
    state: State
    since: float
    url: str | None = None
    restarts: int = 0
    last_error: str | None = None
    reading: Reading | None = None
    tokens_per_second: float | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Over all replicas of a service; None where no replica tells."""

    ready: int
    restarts: int
    tokens_per_second: float | None
    running: int | None
    waiting: int | None
    generation_tokens: int | None


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The service of one teacher. `since`: seconds since the epoch; `pid`: of the process that supervises."""

    teacher: str
    since: float
    pid: int
    replicas: tuple[ReplicaState, ...] = ()

    @property
    def totals(self) -> Totals:
        readings = [replica.reading for replica in self.replicas if replica.reading is not None]
        return Totals(
            ready=sum(replica.state == "ready" for replica in self.replicas),
            restarts=sum(replica.restarts for replica in self.replicas),
            tokens_per_second=_sum(replica.tokens_per_second for replica in self.replicas),
            running=_whole(reading.running for reading in readings),
            waiting=_whole(reading.waiting for reading in readings),
            generation_tokens=_whole(reading.generation_tokens for reading in readings),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, the totals among them."""
        return {"format": FORMAT, **asdict(self), "totals": asdict(self.totals)}


def own_metrics(state: ServiceState) -> str:
    """The service's own part of its metrics: of each replica whether it gives tokens, how often it was started again,
    and its state."""
    up = Family("distill_replica_up", "gauge", "Whether the replica gives tokens.")
    restarts = Family("distill_replica_restarts_total", "counter", "Times that the replica was started again.")
    states = Family("distill_replica_state", "gauge", "1 for the state that the replica is in, 0 for the others.")
    for replica in state.replicas:
        label = (REPLICA, replica.name)
        up.samples.append(Sample(up.name, (label,), str(int(replica.state == "ready"))))
        restarts.samples.append(Sample(restarts.name, (label,), str(replica.restarts)))
        for name in STATES:
            states.samples.append(Sample(states.name, (label, ("state", name)), str(int(replica.state == name))))
    return written([up, restarts, states])


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _whole(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
