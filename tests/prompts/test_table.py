"""A prompts file gone through in order and by row, a few row groups at a time."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill.errors import RunError
from distill.prompts import table
from distill.prompts.table import PromptTable
from distill.records import CodeTest, Prompt


def written(path: Path, prompts: list[Prompt], rows: int) -> PromptTable:
    pq.write_table(Prompt.table(prompts), path, row_group_size=rows)
    return PromptTable(path)


EVERY_KIND = [
    Prompt("plain", answer="1", kind="math", marks=()),
    Prompt("marked", kind="math", answer="2", marks=("multi_part", "proof")),
    Prompt("lettered", kind="choice", choices=("a", "b"), answer="A"),
    Prompt("program", kind="code", tests=(CodeTest("1", "2"),), repeats=3),
    Prompt("open", reasoning="none", domain="d", license="l", language="en", difficulty="5"),
]


def test_what_was_written_is_read_by_row_and_in_order(tmp_path: Path) -> None:
    prompts = EVERY_KIND * 3
    found = written(tmp_path / "p.parquet", prompts, 4)
    assert len(found) == 15
    assert list(found) == prompts
    assert list(found) == prompts, "it may be gone through again"
    assert [found.fetch(row) for row in (14, 0, 4, 3, 7)] == [prompts[row] for row in (14, 0, 4, 3, 7)]


def test_few_row_groups_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "GROUPS_KEPT", 2)
    found = written(tmp_path / "p.parquet", [Prompt(f"q{n}") for n in range(20)], 5)
    for row in (0, 6, 12, 1, 18):
        assert found.fetch(row).question == f"q{row}"
        assert len(found._groups) <= 2


def test_kinds_are_found_without_reading_the_rest(tmp_path: Path) -> None:
    found = written(tmp_path / "p.parquet", EVERY_KIND * 2, 3)
    assert found.kinds() == {"math", "open", "choice", "code"}


def test_a_file_with_an_unknown_kind_or_column_is_refused(tmp_path: Path) -> None:
    rows = Prompt.table([Prompt("a")])
    pq.write_table(rows.set_column(rows.column_names.index("kind"), "kind", [["riddle"]]), tmp_path / "kind.parquet")
    with pytest.raises(RunError, match="cannot be read") as caught:
        list(PromptTable(tmp_path / "kind.parquet"))
    assert "riddle" in str(caught.value) or "kind" in str(caught.value)
    pq.write_table(rows.append_column("colour", [["red"]]), tmp_path / "column.parquet")
    with pytest.raises(RunError, match="cannot be read"):
        list(PromptTable(tmp_path / "column.parquet"))


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    found = written(tmp_path / "p.parquet", EVERY_KIND, 4)
    content = (tmp_path / "p.parquet").read_bytes()
    (tmp_path / "p.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=r"p\.parquet cannot be read") as caught:
        list(found)
    assert "run the prompts stage again" in str(caught.value)
