"""Looking at one trace: every check that needs nothing but the trace and its prompt. What runs in worker processes.

`Looked` is all that later steps need to know of a trace besides its text. Knows nothing about files of a run, about
buckets or about what a verdict decides.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol, Self

from distill.contract import Response
from distill.errors import ContractError
from distill.filter import checks
from distill.filter.length import counter, length
from distill.filter.near import BYTES, compared, signatures
from distill.filter_specs import FilterSettings
from distill.prompts.contamination import Contamination, Hit
from distill.records import Prompt, SamplingRecord, TeacherIdentity, Trace
from distill.verify import PASS, Outcome, abstaining
from distill.verify import verifiers as verifying
from distill.verify.pool import WorkerPool
from distill.verify.verifiers import Chosen, told_without, verifier_of

LOOK = "distill.filter.looking:look"
CHUNK = 32
"""Traces that a worker is given at a time: a tenth of a second of work."""
WORTH_A_WORKER = 2**20
"""Bytes of traces for which a worker is started before it is needed: it takes seconds to get ready, they take one."""
MOST_READ = 2**18
"""Characters of traces that are read together."""
MOST_HELD = 2_048
"""Traces that may be done while one before them is not."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found. `outcomes`: check → outcome, of the checks that were asked for; `evidence`: check → what a person
    would want to see, such as the problem that a contaminated trace holds."""

    outcomes: Mapping[str, Outcome]
    signature: bytes = b""
    evidence: Mapping[str, str] = field(default_factory=dict)
    content: str = ""
    """The trace's content hash."""
    failed: str = ""
    """Why nobody could look, as `WorkerPool` says it."""

    def __reduce__(self) -> tuple[type[Looked], tuple[Any, ...]]:
        """Pickled as its values, like Outcome."""
        return Looked, (self.outcomes, self.signature, self.evidence, self.content, self.failed)


@dataclass(frozen=True, slots=True)
class Lens:
    """How to look: the recipe's settings and verifiers, the problems of evaluations, whether signatures are wanted."""

    settings: FilterSettings
    chosen: Chosen
    verifiers: tuple[str, ...]
    problems: tuple[tuple[str, str], ...] = ()
    signatures: bool = False
    tokenizer: str | None = None
    """The student's tokenizer.json, where lengths are wanted."""


Item = tuple[Prompt, dict[str, Any], tuple[str, ...], Mapping[str, Outcome], Mapping[str, str]]
"""A prompt, the row of a trace, the checks to make, and outcomes that are known already, with their evidence."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A trace, its signature where one is wanted, and the problem of an evaluation that it holds."""

    trace: Trace
    signature: bytes
    hit: Hit | None


_lens: Lens | None = None
_contamination: Contamination | None = None
_count: Callable[[str], int] | None = None
_read: dict[str, _Read] = {}
"""Key → what `ahead` has read of the chunk."""


def prepare(lens: Lens) -> None:
    """Called once in each worker."""
    global _lens, _contamination, _count
    _lens = lens
    verifying.prepare(*lens.verifiers)
    checks.prepare(lens.settings)
    _contamination = Contamination(lens.problems) if lens.problems else None
    _count = counter(lens.tokenizer) if lens.tokenizer is not None else None


def ahead(items: Sequence[Item]) -> None:
    """Reads the traces of a chunk, which takes less time together than one by one; `look` reads what is missing."""
    _read.clear()
    _read.update(_read_all(items))


def _read_all(items: Sequence[Item]) -> Iterator[tuple[str, _Read]]:
    read: list[tuple[Trace, bool]] = []
    size = 0
    for _, row, wanted, known, _ in items:
        read.append((trace_of(row), "contaminated" in wanted and "contaminated" not in known))
        size += len(read[-1][0].raw)
        if size > MOST_READ:
            yield from _read_together(read)
            read, size = [], 0
    yield from _read_together(read)


def _read_together(traces: Sequence[tuple[Trace, bool]]) -> Iterator[tuple[str, _Read]]:
    """`traces`: each with whether it is to be compared with problems of evaluations."""
    assert _lens is not None
    texts = [compared(trace) for trace, _ in traces]
    marks = [b""] * len(traces)
    if _lens.signatures:
        marks = signatures(texts, ["" if _lens.settings.across_prompts else trace.asked for trace, _ in traces])
    asked = [text for text, (_, compare) in zip(texts, traces, strict=True) if compare]
    hits = iter(_contamination.hits(asked) if _contamination is not None else [None] * len(asked))
    for (trace, compare), mark in zip(traces, marks, strict=True):
        yield trace.key, _Read(trace, mark, next(hits) if compare else None)


def look(
    prompt: Prompt,
    row: dict[str, Any],
    wanted: tuple[str, ...],
    known: Mapping[str, Outcome],
    shown: Mapping[str, str],
) -> Looked:
    """The outcomes of `wanted` checks on the trace in `row`."""
    assert _lens is not None
    read = _read.pop(row["key"], None) or dict(_read_all([(prompt, row, wanted, known, shown)]))[row["key"]]
    trace, settings = read.trace, _lens.settings
    outcomes: dict[str, Outcome] = {}
    evidence = dict(shown)
    for name in wanted:
        if name in known:
            outcomes[name] = known[name]
        elif name == "correct":
            outcomes[name] = _correct(prompt, trace, _lens.chosen)
        elif name == "contaminated":
            outcomes[name] = _contaminated(read.hit, evidence)
        elif name == "length":
            outcomes[name] = length(prompt, trace, settings.length, _tokens(trace))
        else:
            outcomes[name] = checks.check(name, prompt, trace, settings)
            if outcomes[name].outcome == "fail" and (seen := checks.seen(name, prompt, trace, settings)):
                evidence[name] = seen
    return Looked(outcomes, read.signature, evidence, trace.content_hash)


