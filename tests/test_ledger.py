"""The ledger's promises: what it called durable survives kills, full disks and damage, once, in its right revision."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import ledger as ledger_module
from distill.errors import FAILED, DiskFullError, InputError, LockedError, RunError
from distill.files import FileLock
from distill.ledger import (
    COMMIT_RECORDS,
    Entry,
    Ledger,
    LedgerReader,
    Recovery,
    decode_line,
    encode_line,
    mend,
    seal,
    supersedes,
    write_all,
)
from distill.records import Sampling, SamplingRecord, TeacherIdentity, Trace


def trace(key: object, *, revision: int = 0, finish: str = "stop", raw: str | None = None) -> Trace:
    return Trace(
        key=str(key),
        asked="a",
        prompt_id=f"prompt {key}",
        sample=0,
        raw=f"<think>\nreasoning {key} 思考\n</think>\n\n{key}" if raw is None else raw,
        finish_reason=finish,  # type: ignore[arg-type]  # some tests hand in a wrong one
        teacher=TeacherIdentity("m", "r"),
        sampling=SamplingRecord(Sampling(temperature=0.6, seed=1), Sampling(temperature=0.6)),
        revision=revision,
        error="failed" if finish == "error" else None,
    )


def eventually(condition: Callable[[], Any], what: str) -> None:
    """Polls until the condition holds; far beyond any delay that the ledger allows itself, it fails."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def open_segment(folder: Path, records: list[Trace], *, number: int = 0) -> Path:
    """What a writer that was killed leaves behind."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"open-{number:05d}.log"
    path.write_bytes(b"".join(encode_line(record.to_json()) for record in records))
    return path


def quarantined(folder: Path) -> list[Path]:
    return sorted((folder / "quarantine").glob("*"))


# --- writing and reading ---------------------------------------------------------------------------------------------


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    records = [trace(i) for i in range(5)]
    with Ledger(tmp_path) as ledger:
        for record in records[:3]:
            ledger.append(record)
    assert [path.name for path in LedgerReader(tmp_path).parts()] == ["part-00000.parquet"]
    assert LedgerReader(tmp_path).segments() == []
    with Ledger(tmp_path) as ledger:
        assert "2" in ledger
        assert "3" not in ledger
        for record in records[3:]:
            ledger.append(record)
    assert list(LedgerReader(tmp_path).records()) == list(LedgerReader(tmp_path).traces()) == records
    assert [path.name for path in LedgerReader(tmp_path).parts()] == ["part-00000.parquet", "part-00001.parquet"]


def test_an_empty_ledger_leaves_nothing_to_read(tmp_path: Path) -> None:
    with Ledger(tmp_path / "traces"):
        pass
    reader = LedgerReader(tmp_path / "traces")
    assert (list(reader.records()), reader.index(), reader.parts(), reader.segments()) == ([], {}, [], [])
    assert list(LedgerReader(tmp_path / "nowhere").traces()) == []


def test_sealed_parts_are_zstd_parquet_with_the_trace_schema(tmp_path: Path) -> None:
    write_all(tmp_path, [trace(0)])
    with pq.ParquetFile(tmp_path / "part-00000.parquet") as file:
        assert file.schema_arrow.names == Trace.schema().names
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_record_counts_only_once_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "COMMIT_SECONDS", 3600)
    with Ledger(tmp_path) as ledger:
        ledger.append(trace("a"))
        assert "a" not in ledger
        assert list(LedgerReader(tmp_path).records()) == []
        ledger.commit()
        assert "a" in ledger
        assert list(LedgerReader(tmp_path).records()) == [trace("a")]


def test_a_group_is_committed_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "COMMIT_SECONDS", 3600)
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    with Ledger(tmp_path) as ledger:
        for i in range(COMMIT_RECORDS - 1):
            ledger.append(trace(i))
        assert ledger.index() == {}
        monkeypatch.setattr(os, "fsync", fsync)
        ledger.append(trace(COMMIT_RECORDS - 1))
        assert len(ledger.index()) == COMMIT_RECORDS
        assert len(synced) == 2, "the segment once, and its folder because it is new"
        assert len(list(LedgerReader(tmp_path).records())) == COMMIT_RECORDS


def test_a_single_record_is_committed_in_time(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append(trace("a"))
        eventually(lambda: list(LedgerReader(tmp_path).records()) == [trace("a")], "the record on disk")
        eventually(lambda: "a" in ledger, "the record durable")
        ledger.append(trace("b"))
        eventually(lambda: "b" in ledger, "a second group durable")


def test_a_segment_is_sealed_when_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "SEAL_BYTES", 1_000)
    with Ledger(tmp_path) as ledger:
        for i in range(7):
            ledger.append(trace(i))
            ledger.commit()
        assert len(ledger.parts()) >= 2
        assert len(ledger.segments()) <= 1
        assert [record.key for record in ledger.records()] == [str(i) for i in range(7)]
    assert [record.key for record in LedgerReader(tmp_path).traces()] == [str(i) for i in range(7)]


def test_an_index_taken_while_writing_can_be_gone_through(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for i in range(3):
            ledger.append(trace(i))
        ledger.commit()
        seen = []
        for key in ledger.index():
            seen.append(key)
            ledger.append(trace(f"while at {key}"))
            ledger.commit()
        assert seen == ["0", "1", "2"]


def test_nothing_is_taken_after_closing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(trace("a"))
    ledger.close()
    ledger.close()
    with pytest.raises(RunError, match="the ledger is closed"):
        ledger.append(trace("b"))
    assert [record.key for record in LedgerReader(tmp_path).records()] == ["a"]


@pytest.mark.parametrize(
    "bad",
    [
        trace("x", raw="half a pair \ud83e"),
        trace("x", finish="content_filter"),
        trace("x", revision=2**63),
    ],
    ids=["surrogate", "finish_reason", "64 bits"],
)
def test_a_record_that_could_not_be_sealed_is_refused_at_the_door(tmp_path: Path, bad: Trace) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append(trace("a"))
        with pytest.raises(InputError, match="field '"):
            ledger.append(bad)
        ledger.append(trace("b"))
    assert [record.key for record in LedgerReader(tmp_path).traces()] == ["a", "b"]


# --- lines -----------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(json_values, st.data())
def test_lines_round_trip_and_notice_any_change(value: Any, data: st.DataObject) -> None:
    line = encode_line(value)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert decode_line(line) == value
    position = data.draw(st.integers(9, len(line) - 1))
    altered = bytearray(line)
    altered[position] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(altered), line[:position], line[position:]):
        with pytest.raises(ValueError, match=r"checksum|literal|int\(\)"):
            decode_line(damaged)


# --- revisions -------------------------------------------------------------------------------------------------------

ORDERS = [
    ([(0, "stop"), (1, "stop")], 1),
    ([(1, "stop"), (0, "stop")], 0),
    ([(0, "length"), (1, "stop")], 1),
    ([(0, "error"), (1, "stop")], 1),
    ([(0, "stop"), (1, "error")], 0),
    ([(0, "length"), (1, "error"), (2, "error")], 0),
    ([(0, "error"), (1, "error")], 1),
    ([(5, "error"), (0, "stop")], 1),
    ([(0, "stop"), (0, "stop")], 0),
    ([(0, "stop"), (1, "error"), (2, "length")], 2),
]


@pytest.mark.parametrize(("written", "counts"), ORDERS)
@pytest.mark.parametrize("sealed", ["one part", "a part each", "open"])
def test_the_right_revision_counts(tmp_path: Path, written: list[tuple[int, str]], counts: int, sealed: str) -> None:
    records = [
        trace("k", revision=revision, finish=finish, raw=f"text {place}")
        for place, (revision, finish) in enumerate(written)
    ]
    if sealed == "open":
        open_segment(tmp_path, records)
    for group in [records] if sealed == "one part" else [[record] for record in records] if sealed != "open" else []:
        write_all(tmp_path, group)
    reader = LedgerReader(tmp_path)
    assert list(reader.records()) == records
    assert list(reader.traces()) == [records[counts]]
    assert reader.index() == {"k": Entry(*written[counts])}
    with Ledger(tmp_path) as ledger:
        assert ("k" in ledger) == (written[counts][1] != "error")
        assert ledger.next_revision("k") == max(revision for revision, _ in written) + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["stop", "length", "error"])), min_size=1, max_size=6))
def test_no_error_ever_takes_the_place_of_an_answer(history: list[tuple[int, str]]) -> None:
    counting = Entry(*history[0])
    for entry in (Entry(*step) for step in history[1:]):
        if supersedes(entry, counting):
            counting = entry
    answers = [revision for revision, finish in history if finish != "error"]
    assert counting.answered == bool(answers)
    assert counting.revision == max(answers or [revision for revision, _ in history])


def test_the_next_revision_counts_pending_and_failed_ones(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        assert ledger.next_revision("k") == 0
        ledger.append(trace("k"))
        assert ledger.next_revision("k") == 1
        ledger.commit()
        ledger.append(trace("k", revision=1, finish="error"))
        assert ledger.next_revision("k") == 2
        ledger.commit()
        assert ledger.next_revision("k") == 2, "the failure does not count, but its number is taken"
        assert ledger.index()["k"] == Entry(0, "stop")
    with Ledger(tmp_path) as ledger:
        assert ledger.next_revision("k") == 2
        assert ledger.next_revision("other") == 0


# --- kills -----------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_ledger import trace
from distill import ledger as module
module.SEAL_BYTES = 6_000
module.COMMIT_RECORDS = 5
with module.Ledger(Path(sys.argv[1])) as ledger:
    first = pending = int(sys.argv[2])
    for number in range(first, first + 100_000):
        assert f"{number}" not in ledger
        ledger.append(trace(number))
        if number % 7 == 0:
            ledger.commit()
        while pending <= number and f"{pending}" in ledger:
            print(pending, flush=True)
            pending += 1
"""


