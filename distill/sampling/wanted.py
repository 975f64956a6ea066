"""All samples that a recipe wants, known by 32 bytes a prompt: what is there, what is missing, in which order to ask.

The prompts themselves are read as they are needed. Knows nothing about servers or replies.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from distill.ledger import Entry
from distill.records import Prompt, asked_hash, trace_key
from distill.sampling.requests import Subject, Task, samples_of, task_for
from distill.sampling.shards import in_shard

ABSENT = "absent"
"""How a sample that no record exists of is counted, beside the finish reasons of those that are there."""


class Prompts(Protocol):
    """Prompts that can be gone through again, and fetched by their place."""

    def __iter__(self) -> Iterator[Prompt]: ...

    def fetch(self, row: int) -> Prompt: ...


class Wanted:
    """The samples that `subject` is asked for: `samples` of each prompt, those of one `shard` (`I/N`) alone if given.

    A question that stands there twice is wanted once: its samples have one identity.
    """

    def __init__(self, prompts: Prompts, subject: Subject, samples: int, shard: str | None = None) -> None:
        self.prompts, self.subject = prompts, subject
        self._asked, self._rows, self._samples = _without_repeats(asked_of(prompts, subject, samples, shard))

    def __iter__(self) -> Iterator[Prompt]:
        """The prompts in their places."""
        rows = iter(self._rows)
        following = next(rows, None)
        for row, prompt in enumerate(self.prompts):
            if row == following:
                following = next(rows, None)
                yield prompt

    def __len__(self) -> int:
        """How many samples there are in all."""
        return sum(self._samples)

    @property
    def prompt_count(self) -> int:
        return len(self._rows)

    def each(self) -> Iterator[tuple[str, int, int]]:
        """(key, place, sample) of each: breadth first, sample 0 of every prompt before sample 1 of any. `place` counts
        the prompts that are wanted."""
        identity, sampling = self.subject.identity, self.subject.sampling
        for sample in range(max(self._samples, default=0)):
            for place, wanted in enumerate(self._samples):
                if sample < wanted:
                    yield trace_key(self.asked(place), sample, identity, sampling), place, sample

    def asked(self, place: int) -> str:
        """The hash of what is asked of the prompt in this place."""
        return self._asked[32 * place : 32 * place + 32].hex()

    def samples(self, place: int) -> int:
        return self._samples[place]

    def prompt(self, place: int) -> Prompt:
        return self.prompts.fetch(self._rows[place])

    def tally(self, index: Mapping[str, Entry]) -> Counter[str]:
        """How many of the samples are there, by finish reason, and how many ABSENT."""
        found: Counter[str] = Counter()
        for key, _, _ in self.each():
            entry = index.get(key)
            found[ABSENT if entry is None else entry.finish_reason] += 1
        return found

    def tasks(self, index: Mapping[str, Entry], *, only_failed: bool = False) -> Iterator[Task]:
        """The samples that have no answer yet, those that failed before among them or alone."""
        for key, place, sample in self.each():
            entry = index.get(key)
            if entry is None and not only_failed:
                yield self.task(place, sample)
            elif entry is not None and not entry.answered:
                yield self.again(place, sample, entry)

    def again(self, place: int, sample: int, entry: Entry) -> Task:
        """The task of a sample that failed. One whose reply came and was a failure is drawn with another seed."""
        return self.task(place, sample, again=self.replies_lost(entry))

    @staticmethod
    def replies_lost(entry: Entry | None) -> int:
        """Replies to a sample that came and were failures, as its entry tells: 0 where the request itself was lost."""
        if entry is None or entry.answered or (entry.revision == 0 and not entry.tokens):
            return 0
        return entry.revision + 1  # that an earlier one came is not known any more: better another seed

    def task(self, place: int, sample: int, *, again: int = 0) -> Task:
        prompt, asked = self.prompt(place), self.asked(place)
        return task_for(prompt, self.subject, sample, again=again, place=place, asked=asked)

    def cut(self, index: Mapping[str, Entry], goes_on: Callable[[Entry], bool]) -> dict[str, int]:
        """Samples that are there and of which `goes_on` says that more is wanted: key → the place of the prompt."""
        entries = ((key, place, index.get(key)) for key, place, _ in self.each())
        return {key: place for key, place, entry in entries if entry is not None and goes_on(entry)}


class Asked(NamedTuple):
    """A prompt that is wanted: the hash of what is asked, its row, itself, and how many samples of it."""

    asked: str
    row: int
    prompt: Prompt
    samples: int


def asked_of(prompts: Iterable[Prompt], subject: Subject, samples: int, shard: str | None) -> Iterator[Asked]:
    """What is asked of each prompt, those of one `shard` (`I/N`) alone if given; what is asked twice comes twice."""
    for row, prompt in enumerate(prompts):
        asked = asked_hash(subject.messages(prompt), subject.forced_prefix)
        if in_shard(asked, shard):
            yield Asked(asked, row, prompt, samples_of(prompt, samples))


def _without_repeats(found: Iterable[Asked]) -> tuple[bytearray, array[int], array[int]]:
    """Hashes (32 bytes each), rows and numbers of samples; of equal hashes the first stays."""
    import numpy as np

    asked, rows, samples = bytearray(), array("Q"), array("Q")
    for one in found:
        asked += bytes.fromhex(one.asked)
        rows.append(one.row)
        samples.append(one.samples)
    hashes = np.frombuffer(bytes(asked), dtype="V32")
    _, first = np.unique(hashes, return_index=True)
    if len(first) == len(rows):
        return asked, rows, samples
    kept = np.sort(first)
    rows, samples = array("Q", (rows[i] for i in kept)), array("Q", (samples[i] for i in kept))
    return bytearray(hashes[kept].tobytes()), rows, samples
