"""The metrics of vLLM servers: what one of them tells, the page of all replicas together, tokens per second.

Knows nothing about how a page is fetched.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from distill.errors import InputError
from distill.serve.prometheus_text import Family, Sample, families, written

GENERATED, PROMPT = "vllm:generation_tokens_total", "vllm:prompt_tokens_total"
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
KV_USAGE, PREEMPTIONS = "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total"
FINISHED, REASON = "vllm:request_success_total", "finished_reason"
"""As vLLM 0.32 prints them (vllm/v1/metrics/loggers.py); the usage is a fraction in spite of its name."""
REPLICA = "replica"
"""The label that tells replicas apart."""
MINUTE = 60.0

Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a replica, over all of its engines: tokens, preemptions and finished requests (by reason) since the
    server's start, requests now, and the used share of the KV cache (0 to 1; the mean of its engines). None, or no
    reason, where the server does not tell."""

    generation_tokens: int | None = None
    prompt_tokens: int | None = None
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    preemptions: int | None = None
    finished: Mapping[str, int] = field(default_factory=dict)


def read(text: str) -> Reading:
    """What a page of vLLM's tells. Raises InputError for a page that is no Prometheus text."""
    samples: dict[str, list[Sample]] = {}
    for family in families(text):
        for sample in family.samples:
            if math.isfinite(sample.number):
                samples.setdefault(sample.name, []).append(sample)
    usage = samples.get(KV_USAGE)
    finished: dict[str, int] = {}
    for sample in samples.get(FINISHED, ()):
        reason = dict(sample.labels).get(REASON, "unknown")
        finished[reason] = finished.get(reason, 0) + int(sample.number)
    return Reading(
        generation_tokens=_total(samples.get(GENERATED)),
        prompt_tokens=_total(samples.get(PROMPT)),
        running=_total(samples.get(RUNNING)),
        waiting=_total(samples.get(WAITING)),
        kv_usage=math.fsum(sample.number for sample in usage) / len(usage) if usage else None,
        preemptions=_total(samples.get(PREEMPTIONS)),
        finished=finished,
    )


def _total(samples: Sequence[Sample] | None) -> int | None:
    return int(math.fsum(sample.number for sample in samples)) if samples else None


def merged(texts: Mapping[str, str], own: str) -> str:
    """One page of the pages of all replicas (name → text) and `own`: each family once, each sample of a replica with
    the label `replica`, which takes the place of one that was there (kept as `exported_replica`).

    A page that is no Prometheus text is left out, and so is a family whose type differs from the one in an earlier
    page; a comment names either. Raises InputError when `own` itself is none.
    """
    found = {family.name: family for family in families(own)}
    seen = {_series(sample) for family in found.values() for sample in family.samples}
    remarks: list[str] = []
    for replica, text in texts.items():
        try:
            page = families(text)
        except InputError as error:
            remarks.append(f"# {_one_line(replica)}: left out, {_one_line(error.what)}")
            continue
        for family in page:
            target = found.setdefault(family.name, Family(family.name, family.type, family.help))
            if target.type != family.type:
                remarks.append(f"# {_one_line(replica)}: {family.name} left out, a {family.type} among {target.type}s")
                continue
            _add(target, (_labelled(sample, replica) for sample in family.samples), seen)
    return "".join(remark + "\n" for remark in remarks) + written(list(found.values()))


def _add(target: Family, samples: Iterable[Sample], seen: set[Series]) -> None:
    """Adds what is not there yet: a page may hold a series once."""
    for sample in samples:
        series = _series(sample)
        if series not in seen:
            seen.add(series)
            target.samples.append(sample)


def _series(sample: Sample) -> Series:
    return sample.name, frozenset(sample.labels)


def _labelled(sample: Sample, replica: str) -> Sample:
    kept = tuple((f"exported_{name}" if name == REPLICA else name, value) for name, value in sample.labels)
    return Sample(sample.name, ((REPLICA, replica), *kept), sample.value, sample.time)


def _one_line(text: str) -> str:
    return " ".join(text.split())


class Rates:
    """Tokens per second of each replica over the last minute, from readings of its counter.

    A counter that fell means that the server was started again and counts from zero: what it shows is new. Times are
    seconds of one steady clock.
    """

    def __init__(self, window: float = MINUTE) -> None:
        self.window = window
        self._counts: dict[str, int] = {}
        self._gains: dict[str, deque[tuple[float, int]]] = {}

    def note(self, replica: str, reading: Reading, at: float) -> None:
        """Takes a reading; one that does not tell its tokens changes nothing."""
        if reading.generation_tokens is None:
            return
        count, before = reading.generation_tokens, self._counts.get(replica)
        gain = 0 if before is None else count - before if count >= before else count
        self._counts[replica] = count
        gains = self._gains.setdefault(replica, deque())
        gains.append((at, gain))
        self._forget_old(gains, at)

    def tokens_per_second(self, replica: str, at: float) -> float | None:
        """None until there are two readings within the window."""
        gains = self._gains.get(replica)
        if gains is None:
            return None
        self._forget_old(gains, at)
        if len(gains) < 2:
            return None
        begin = gains[0][0]
        tokens = sum(gain for _, gain in gains) - gains[0][1]  # what the first one shows was gained before it
        return tokens / (at - begin) if at > begin else None

    def forget(self, replica: str) -> None:
        """For a replica that is gone for good."""
        self._counts.pop(replica, None)
        self._gains.pop(replica, None)

    def _forget_old(self, gains: deque[tuple[float, int]], at: float) -> None:
        while gains and gains[0][0] < at - self.window:
            gains.popleft()
