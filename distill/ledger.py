"""The durable store of traces: append-only segments sealed into Parquet, one writer, nothing lost, nothing doubled.

A folder holds sealed `part-NNNNN.parquet` files and at most one open segment `open-NNNNN.log`. A line of a segment is
a CRC-32 in eight hex digits, a space and the trace as JSON. A trace counts once its bytes are fsynced, which happens
every `COMMIT_RECORDS` records or `COMMIT_SECONDS`, whichever comes first. A segment is sealed by writing its Parquet
file beside it, renaming that atomically, and only then removing the segment. Knows nothing about models or prompts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from distill.errors import DiskFullError, InputError, RunError
from distill.files import FileLock, disk_full_is_clear, fsync_folder, reading, replacing
from distill.records import Trace

COMMIT_RECORDS = 64
COMMIT_SECONDS = 0.5
SEAL_BYTES = 64 * 2**20
"""An open segment is sealed once it has grown past this, and when the writer closes."""
READ_ROWS = 2_048
RESERVE_BYTES = 32 * 2**20
"""Space kept for the replies in flight when the disk fills: 256 of them at 128 KB, the size of 32K tokens."""
RESERVE_SHARE = 4
"""On a nearly full disk the reserve takes at most this part of what is left."""
MEND = "restore it from a copy, or move it to quarantine/ beside it; its traces are then sampled again"

_PART = re.compile(r"part-(\d{5})\.parquet")
_OPEN = re.compile(r"open-(\d{5})\.log")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger remembers of a key without its text: the record that counts, and the highest revision of any."""

    revision: int
    finish_reason: str
    highest: int = field(default=-1, compare=False)
    """Of the records that do not count; `revision` may be above it."""

    @property
    def answered(self) -> bool:
        return self.finish_reason != "error"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening a segment had to put aside; `quarantined` names the file that keeps those bytes."""

    records: int
    lost_bytes: int
    quarantined: Path


def supersedes(new: Entry, old: Entry) -> bool:
    """The higher revision counts, except that an error never takes the place of an answer."""
    if new.answered != old.answered:
        return new.answered
    return new.revision > old.revision


def encode_line(record: Any) -> bytes:
    """A JSON value as one checksummed line. Non-ASCII is escaped, so a cut can never split a character."""
    body = json.dumps(record, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode_line(line: bytes) -> Any:
    """Raises ValueError for a line that is torn or altered."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or len(checksum) != 8 or int(checksum, 16) != zlib.crc32(body):
        raise ValueError("checksum mismatch")
    return json.loads(body)


