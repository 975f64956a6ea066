"""Sealed parts that are damaged, gone or of an older run, and the list that says what they were."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ledger_material import DiedError, dying, put_aside_by_verify, quarantined, trace, write_all

from distill.errors import FAILED, RunError
from distill.files import FileLock, sha256_file
from distill.ledger import Ledger, LedgerReader, PutAside, lines, parts
from distill.ledger.parts import read_parts


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
        assert "distill generate … --verify" in str(caught.value)
    part.write_bytes(b"")
    reader = LedgerReader(tmp_path)
    for use in (reader.index, lambda: list(reader.traces()), lambda: list(reader.records()), lambda: reader.tokens):
        with pytest.raises(RunError, match=r"part-00000\.parquet cannot be read") as caught:
            use()
        assert str(part) in str(caught.value)
        assert caught.value.exit_code == FAILED
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "part-00000.parquet",
        "part-00001.parquet",
        "parts.json",
    ], "a reader moves nothing"


# --- opening ---------------------------------------------------------------------------------------------------------


def two_parts(folder: Path) -> Path:
    """A ledger of 20 and 1 traces; gives the path of the larger part."""
    write_all(folder, [trace(i) for i in range(20)])
    write_all(folder, [trace("later")])
    return folder / "part-00000.parquet"


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x01
    path.write_bytes(data)


def in_column(part: Path, name: str, *, group: int = 0) -> int:
    """A place in the last page of a column."""
    columns = pq.read_metadata(part).row_group(group)
    (column,) = [c for n in range(columns.num_columns) if (c := columns.column(n)).path_in_schema == name]
    offset = column.dictionary_page_offset or column.data_page_offset
    return int(offset + column.total_compressed_size - 2)


def in_footer(part: Path) -> int:
    return part.stat().st_size - 40


def truncated(part: Path) -> None:
    os.truncate(part, part.stat().st_size - 100)


def grown(part: Path) -> None:
    part.write_bytes(part.read_bytes() + b"more")


def emptied(part: Path) -> None:
    part.write_bytes(b"")


def another(part: Path) -> None:
    """A sound part of the same size is no way to damage one by chance, but a hash tells it too."""
    shutil.copy(part.with_name("part-00001.parquet"), part)


AT_OPENING: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "bytes instead of"),
    "grown": (grown, "bytes instead of"),
    "empty": (emptied, "0 bytes instead of"),
    "another": (another, "bytes instead of"),
    "footer": (lambda part: flip(part, in_footer(part)), "footer was altered"),
    "key": (lambda part: flip(part, in_column(part, "key")), "CRC"),
    "revision": (lambda part: flip(part, in_column(part, "revision")), "CRC"),
    "finish_reason": (lambda part: flip(part, in_column(part, "finish_reason")), "CRC"),
    "completion_tokens": (lambda part: flip(part, in_column(part, "completion_tokens")), "CRC"),
}


@pytest.mark.parametrize(("damage", "reason"), AT_OPENING.values(), ids=AT_OPENING)
def test_opening_puts_a_damaged_part_aside_and_wants_only_its_traces(
    tmp_path: Path, damage: Callable[[Path], None], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    part = two_parts(tmp_path)
    damage(part)
    found = part.read_bytes()
    told: list[PutAside] = []
    with Ledger(tmp_path, on_put_aside=told.append) as ledger:
        assert list(ledger.index()) == ["later"]
        assert ledger.next_revision("3") == 0
        (aside,) = told
        assert (aside.part, aside.traces, aside.kept) == ("part-00000.parquet", 20, 0)
        assert reason in aside.reason
        assert aside.quarantined == tmp_path / "quarantine" / "part-00000.parquet"
        assert aside.quarantined.read_bytes() == found
        for words in ("part-00000.parquet is damaged", "its 20 traces are wanted again", str(aside.quarantined)):
            assert words in str(aside)
        ledger.append(trace("3"))
    reader = LedgerReader(tmp_path)
    assert [record.key for record in reader.records()] == ["later", "3"]
    assert [path.name for path in reader.parts()] == ["part-00001.parquet", "part-00002.parquet"]
    assert set(read_parts(tmp_path)) == {"part-00001.parquet", "part-00002.parquet"}
    assert "damaged" not in capsys.readouterr().err
    with Ledger(tmp_path, on_put_aside=told.append):
        assert len(told) == 1


def test_a_part_put_aside_is_told_even_where_nobody_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truncated(two_parts(tmp_path))
    with Ledger(tmp_path):
        pass
    assert "part-00000.parquet is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["raw", "teacher.model", "sampling.requested.temperature"])
def test_a_damaged_text_is_found_by_verify(tmp_path: Path, column: str) -> None:
    part = two_parts(tmp_path)
    flip(part, in_column(part, column))
    with Ledger(tmp_path) as ledger:
        assert len(ledger.index()) == 21, "opening reads no texts"
        ledger.append(trace("open"))
    (aside,) = put_aside_by_verify(tmp_path)
    assert (aside.part, aside.traces) == ("part-00000.parquet", 20)
    assert "sha256" in aside.reason
    with Ledger(tmp_path) as ledger:
        assert list(ledger.index()) == ["later", "open"]
        ledger.append(trace("3"))
        assert [record.key for record in ledger.traces()] == ["later", "open", "3"]
    assert put_aside_by_verify(tmp_path) == []


@pytest.fixture
def four_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A part of 20 traces in row groups of 5."""
    monkeypatch.setattr(lines, "ROW_GROUP_BYTES", 4 * len(lines.encode_trace(trace(10))) + 1)
    part = two_parts(tmp_path)
    monkeypatch.undo()
    metadata = pq.read_metadata(part)
    assert [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)] == [5, 5, 5, 5]
    return part


