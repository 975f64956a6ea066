"""A ledger on a disk that fills, or fails: what was durable stays, what is in flight is kept, and somebody is told."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from ledger_material import eventually, trace

from distill.errors import FAILED, DiskFullError, RunError
from distill.ledger import Ledger, LedgerReader, parts, segments, writer

# --- a full disk -----------------------------------------------------------------------------------------------------


class FullDisk:
    """Stands in for os.write: `room` bytes are taken, then it fails, as a rule for want of space."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, code: int = errno.ENOSPC) -> None:
        self.room, self.code, self.real = room, code, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.room <= 0:
            raise OSError(self.code, os.strerror(self.code))
        taken = self.real(descriptor, data[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize("room", [0, 1, 300, 900])
def test_a_full_disk_keeps_what_was_durable_and_holds_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append(trace("a"))
        ledger.commit()
        (segment,) = ledger.segments()
        durable = segment.read_bytes()
        disk = FullDisk(monkeypatch, room)
        taken = 0
        for key in ("b", "c", "d"):
            with contextlib.suppress(DiskFullError):
                ledger.append(trace(key))
                taken += 1
        assert taken == (room == 900)
        with pytest.raises(DiskFullError, match="the disk is full") as caught:
            ledger.commit()
        assert str(segment) in str(caught.value)
        assert caught.value.exit_code == FAILED
        left = segment.read_bytes()
        assert left.startswith(durable)
        assert left.endswith(b"\n"), "a half-written record is taken back"
        assert len(left.splitlines()) == len(ledger.index()), "a whole one counts"
        assert ("a" in ledger, "b" in ledger) == (True, room == 900)
        with pytest.raises(DiskFullError):
            ledger.append(trace("e"))
        disk.room = 10**9
        ledger.commit()
        assert sorted(ledger.index()) == ["a", "b", "c", "d", "e"]
    assert [record.key for record in LedgerReader(tmp_path).records()] == ["a", "b", "c", "d", "e"]


class BadSync:
    """Stands in for os.fsync: fails with `code` while that is set; until then the lines may lie anywhere."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        self.code, self.real, self.failed = code, os.fsync, 0
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        if self.code:
            self.failed += 1
            raise OSError(self.code, os.strerror(self.code))
        self.real(descriptor)


def test_a_failed_sync_reaches_the_next_append_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync the system may have dropped what it had: the lines are written again, not only synced."""
    with Ledger(tmp_path) as ledger:
        ledger.append(trace("durable"))
        ledger.commit()
        (segment,) = ledger.segments()
        durable = segment.read_bytes()
        disk = BadSync(monkeypatch, errno.EIO)
        ledger.append(trace("a"))
        eventually(lambda: disk.failed and ledger._failure is not None, "the background sync")
        assert segment.read_bytes() == durable, "what the disk may not have is taken back"
        with pytest.raises(RunError, match="the ledger cannot be written: input/output error") as caught:
            ledger.append(trace("b"))
        assert str(segment) in str(caught.value)
        assert ledger.durable == 1
        with pytest.raises(RunError, match="input/output error"):
            ledger.commit()
        disk.code = 0
        ledger.append(trace("c"))
        eventually(lambda: ledger.durable == 4, "all of them durable")
        assert list(ledger.index()) == ["durable", "a", "b", "c"]
        assert ledger.next_revision("b") == 1
    assert [record.key for record in LedgerReader(tmp_path).records()] == ["durable", "a", "b", "c"]


def test_a_disk_found_full_only_by_the_sync_is_told_and_the_kept_space_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on network file systems, where a write may be taken that there is no room for."""
    with Ledger(tmp_path) as ledger:
        disk, unlink = BadSync(monkeypatch, errno.ENOSPC), Path.unlink

        def freeing(path: Path, missing_ok: bool = False) -> None:
            unlink(path, missing_ok=missing_ok)
            disk.code = 0

        monkeypatch.setattr(Path, "unlink", freeing)
        ledger.append(trace("a"))
        eventually(lambda: ledger.durable == 1, "the record saved in the kept space")
        assert not (tmp_path / ".reserve").exists()
        for key in ("b", "c"):
            with pytest.raises(DiskFullError):
                ledger.append(trace(key))
    assert [record.key for record in LedgerReader(tmp_path).records()] == ["a", "b", "c"]


def test_a_write_that_fails_otherwise_is_told_and_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(tmp_path) as ledger:
        disk = FullDisk(monkeypatch, 100, errno.EIO)
        with pytest.raises(RunError, match="the ledger cannot be written: input/output error"):
            ledger.append(trace("a"))
        assert "a" not in ledger
        assert ledger.next_revision("a") == 1, "it is kept, and its number taken"
        (segment,) = ledger.segments()
        assert segment.read_bytes() == b""
        disk.room = 10**9
        ledger.append(trace("b"))
        assert list(ledger.index()) == ["a", "b"]
    assert [record.key for record in LedgerReader(tmp_path).records()] == ["a", "b"]


def test_an_interrupt_in_the_middle_of_a_write_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        real(descriptor, data[:50])
        raise KeyboardInterrupt

    with Ledger(tmp_path) as ledger:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
            patch.setattr(os, "write", interrupted)
            ledger.append(trace("a"))
        ledger.append(trace("b"))
    assert [record.key for record in LedgerReader(tmp_path).records()] == ["a", "b"]
    assert not (tmp_path / "quarantine").exists()


def test_a_sealing_that_fails_is_told_and_done_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SEAL_BYTES", 1)
    failing = True

    def write_tables(*given: Any) -> int:
        if failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return parts.write_tables(*given)

    monkeypatch.setattr(segments, "write_tables", write_tables)
    with Ledger(tmp_path) as ledger:
        ledger.append(trace("a"))
        eventually(lambda: ledger._failure is not None, "the sealing")
        with pytest.raises(DiskFullError, match="the disk is full"):
            ledger.append(trace("b"))
        assert ledger.parts() == []
        failing = False
    assert [record.key for record in LedgerReader(tmp_path).records()] == ["a", "b"]
    assert len(LedgerReader(tmp_path).parts()) == 2


def test_closing_on_a_full_disk_says_so_and_gives_the_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(trace("a"))
    ledger.commit()
    disk = FullDisk(monkeypatch, 100)
    with pytest.raises(DiskFullError):
        ledger.append(trace("b"))
    with pytest.raises(DiskFullError):
        ledger.close()
    disk.room = 10**9
    with Ledger(tmp_path) as again:
        assert list(again.index()) == ["a"]


def test_a_really_full_file_system_loses_nothing(tiny_disk: Path) -> None:
    folder, ballast = tiny_disk / "traces", tiny_disk / "ballast"
    ballast.write_bytes(bytes(128 * 1024))
    with Ledger(folder) as ledger:
        count = 0
        with pytest.raises(DiskFullError, match="the disk is full"):  # noqa: PT012  # nobody knows which append
            while count < 2_000:
                ledger.append(trace(count, raw="x" * 500))
                count += 1
        durable = set(ledger.index())
        assert len(durable) in (count, count + 1), "the one that met the full disk is saved if the kept space took it"
        ballast.unlink()
        ledger.commit()
        assert sorted(ledger.index(), key=int) == [str(i) for i in range(count + 1)]
    after = [record.key for record in LedgerReader(folder).records()]
    assert after == [str(i) for i in range(count + 1)]


def test_what_is_in_flight_when_the_disk_fills_is_saved_in_the_space_kept_for_it(tiny_disk: Path) -> None:
    """The first append that hits the full disk says so; those that follow, already paid for, are saved all the same."""
    folder = tiny_disk / "traces"
    with contextlib.suppress(DiskFullError), Ledger(folder) as ledger:  # too full to seal: the segment stays
        assert (folder / ".reserve").stat().st_blocks * 512 >= 48 * 1024
        count = 0
        with pytest.raises(DiskFullError, match="the disk is full"):  # noqa: PT012  # nobody knows which append
            while count < 2_000:
                ledger.append(trace(count, raw="x" * 500))
                count += 1
        assert not (folder / ".reserve").exists()
        for late in range(count + 1, count + 9):
            with pytest.raises(DiskFullError):
                ledger.append(trace(late, raw="x" * 500))
        assert len(ledger.index()) == count + 9, "all of them are durable, nothing is only in memory"
    assert len(list(LedgerReader(folder).records())) == count + 9


def test_the_space_kept_is_given_back_at_the_end_and_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / ".reserve").write_bytes(b"of a writer that was killed")
    with Ledger(tmp_path) as ledger:
        assert (tmp_path / ".reserve").stat().st_size >= 2**20
        ledger.append(trace("a"))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".lock", "part-00000.parquet", "parts.json"]


def fill(path: Path) -> None:
    """Writes until the disk is full."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_disk_too_full_to_seal_keeps_the_segment(tiny_disk: Path) -> None:
    folder, ballast = tiny_disk / "traces", tiny_disk / "ballast"
    ledger = Ledger(folder)
    ledger.append(trace("a"))
    ledger.commit()
    with pytest.raises(OSError, match="No space left"):
        fill(ballast)
    with pytest.raises(DiskFullError):
        ledger.close()
    assert list(LedgerReader(folder).records()) == [trace("a")]
    assert LedgerReader(folder).parts() == []
    ballast.unlink()
    with Ledger(folder) as again:
        assert "a" in again
    assert len(LedgerReader(folder).parts()) == 1
    assert list(LedgerReader(folder).records()) == [trace("a")]
