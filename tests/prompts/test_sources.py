"""Files of questions: what they map onto, and the mistakes in them, each named with its file and line."""

from __future__ import annotations

import csv
import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import InputError, SpecError, UsageError
from distill.prompts.sources import data_files, prompts_of, read_prompts
from distill.records import CodeTest, Prompt
from distill.source_specs import PromptsPart, SourceSpec

SPEC = SourceSpec(name="s")
MAPPED = SourceSpec(
    name="mapped",
    columns={"question": "problem", "answer": "solution", "id": "nr"},
    answer_pattern="#### (.+)",
    domain="shop",
    license="MIT",
)
ROWS = [
    {"problem": "2 + 2?", "solution": "two and two\n#### 4", "nr": 7, "other": 1.5},
    {"problem": "Wie viele Äpfel, „genau“?", "solution": "#### 1,200", "nr": 8, "other": None},
]


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def spreadsheet(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path, spec: SourceSpec = SPEC) -> list[Prompt]:
    return list(read_prompts(path, spec))


def mistake(path: Path, spec: SourceSpec = SPEC) -> str:
    with pytest.raises(InputError) as caught:
        read(path, spec)
    assert str(path) in caught.value.what
    return str(caught.value)


# --- the three kinds of file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "json", "ndjson", "parquet", "csv", "CSV"])
def test_the_same_rows_give_the_same_prompts_from_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file.{suffix}"
    if suffix == "parquet":
        table(path, ROWS)
    elif suffix.lower() == "csv":
        spreadsheet(path, ROWS)
    else:
        jsonl(path, *ROWS)
    found = read(path, MAPPED)
    assert [(p.id, p.question, p.answer) for p in found] == [
        ("7", "2 + 2?", "4"),
        ("8", "Wie viele Äpfel, „genau“?", "1,200"),
    ]
    assert {(p.kind, p.reasoning, p.domain, p.license, p.source) for p in found} == {
        ("math", "required", "shop", "MIT", "mapped")
    }


def test_columns_of_a_prompts_own_names_need_no_mapping(tmp_path: Path) -> None:
    row = {
        "question": "Which?",
        "kind": "choice",
        "answer": "B",
        "choices": ["one", "two"],
        "reasoning": "optional",
        "domain": "logic",
        "license": "CC0",
    }
    (found,) = read(jsonl(tmp_path / "a.jsonl", row))
    assert found.to_json() == {**found.to_json(), **row, "choices": ("one", "two"), "source": "s"}


@pytest.mark.parametrize(
    ("given", "answer"), [(72, "72"), (7.5, "7.5"), (-3, "-3"), ("007", "007"), (None, None), (math.nan, None)]
)
def test_a_number_may_stand_where_a_text_is_meant(tmp_path: Path, given: Any, answer: str | None) -> None:
    for path in (
        jsonl(tmp_path / "a.jsonl", {"question": "q", "answer": given}),
        table(tmp_path / "a.parquet", [{"question": "q", "answer": given}]),
    ):
        assert read(path)[0].answer == answer


def test_lists_in_a_spreadsheet_are_json(tmp_path: Path) -> None:
    tests = [{"input": "1 2", "output": "3", "function": None}]
    row = {"question": "Add.", "kind": "code", "tests": json.dumps(tests), "choices": '["a", "b"]'}
    (found,) = read(spreadsheet(tmp_path / "a.csv", [row]))
    assert found.tests == (CodeTest("1 2", "3"),)
    assert found.choices == ("a", "b")
    told = mistake(spreadsheet(tmp_path / "b.csv", [{**row, "tests": "none"}]))
    assert "line 2: field 'tests' is text but not a JSON list" in told


def test_a_text_in_a_spreadsheet_may_be_long(tmp_path: Path) -> None:
    csv.field_size_limit(131_072)  # Python's own limit, for the whole process
    (found,) = read(spreadsheet(tmp_path / "a.csv", [{"question": "so " * 60_000}]))
    assert len(found.question) >= 179_999


def test_blank_lines_and_a_byte_order_mark_mean_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "one"}\n\n   \n{"question": "two"}')
    assert [p.question for p in read(path)] == ["one", "two"]
    assert [p.question for p in read(spreadsheet(tmp_path / "a.csv", [{"question": "one"}], "utf-8-sig"))] == ["one"]