def test_what_a_killed_writer_called_durable_is_there_once(tmp_path: Path) -> None:
    rng = random.Random(5)
    folder, durable, start = tmp_path / "traces", set[str](), 0
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(folder), str(start), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randint(1, 150)):
                durable.add(writer.stdout.readline().decode().strip())
            writer.kill()
            durable |= {line.decode().strip() for line in writer.stdout if line.endswith(b"\n")}
        assert writer.returncode == -9, "the writer ended by itself"
        recovered = [record.key for record in LedgerReader(folder).records()]
        start = max(map(int, recovered)) + 1
        assert durable <= set(recovered)
    with Ledger(folder) as ledger:
        assert all(key in ledger for key in durable)
    after = list(LedgerReader(folder).records())
    assert durable <= {record.key for record in after}
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
    with Ledger(tmp_path) as ledger:
        assert sorted(ledger.index()) == ["0", "1", "2"]
    assert list(LedgerReader(tmp_path).records()) == records
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "part-00000.parquet"]


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


def damages(part: Path) -> Iterator[bytes]:
    """The part cut, emptied, and with a byte altered in the last page of each column in turn."""
    sound, columns = part.read_bytes(), pq.read_metadata(part).row_group(0)
    yield from (b"", sound[:-20], b"no parquet at all")
    for number in range(columns.num_columns):
        column = columns.column(number)
        start = column.data_page_offset if column.dictionary_page_offset is None else column.dictionary_page_offset
        end = start + column.total_compressed_size
        for place in (end - 1, end - 3):
            yield sound[:place] + bytes([sound[place] ^ 0x01]) + sound[place + 1 :]


