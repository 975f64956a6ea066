"""The one writer of a ledger: appends lines to a segment, syncs and seals in the background.

A folder holds sealed `part-NNNNN.parquet` files, `parts.json` with the size and hash of each, and open segments
`open-NNNNN.log`, as a rule one. A line of a segment is a CRC-32 in eight hex digits, a space and the trace as JSON.
`append` writes its line at once, so that a killed process loses nothing; a thread fsyncs groups of them, every
`COMMIT_RECORDS` records or `COMMIT_SECONDS`, whichever comes first, and only then is a record durable. Another thread
seals segments that have grown: it writes the Parquet file beside them, renames that atomically, lists it, and only then
removes the segment. Needs nothing of the file system but atomic rename and fsync. Knows nothing about models.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from distill.errors import DiskFullError, RunError
from distill.files import FileLock, fsync_folder
from distill.ledger.index import Entry, entry_of
from distill.ledger.lines import encode_trace
from distill.ledger.opening import look_at_parts, recover
from distill.ledger.parts import PutAside, number_of, numbers_taken
from distill.ledger.reader import LedgerReader
from distill.ledger.segments import (
    Line,
    Recovery,
    Segment,
    mend_and_seal,
    segment_path,
    segment_paths,
    writing,
)
from distill.progress import say
from distill.records import Trace

COMMIT_RECORDS = 64
COMMIT_SECONDS = 0.5
SEAL_BYTES = 64 * 2**20
"""An open segment is sealed once it has grown past this, and when the writer closes."""
MOST_UNSEALED = 4
"""So many full segments may wait to be sealed before `append` waits as well: whoever opens the ledger after a kill
seals them first. Sealing keeps up with hundreds of traces of R1's length a second, more than a fleet writes."""
RESERVE_BYTES = 32 * 2**20
"""Space kept for the replies in flight when the disk fills: 256 of them at 128 KB, the size of 32K tokens."""
RESERVE_SHARE = 4
"""On a nearly full disk the reserve takes at most this part of what is left."""


