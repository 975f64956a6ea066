"""The ledger in one pass: how replies ended, how long they are, why they were rejected, and a few to look at.

Holds counters, keys and a bounded sample, never all texts: a ledger may have a million replies of 30,000 tokens. Knows
nothing about pages.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from distill.prompts.stage import read_prompts
from distill.records import KEPT, Prompt, Trace
from distill.rundir import RunDir
from distill.verdicts import undecided, verdict_rows

Fate = Literal["kept", "rejected", "unjudged"]
SHOWN = 20
"""Traces of each fate that the page prints in full."""
AGAIN = "make it again: `distill filter {run}`"


@dataclass(frozen=True, slots=True)
class Objection:
    """A check that a trace did not pass, and why."""

    check: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Example:
    """A trace to look at, with what was asked. `deciding` is the reason that kept it out, empty for others."""

    trace: Trace
    prompt: Prompt | None
    deciding: str
    objections: tuple[Objection, ...]


@dataclass(slots=True)
class Lengths:
    """How often each length in tokens occurs among traces of one fate; `unknown` ones were not counted by anyone."""

    tokens: Counter[int] = field(default_factory=Counter)
    reasoning: Counter[int] = field(default_factory=Counter)
    unknown: int = 0

    def add(self, trace: Trace) -> None:
        if trace.completion_tokens is None:
            self.unknown += 1
        else:
            self.tokens[trace.completion_tokens] += 1
        if trace.reasoning_tokens is not None:
            self.reasoning[trace.reasoning_tokens] += 1


def quantile(lengths: Counter[int], part: float) -> int | None:
    """The length that this part of the traces does not exceed, None when no length is known."""
    wanted, seen = part * lengths.total(), 0
    for length, number in sorted(lengths.items()):
        seen += number
        if seen >= wanted:
            return length
    return None


@dataclass(frozen=True, slots=True)
class Ledgered:
    """What the ledger says. `ended` and `fates` count answered traces; `rejected_whole` those rejected though whole."""

    failed: int
    ended: Counter[str]
    fates: Counter[str]
    rejected_whole: int
    unjudged_whole: int
    reasons: Counter[str]
    """What kept a trace out: one reason for each rejected trace."""
    objections: Counter[tuple[str, str]]
    """(check, reason) → traces; a trace that fails two checks counts under both."""
    lengths: dict[Fate, Lengths]
    examples: dict[Fate, tuple[Example, ...]]
    teachers: Counter[str]

    @property
    def answered(self) -> int:
        return sum(self.ended.values())


class Sample:
    """Of all traces offered those whose keys have the smallest hashes: chance, but the same one every time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[int, str, Trace]] = []

    def offer(self, trace: Trace) -> None:
        place = int.from_bytes(hashlib.sha256(trace.key.encode()).digest()[:8], "big")
        item = (-place, trace.key, trace)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, item)
        elif item[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, item)

    def taken(self) -> list[Trace]:
        return [trace for _, _, trace in sorted(self._heap, key=lambda item: -item[0])]


@dataclass(frozen=True, slots=True)
class Mark:
    """What the filter said of a trace: `deciding` is the reason that kept it out, empty for one that is kept."""

    kept: bool = False
    deciding: str = ""
    against: tuple[Objection, ...] = ()


class Verdicts:
    """Which traces were judged, what was said against them, and which are kept."""

    def __init__(self, run: RunDir) -> None:
        self._marks: dict[str, Mark] = {}
        """Key → what was said. Few different marks exist, and traces share them."""
        known: dict[Mark, Mark] = {}
        for key, rows in groupby(verdict_rows(run), lambda row: row["trace_key"]):
            kept, deciding, against = None, "", []
            for row in rows:
                if row["check"] == KEPT:
                    kept, deciding = row["outcome"] == "pass", row["reason"]
                elif row["outcome"] != "pass":
                    against.append(Objection(row["check"], row["outcome"], row["reason"]))
            if kept is None:
                raise undecided(run)
            mark = Mark(kept, deciding, tuple(against))
            self._marks[key] = known.setdefault(mark, mark)

    def fate(self, trace: Trace) -> Fate:
        mark = self._marks.get(trace.key)
        return "unjudged" if mark is None else "kept" if mark.kept else "rejected"

    def against(self, trace: Trace) -> tuple[Objection, ...]:
        mark = self._marks.get(trace.key)
        return mark.against if mark is not None else ()

    def deciding(self, trace: Trace) -> str:
        """Why a judged trace is not kept."""
        return self._marks[trace.key].deciding


