"""What a ledger remembers of every key without its text: which record counts, and how it ended.

Entries that are alike are one object, so 800,000 keys cost little more than their names. Knows nothing about files.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import TYPE_CHECKING

from distill.ledger.lines import rows_table, whole_groups
from distill.records import Trace

if TYPE_CHECKING:
    import pyarrow as pa

KEY_COLUMNS = ("key", "revision", "finish_reason", "completion_tokens", "max_tokens", "prompt_ids")
"""The columns that an index is made of; the first three are in every part."""
SHARED_ENTRIES = 2**17
"""So many different entries are kept to be shared: four times the number of lengths that a reply of R1 can have."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger remembers of a key without its text: the record that counts, and the highest revision of any."""

    revision: int
    finish_reason: str
    highest: int = field(default=-1, compare=False)
    """Of the records that do not count; `revision` may be above it."""
    tokens: int = field(default=0, compare=False)
    """Completion tokens of the record that counts; 0 where the endpoint does not tell."""
    unfinished: bool = field(default=False, compare=False)
    """As `Trace.unfinished`: cut at the end of a slice, so it goes on by itself."""
    can_go_on: bool = field(default=False, compare=False)
    """As `Trace.can_go_on`: cut, and its token ids are known."""

    @property
    def answered(self) -> bool:
        return self.finish_reason != "error"


def supersedes(new: Entry, old: Entry) -> bool:
    """The higher revision counts, except that an error never takes the place of an answer."""
    if new.answered != old.answered:
        return new.answered
    return new.revision > old.revision


@functools.lru_cache(maxsize=SHARED_ENTRIES)
def _shared(revision: int, finish_reason: str, tokens: int | None, max_tokens: int | None, ids: bool) -> Entry:
    can = ids and finish_reason == "length"
    below = tokens is not None and max_tokens is not None and tokens < max_tokens
    return Entry(revision, finish_reason, tokens=tokens or 0, unfinished=can and below, can_go_on=can)


def entry_of(trace: Trace) -> Entry:
    ids = trace.prompt_ids is not None
    return _shared(trace.revision, trace.finish_reason, trace.completion_tokens, trace.max_tokens, ids)


def entries_of(table: pa.Table) -> tuple[list[str], list[Entry]]:
    """Keys and entries of the rows; `table` holds those of KEY_COLUMNS that its file has."""
    # only to_pylist: other ways out of Arrow import pandas where it is installed, which takes a second and 50 MB
    there = table.column_names
    keys: list[str] = table.column("key").to_pylist()
    others = [table.column(name).to_pylist() if name in there else repeat(None) for name in KEY_COLUMNS[1:-1]]
    few = "prompt_ids" in there and table.column("prompt_ids").null_count < len(table)
    ids = (found is not None for found in table.column("prompt_ids").to_pylist()) if few else repeat(False)
    return keys, list(map(_shared, *others, ids))


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """No garbage collection meanwhile: while an index is read it finds nothing and takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_TOKENS = operator.attrgetter("tokens")


class Index:
    """Key → the entry that counts, and the sum of their tokens."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.tokens = 0

    def note(self, key: str, entry: Entry) -> None:
        """Takes one more record into account."""
        known = self.entries.get(key)
        if known is None:
            self.entries[key] = entry
            self.tokens += entry.tokens
            return
        counts, other = (entry, known) if supersedes(entry, known) else (known, entry)
        highest = max(counts.highest, other.highest, other.revision)
        self.entries[key] = replace(counts, highest=highest)
        self.tokens += counts.tokens - known.tokens

    def note_all(self, keys: list[str], entries: list[Entry]) -> None:
        """Takes one record after another into account; all at once where no key is known yet, as is the rule."""
        fresh = dict(zip(keys, entries, strict=True))
        if len(fresh) == len(keys) and self.entries.keys().isdisjoint(fresh):
            self.entries.update(fresh)
            self.tokens += sum(map(_TOKENS, entries))
            return
        for key, entry in zip(keys, entries, strict=True):
            self.note(key, entry)

    def note_lines(self, lines: Iterable[bytes], name: str) -> None:
        """The whole lines of the segment `name`. Raises RunError for a record of an unknown form."""
        for group in whole_groups(lines):
            self.note_all(*entries_of(rows_table(group, name)))

    def snapshot(self) -> dict[str, Entry]:
        """The entries as they are now; keys and entries are shared, so a copy of 800,000 is 40 MB and a moment."""
        return self.entries.copy()
