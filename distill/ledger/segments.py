"""Segments of a ledger: appended to line by line, mended when torn, sealed into a Parquet part.

Sealing renames the part, lists it in `parts.json`, and only then removes the segment: a crash in between leaves both,
and what opens next finishes it. Knows nothing about which record counts, or about threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from distill.errors import DiskFullError, RunError
from distill.files import disk_full_is_clear, fsync_folder, replacing
from distill.ledger.index import Entry
from distill.ledger.lines import is_whole, rows_table, whole_groups
from distill.ledger.parts import (
    QUARANTINE,
    DamagedError,
    check_content,
    describe,
    key_columns,
    number_of,
    part_path,
    read_parts,
    write_parts,
    write_tables,
)

MANY_FILES = (errno.EMFILE, errno.ENFILE)
_OPEN = re.compile(r"open-(\d{5})\.log")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening a segment had to put aside; `quarantined` names the file that keeps those bytes."""

    records: int
    lost_bytes: int
    quarantined: Path


def segment_path(folder: Path, number: int) -> Path:
    return folder / f"open-{number:05d}.log"


def segment_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("open-*.log") if _OPEN.fullmatch(path.name))


def mend(segment: Path) -> Recovery | None:
    """Moves what is unreadable in a segment into `quarantine/` and keeps the rest; None when all was well."""
    with segment.open("rb") as lines:
        bad = b"".join(line for line in lines if not is_whole(line))
    if not bad:
        return None
    folder = segment.parent / QUARANTINE
    folder.mkdir(exist_ok=True)
    name = folder / f"{segment.stem}-{zlib.crc32(bad):08x}.bad"
    with replacing(name) as temporary:
        temporary.write_bytes(bad)
    records = 0
    with replacing(segment) as temporary, segment.open("rb") as lines, temporary.open("wb") as mended:
        for line in lines:
            if is_whole(line):
                mended.write(line)
                records += 1
    return Recovery(records, len(bad), name)


def seal(segment: Path) -> Path | None:
    """Turns a whole segment into its Parquet part and removes it; an empty one just goes. Needs the ledger's lock."""
    part, folder, count = part_path(segment.parent, number_of(segment)), segment.parent, 0
    if segment.stat().st_size:
        with segment.open("rb") as lines, replacing(part) as temporary:
            tables = (rows_table(group, segment.name) for group in whole_groups(lines))
            count = write_tables(temporary, tables)
        with disk_full_is_clear(folder):
            parts = read_parts(folder)
            parts[part.name] = describe(part, traces=count)
            write_parts(folder, parts)
    segment.unlink()
    fsync_folder(folder)
    return part if count else None


def finish_sealing(segment: Path, on_recovery: Callable[[Recovery], None]) -> None:
    """What a crash left of a sealing: the segment goes where its part is sound, and is sealed again where not."""
    folder, part = segment.parent, part_path(segment.parent, number_of(segment))
    parts = read_parts(folder)
    try:
        check_content(part, parts.get(part.name))
        parts[part.name] = describe(part, traces=len(key_columns(part, parts.get(part.name))))
    except DamagedError:
        part.unlink()
    else:
        write_parts(folder, parts)
        segment.unlink()
        fsync_folder(folder)
        return
    mend_and_seal(segment, on_recovery)


def mend_and_seal(segment: Path, on_recovery: Callable[[Recovery], None]) -> None:
    """Sealing leaves out what cannot be read, so that is put aside first, whoever wrote the segment."""
    recovery = mend(segment)
    if recovery is not None:
        on_recovery(recovery)
    seal(segment)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says against writing, as an error that a user can act on."""
    try:
        with disk_full_is_clear(path):
            yield
    except OSError as error:
        if isinstance(error, DiskFullError):
            raise
        mend = (
            "raise the limit of open files (ulimit -n)" if error.errno in MANY_FILES else "mend the disk or the network"
        )
        raise RunError(
            f"the ledger cannot be written: {(error.strerror or str(error)).lower()}",
            given=str(path),
            todo=f"{mend} and start the same command again; everything durable is kept",
        ) from error


@dataclass(frozen=True, slots=True)
class Line:
    """A record on its way to the disk."""

    bytes: bytes
    key: str
    entry: Entry


class Segment:
    """The open end of a ledger: `waiting` are the lines that are not durable yet, of which the first `written` are in
    the file. Not safe for threads, except that `sync` may run while lines are added and written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: list[Line] = []
        self.written = 0
        self.size = self._durable = 0
        self._descriptor: int | None = None
        self._ragged = False

    @property
    def unwritten(self) -> list[Line]:
        """Lines that are not in the file."""
        return self.waiting[self.written :]

    def write_at_once(self, line: Line) -> bool:
        """Adds and writes a line where nothing stands in the way: the file is open and whole, and nothing waits before
        it. False where `waiting` and `write` have to do it, whatever was tried."""
        if self._descriptor is None or self._ragged or self.written != len(self.waiting):
            return False
        self._ragged = True
        try:
            if os.write(self._descriptor, line.bytes) != len(line.bytes):
                return False
        except OSError:
            return False
        self.waiting.append(line)
        self.size += len(line.bytes)
        self.written += 1
        self._ragged = False
        return True

    def write(self) -> Iterator[Line]:
        """Writes what is not in the file and gives each line that came there, after a failed sync again.

        Raises DiskFullError, or RunError for other errors of the system; the file then ends with the last whole line,
        and the others stay waiting.
        """
        if self.written == len(self.waiting):
            return
        with writing(self.path):
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            if self._ragged:
                self._cut()
            while self.written < len(self.waiting):
                line = self.waiting[self.written]
                self._write(line.bytes)
                yield line

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        self._ragged = True  # until the line is counted, whatever comes between: the file ends at `size`
        try:
            taken = os.write(self._descriptor, data)
            while taken < len(data):
                taken += os.write(self._descriptor, memoryview(data)[taken:])
        except OSError:
            self._cut()
            raise
        self.size += len(data)
        self.written += 1
        self._ragged = False

    def _cut(self) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, self.size)
        self._ragged = False

    def sync(self) -> None:
        """Makes what was written durable. To be called without a lock; `durable` or `unsure` follow, with it."""
        if self._descriptor is not None:
            with writing(self.path):
                os.fsync(self._descriptor)

    def durable(self, count: int) -> None:
        """The first `count` lines waiting are on the disk."""
        self._durable += sum(len(line.bytes) for line in self.waiting[:count])
        del self.waiting[:count]
        self.written -= count

    def unsure(self) -> None:
        """A sync failed: what the disk has of the lines since the last one is unknown, so they are written again."""
        self.size, self.written, self._ragged = self._durable, 0, True
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # tried again before anything is written
                self._cut()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