def test_a_corrupt_part_is_named_and_never_read_wrongly(tmp_path: Path) -> None:
    write_all(tmp_path, [trace(i) for i in range(20)])
    write_all(tmp_path, [trace("later")])
    part = tmp_path / "part-00000.parquet"
    for damaged in damages(part):
        part.write_bytes(damaged)
        with pytest.raises(RunError, match=r"part-00000\.parquet cannot be read") as caught:
            list(LedgerReader(tmp_path).records())
        assert str(part) in str(caught.value)
    part.write_bytes(b"")
    for use in (LedgerReader(tmp_path).index, lambda: list(LedgerReader(tmp_path).traces()), lambda: Ledger(tmp_path)):
        with pytest.raises(RunError, match=r"part-00000\.parquet cannot be read") as caught:
            use()
        assert str(part) in str(caught.value)
        assert caught.value.exit_code == FAILED
    FileLock(tmp_path / ".lock", "ledger").acquire().release()


# --- one writer ------------------------------------------------------------------------------------------------------

SECOND = """
import sys
from pathlib import Path
from distill.errors import LockedError
from distill.ledger import Ledger
try:
    Ledger(Path(sys.argv[1]))
except LockedError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_second_writer_is_told_who_holds_the_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append(trace("a"))
        ledger.commit()
        with pytest.raises(LockedError, match=f"process {os.getpid()} on ") as caught:
            Ledger(tmp_path)
        assert caught.value.exit_code == FAILED
        command = [sys.executable, "-c", SECOND, str(tmp_path)]
        second = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
        assert second.returncode == 1, second.stderr
        assert "another process is writing to this ledger" in second.stdout
        assert f"held by process {os.getpid()} on " in second.stdout
        ledger.append(trace("b"))
    with Ledger(tmp_path) as ledger:
        assert sorted(ledger.index()) == ["a", "b"]


# --- reading while writing -------------------------------------------------------------------------------------------


def test_a_reader_misses_nothing_while_the_writer_seals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every point where a reader pauses, the writer seals and goes on: durable records are seen, once."""
    monkeypatch.setattr(ledger_module, "SEAL_BYTES", 1)
    monkeypatch.setattr(ledger_module, "READ_ROWS", 1)
    for pause in range(4):
        folder = tmp_path / str(pause)
        write_all(folder, [trace("sealed 1"), trace("sealed 2")])
        with monkeypatch.context() as patch:
            patch.setattr(ledger_module, "SEAL_BYTES", 10**9)
            ledger = Ledger(folder)
            for key in ("open 1", "open 2"):
                ledger.append(trace(key))
            ledger.commit()
        stream = LedgerReader(folder).records()
        seen = [next(stream).key for _ in range(pause)]
        ledger.append(trace("late"))
        ledger.commit()
        assert ledger.segments() == []
        seen += [record.key for record in stream if record.key != "late"]
        assert seen == ["sealed 1", "sealed 2", "open 1", "open 2"], f"paused after {pause}"
        ledger.close()