def test_a_spreadsheets_cell_may_hold_lines_and_commas(tmp_path: Path) -> None:
    rows = [{"question": 'one,\n"two"', "answer": "1"}, {"question": "three", "answer": ""}]
    assert [(p.question, p.answer) for p in read(spreadsheet(tmp_path / "a.csv", rows))] == [
        ('one,\n"two"', "1"),
        ("three", None),
    ]


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "one"}\n\n{"question": "two"\n')
    told = mistake(path)
    assert "a.jsonl, line 3: not JSON" in told
    assert '{"question": "two"' in told
    assert "one JSON object per line" in told


@pytest.mark.parametrize("line", ["[1, 2]", '"text"', "7", "null"])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"question": "one"}}\n{line}\n')
    assert "line 2: expected a JSON object" in mistake(path)


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"question": "one"}\n{"question": "Größe"}\n'.encode("latin-1"))
    assert "line 2: not UTF-8 at byte 17" in mistake(path)
    path = tmp_path / "a.csv"
    path.write_bytes("question\none\nGröße\n".encode("latin-1"))
    assert "not CSV in UTF-8" in mistake(path)


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "one \\ud83d"}\n')
    assert "line 1: field 'question' holds half a surrogate pair" in mistake(path)


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    told = mistake(jsonl(tmp_path / "a.jsonl", {"problems": "one", "solution": "#### 1", "nr": 1}), MAPPED)
    assert "line 1: there is no column 'problem'; did you mean 'problems'?" in told
    assert "columns here: problems, solution, nr" in told
    told = mistake(jsonl(tmp_path / "b.jsonl", {"text": "one", "answer": "1"}))
    assert "there is no column 'question'" in told
    assert "columns here: text, answer" in told


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_an_empty_question_is_not_called_a_missing_column(tmp_path: Path, empty: str | None) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question": "one", "answer": "1"}, {"question": empty, "answer": "1"})
    assert "line 2: field 'question' is empty" in mistake(path)


def test_an_answer_that_does_not_match_its_pattern_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS[0], {**ROWS[1], "solution": "it is four"})
    told = mistake(path, MAPPED)
    assert "line 2: the answer does not match answer_pattern '#### (.+)'" in told
    assert "it is four" in told


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": 7}, "field 'question' must be str"),
        ({"question": "q", "kind": "maths"}, "field 'kind' must be one of math, numeric"),
        ({"question": "q", "answer": True}, "field 'answer' must be str or null"),
        ({"question": "q", "answer": ["4"]}, "field 'answer' must be str or null"),
        ({"question": "q", "choices": [1]}, "field 'choices' must be str"),
        ({"question": "q", "reasoning": "maybe"}, "field 'reasoning' must be one of"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    assert f"line 1: {told}" in mistake(jsonl(tmp_path / "a.jsonl", row))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_file_without_rows_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"question": pa.array([], pa.string())}), path)
    else:
        path.write_text("question,answer\n" if suffix == "csv" else "\n")
    assert "holds no rows" in mistake(path)


def test_an_unknown_suffix_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("")
    assert "unknown kind of file '.xlsx'" in mistake(tmp_path / "a.xlsx")
    assert "there is no file" in mistake(tmp_path / "b.jsonl")
    assert "there is no file" in mistake(tmp_path)


@pytest.mark.parametrize("line", ["two", "two,2,3", '"two,2'])
def test_a_ragged_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"question,answer\none,1\n{line}\n")
    assert "a.csv, line 3" in mistake(path)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", b"PAR1" + b"\x00" * 50 + b"PAR1"])
def test_a_broken_parquet_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    assert "not a readable Parquet file" in mistake(path)


def test_text_in_a_parquet_file_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pa.array([b"one", b"caf\xe9", b"three"], pa.binary())
    broken = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"question": broken, "answer": ["1", "2", "3"]}), path)
    assert "a.parquet, row 2: not UTF-8" in mistake(path)


def test_json_without_end_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "one", "answer": "1"}\n' + "[" * 100_000 + "\n")
    assert "a.jsonl, line 2: not JSON" in mistake(path)


# --- from a recipe ---------------------------------------------------------------------------------------------------


