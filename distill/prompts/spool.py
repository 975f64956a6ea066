"""Prompts on their way: collected into a temporary folder, read again in pieces, and written out in another order.

Holds a batch in memory, never the whole. Knows nothing about why a prompt is kept or where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.prompts.sources import Sourced
from distill.records import Prompt

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 2_048
GROUP_BYTES = 16 * 2**20
"""A row group holds at most so many rows, and about so many bytes: tests of one program can take megabytes."""
BUCKET_BYTES = 64 * 2**20
MOST_BUCKETS = 128


def size_of(prompt: Prompt) -> int:
    """About the bytes that a prompt takes."""
    tests = sum(len(test.input) + len(test.output) for test in prompt.tests or ())
    return 200 + len(prompt.question) + len(prompt.solution or "") + tests


class Spool:
    """Prompts with their places, numbered from 0 in the order of `add`; `close` before reading."""

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows, self.bytes = folder, 0, 0
        self._schema = Prompt.schema().append(pa.field("place", pa.string()))
        self._groups: list[int] = []
        self._first: list[int] = []
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self._writer: Any = None

    def add(self, item: Sourced) -> None:
        self._pending.append({**item.prompt.to_json(), "place": item.place})
        self._pending_bytes += size_of(item.prompt)
        self.rows += 1
        if len(self._pending) >= GROUP_ROWS or self._pending_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._first = list(np.cumsum([0, *self._groups])[:-1])

    def texts(self, numbers: Sequence[int]) -> Mapping[int, str]:
        """Number → text (question and choices) of these rows; each row group that holds one is read once."""
        found: dict[int, str] = {}
        for row in self._read(numbers, ["question", "choices"]):
            found[row["number"]] = Prompt(row["question"], choices=tuple(row["choices"] or ()) or None).text
        return found

    def rows_at(self, numbers: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """These rows in ascending order, with these columns and `number`."""
        yield from self._read(numbers, columns)

    def groups(self) -> Iterator[tuple[int, pa.Table]]:
        """(number of its first row, rows) of every row group in order, places left out."""
        import pyarrow.parquet as pq

        if not self.rows:
            return
        with pq.ParquetFile(self.file) as file:
            for group, first in enumerate(self._first):
                yield first, file.read_row_group(group, columns=Prompt.schema().names)

    @property
    def file(self) -> Path:
        return self.folder / "prompts.parquet"

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._pending:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.file, self._schema, compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._groups.append(len(self._pending))
        self.bytes += self._pending_bytes
        self._pending, self._pending_bytes = [], 0

    def _read(self, numbers: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as pq

        if not len(numbers):
            return
        wanted = np.unique(np.asarray(numbers, dtype=np.int64))
        groups = np.searchsorted(np.asarray(self._first), wanted, side="right") - 1
        with pq.ParquetFile(self.file) as file:
            for group in np.unique(groups):
                first = self._first[group]
                inside = wanted[groups == group]
                table = file.read_row_group(int(group), columns=list(columns)).take(inside - first)
                for number, row in zip(inside, table.to_pylist(), strict=True):
                    yield {**row, "number": int(number)}


def write_in_order(spool: Spool, order: np.ndarray, repeats: np.ndarray, path: Path) -> None:
    """Writes the rows that `order` names, in its order, as a prompts file; `repeats` (0 for none) by row number.

    Rows are first thrown into buckets by their place in the order, so that one bucket at a time is sorted in memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = np.full(spool.rows, -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    buckets = int(min(MOST_BUCKETS, max(1, -(-spool.bytes // BUCKET_BYTES))))
    width = max(1, -(-len(order) // buckets))
    thrown = _throw(spool, place, repeats, width)
    with pq.ParquetWriter(path, Prompt.schema(), compression="zstd") as writer:
        for file in thrown:
            table = pq.read_table(file)
            table = table.sort_by("_place").drop_columns("_place")
            for first in range(0, table.num_rows, rows := _group_rows(table)):
                writer.write_table(table.slice(first, rows))
            file.unlink()
            del table
        if not thrown:
            writer.write_table(pa.Table.from_pylist([], schema=Prompt.schema()))


def _throw(spool: Spool, place: np.ndarray, repeats: np.ndarray, width: int) -> list[Path]:
    """The buckets' files in order; rows carry their `_place`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writers: dict[int, Any] = {}
    for first, table in spool.groups():
        numbers = np.arange(first, first + table.num_rows)
        kept = np.flatnonzero(place[numbers] >= 0)
        if not len(kept):
            continue
        times = pa.array([int(n) if n > 1 else None for n in repeats[numbers[kept]]], pa.int64())
        rows = table.take(kept).set_column(table.schema.get_field_index("repeats"), "repeats", times)
        rows = rows.append_column("_place", pa.array(place[numbers[kept]]))
        bucket_of = place[numbers[kept]] // width
        for bucket in np.unique(bucket_of):
            if bucket not in writers:
                file = spool.folder / f"bucket-{bucket:05d}.parquet"
                writers[int(bucket)] = pq.ParquetWriter(file, rows.schema, compression="zstd")
            writers[int(bucket)].write_table(rows.take(np.flatnonzero(bucket_of == bucket)))
    for writer in writers.values():
        writer.close()
    return [spool.folder / f"bucket-{bucket:05d}.parquet" for bucket in sorted(writers)]


def _group_rows(table: pa.Table) -> int:
    return int(max(1, min(GROUP_ROWS, GROUP_BYTES * table.num_rows // max(1, table.nbytes))))
