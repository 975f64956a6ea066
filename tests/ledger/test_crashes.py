"""A writer that is killed, cut off or interrupted at its worst moment: nothing lost, nothing doubled."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ledger_material import DiedError, dying, open_segment, put_aside_by_verify, quarantined, trace, write_all

from distill.errors import RunError
from distill.files import FileLock
from distill.ledger import Ledger, LedgerReader, Recovery, encode_line, segments
from distill.ledger.parts import read_parts
from distill.ledger.segments import mend, seal

# --- kills -----------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from ledger_material import trace
from distill.ledger import writer
writer.SEAL_BYTES = 6_000
writer.COMMIT_RECORDS = 5
with writer.Ledger(Path(sys.argv[1])) as ledger:
    first = int(sys.argv[2])
    assert "pandas" not in sys.modules, "a second and 50 MB"
    for number in range(first, first + 100_000):
        assert f"{number}" not in ledger
        ledger.append(trace(number))
        print(number, flush=True)
        if number % 70 == 0:
            ledger.commit()
"""


def test_a_killed_writer_loses_nothing_that_append_returned_for(tmp_path: Path) -> None:
    rng = random.Random(5)
    folder, taken, start = tmp_path / "traces", set[str](), 0
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(folder), str(start), str(Path(__file__).parents[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randint(1, 150)):
                taken.add(writer.stdout.readline().decode().strip())
            writer.kill()
            taken |= {line.decode().strip() for line in writer.stdout if line.endswith(b"\n")}
        assert writer.returncode == -9, "the writer ended by itself"
        recovered = [record.key for record in LedgerReader(folder).records()]
        start = max(map(int, recovered)) + 1
        assert taken <= set(recovered)
    with Ledger(folder) as ledger:
        assert all(key in ledger for key in taken)
    assert put_aside_by_verify(folder) == []
    after = list(LedgerReader(folder).records())
    assert taken <= {record.key for record in after}
    assert all(record == trace(record.key) for record in after)
    assert max(Counter(record.key for record in after).values()) == 1
    assert len(LedgerReader(folder).parts()) > 4, "segments were sealed while the writer ran"


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that open a ledger a thousand times and kill nobody."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.usefixtures("no_fsync")
def test_an_open_segment_cut_anywhere_loses_only_the_torn_record(tmp_path: Path) -> None:
    records = [trace(i) for i in range(3)]
    short = [{name: value for name, value in record.to_json().items() if value is not None} for record in records]
    lines = [encode_line(row) for row in short]
    first, second = len(lines[0]), len(lines[0]) + len(lines[1])
    data = b"".join(lines)
    segment = tmp_path / "open-00000.log"
    for cut in range(first, len(data) + 1):
        segment.write_bytes(data[:cut])
        whole = 1 + (cut >= second) + (cut == len(data))
        torn = data[len(b"".join(lines[:whole])) : cut]
        recovery = mend(segment)
        assert segment.read_bytes() == b"".join(lines[:whole])
        if torn:
            assert recovery is not None
            assert (recovery.records, recovery.lost_bytes) == (whole, len(torn))
            assert recovery.quarantined.read_bytes() == torn
            recovery.quarantined.unlink()
        else:
            assert recovery is None
        assert quarantined(tmp_path) == []


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_opening_a_ledger_reports_and_seals_a_torn_segment(tmp_path: Path, cut: int) -> None:
    records = [trace(i) for i in range(3)]
    segment = open_segment(tmp_path, records)
    lost = encode_line(records[2].to_json())[:-cut]
    os.truncate(segment, segment.stat().st_size - cut)
    reported: list[Recovery] = []
    with Ledger(tmp_path, on_recovery=reported.append) as ledger:
        assert [key in ledger for key in "012"] == [True, True, False]
        ledger.append(records[2])
    (recovery,) = reported
    assert (recovery.records, recovery.lost_bytes) == (2, len(lost))
    assert quarantined(tmp_path) == [recovery.quarantined]
    assert recovery.quarantined.read_bytes() == lost
    assert list(LedgerReader(tmp_path).records()) == records
    assert not segment.exists()


@pytest.mark.usefixtures("no_fsync")
def test_an_altered_byte_costs_one_record(tmp_path: Path) -> None:
    records = [trace(i) for i in range(5)]
    lines = [encode_line(record.to_json()) for record in records]
    start = len(lines[0]) + len(lines[1])
    for offset in range(0, len(lines[2]) - 1, 11):
        folder = tmp_path / str(offset)
        segment = open_segment(folder, records)
        data = bytearray(segment.read_bytes())
        data[start + offset] ^= 0x01
        segment.write_bytes(data)
        reported: list[Recovery] = []
        with Ledger(folder, on_recovery=reported.append) as ledger:
            assert sorted(ledger.index()) == ["0", "1", "3", "4"]
        assert [(recovery.records, recovery.lost_bytes) for recovery in reported] == [(4, len(lines[2]))]
        assert quarantined(folder)[0].read_bytes() == data[start : start + len(lines[2])]
        assert list(LedgerReader(folder).records()) == [*records[:2], *records[3:]]


def test_damage_while_the_writer_runs_is_put_aside_not_dropped(tmp_path: Path) -> None:
    reported: list[Recovery] = []
    with Ledger(tmp_path, on_recovery=reported.append) as ledger:
        for i in range(3):
            ledger.append(trace(i))
        ledger.commit()
        (segment,) = ledger.segments()
        data = bytearray(segment.read_bytes())
        data[50] ^= 0x01
        segment.write_bytes(data)
    assert [record.key for record in LedgerReader(tmp_path).records()] == ["1", "2"]
    assert [recovery.quarantined for recovery in reported] == quarantined(tmp_path)
    assert quarantined(tmp_path)[0].read_bytes() == data[: data.index(b"\n") + 1]


def test_a_crash_between_sealing_and_removal_doubles_nothing(tmp_path: Path) -> None:
    records = [trace(i) for i in range(3)]
    segment = open_segment(tmp_path, records)
    kept = segment.read_bytes()
    seal(segment)
    segment.write_bytes(kept)
    reader = LedgerReader(tmp_path)
    assert list(reader.records()) == list(reader.traces()) == records
    assert reader.segments() == []
    with Ledger(tmp_path) as ledger:
        ledger.append(trace(3))
    assert not segment.exists()
    assert list(LedgerReader(tmp_path).records()) == [*records, trace(3)]
    assert [path.name for path in LedgerReader(tmp_path).parts()] == ["part-00000.parquet", "part-00001.parquet"]


def test_a_crash_while_sealing_is_finished_later(tmp_path: Path) -> None:
    records = [trace(i) for i in range(3)]
    open_segment(tmp_path, records)
    (tmp_path / ".part-00000.parquet.99.tmp").write_bytes(b"half a part")
    (tmp_path / ".parts.json.99.tmp").write_bytes(b"half a list")
    with Ledger(tmp_path) as ledger:
        assert sorted(ledger.index()) == ["0", "1", "2"]
    assert list(LedgerReader(tmp_path).records()) == records
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "part-00000.parquet", "parts.json"]


