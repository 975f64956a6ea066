"""Where each trace of a ledger belongs: to which prompt, and in which order; sorted into buckets that fit in memory.

Traces lie in the order in which they arrived. A bucket holds all traces of some consecutive prompts, so that what
compares the samples of a prompt sees all of them, and so that the result never depends on the order of arrival.
Buckets wait in files beside the run. Knows nothing about checks.
"""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill.files import disk_full_is_clear, sha256_of
from distill.ledger import LedgerReader
from distill.records import Prompt, trace_key
from distill.sampling.requests import Subject
from distill.sampling.wanted import asked_of

if TYPE_CHECKING:
    import pyarrow as pa

BUCKET_BYTES = 24 * 2**20
"""Of decoded traces in a bucket: with their Python objects, and those of the next, some 200 MB in all."""
MOST_BUCKETS = 4_096
HELD_BYTES = 64 * 2**20
"""Traces that wait to be written to their buckets' files."""
ROW, ORDER = "_row", "_order"
"""Columns that a bucket has beside a trace's: the row of its prompt, and its place among the prompt's traces."""


class Places:
    """Which prompt a trace belongs to, by the hash of what was asked: 20 bytes a prompt.

    The key of a trace has to be the one that this recipe gives it: an edited question never meets the trace of the old
    one. Imported traces, whoever wrote them and however many, are known by what was asked alone; `texts` (hash of what
    was asked → hash of the question's text) finds those whose teacher was told more.
    """

    def __init__(
        self,
        prompts: Iterable[Prompt],
        subject: Subject,
        samples: int,
        *,
        imported: bool = False,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        self.subject, self.imported = subject, imported
        hashes, rows, counts = array("Q"), array("q"), array("I")
        by_text: dict[str, list[str]] = {}
        for asked, text in (texts or {}).items():
            by_text.setdefault(text, []).append(asked)
        for one in asked_of(prompts, subject, samples, None):
            others = by_text.get(sha256_of(one.prompt.text), ()) if by_text else ()
            for asked in (one.asked, *others):
                hashes.append(int(asked[:16], 16))
                rows.append(one.row)
                counts.append(one.samples)
        values = np.frombuffer(hashes, np.uint64) if hashes else np.empty(0, np.uint64)
        self._hashes, first = np.unique(values, return_index=True)
        self._rows = np.frombuffer(rows, np.int64)[first] if rows else np.empty(0, np.int64)
        self._samples = np.frombuffer(counts, np.uint32)[first] if counts else np.empty(0, np.uint32)

    def prompts_of(self, asked: Sequence[str]) -> NDArray[np.int64]:
        """The row of the prompt that each hash of what was asked belongs to, -1 for none."""
        found = np.full(len(asked), -1, np.int64)
        if len(self._hashes) and len(asked):
            places = self._find(asked)
            known = places >= 0
            found[known] = self._rows[places[known]]
        return found

    def _find(self, asked: Sequence[str]) -> NDArray[np.int64]:
        hashes = np.array([int(text[:16], 16) for text in asked], np.uint64)
        places = np.searchsorted(self._hashes, hashes)
        places[places == len(self._hashes)] = 0
        places[self._hashes[places] != hashes] = -1
        return places

    def rows(self, table: pa.Table) -> NDArray[np.int64]:
        """The row of each trace's prompt; -1 for failures and for traces that this recipe does not ask for."""
        asked: list[str] = table.column("asked").to_pylist()
        samples: list[int] = table.column("sample").to_pylist()
        ended = table.column("finish_reason").to_pylist()
        found = np.full(len(asked), -1, np.int64)
        if not len(self._hashes):
            return found
        places = self._find(asked)
        keys: list[str] = table.column("key").to_pylist()
        identity, sampling = self.subject.identity, self.subject.sampling
        for place in np.flatnonzero(places >= 0):
            if ended[place] == "error":
                continue
            if not self.imported:
                if samples[place] >= self._samples[places[place]]:
                    continue
                if keys[place] != trace_key(asked[place], samples[place], identity, sampling):
                    continue
            found[place] = self._rows[places[place]]
        return found


class Buckets:
    """Wanted traces of a ledger in buckets, each sorted by prompt and sample; a context manager that removes its files.

    Of what was written by an earlier start nothing is used: writing them again takes less time than reading about it.
    """

    def __init__(self, folder: Path, ledger: LedgerReader, places: Places, prompts: int) -> None:
        self.folder = folder
        self._ledger, self._places = ledger, places
        self._ends = self._bounds(prompts)
        self.traces = 0
        self._filled: set[int] = set()
        self._held: dict[int, list[pa.Table]] = {}
        self._size = 0

    def __enter__(self) -> Buckets:
        shutil.rmtree(self.folder, ignore_errors=True)  # of a start that was killed
        with disk_full_is_clear(self.folder):
            self._fill()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _bounds(self, prompts: int) -> NDArray[np.int64]:
        """The rows before which buckets end, so that each holds about as many traces: of a sampling that stopped early
        most prompts have none."""
        total = self._ledger.text_bytes
        count = min(MOST_BUCKETS, -(-total // BUCKET_BYTES))
        if count <= 1:
            return np.array([prompts], np.int64)
        of_row = np.zeros(prompts, np.int64)
        for asked in self._asked():
            rows = self._places.prompts_of(asked)
            of_row += np.bincount(rows[rows >= 0], minlength=prompts)
        upto = np.cumsum(of_row)
        ends = np.searchsorted(upto, np.arange(1, count + 1) * upto[-1] / count) + 1
        return np.unique(np.minimum(ends, prompts))

    def _asked(self) -> Iterator[list[str]]:
        """What was asked, of all records, some ten thousand at a time and without any other column."""
        fields = self._ledger.fields("asked")
        while batch := [asked for (asked,) in islice(fields, 2**16)]:
            yield batch

    @property
    def filled(self) -> list[int]:
        """The buckets that hold a trace, in order."""
        return sorted(self._filled)

    def read(self, bucket: int) -> pa.Table:
        """The traces of a bucket with their ROW and ORDER, sorted by both."""
        import pyarrow as pa

        tables = list(self._held.get(bucket, ()))
        path = self._path(bucket)
        if path.is_file():
            with pa.OSFile(str(path), "rb") as file:
                while file.tell() < file.size():
                    with pa.ipc.open_stream(file) as reader:
                        tables.append(reader.read_all())
        return pa.concat_tables(tables).sort_by([(ROW, "ascending"), (ORDER, "ascending")])

    def _fill(self) -> None:
        import pyarrow as pa

        arrived = 0
        for table in self._ledger.tables():
            rows = self._places.rows(table)
            order = np.arange(arrived, arrived + len(rows)) if self._places.imported else _samples(table)
            arrived += len(rows)
            wanted = np.flatnonzero(rows >= 0)
            if not len(wanted):
                continue
            self.traces += len(wanted)
            table = table.append_column(ROW, pa.array(rows)).append_column(ORDER, pa.array(order))
            numbers = np.searchsorted(self._ends, rows[wanted], side="right")
            self._filled.update(np.unique(numbers).tolist())
            for bucket in np.unique(numbers):
                self._hold(int(bucket), table.take(pa.array(wanted[numbers == bucket])))
        if self._size and self.folder.is_dir():  # all of it, so that what is read does not depend on what was held
            self._flush()

    def _hold(self, bucket: int, table: Any) -> None:
        self._held.setdefault(bucket, []).append(table)
        self._size += table.nbytes
        if self._size >= HELD_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Appends a stream for each bucket to its file."""
        import pyarrow as pa

        self.folder.mkdir(parents=True, exist_ok=True)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        for bucket, tables in self._held.items():
            table = pa.concat_tables(tables).combine_chunks()
            with (
                self._path(bucket).open("ab") as file,
                pa.ipc.new_stream(file, table.schema, options=options) as writer,
            ):
                writer.write_table(table)
        self._held, self._size = {}, 0

    def _path(self, bucket: int) -> Path:
        return self.folder / f"{bucket:05d}.arrow"


def _samples(table: Any) -> NDArray[np.int64]:
    return np.array(table.column("sample").to_pylist(), np.int64)


def each(buckets: Buckets) -> Iterator[tuple[int, pa.Table]]:
    """(number, traces) of the buckets that hold any, in order."""
    for bucket in buckets.filled:
        yield bucket, buckets.read(bucket)
