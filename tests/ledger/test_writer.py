"""The ledger's promises: what was appended is read back, once, in its right revision, also while it is written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_material import eventually, open_segment, trace, write_all

from distill.errors import FAILED, LockedError, RunError
from distill.ledger import Entry, Ledger, LedgerReader, lines, parts, reader, segments, supersedes, writer
from distill.ledger.segments import seal
from distill.ledger.writer import COMMIT_RECORDS
from distill.records import Trace

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


def test_a_record_is_written_at_once_and_durable_once_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "COMMIT_SECONDS", 3600)
    with Ledger(tmp_path) as ledger:
        ledger.append(trace("a"))
        assert "a" in ledger
        assert list(LedgerReader(tmp_path).records()) == [trace("a")]
        assert ledger.durable == 0
        ledger.commit()
        assert ledger.durable == 1


class SlowSync:
    """Stands in for os.fsync: counts, notes the thread, and waits until `go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[int] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.real = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        self.threads.add(threading.current_thread().name)
        assert self.go.wait(30)
        self.real(descriptor)
        self.synced.append(descriptor)


def test_a_group_is_synced_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "COMMIT_SECONDS", 3600)
    with Ledger(tmp_path) as ledger:
        sync = SlowSync(monkeypatch)
        sync.go.set()
        for i in range(COMMIT_RECORDS - 1):
            ledger.append(trace(i))
        time.sleep(0.05)
        assert (sync.synced, ledger.durable) == ([], 0)
        ledger.append(trace(COMMIT_RECORDS - 1))
        eventually(lambda: ledger.durable == COMMIT_RECORDS, "the group durable")
        assert len(sync.synced) == 2, "the segment once, and its folder because it is new"


def test_a_slow_sync_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appending, looking up and taking an index go on while a sync hangs; nothing is called durable meanwhile."""
    with Ledger(tmp_path) as ledger:
        sync = SlowSync(monkeypatch)
        for i in range(COMMIT_RECORDS):
            ledger.append(trace(i))
        eventually(lambda: sync.threads, "a sync begun")
        for i in range(COMMIT_RECORDS, 5 * COMMIT_RECORDS):
            ledger.append(trace(i))
            assert str(i) in ledger
            assert ledger.next_revision(str(i)) == 1
        assert len(ledger.index()) == 5 * COMMIT_RECORDS
        assert (ledger.durable, sync.synced) == (0, [])
        sync.go.set()
        eventually(lambda: ledger.durable == 5 * COMMIT_RECORDS, "all of them durable")
        assert sync.threads == {"ledger-commit"}


def test_what_is_written_while_a_sync_runs_waits_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "COMMIT_SECONDS", 3600)
    with Ledger(tmp_path) as ledger:
        sync = SlowSync(monkeypatch)
        for i in range(COMMIT_RECORDS):
            ledger.append(trace(i))
        eventually(lambda: sync.threads, "a sync begun")
        ledger.append(trace("late"))
        sync.go.set()
        eventually(lambda: ledger.durable == COMMIT_RECORDS, "the first group durable")
        time.sleep(0.05)
        assert ledger.durable == COMMIT_RECORDS
        ledger.commit()
        assert ledger.durable == COMMIT_RECORDS + 1


def test_a_single_record_is_durable_in_time(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:

        def durable(count: int) -> bool:
            return ledger.durable == count

        for count in (1, 2):
            ledger.append(trace(count))
            eventually(partial(durable, count), "the record durable")


def test_a_segment_is_sealed_when_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SEAL_BYTES", 1_000)
    with Ledger(tmp_path) as ledger:
        for i in range(7):
            ledger.append(trace(i))
        eventually(lambda: len(ledger.parts()) >= 3 and len(ledger.segments()) <= 1, "segments sealed")
        assert [record.key for record in ledger.records()] == [str(i) for i in range(7)]
    assert [record.key for record in LedgerReader(tmp_path).traces()] == [str(i) for i in range(7)]


def test_sealing_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are taken and made durable while a segment is being sealed, however long that takes."""
    monkeypatch.setattr(writer, "SEAL_BYTES", 1_000)
    monkeypatch.setattr(writer, "MOST_UNSEALED", 1_000)
    go, begun = threading.Event(), threading.Event()

    def slowly(*given: Any) -> None:
        begun.set()
        assert go.wait(30)
        segments.mend_and_seal(*given)

    monkeypatch.setattr(writer, "mend_and_seal", slowly)
    with Ledger(tmp_path) as ledger:
        for i in range(50):
            ledger.append(trace(i))
        assert begun.wait(30)
        eventually(lambda: ledger.durable == 50, "all durable, none sealed")
        assert ledger.parts() == []
        assert [record.key for record in ledger.records()] == [str(i) for i in range(50)]
        go.set()
    assert [record.key for record in LedgerReader(tmp_path).records()] == [str(i) for i in range(50)]
    assert LedgerReader(tmp_path).segments() == []


def test_parts_hold_row_groups_of_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What sealing holds in memory, and reading too, is bounded by bytes, not by records."""
    monkeypatch.setattr(lines, "ROW_GROUP_BYTES", 20_000)
    monkeypatch.setattr(reader, "READ_BYTES", 5_000)
    records = [trace(i, raw=f"{i} " + "x" * 2_000) for i in range(40)]
    write_all(tmp_path, records)
    with pq.ParquetFile(tmp_path / "part-00000.parquet") as file:
        rows = [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)]
    assert len(rows) >= 4
    assert max(rows) <= 10
    sizes: list[int] = []

    def noting(*given: Any) -> Iterator[Any]:
        for batch in parts.batches(*given):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(reader, "batches", noting)
    assert list(LedgerReader(tmp_path).records()) == records
    assert max(sizes) <= 4


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


def test_tokens_are_those_of_the_records_that_count(tmp_path: Path) -> None:
    def paid(key: str, tokens: int | None, **given: Any) -> Trace:
        cut = given.get("finish") == "length"
        ids = {"prompt_ids": (1,), "output_ids": (2,)} if cut else {}
        return replace(trace(key, **given), completion_tokens=tokens, max_tokens=100, **ids)

    with Ledger(tmp_path) as ledger:
        assert ledger.tokens == 0
        for record, total in [
            (paid("a", 40), 40),
            (paid("b", 7, finish="length"), 47),
            (paid("b", 100, revision=1, finish="length"), 140),
            (paid("b", None, revision=2, finish="error"), 140),
            (paid("c", None), 140),
            (paid("d", 5, finish="error"), 145),
            (paid("d", 3, revision=1), 143),
            (paid("a", 40), 143),
        ]:
            ledger.append(record)
            assert ledger.tokens == total
        told = {key: (entry.tokens, entry.unfinished) for key, entry in ledger.index().items()}
        assert told == {"a": (40, False), "b": (100, False), "c": (0, False), "d": (3, False)}
        assert LedgerReader(tmp_path).tokens == 143
        ledger.append(paid("e", 60, finish="length"))
        assert ledger.index()["e"].unfinished
        while_open = dict(LedgerReader(tmp_path).index())
    reader = LedgerReader(tmp_path)
    for index in (while_open, reader.index()):
        told = {key: (entry.tokens, entry.unfinished) for key, entry in index.items()}
        assert told == {"a": (40, False), "b": (100, False), "c": (0, False), "d": (3, False), "e": (60, True)}
        assert index["b"].highest == 2
    with Ledger(tmp_path) as ledger:
        assert ledger.tokens == reader.tokens == 203
        assert ledger.index() == reader.index()


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
        second = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
        assert second.returncode == 1, second.stderr
        assert "another process is writing to this ledger" in second.stdout
        assert f"held by process {os.getpid()} on " in second.stdout
        ledger.append(trace("b"))
    with Ledger(tmp_path) as ledger:
        assert sorted(ledger.index()) == ["a", "b"]


# --- reading while writing -------------------------------------------------------------------------------------------


def all_sealed(ledger: Ledger) -> bool:
    return not ledger.segments()


def test_a_reader_misses_nothing_while_the_writer_seals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every point where a reader pauses, the writer seals and goes on: durable records are seen, once."""
    monkeypatch.setattr(writer, "SEAL_BYTES", 1)
    monkeypatch.setattr(reader, "READ_BYTES", 1)
    for pause in range(4):
        folder = tmp_path / str(pause)
        write_all(folder, [trace("sealed 1"), trace("sealed 2")])
        with monkeypatch.context() as patch:
            patch.setattr(writer, "SEAL_BYTES", 10**9)
            ledger = Ledger(folder)
            for key in ("open 1", "open 2"):
                ledger.append(trace(key))
            ledger.commit()
        stream = LedgerReader(folder).records()
        seen = [next(stream).key for _ in range(pause)]
        ledger.append(trace("late"))
        ledger.commit()
        eventually(partial(all_sealed, ledger), "all of it sealed")
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00000.parquet", "parts.json"]


def test_a_reader_in_another_thread_always_sees_what_was_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SEAL_BYTES", 3_000)
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


def test_a_writer_that_is_faster_than_sealing_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else hundreds of segments lie there after a kill, and the next start has to seal them before anything else."""
    monkeypatch.setattr(writer, "SEAL_BYTES", 2_000)
    monkeypatch.setattr(writer, "MOST_UNSEALED", 2)
    sealing = writer.mend_and_seal
    most = 0

    def slowly(segment: Path, on_recovery: Any) -> None:
        nonlocal most
        most = max(most, len(list(tmp_path.glob("open-*.log"))))
        time.sleep(0.05)
        sealing(segment, on_recovery)

    monkeypatch.setattr(writer, "mend_and_seal", slowly)
    with Ledger(tmp_path) as ledger:
        for number in range(60):
            ledger.append(trace(number))
    assert len(list(LedgerReader(tmp_path).traces())) == 60
    assert 2 <= most <= 2 + 1 + 2, "two that wait, the one being sealed, the open one and one on its way"