@pytest.mark.parametrize("column", ["raw", "key"])
def test_what_is_whole_in_a_damaged_part_is_kept(four_groups: Path, column: str) -> None:
    part, folder = four_groups, four_groups.parent
    flip(part, in_column(part, column, group=2))
    found = part.read_bytes()
    with Ledger(folder, verify=True) as ledger:
        assert set(ledger.index()) == {*map(str, range(10)), *map(str, range(15, 20)), "later"}
    assert put_aside_by_verify(folder) == []
    (aside,) = quarantined(folder)
    assert aside.read_bytes() == found
    expected = [trace(i) for i in (*range(10), *range(15, 20))]
    assert list(LedgerReader(folder).records()) == [*expected, trace("later")]
    assert read_parts(folder)[part.name].traces == 15


@pytest.mark.parametrize("step", range(6))
def test_a_crash_while_putting_aside_loses_nothing_more(
    four_groups: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    part, folder = four_groups, four_groups.parent
    flip(part, in_column(part, "raw", group=0))
    steps = [(Path, "replace"), (parts, "write_parts"), (parts, "describe")]
    with monkeypatch.context() as patch:
        dying(patch, steps, step)
        try:
            Ledger(folder, verify=True).close()
        except DiedError:
            assert step < 5
        else:
            assert step >= 5, "as many steps as are tested: copy, description, list and its replacement, replacement"
    with Ledger(folder, verify=True) as ledger:
        assert set(ledger.index()) == {*map(str, range(5, 20)), "later"}
    assert list(LedgerReader(folder).records()) == [*(trace(i) for i in range(5, 20)), trace("later")]


def test_nothing_is_kept_of_a_part_whose_footer_is_in_doubt(four_groups: Path) -> None:
    flip(four_groups, in_footer(four_groups))
    with Ledger(four_groups.parent, verify=True) as ledger:
        assert list(ledger.index()) == ["later"]


def test_a_number_is_never_given_twice(tmp_path: Path) -> None:
    """A part that was put aside can come back under its name, whatever was sampled since."""
    write_all(tmp_path, [trace("first")])
    part = tmp_path / "part-00000.parquet"
    sound = part.read_bytes()
    truncated(part)
    write_all(tmp_path, [trace("again")])
    assert [path.name for path in LedgerReader(tmp_path).parts()] == ["part-00001.parquet"]
    part.write_bytes(sound)
    with Ledger(tmp_path) as ledger:
        assert list(ledger.index()) == ["first", "again"]
    truncated(part)
    with Ledger(tmp_path) as ledger:
        assert list(ledger.index()) == ["again"]
    assert [path.name for path in quarantined(tmp_path)] == ["part-00000-2.parquet", "part-00000.parquet"]


# --- parts that are gone ---------------------------------------------------------------------------------------------


def test_a_part_that_is_gone_is_not_bought_again_unasked(tmp_path: Path) -> None:
    part = two_parts(tmp_path)
    kept = part.rename(tmp_path / "kept")
    before = sorted(path.name for path in tmp_path.iterdir())
    reader = LedgerReader(tmp_path)
    for use in (
        lambda: Ledger(tmp_path),
        reader.index,
        lambda: list(reader.records()),
        lambda: list(reader.traces()),
        lambda: write_all(tmp_path, [trace("more")]),
    ):
        with pytest.raises(RunError, match=r"20 traces are gone: part-00000\.parquet is not there") as caught:
            use()
        assert "restore it" in str(caught.value)
        assert str(tmp_path / "parts.json") in str(caught.value)
        assert caught.value.exit_code == FAILED
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    kept.rename(part)
    with Ledger(tmp_path) as ledger:
        assert len(ledger.index()) == 21
    part.unlink()
    told = json.loads((tmp_path / "parts.json").read_bytes())
    del told["parts"][part.name]
    (tmp_path / "parts.json").write_text(json.dumps(told))
    with Ledger(tmp_path) as ledger:
        assert list(ledger.index()) == ["later"]


# --- errors of the system --------------------------------------------------------------------------------------------


@dataclass
class Failing:
    """The files of this name fail with an error of the system, when opened, or when read past their first bytes."""

    name: str
    code: int
    reading: bool = False
    seen: list[str] = field(default_factory=list)

    def open(self, path: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
        file = io.open(path, mode, *given, **named)  # noqa: SIM115, UP020  # Path.open is what is replaced
        if path.name != self.name or "r" not in mode or "b" not in mode:
            return file
        self.seen.append(path.name)
        if not self.reading:
            file.close()
            raise OSError(self.code, os.strerror(self.code), str(path))
        return self

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def seek(self, *_: object) -> int:
        return 0

    def read(self, *_: object) -> bytes:
        raise OSError(self.code, os.strerror(self.code))

    def readinto(self, *_: object) -> int:
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("reading", [False, True])
@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_an_error_of_the_system_puts_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reading: bool
) -> None:
    part = two_parts(tmp_path)
    flip(part, in_column(part, "key"))  # even of a part that is damaged too: first it has to be readable
    failing = Failing(part.name, code, reading)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *given, **named: failing.open(path, *given, **named))
        with pytest.raises(RunError, match=r"part-00000\.parquet cannot be read just now") as caught:
            Ledger(tmp_path)
    assert failing.seen
    assert os.strerror(code) in str(caught.value)
    assert quarantined(tmp_path) == []
    assert part.exists()
    FileLock(tmp_path / ".lock", "ledger").acquire().release()