def read_ledger(run: RunDir) -> Ledgered | None:
    """None when nothing was sampled yet. Raises RunError for a file that cannot be read."""
    found = _Reading(Verdicts(run))
    for trace in run.ledger().traces():
        found.take(trace)
    return found.result(run) if found.ended or found.failed else None


class _Reading:
    """The pass itself: takes one trace after the other and lets go of it."""

    def __init__(self, verdicts: Verdicts) -> None:
        self.verdicts = verdicts
        self.failed = 0
        self.ended: Counter[str] = Counter()
        self.fates: Counter[str] = Counter()
        self.whole: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.objections: Counter[tuple[str, str]] = Counter()
        self.teachers: Counter[str] = Counter()
        self.lengths: dict[Fate, Lengths] = defaultdict(Lengths)
        self.samples: dict[tuple[Fate, str], Sample] = defaultdict(lambda: Sample(SHOWN))

    def take(self, trace: Trace) -> None:
        if trace.finish_reason == "error":
            self.failed += 1
            return
        fate, deciding = self.verdicts.fate(trace), ""
        if fate == "rejected":
            deciding = self.verdicts.deciding(trace)
            self.reasons[deciding] += 1
            self.objections.update((one.check, one.reason) for one in self.verdicts.against(trace))
        self.ended[trace.finish_reason] += 1
        self.fates[fate] += 1
        self.whole[fate] += trace.finish_reason == "stop"
        self.teachers[trace.teacher.model] += 1
        self.lengths[fate].add(trace)
        self.samples[fate, deciding].offer(trace)

    def result(self, run: RunDir) -> Ledgered:
        return Ledgered(
            failed=self.failed,
            ended=self.ended,
            fates=self.fates,
            rejected_whole=self.whole["rejected"],
            unjudged_whole=self.whole["unjudged"],
            reasons=self.reasons,
            objections=self.objections,
            lengths=dict(self.lengths),
            examples=_examples(run, self.verdicts, self.samples),
            teachers=self.teachers,
        )


def _examples(
    run: RunDir, verdicts: Verdicts, samples: dict[tuple[Fate, str], Sample]
) -> dict[Fate, tuple[Example, ...]]:
    """At most SHOWN of each fate, taken from its reasons in turn so that a rare one is seen as well."""
    chosen: dict[Fate, list[Trace]] = {}
    for fate in ("kept", "rejected", "unjudged"):
        piles = [samples[key].taken() for key in sorted(samples) if key[0] == fate]
        chosen[fate] = list(in_turn(piles, SHOWN))
    wanted = {trace.prompt_id for traces in chosen.values() for trace in traces}
    prompts = _prompts(run, wanted)
    return {
        fate: tuple(
            Example(
                trace,
                prompts.get(trace.prompt_id),
                verdicts.deciding(trace) if fate == "rejected" else "",
                verdicts.against(trace),
            )
            for trace in traces
        )
        for fate, traces in chosen.items()
    }


def in_turn(piles: Iterable[list[Trace]], number: int) -> Iterator[Trace]:
    """The first of every pile, then the second of every pile, up to `number` in all."""
    left = [iter(pile) for pile in piles]
    while left and number > 0:
        for pile in list(left):
            trace = next(pile, None)
            if trace is None:
                left.remove(pile)
            elif number > 0:
                number -= 1
                yield trace


def _prompts(run: RunDir, wanted: set[str]) -> dict[str, Prompt]:
    if not wanted or not run.prompts.is_file():
        return {}
    return {prompt.id: prompt for prompt in read_prompts(run.prompts) if prompt.id in wanted}