class Ledger(LedgerReader):
    """The one writer of a ledger folder. Use as a context manager; leaving it seals what is open.

    Opening finishes what an earlier writer left, and looks at every part: its size, its footer, and the columns of the
    index with their checksums; with `verify` its whole content. A damaged part is put aside, so that its traces are
    wanted again, and told to `on_put_aside`; RunError is raised, and nothing changed, for a part that is listed in
    `parts.json` but gone, or that the system cannot read just now. `on_recovery` is told of a torn segment, later on
    from another thread.

    A record is in the index, and in `in`, once it is written. It is durable after the next sync: `commit` waits for
    that, and `durable` counts. `reserve_bytes` are kept free for what is in flight when the disk fills.
    """

    def __init__(
        self,
        folder: Path,
        *,
        on_recovery: Callable[[Recovery], None] | None = None,
        on_put_aside: Callable[[PutAside], None] | None = None,
        verify: bool = False,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock", "ledger").acquire()
        self._on_recovery = on_recovery or (lambda recovery: None)
        self._on_put_aside = on_put_aside or (lambda found: say(str(found)))
        self._guard = threading.RLock()
        """Held for moments, never during a sync: whoever appends takes it."""
        self._syncing = threading.RLock()
        """Held by whoever syncs. Taken before the guard, never after it."""
        self._failure: Exception | None = None
        self._full: DiskFullError | None = None
        self._waiting_since: float | None = None
        self._full_segments: list[Segment] = []
        self._to_seal: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._unsealed: list[Path] = []
        self._new_file = True
        self._synced = 0
        self._closing, self._wake = threading.Event(), threading.Event()
        self._reserve, self._reserve_bytes = folder / ".reserve", reserve_bytes
        try:
            recover(folder, self._on_recovery, self._on_put_aside)
            self._keep_reserve()
            self._index = look_at_parts(folder, self._on_put_aside, content=verify)
            numbers = [*numbers_taken(folder), *map(number_of, segment_paths(folder))]
            self._segment = Segment(segment_path(folder, max(numbers, default=-1) + 1))
        except BaseException:
            self._lock.release()
            raise
        self._committer = threading.Thread(target=self._commit_in_time, name="ledger-commit", daemon=True)
        self._sealer = threading.Thread(target=self._seal_in_background, name="ledger-seal", daemon=True)
        self._committer.start()
        self._sealer.start()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()

    @property
    def tokens(self) -> int:
        """The sum of completion tokens of the records that count, kept up to date."""
        return self._index.tokens

    @property
    def durable(self) -> int:
        """Records of this writer that are on the disk for certain; those before them in order of appending are too."""
        return self._synced

    def index(self) -> Mapping[str, Entry]:
        """The entries as they are now; it may be gone through while records are appended."""
        with self._guard:
            return self._index.snapshot()

    def records(self) -> Iterator[Trace]:
        """Every record, those just appended included: they are committed first."""
        self.commit()
        return super().records()

    def traces(self) -> Iterator[Trace]:
        self.commit()
        with self._guard:
            return self._counting(self._index.snapshot())

    def __contains__(self, key: object) -> bool:
        """Whether this key has an answer (an error does not count)."""
        entry = self._index.entries.get(key) if isinstance(key, str) else None
        return entry is not None and entry.answered

    def next_revision(self, key: str) -> int:
        with self._guard:
            entry = self._index.entries.get(key)
            known = -1 if entry is None else max(entry.revision, entry.highest)
            for segment in self._segments():
                if segment.written < len(segment.waiting):  # the disk is full
                    known = max([known, *(line.entry.revision for line in segment.unwritten if line.key == key)])
            return known + 1

    def append(self, trace: Trace) -> None:
        """Takes a record over and writes it; it is durable at the latest after COMMIT_SECONDS and the sync itself.

        Raises what went wrong in the background since, DiskFullError above all: whoever samples has to stop then. What
        is appended all the same is saved in the space that was kept for it, and stays buffered only once that is full
        too. Raises InputError for a record that could be written but never read or sealed, and does not take it.
        """
        line = Line(encode_trace(trace), trace.key, entry_of(trace))
        with self._guard:
            if self._closing.is_set():
                raise RunError("the ledger is closed", given=str(self.folder), todo="append before closing it")
            if self._waiting_since is None:
                self._waiting_since = time.monotonic()
            if not self._full_segments and self._segment.size < SEAL_BYTES and self._segment.write_at_once(line):
                self._index.note(line.key, line.entry)
            else:
                self._segment.waiting.append(line)
                self._write()
            if self._full is not None:
                raise self._full
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
        if len(self._segment.waiting) >= COMMIT_RECORDS or self._full_segments:
            self._wake.set()
        while self._sealing_lags():
            time.sleep(0.01)

    def _sealing_lags(self) -> bool:
        """Never because of a failure: then whoever appends next is told."""
        full = len(self._full_segments) + self._to_seal.qsize()
        return full >= MOST_UNSEALED and self._failure is None and self._full is None and self._sealer.is_alive()

    def commit(self) -> None:
        """Returns when everything appended is durable; on a full disk in the space kept for it.

        After a failure segments end with a whole record, and what is not durable stays buffered.
        """
        with self._syncing:
            self._in_reserve(self._sync)

    def close(self) -> None:
        """Commits, seals and gives the lock and the kept space back. Raises DiskFullError when the last records could
        not be saved."""
        with self._guard:
            if self._closing.is_set():
                return
            self._closing.set()
        self._wake.set()
        self._committer.join()
        try:
            with self._guard:
                self._begin_segment()
            self.commit()
        finally:
            self._to_seal.put(None)
            self._sealer.join()
            try:
                for segment in self._unsealed:
                    mend_and_seal(segment, self._on_recovery)
            finally:
                for open_one in self._segments():
                    open_one.close()
                self._reserve.unlink(missing_ok=True)
                self._lock.release()

    # --- inside: writing -----------------------------------------------------------------------------------------

    def _segments(self) -> list[Segment]:
        """Those that may hold what is not durable yet, in order."""
        return [*self._full_segments, self._segment]

    def _write(self) -> None:
        """The guard is held."""
        self._in_reserve(self._write_lines)
        if self._segment.size >= SEAL_BYTES:
            self._begin_segment()

    def _write_lines(self) -> None:
        for segment in self._segments():
            for line in segment.write():
                self._index.note(line.key, line.entry)

    def _begin_segment(self) -> None:
        """The guard is held. What was the open segment is sealed once it is durable."""
        if self._segment.size or self._segment.waiting:
            self._full_segments.append(self._segment)
            self._segment = Segment(segment_path(self.folder, number_of(self._segment.path) + 1))
            self._new_file = True

    def _in_reserve(self, work: Callable[[], None]) -> None:
        """Does it again, in the space that was kept, when the disk fills; whoever appends is told all the same."""
        try:
            work()
        except DiskFullError as full:
            with self._guard:
                if not self._reserve.exists():
                    raise
                self._full = full
                self._reserve.unlink()
            work()

    def _sync(self) -> None:
        """Writes what is left and makes it durable; `_syncing` is held, the guard only between the syncs."""
        with self._guard:
            self._write()
            batch = [(segment, segment.written) for segment in self._segments() if segment.waiting]
            new_file = self._new_file and bool(batch)
            self._waiting_since = None
        try:
            if new_file:
                with writing(self.folder):
                    fsync_folder(self.folder)
                self._new_file = False
            for segment, count in batch:
                self._sync_one(segment, count)
        except BaseException:
            with self._guard:
                self._waiting_since = time.monotonic()
            raise
        with self._guard:
            durable = [segment for segment in self._full_segments if not segment.waiting]
            self._full_segments = [segment for segment in self._full_segments if segment.waiting]
        for segment in durable:
            segment.close()
            self._to_seal.put(segment.path)

    def _sync_one(self, segment: Segment, count: int) -> None:
        try:
            segment.sync()
        except BaseException:
            with self._guard:
                segment.unsure()
            raise
        with self._guard:
            segment.durable(count)
            self._synced += count

    def _commit_in_time(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(COMMIT_SECONDS / 5)
            self._wake.clear()
            with self._guard:
                since = self._waiting_since
                late = since is not None and time.monotonic() - since >= COMMIT_SECONDS * 4 / 5
                many = len(self._segment.waiting) >= COMMIT_RECORDS or bool(self._full_segments)
                due = (late or many) and self._failure is None
            if due:
                self._telling(self.commit)

    def _seal_in_background(self) -> None:
        for segment in iter(self._to_seal.get, None):
            if not self._telling(functools.partial(mend_and_seal, segment, self._on_recovery)):
                self._unsealed.append(segment)  # closing tries again, and so does whoever opens next

    def _telling(self, work: Callable[[], None]) -> bool:
        """What fails in a thread of the ledger is raised by the next append."""
        try:
            work()
        except Exception as failure:  # noqa: BLE001  # a thread has nobody else to tell
            with self._guard:
                self._failure = failure
            return False
        return True

    # --- inside: opening -----------------------------------------------------------------------------------------

    def _keep_reserve(self) -> None:
        """Takes space that is given back when the disk fills, so that what was in flight then can still be saved."""
        size = min(self._reserve_bytes, shutil.disk_usage(self.folder).free // RESERVE_SHARE)
        with contextlib.suppress(OSError), self._reserve.open("wb") as file:  # without room there is no reserve either
            if size > 0:
                os.posix_fallocate(file.fileno(), 0, size)