@pytest.mark.parametrize("code", [errno.EIO, None])
def test_errors_of_parquet_are_told_apart_by_their_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    """Without a code it is the content that is wrong, unless its hash says that it is what was written."""
    part = two_parts(tmp_path)
    real = pq.ParquetFile

    def failing(path: Path, **given: Any) -> Any:
        if path == part:
            raise OSError(code, "Input/output error") if code else OSError("Couldn't deserialize thrift")
        return real(path, **given)

    monkeypatch.setattr(pq, "ParquetFile", failing)
    match = "cannot be read just now" if code else "cannot be read, though it is what was written"
    with pytest.raises(RunError, match=match):
        Ledger(tmp_path)
    assert quarantined(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_part_that_may_not_be_read_stays(tmp_path: Path) -> None:
    part = two_parts(tmp_path)
    part.chmod(0)
    with pytest.raises(RunError, match="cannot be read just now"):
        Ledger(tmp_path)
    part.chmod(0o644)
    assert quarantined(tmp_path) == []


def test_a_parquet_file_of_others_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "part-00000.parquet")
    with pytest.raises(RunError, match=r"part-00000\.parquet is no part of a ledger"):
        Ledger(tmp_path)
    assert quarantined(tmp_path) == []


# --- the list --------------------------------------------------------------------------------------------------------


def test_the_list_says_what_each_part_is(tmp_path: Path) -> None:
    part = two_parts(tmp_path)
    told = json.loads((tmp_path / "parts.json").read_bytes())
    assert told["format"] == 1
    assert list(told["parts"]) == ["part-00000.parquet", "part-00001.parquet"]
    entry = told["parts"][part.name]
    assert (entry["bytes"], entry["sha256"], entry["traces"]) == (part.stat().st_size, sha256_file(part), 20)