def trace_of(row: dict[str, Any]) -> Trace:
    """The trace of a row of a bucket. Its columns have the types of a trace's fields already, so nothing need be read
    value by value; few different teachers and samplings stand in one ledger."""
    teacher, sampling = row["teacher"], row["sampling"]
    record = _drawn_by(tuple(teacher.values()), tuple(map(_items, sampling.values())), tuple(sampling))
    return Trace(**{**row, "teacher": record[0], "sampling": record[1]})


def _items(part: dict[str, Any] | None) -> tuple[tuple[str, Any], ...] | None:
    return None if part is None else tuple(part.items())


@functools.lru_cache(maxsize=256)
def _drawn_by(
    teacher: tuple[Any, ...], sampling: tuple[tuple[tuple[str, Any], ...] | None, ...], names: tuple[str, ...]
) -> tuple[TeacherIdentity, SamplingRecord]:
    parts = {name: None if part is None else dict(part) for name, part in zip(names, sampling, strict=True)}
    return TeacherIdentity(*teacher), SamplingRecord.from_json(parts)


def seconds(prompt: Prompt, row: dict[str, Any], wanted: tuple[str, ...], *known: object) -> float:
    """Beside verifying, what else there is to do with a trace is linear in its text."""
    assert _lens is not None
    name = verifier_of(prompt.kind, _lens.chosen)
    takes = verifying.seconds(name, prompt, row["answer"]) if name is not None and "correct" in wanted else 0.0
    return takes + SECONDS_OF_RULES


SECONDS_OF_RULES = 10.0


def _correct(prompt: Prompt, trace: Trace, chosen: Chosen) -> Outcome:
    name = verifier_of(prompt.kind, chosen)
    told = told_without(name, trace.answer)
    return told if told is not None else verifying.judge(name or "", prompt, trace.answer)


def _tokens(trace: Trace) -> int | None:
    """Of the canonical text, in the student's vocabulary; None for a reply that has none."""
    if _count is None or trace.answer is None:
        return None
    try:
        return _count(Response(trace.reasoning, trace.answer).render())
    except ContractError:
        return None


def _contaminated(hit: Hit | None, evidence: dict[str, str]) -> Outcome:
    if hit is None:
        return PASS
    evidence["contaminated"] = f'{hit.benchmark}, problem {hit.problem + 1}: {hit.share:.0%} of it, "{hit.ngram}"'
    return Outcome("fail", "contaminated", hit.share)


class Looking(Protocol):
    """Looks at traces, here or elsewhere; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self, size: int) -> None:
        """Has what traces of so many bytes are worth get ready now, rather than when the first trace comes."""

    def look(self, items: Iterable[Item | None]) -> Iterator[Looked]:
        """In the order of the items, which are taken some thousand ahead at most. None among them says that nothing
        more may be taken before something comes back."""


class LocalLooking:
    """Looks in worker processes of this machine.

    Where a worker has to be killed, its item is looked at again without the verifier, of which `correct` then says
    `verifier_timeout`, `verifier_crash` and so on; where that does not help, all its checks say so.
    """

    def __init__(self, lens: Lens, workers: int | None = None) -> None:
        self._pool: WorkerPool[Looked] = WorkerPool(LOOK, _failed, workers=workers, chunk=CHUNK, setup=(lens,))

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.__exit__()

    def start(self, size: int) -> None:
        self._pool.start(1 + size // WORTH_A_WORKER)

    def look(self, items: Iterable[Item | None]) -> Iterator[Looked]:
        source = iter(items)
        again: deque[tuple[int, Item]] = deque()
        given: dict[int, Item] = {}
        done: dict[int, Looked] = {}
        numbers = count()

        def following() -> Iterator[tuple[int, Item] | None]:
            while True:
                if again:
                    yield again.popleft()
                elif len(given) + len(done) >= MOST_HELD:
                    yield None
                else:
                    try:
                        found = next(source)
                    except StopIteration:
                        break
                    if found is None:
                        yield None
                    else:
                        number = next(numbers)
                        given[number] = found
                        yield number, found
            while given:
                yield again.popleft() if again else None

        place = 0
        for number, looked in self._pool.as_they_come(following()):
            item = given[number]
            if looked.failed and "correct" in item[2] and "correct" not in item[3]:
                given[number] = (*item[:3], {**item[3], "correct": abstaining(looked.failed)}, item[4])
                again.append((number, given[number]))
                continue
            del given[number]
            done[number] = _all_failed(item, looked.failed) if looked.failed else looked
            while place in done:
                yield done.pop(place)
                place += 1


def _failed(reason: str) -> Looked:
    return Looked({}, failed=reason)


def _all_failed(item: Item, reason: str) -> Looked:
    outcomes = {name: item[3].get(name, abstaining(reason)) for name in item[2]}
    return Looked(outcomes, bytes(BYTES), item[4], trace_of(item[1]).content_hash)
