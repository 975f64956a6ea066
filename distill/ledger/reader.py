"""Reads a ledger folder, also while a writer is at work, and changes nothing in it. Knows nothing about writing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from distill.errors import InputError, RunError
from distill.files import sha256_file, sha256_of
from distill.ledger.index import Entry, Index, entries_of, without_collecting
from distill.ledger.lines import read_line, rows_table, whole_groups, without_ids
from distill.ledger.parts import (
    MEND,
    DamagedError,
    batches,
    check_size,
    columns,
    key_columns,
    number_of,
    part_path,
    part_paths,
    read_parts,
    refuse_gone,
    telling_damage,
)
from distill.ledger.segments import segment_path, segment_paths
from distill.records import Trace

if TYPE_CHECKING:
    import pyarrow as pa

READ_BYTES = 8 * 2**20
"""Of a part, about so many bytes are decoded at a time."""


@contextlib.contextmanager
def _reading(part: Path) -> Iterator[None]:
    """What is wrong with a part, as an error that names it and what to do."""
    try:
        with telling_damage(part):
            yield
    except DamagedError as error:
        raise RunError(f"{part.name} cannot be read", given=f"{part}: {error}", todo=MEND) from error
    except InputError as error:
        raise RunError(
            f"{part.name} holds a record that this version of distill cannot read",
            given=f"{part}: {error.what}",
            todo="use the version that wrote it, or a newer one",
        ) from error


class LedgerReader:
    """Reads a ledger folder, also while a writer is at work, and changes nothing in it.

    Raises RunError that names it for a part that is damaged or gone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def parts(self) -> list[Path]:
        return part_paths(self.folder)

    def segments(self) -> list[Path]:
        """Open segments whose sealed part does not exist yet; a crash between sealing and removal leaves both."""
        sealed = {number_of(path) for path in self.parts()}
        return [path for path in segment_paths(self.folder) if number_of(path) not in sealed]

    def records(self) -> Iterator[Trace]:
        """Every record in the order of writing, all revisions."""
        parts = read_parts(self.folder)
        for source in self._sources():
            if isinstance(source, Path):
                with _reading(source):
                    check_size(source, parts.get(source.name))
                    for batch in batches(source, READ_BYTES):
                        yield from map(Trace.from_json, batch.to_pylist())
            else:
                with source:
                    traces = (read_line(line, Path(source.name).name) for line in source)
                    yield from (trace for trace in traces if trace is not None)

    def digest(self) -> str:
        """Hex sha256 that stands for all records: of each part its size and the hash it was sealed with, so that not
        all of it need be read; other files are read."""
        listed, found = read_parts(self.folder), []
        for path in (*self.parts(), *self.segments()):
            known = listed.get(path.name)
            found.append([path.name, path.stat().st_size, known.sha256 if known is not None else sha256_file(path)])
        return sha256_of(found)

    def fields(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """These fields of every record in the order of writing, all revisions, without reading any other column."""
        parts = read_parts(self.folder)
        for source in self._sources():
            if isinstance(source, Path):
                with _reading(source):
                    check_size(source, parts.get(source.name))
                    for table in columns(source, names):
                        yield from zip(*(table.column(name).to_pylist() for name in names), strict=True)
            else:
                with source:
                    traces = (read_line(line, Path(source.name).name) for line in source)
                    yield from (tuple(getattr(trace, name) for name in names) for trace in traces if trace is not None)

    def index(self) -> Mapping[str, Entry]:
        """Key → the entry that counts, without reading any text."""
        return self._read_index().entries

    @property
    def tokens(self) -> int:
        """The sum of completion tokens of the records that count."""
        return self._read_index().tokens

    def traces(self) -> Iterator[Trace]:
        """The record that counts of every key, in the order of writing."""
        return self._counting(self._read_index().entries)

    def tables(self) -> Iterator[pa.Table]:
        """The records that count, in the order of writing, as tables of Trace's columns, some megabytes at a time and
        never empty; token ids are left out."""
        wanted = self._read_index().entries
        for table in self._all_tables():
            heads = (table.column(name).to_pylist() for name in ("key", "revision", "finish_reason"))
            counts = []
            for key, revision, finish_reason in zip(*heads, strict=True):
                entry = wanted.get(key)
                counts.append(entry is not None and (entry.revision, entry.finish_reason) == (revision, finish_reason))
                if counts[-1]:
                    del wanted[key]
            if any(counts):
                yield table if all(counts) else table.filter(counts)

    def _all_tables(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        parts = read_parts(self.folder)
        for source in self._sources():
            if isinstance(source, Path):
                with _reading(source):
                    check_size(source, parts.get(source.name))
                    for batch in batches(source, READ_BYTES):
                        yield without_ids(pa.Table.from_batches([batch]))
            else:
                with source:
                    name = Path(source.name).name
                    yield from (without_ids(rows_table(group, name)) for group in whole_groups(source))

    @property
    def text_bytes(self) -> int:
        """About how much all records are once decoded."""
        import pyarrow.parquet as pq

        total = sum(path.stat().st_size for path in self.segments())
        for path in self.parts():
            with _reading(path):
                metadata = pq.read_metadata(path)
                total += sum(metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups))
        return total

    def _counting(self, wanted: dict[str, Entry]) -> Iterator[Trace]:
        for trace in LedgerReader.records(self):
            entry = wanted.get(trace.key)
            if entry is not None and (entry.revision, entry.finish_reason) == (trace.revision, trace.finish_reason):
                del wanted[trace.key]
                yield trace

    @without_collecting()
    def _read_index(self) -> Index:
        index = Index()
        parts = read_parts(self.folder)
        for source in self._sources():
            if isinstance(source, Path):
                with _reading(source):
                    index.note_all(*entries_of(key_columns(source, parts.get(source.name))))
            else:
                with source:
                    index.note_lines(source, Path(source.name).name)
        return index

    def _sources(self) -> Iterator[Path | BinaryIO]:
        """Each sealed part, or its segment, opened, where there is no part yet; in order.

        A writer may seal meanwhile, but the part stands before its segment goes: listed the other way round, and
        with the segment held open while it is read, nothing is missed or seen twice.
        """
        refuse_gone(self.folder, read_parts(self.folder))
        segments = [number_of(path) for path in segment_paths(self.folder)]
        for number in sorted({*segments, *(number_of(path) for path in self.parts())}):
            part = part_path(self.folder, number)
            if not part.is_file():
                try:
                    yield segment_path(self.folder, number).open("rb")
                    continue
                except FileNotFoundError:
                    if not part.is_file():
                        continue  # an empty segment leaves no part
            yield part