def test_a_file_may_be_named_in_place_of_a_source(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "mine.jsonl", *({"question": f"q{n}", "answer": str(n)} for n in range(9)))
    part = PromptsPart(source=str(path), limit=3, skip=2, reasoning="none")
    found = list(prompts_of(part, 1))
    assert [p.question for p in found] == ["q2", "q3", "q4"]
    assert {(p.source, p.reasoning) for p in found} == {("mine", "none")}
    assert len(list(prompts_of(PromptsPart(source=str(path), skip=4), 1))) == 5


def test_a_spec_finds_its_file_beside_it_or_is_told_where_it_lies(tmp_path: Path) -> None:
    jsonl(tmp_path / "rows.jsonl", {"q": "beside"})
    elsewhere = jsonl(tmp_path / "other.jsonl", {"q": "told"})
    spec = tmp_path / "mine.yaml"
    spec.write_text("name: mine\npath: rows.jsonl\ncolumns: {question: q}\n")
    assert [p.question for p in prompts_of(PromptsPart(source=str(spec)), 1)] == ["beside"]
    told = PromptsPart(source=str(spec), path=str(elsewhere))
    assert [p.question for p in prompts_of(told, 1)] == ["told"]


def test_a_source_without_a_file_and_an_unknown_source_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the Hugging Face Hub cannot be reached for openai/gsm8k"):
        list(prompts_of(PromptsPart(source="gsm8k"), 1))
    nowhere = tmp_path / "nowhere.yaml"
    nowhere.write_text("name: nowhere\n")
    with pytest.raises(UsageError, match="names no data file"):
        list(prompts_of(PromptsPart(source=str(nowhere)), 1))
    with pytest.raises(SpecError, match="unknown prompt source 'gsm8'; did you mean 'gsm8k'"):
        list(prompts_of(PromptsPart(source="gsm8"), 1))


def test_an_endless_source_needs_a_limit() -> None:
    with pytest.raises(UsageError, match="'arithmetic' is endless") as caught:
        prompts_of(PromptsPart(source="arithmetic"), 0)
    assert "limit: 100" in str(caught.value)


def test_data_files_are_those_that_exist_by_the_place_of_their_part(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"question": "q"})
    gone = PromptsPart(source=str(tmp_path / "gone.jsonl"))
    parts = (PromptsPart(source="arithmetic", limit=1), gone, PromptsPart(source=str(file)))
    assert data_files(parts) == {2: file}


def test_the_built_in_problems_come_as_prompts() -> None:
    part = PromptsPart(source="arithmetic", limit=20)
    found = list(prompts_of(part, 5))
    assert found == list(prompts_of(part, 5))
    assert len({p.id for p in found}) == 20
    assert all(p.kind == "math" and p.answer and p.answer.lstrip("-").isdigit() for p in found)
    test = list(prompts_of(PromptsPart(source="arithmetic", split="test", limit=20), 5))
    assert not {p.question for p in test} & {p.question for p in found}


# --- what a spec or a name gets wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.csv.gz", "ROWS.JSONL.GZ"])
def test_a_compressed_file_may_be_named_in_place_of_a_source(tmp_path: Path, name: str) -> None:
    text = "question,answer\n2 + 2?,4\n" if "csv" in name else '{"question": "2 + 2?", "answer": "4"}\n'
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    (found,) = prompts_of(PromptsPart(source=str(tmp_path / name)), 0)
    assert (found.question, found.answer) == ("2 + 2?", "4")


@pytest.mark.parametrize("settings", [{"only": {"checked": True}}, {"without": {"answer": "4"}}])
def test_rows_that_are_all_left_out_by_the_spec_are_its_fault(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = spreadsheet(tmp_path / "rows.csv", [{"question": "2 + 2?", "answer": "4", "checked": "true"}])
    with pytest.raises(InputError, match="s: all 1 rows are left out by `only` and `without`") as caught:
        read(path, SourceSpec.model_validate({"name": "s", **settings}))
    assert next(iter(settings)) in (caught.value.given or "")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{question", "not a template: expected '}'"),
        ("What?", "has to name columns in braces"),
        ("{} {b}", "has to name columns in braces"),
        ("{question:>10}", "has to name columns in braces"),
        ("{question!r}", "has to name columns in braces"),
    ],
)
def test_a_template_that_is_none_is_refused_with_the_spec(template: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SourceSpec(name="s", question=template)
    assert SourceSpec(name="s", question="{a.b}, {{text}}").question == "{a.b}, {{text}}"