class LedgerReader:
    """Reads a ledger folder, also while a writer is at work; sees what was durable when it looked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def parts(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("part-*.parquet") if _PART.fullmatch(path.name))

    def segments(self) -> list[Path]:
        """Open segments whose sealed part does not exist yet; a crash between sealing and removal leaves both."""
        sealed = {_number(path) for path in self.parts()}
        found = (path for path in self.folder.glob("open-*.log") if _OPEN.fullmatch(path.name))
        return sorted(path for path in found if _number(path) not in sealed)

    def records(self) -> Iterator[Trace]:
        """Every record in the order of writing, all revisions. Raises RunError for an unreadable part."""
        import pyarrow.parquet as pq

        for source in self._sources():
            if isinstance(source, Path):
                with reading(source, MEND), pq.ParquetFile(source, page_checksum_verification=True) as file:
                    for batch in file.iter_batches(READ_ROWS):
                        yield from (Trace.from_json(row) for row in batch.to_pylist())
            else:
                with source:
                    yield from (trace for _, trace in _lines(source) if trace is not None)

    def index(self) -> dict[str, Entry]:
        """Key → the entry that counts, without reading any text."""
        import pyarrow.parquet as pq

        found: dict[str, Entry] = {}
        names = ["key", "revision", "finish_reason"]
        for source in self._sources():
            if isinstance(source, Path):
                with reading(source, MEND), pq.ParquetFile(source, page_checksum_verification=True) as file:
                    table = file.read(names)
                    columns = [table.column(name).to_pylist() for name in names]
                for key, revision, finish_reason in zip(*columns, strict=True):
                    _note(found, key, Entry(revision, finish_reason))
            else:
                with source:
                    for _, trace in _lines(source):
                        if trace is not None:
                            _note(found, trace.key, Entry(trace.revision, trace.finish_reason))
        return found

    def traces(self) -> Iterator[Trace]:
        """The record that counts of every key, in the order of writing."""
        index, given = self.index(), set()
        for trace in self.records():
            entry = index.get(trace.key)
            if entry == Entry(trace.revision, trace.finish_reason) and trace.key not in given:
                given.add(trace.key)
                yield trace

    def _sources(self) -> Iterator[Path | BinaryIO]:
        """Each sealed part, or its segment, opened, where there is no part yet; in order.

        A writer may seal meanwhile, but the part stands before its segment goes: listed the other way round, and
        with the segment held open while it is read, nothing is missed or seen twice.
        """
        segments = [_number(path) for path in self.folder.glob("open-*.log") if _OPEN.fullmatch(path.name)]
        for number in sorted({*segments, *(_number(path) for path in self.parts())}):
            part = self.folder / f"part-{number:05d}.parquet"
            if not part.is_file():
                try:
                    yield (self.folder / f"open-{number:05d}.log").open("rb")
                    continue
                except FileNotFoundError:
                    if not part.is_file():
                        continue  # an empty segment leaves no part
            yield part


class Ledger(LedgerReader):
    """The one writer of a ledger folder. Use as a context manager; leaving it seals the open segment."""

    def __init__(self, folder: Path, *, on_recovery: Callable[[Recovery], None] | None = None) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock", "ledger").acquire()
        self._guard = threading.RLock()
        self._buffer: list[Trace] = []
        self._buffered_since = 0.0
        self._file: int | None = None
        self._size = 0
        self._failure: BaseException | None = None
        self._full: DiskFullError | None = None
        self._closing = threading.Event()
        self._on_recovery = on_recovery or (lambda recovery: None)
        self._reserve = folder / ".reserve"
        try:
            self._recover()
            self._keep_reserve()
            self._index = super().index()
            numbers = [_number(path) for path in (*self.parts(), *self.segments())]
            self._number = max(numbers, default=-1) + 1
        except BaseException:
            self._lock.release()
            raise
        self._timer = threading.Thread(target=self._commit_in_time, name="ledger-commit", daemon=True)
        self._timer.start()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()

    def index(self) -> dict[str, Entry]:
        """The durable entries as they are now; appended records appear in it once they are committed."""
        with self._guard:
            return dict(self._index)

    def records(self) -> Iterator[Trace]:
        """Every record, those still buffered included: they are committed first."""
        self.commit()
        return super().records()

    def traces(self) -> Iterator[Trace]:
        self.commit()
        return super().traces()

    def __contains__(self, key: object) -> bool:
        """Whether this key has a durable answer (an error does not count)."""
        entry = self._index.get(key) if isinstance(key, str) else None
        return entry is not None and entry.answered

    def next_revision(self, key: str) -> int:
        with self._guard:
            pending = [trace.revision for trace in self._buffer if trace.key == key]
            entry = self._index.get(key)
            known = [entry.revision, entry.highest] if entry is not None else []
            return max(pending + known, default=-1) + 1

    def append(self, trace: Trace) -> None:
        """Takes a record over; it counts once committed, at the latest after COMMIT_SECONDS.

        Raises the failure of an earlier commit, DiskFullError above all: whoever samples has to stop then. What is
        appended all the same is saved in the space that was kept for it, and stays buffered only once that is full too.
        Raises InputError for a record that could be written but never read or sealed, and does not take it.
        """
        Trace.from_json(trace.to_json())
        with self._guard:
            if self._closing.is_set():
                raise RunError("the ledger is closed", given=str(self.folder), todo="append before closing it")
            if not self._buffer:
                self._buffered_since = time.monotonic()
            self._buffer.append(trace)
            if self._failure is not None or self._full is not None or len(self._buffer) >= COMMIT_RECORDS:
                self.commit()
            if self._full is not None:
                raise self._full

    def commit(self) -> None:
        """Writes and fsyncs the buffer; on a full disk in the space kept for it.

        After a failure the segment ends with the last whole record that was durable, and the rest stays buffered.
        """
        with self._guard:
            try:
                self._write_buffer()
            except DiskFullError as full:
                if not self._reserve.exists():
                    raise
                self._full = full
                self._reserve.unlink()
                self._write_buffer()
            if self._size >= SEAL_BYTES:
                self._seal()

    def _write_buffer(self) -> None:
        if not self._buffer:
            return
        segment = self._segment()
        lines = [encode_line(trace.to_json()) for trace in self._buffer]
        try:
            with disk_full_is_clear(segment):
                _write_all(self._descriptor(segment), b"".join(lines))
                os.fsync(self._descriptor(segment))
        except OSError as failure:
            self._failure = failure
            if self._file is not None:
                self._keep_whole(lines)
            raise
        self._failure = None
        self._count(lines)

    def _keep_whole(self, lines: list[bytes]) -> None:
        """Of a group that was written in part, what is whole and durable counts; the segment ends there."""
        assert self._file is not None
        there, whole = os.fstat(self._file).st_size - self._size, []
        for line in lines:
            there -= len(line)
            if there < 0:
                break
            whole.append(line)
        os.ftruncate(self._file, self._size + sum(map(len, whole)))
        try:
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
        else:
            self._count(whole)

    def _count(self, lines: list[bytes]) -> None:
        """The first records of the buffer are durable as these lines."""
        self._size += sum(map(len, lines))
        for trace in self._buffer[: len(lines)]:
            _note(self._index, trace.key, Entry(trace.revision, trace.finish_reason))
        del self._buffer[: len(lines)]

    def close(self) -> None:
        """Commits, seals and gives the lock and the kept space back. Raises DiskFullError when the last records could
        not be saved."""
        with self._guard:
            self._closing.set()
        self._timer.join()
        try:
            with self._guard:
                self.commit()
                self._seal()
        finally:
            with self._guard:
                self._close_file()
                self._reserve.unlink(missing_ok=True)
            self._lock.release()

    # --- inside ------------------------------------------------------------------------------------------------

    def _commit_in_time(self) -> None:
        while not self._closing.wait(COMMIT_SECONDS / 5):
            with self._guard:
                due = self._buffer and time.monotonic() - self._buffered_since >= COMMIT_SECONDS * 4 / 5
                if due and self._failure is None:
                    with contextlib.suppress(OSError):  # kept in _failure: the next append or close raises it
                        self.commit()

    def _keep_reserve(self) -> None:
        """Takes space that is given back when the disk fills, so that what was in flight then can still be saved."""
        size = min(RESERVE_BYTES, shutil.disk_usage(self.folder).free // RESERVE_SHARE)
        with contextlib.suppress(OSError), self._reserve.open("wb") as file:  # without room there is no reserve either
            if size > 0:
                os.posix_fallocate(file.fileno(), 0, size)

    def _segment(self) -> Path:
        return self.folder / f"open-{self._number:05d}.log"

    def _descriptor(self, segment: Path) -> int:
        if self._file is None:
            self._file = os.open(segment, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._size = os.fstat(self._file).st_size
            fsync_folder(self.folder)
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file, self._size = None, 0

    def _seal(self) -> None:
        if self._file is None:
            return
        segment = self._segment()
        self._close_file()
        self._mend_and_seal(segment)
        self._number += 1

    def _recover(self) -> None:
        """Takes over what an earlier writer left: finishes a sealing, puts a torn tail aside, seals the rest."""
        for leftover in (*self.folder.glob(".part-*.tmp"), *self.folder.glob(".open-*.tmp")):
            leftover.unlink()
        pending = self.segments()
        for segment in sorted(self.folder.glob("open-*.log")):
            if _OPEN.fullmatch(segment.name) and segment not in pending:
                segment.unlink()
        for segment in pending:
            self._mend_and_seal(segment)

    def _mend_and_seal(self, segment: Path) -> None:
        """Sealing leaves out what cannot be read, so that is put aside first, whoever wrote the segment."""
        recovery = mend(segment)
        if recovery is not None:
            self._on_recovery(recovery)
        seal(segment)


def mend(segment: Path) -> Recovery | None:
    """Moves what is unreadable in a segment into `quarantine/` and keeps the rest; None when all was well."""
    with segment.open("rb") as file:
        lines = list(_lines(file))
    bad = b"".join(line for line, trace in lines if trace is None)
    if not bad:
        return None
    folder = segment.parent / "quarantine"
    folder.mkdir(exist_ok=True)
    name = folder / f"{segment.stem}-{zlib.crc32(bad):08x}.bad"
    with replacing(name) as temporary:
        temporary.write_bytes(bad)
    with replacing(segment) as temporary:
        temporary.write_bytes(b"".join(line for line, trace in lines if trace is not None))
    return Recovery(sum(trace is not None for _, trace in lines), len(bad), name)


def seal(segment: Path) -> Path | None:
    """Turns a whole segment into its Parquet part and removes it; an empty one just goes."""
    import pyarrow.parquet as pq

    with segment.open("rb") as file:
        traces = [trace for _, trace in _lines(file) if trace is not None]
    part = segment.with_name(f"part-{_number(segment):05d}.parquet")
    if traces:
        with replacing(part) as temporary:
            pq.write_table(Trace.table(traces), temporary, compression="zstd", write_page_checksum=True)
    segment.unlink()
    fsync_folder(segment.parent)
    return part if traces else None


def write_all(folder: Path, traces: Iterable[Trace]) -> int:
    """Appends every trace to the ledger in `folder`; returns how many."""
    count = 0
    with Ledger(folder) as ledger:
        for trace in traces:
            ledger.append(trace)
            count += 1
    return count


def _lines(segment: BinaryIO) -> Iterator[tuple[bytes, Trace | None]]:
    """Each line with its trace, None in place of one that is torn or altered.

    Raises RunError for a line that is whole but no trace this version knows: to put it aside would be to buy it again.
    """
    for line in segment:
        try:
            record = decode_line(line)
        except ValueError:
            yield line, None
            continue
        try:
            yield line, Trace.from_json(record)
        except InputError as error:
            raise RunError(
                "the ledger holds a record that this version of distill cannot read",
                given=f"{segment.name}: {error.what}",
                todo="use the version that wrote it, or a newer one",
            ) from error


def _number(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _note(index: dict[str, Entry], key: str, entry: Entry) -> None:
    known = index.get(key)
    if known is None:
        index[key] = entry
        return
    counts, other = (entry, known) if supersedes(entry, known) else (known, entry)
    highest = max(counts.highest, other.highest, other.revision)
    index[key] = replace(counts, highest=highest)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