def test_a_reader_that_listed_a_segment_before_it_was_sealed_reads_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = open_segment(tmp_path, [trace(0)])
    empty = open_segment(tmp_path, [], number=1)
    real = LedgerReader.parts

    def sealing(self: LedgerReader) -> list[Path]:
        listed = real(self)
        for path in (segment, empty):
            if path.exists():
                seal(path)
        return listed

    monkeypatch.setattr(LedgerReader, "parts", sealing)
    assert list(LedgerReader(tmp_path).records()) == [trace(0)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00000.parquet"]


def test_a_reader_in_another_thread_always_sees_what_was_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "SEAL_BYTES", 3_000)
    written, rounds, done = 0, 0, threading.Event()
    failures: list[tuple[int, object]] = []

    def read() -> None:
        nonlocal rounds
        while not done.is_set():
            durable = written
            try:
                keys = [record.key for record in LedgerReader(tmp_path).records()]
                if keys != [str(i) for i in range(len(keys))] or len(keys) < durable:
                    failures.append((durable, keys))
                if len(LedgerReader(tmp_path).index()) < durable:
                    failures.append((durable, "index"))
            except Exception as error:
                failures.append((durable, repr(error)))
            rounds += 1

    with Ledger(tmp_path) as ledger:
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for i in range(60):
                ledger.append(trace(i))
                ledger.commit()
                written = i + 1
            eventually(lambda: rounds >= 5, "a few readings")
        finally:
            done.set()
            reader.join()
    assert failures == []


# --- a full disk -----------------------------------------------------------------------------------------------------


class FullDisk:
    """Stands in for os.write: `room` bytes are taken, then there is no space left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.real = room, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
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
        ledger.append(trace("b"))
        with pytest.raises(DiskFullError, match="the disk is full") as caught:  # noqa: PT012  # whichever comes first
            for key in ("c", "d"):
                ledger.append(trace(key))
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


def test_a_failure_in_the_background_reaches_the_next_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(tmp_path) as ledger:
        disk = FullDisk(monkeypatch, 0)
        ledger.append(trace("a"))
        eventually(lambda: ledger._failure is not None, "the background commit")
        with pytest.raises(DiskFullError):
            ledger.append(trace("b"))
        disk.room = 10**9
        with pytest.raises(DiskFullError):  # whoever samples has to stop, but it is saved
            ledger.append(trace("c"))
        assert sorted(ledger.index()) == ["a", "b", "c"]


def test_closing_on_a_full_disk_says_so_and_gives_the_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(trace("a"))
    ledger.commit()
    ledger.append(trace("b"))
    disk = FullDisk(monkeypatch, 100)
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
        assert 0 < len(durable) <= count
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
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["part-00000.parquet"]


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