def older(folder: Path) -> None:
    """Makes a ledger as earlier versions left it: no list, and one part without the newer columns."""
    (folder / "parts.json").unlink()
    part = folder / "part-00000.parquet"
    table = pq.read_table(part)
    pq.write_table(table.drop_columns(["max_tokens", "prompt_ids", "output_ids"]), part, write_page_checksum=True)


def test_parts_of_an_older_run_are_taken_over(tmp_path: Path) -> None:
    two_parts(tmp_path)
    older(tmp_path)
    reader = LedgerReader(tmp_path)
    assert len(reader.index()) == len(list(reader.traces())) == 21
    assert not (tmp_path / "parts.json").exists()
    with Ledger(tmp_path) as ledger:
        assert len(ledger.index()) == 21
        assert {name: part.traces for name, part in read_parts(tmp_path).items()} == {
            "part-00000.parquet": 20,
            "part-00001.parquet": 1,
        }
    assert put_aside_by_verify(tmp_path) == []
    (tmp_path / "part-00000.parquet").unlink()
    with pytest.raises(RunError, match="20 traces are gone"):
        Ledger(tmp_path)


@pytest.mark.parametrize("column", ["key", "raw"])
def test_a_damaged_part_of_an_older_run_is_found_when_it_is_taken_over(tmp_path: Path, column: str) -> None:
    part = two_parts(tmp_path)
    older(tmp_path)
    flip(part, in_column(part, column))
    told: list[PutAside] = []
    with Ledger(tmp_path, on_put_aside=told.append) as ledger:
        assert list(ledger.index()) == ["later"]
    assert [(aside.part, aside.traces) for aside in told] == [(part.name, 20)]


LISTS = {
    "no JSON": b'{"format": 1, "par',
    "empty": b"",
    "a list": b"[]",
    "no parts": b'{"format": 1}',
    "half an entry": b'{"format": 1, "parts": {"part-00000.parquet": {"bytes": 5}}}',
    "a wrong type": b'{"format": 1, "parts": {"part-00000.parquet": '
    b'{"bytes": "5", "sha256": "", "traces": 1, "footer": ""}}}',
    "a wrong name": b'{"format": 1, "parts": {"../x": {"bytes": 5, "sha256": "", "traces": 1, "footer": ""}}}',
}


@pytest.mark.parametrize("damaged", LISTS.values(), ids=LISTS)
def test_a_damaged_list_is_put_aside_and_made_again(tmp_path: Path, damaged: bytes) -> None:
    two_parts(tmp_path)
    sound = read_parts(tmp_path)
    (tmp_path / "parts.json").write_bytes(damaged)
    reader = LedgerReader(tmp_path)
    for use in (reader.index, lambda: list(reader.records())):
        with pytest.raises(RunError, match=r"parts\.json cannot be read"):
            use()
    told: list[PutAside] = []
    with Ledger(tmp_path, on_put_aside=told.append) as ledger:
        assert len(ledger.index()) == 21
    assert [str(aside).split(":")[0] for aside in told] == ["parts.json is damaged"]
    assert told[0].quarantined.read_bytes() == damaged
    assert read_parts(tmp_path) == sound


def test_a_list_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    two_parts(tmp_path)
    later = b'{"format": 2, "parts": []}'
    (tmp_path / "parts.json").write_bytes(later)
    for use in (lambda: Ledger(tmp_path), LedgerReader(tmp_path).index):
        with pytest.raises(RunError, match="a format that this version of distill does not know"):
            use()
    assert (tmp_path / "parts.json").read_bytes() == later


def test_traces_counts_of_a_list_are_checked(tmp_path: Path) -> None:
    """Rows and list disagree though size and footer are right: not what was written together."""
    part = two_parts(tmp_path)
    told = json.loads((tmp_path / "parts.json").read_bytes())
    told["parts"][part.name].update(traces=21, sha256="0" * 64)
    (tmp_path / "parts.json").write_text(json.dumps(told))
    found: list[PutAside] = []
    with Ledger(tmp_path, on_put_aside=found.append) as ledger:
        assert len(ledger.index()) == 21, "what is whole in it is kept"
    assert "20 traces instead of 21" in found[0].reason
    assert list(LedgerReader(tmp_path).records()) == [*(trace(i) for i in range(20)), trace("later")]