STEPS = [(Path, "replace"), (segments, "write_parts"), (Path, "unlink"), (segments, "describe")]


@pytest.mark.parametrize("step", range(12))
def test_a_crash_at_any_step_of_sealing_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before each thing that sealing does to the folder the process dies: the next writer finishes it."""
    records = [trace(i) for i in range(3)]
    write_all(tmp_path, [trace("sealed before")])
    open_segment(tmp_path, records, number=1)
    with monkeypatch.context() as patch:
        count = dying(patch, STEPS, step)
        with contextlib.suppress(DiedError):
            seal(tmp_path / "open-00001.log")
    assert (step >= count()) == (step >= STEPS_OF_SEALING), "as many steps as are tested"
    expected = [trace("sealed before"), *records]
    assert list(LedgerReader(tmp_path).records()) == expected
    with Ledger(tmp_path) as ledger:
        assert len(ledger.index()) == 4
    assert list(LedgerReader(tmp_path).records()) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "part-00000.parquet",
        "part-00001.parquet",
        "parts.json",
    ]
    assert {name: part.traces for name, part in read_parts(tmp_path).items()} == {
        "part-00000.parquet": 1,
        "part-00001.parquet": 3,
    }


STEPS_OF_SEALING = 7
"""Rename and clean-up of the part, its description, the list with its own rename and clean-up, the segment's end."""


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("damage", [b"", b"not a part"], ids=["empty", "other"])
def test_a_part_damaged_before_its_segment_went_is_sealed_again(tmp_path: Path, damage: bytes, listed: bool) -> None:
    records = [trace(i) for i in range(3)]
    segment = open_segment(tmp_path, records)
    kept = segment.read_bytes()
    seal(segment)
    segment.write_bytes(kept)
    (tmp_path / "part-00000.parquet").write_bytes(damage)
    if not listed:
        (tmp_path / "parts.json").unlink()
    with Ledger(tmp_path) as ledger:
        assert sorted(ledger.index()) == ["0", "1", "2"]
    assert put_aside_by_verify(tmp_path) == []
    assert list(LedgerReader(tmp_path).records()) == records
    assert not (tmp_path / "quarantine").exists()


def test_a_part_gone_before_its_segment_went_is_sealed_again(tmp_path: Path) -> None:
    segment = open_segment(tmp_path, [trace(0)])
    kept = segment.read_bytes()
    seal(segment)
    segment.write_bytes(kept)
    (tmp_path / "part-00000.parquet").unlink()
    with Ledger(tmp_path) as ledger:
        assert list(ledger.index()) == ["0"]
    assert list(LedgerReader(tmp_path).records()) == [trace(0)]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    for name in ("open-00000-copy.log", "open-1.log", "notes.txt", "part-1.parquet"):
        (tmp_path / name).write_bytes(b"mine")
    write_all(tmp_path, [trace(0)])
    assert {path.name for path in tmp_path.iterdir() if path.read_bytes() == b"mine"} == {
        "open-00000-copy.log",
        "open-1.log",
        "notes.txt",
        "part-1.parquet",
    }
    assert list(LedgerReader(tmp_path).records()) == [trace(0)]


@pytest.mark.parametrize("sealed", [False, True])
def test_a_whole_record_of_an_unknown_form_is_refused_not_put_aside(tmp_path: Path, sealed: bool) -> None:
    """A newer version may have written it: quarantine would mean buying it again."""
    segment = open_segment(tmp_path, [trace(0)])
    later = {**trace(1).to_json(), "logprobs": [0.5]}
    segment.write_bytes(segment.read_bytes() + encode_line(later))
    if sealed:
        import pyarrow as pa

        pq.write_table(pa.Table.from_pylist([later]), tmp_path / "part-00000.parquet")
        segment.unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match="cannot") as caught:
        list(LedgerReader(tmp_path).records())
    assert "logprobs" in str(caught.value)
    assert next(iter(before)) in str(caught.value)
    if not sealed:
        with pytest.raises(RunError, match="cannot read"):
            Ledger(tmp_path)
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
        FileLock(tmp_path / ".lock", "ledger").acquire().release()
