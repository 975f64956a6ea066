"""What a ledger remembers of every key without its text: which record counts, and how it ended.

Entries that are alike are one object, so 800,000 keys cost little more than their names. Knows nothing about files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from distill.ledger_lines import rows_table, whole_groups
from distill.records import Trace

if TYPE_CHECKING:
    import pyarrow as pa

KEY_COLUMNS = ("key", "revision", "finish_reason", "completion_tokens", "max_tokens")
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

    @property
    def answered(self) -> bool:
        return self.finish_reason != "error"


def supersedes(new: Entry, old: Entry) -> bool:
    """The higher revision counts, except that an error never takes the place of an answer."""
    if new.answered != old.answered:
        return new.answered
    return new.revision > old.revision


@functools.lru_cache(maxsize=SHARED_ENTRIES)
def _shared(revision: int, finish_reason: str, tokens: int, unfinished: bool) -> Entry:
    return Entry(revision, finish_reason, tokens=tokens, unfinished=unfinished)


def entry_of(trace: Trace) -> Entry:
    return _shared(trace.revision, trace.finish_reason, trace.completion_tokens or 0, trace.unfinished)


def entries_of(table: pa.Table) -> Iterator[tuple[str, Entry]]:
    """Key and entry of every row; `table` holds those of KEY_COLUMNS that its file has."""
    import pyarrow as pa
    from pyarrow import compute

    def numbers(name: str) -> Any:
        there = name in table.column_names
        return table.column(name) if there else pa.chunked_array([pa.nulls(len(table), pa.int64())])

    finish, tokens = table.column("finish_reason"), numbers("completion_tokens")
    below = compute.less(tokens, numbers("max_tokens"))
    unfinished = compute.fill_null(compute.and_(compute.equal(finish, "length"), below), False)
    columns = (table.column("revision"), finish, compute.fill_null(tokens, 0), unfinished)
    entries = map(_shared, *(column.to_numpy().tolist() for column in columns))
    return zip(table.column("key").to_numpy().tolist(), entries, strict=True)


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

    def note_all(self, pairs: Iterable[tuple[str, Entry]]) -> None:
        entries = self.entries
        for key, entry in pairs:
            if key in entries:
                self.note(key, entry)
            else:
                entries[key] = entry
                self.tokens += entry.tokens

    def note_lines(self, lines: Iterable[bytes], name: str) -> None:
        """The whole lines of the segment `name`. Raises RunError for a record of an unknown form."""
        for group in whole_groups(lines):
            self.note_all(entries_of(rows_table(group, name)))

    def snapshot(self) -> dict[str, Entry]:
        """The entries as they are now; keys and entries are shared, so a copy of 800,000 is 40 MB and a moment."""
        return self.entries.copy()
