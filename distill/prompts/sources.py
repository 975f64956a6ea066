"""Prompt sources: a built-in generator or a file of questions, mapped onto prompts. Knows nothing about sampling."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill import specs
from distill.errors import InputError, UsageError, near
from distill.prompts import arithmetic
from distill.records import Prompt, field_names

Row = Mapping[str, Any]
_LIST_FIELDS = ("choices", "tests")


def prompts_of(part: specs.PromptsPart, seed: int) -> Iterator[Prompt]:
    """The prompts of one part of a recipe, in the source's order: at most `part.limit` after `part.skip`.

    Raises InputError naming file and row, SpecError for an unknown source.
    """
    spec = _spec_for(part)
    reasoning = part.reasoning or spec.reasoning
    if spec.generator == "arithmetic":
        if part.limit is None:
            raise UsageError(
                f"the source '{spec.name}' is endless", todo="say how many problems: `limit: 100`, or --limit 100"
            )
        stream = _arithmetic(spec, part.split, seed, reasoning)
    else:
        stream = read_prompts(_data_file(spec, part), spec.model_copy(update={"reasoning": reasoning}))
    return itertools.islice(stream, part.skip, None if part.limit is None else part.skip + part.limit)


def read_prompts(path: Path, spec: specs.SourceSpec) -> Iterator[Prompt]:
    """Prompts of a JSONL, Parquet or CSV file. Raises InputError naming the file, the row and the field."""
    pattern = re.compile(spec.answer_pattern) if spec.answer_pattern else None
    empty = True
    for number, row in rows(path):
        empty = False
        where = f"{path}, {_unit(path)} {number}"
        try:
            yield _prompt(row, spec, pattern)
        except InputError as error:
            given = error.given or repr(dict(row))[:160]
            raise InputError(f"{where}: {error.what}", given=given, todo=error.todo) from error
    if empty:
        raise InputError(f"{path} holds no rows", todo="give a file with at least one question")


def place_of(prompt: Prompt, parts: Sequence[specs.PromptsPart]) -> str | None:
    """`FILE, line N` of the first row with this prompt's question; None for one that no file holds."""
    for place, path in data_files(parts).items():
        column = _spec_for(parts[place]).columns.get("question", "question")
        for number, row in rows(path):
            if row.get(column) == prompt.question:
                return f"{path}, {_unit(path)} {number}"
    return None


def _unit(path: Path) -> str:
    return "row" if path.suffix == ".parquet" else "line"


def data_files(parts: Sequence[specs.PromptsPart]) -> dict[int, Path]:
    """Place of a part → the file it reads, for those that read one which exists."""
    found = {place: (_spec_for(part), part) for place, part in enumerate(parts)}
    files = {place: _data_file(spec, part) for place, (spec, part) in found.items() if spec.generator is None}
    return {place: file for place, file in files.items() if file.is_file()}


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(1-based line or row number, columns) of a file, by its suffix: .jsonl, .json, .parquet, .csv."""
    if not path.is_file():
        raise InputError(
            f"there is no file {path}", todo="check the path (a relative one starts at the working directory)"
        )
    readers = {".jsonl": _jsonl, ".json": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown kind of file '{path.suffix}'", todo=f"use one of {', '.join(readers)}")
    return reader(path)


def _jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: not UTF-8 at byte {error.start + 1}", todo="convert the file to UTF-8"
                ) from error
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path}, line {number}: not JSON: {error}",
                    given=repr(line[:80].decode("utf-8", "replace")),
                    todo="write one JSON object per line",
                ) from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
            yield number, row


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 1
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1_024):
                yield from enumerate(_rows_of(batch, path, first), start=first)
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {str(error)[:200]}") from error


def _rows_of(batch: Any, path: Path, first: int) -> list[Row]:
    """Raises InputError naming the first row whose text is not UTF-8: Parquet itself does not look."""
    try:
        found: list[Row] = batch.to_pylist()
        return found
    except UnicodeDecodeError as error:
        for place in range(batch.num_rows):
            try:
                batch.slice(place, 1).to_pylist()
            except UnicodeDecodeError:
                raise InputError(f"{path}, row {first + place}: not UTF-8", todo="convert the text to UTF-8") from error
        raise


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    width = len(reader.fieldnames or [])
                    raise InputError(f"{path}, line {reader.line_num}: not the {width} columns that the header has")
                yield reader.line_num, {name: value if value != "" else None for name, value in row.items()}
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}, line {reader.line_num + 1}: not CSV in UTF-8: {error}") from error


def _prompt(row: Row, spec: specs.SourceSpec, pattern: re.Pattern[str] | None) -> Prompt:
    defaults = {"kind": spec.kind, "reasoning": spec.reasoning, "domain": spec.domain, "license": spec.license}
    values: dict[str, Any] = {**defaults, "source": spec.name}
    for field in field_names(Prompt):
        column = spec.columns.get(field, field)
        if column in row and row[column] is not None:
            values[field] = row[column]
        elif field in spec.columns and column not in row:
            raise InputError(
                f"there is no column '{column}'{near(column, list(row))}", todo=f"columns here: {', '.join(row)}"
            )
    if "question" not in values and spec.columns.get("question", "question") in row:
        raise InputError("field 'question' is empty")
    if "question" not in values:
        raise InputError(
            "there is no column 'question'",
            todo=f"name it in the source spec, `columns: {{question: COLUMN}}`; columns here: {', '.join(row)}",
        )
    for field in ("id", "answer"):
        if isinstance(values.get(field), int | float) and not isinstance(values[field], bool):
            number = values.pop(field)
            if math.isfinite(number):  # NaN is how some programs write that there is none
                values[field] = json.dumps(number)
    for field in _LIST_FIELDS:
        if isinstance(values.get(field), str):
            values[field] = _parsed_list(values[field], field)
    if pattern is not None and values.get("answer") is not None:
        values["answer"] = _buried_answer(str(values["answer"]), pattern)
    return Prompt.from_json(values)


def _parsed_list(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"field '{field}' is text but not a JSON list", given=repr(text[:80])) from error


def _buried_answer(text: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(text)
    if match is None or match.group(1) is None:
        raise InputError(
            f"the answer does not match answer_pattern '{pattern.pattern}'",
            given=repr(text[-80:]),
            todo="mend the row or the pattern in the source spec",
        )
    return match.group(1).strip()


def _arithmetic(spec: specs.SourceSpec, split: arithmetic.Split, seed: int, reasoning: str) -> Iterator[Prompt]:
    for problem in arithmetic.problems(split, seed, steps=spec.steps, operators=spec.operators):
        yield Prompt.from_json(
            {
                "question": problem.question,
                "kind": "math",
                "reasoning": reasoning,
                "answer": str(problem.result),
                "domain": spec.domain,
                "source": spec.name,
                "license": spec.license,
            }
        )


def _spec_for(part: specs.PromptsPart) -> specs.SourceSpec:
    """A source spec by name; a data file named directly gets a plain spec of its own."""
    path = Path(part.source)
    if part.names_a_file:  # no spec says that its prompts need reasoning, so a plain teacher will do
        return specs.SourceSpec(name=path.stem, path=part.source, reasoning="optional")
    return specs.source(part.source)


def _data_file(spec: specs.SourceSpec, part: specs.PromptsPart) -> Path:
    given = part.path or spec.path
    if given is None:
        raise UsageError(
            f"the source '{spec.name}' names no data file",
            todo="say where it lies: `path:` in the recipe's prompts, or --set prompts.0.path=FILE",
        )
    if part.path is None and not part.names_a_file:
        beside = specs.find("data", part.source).parent / given
        if beside.is_file():
            return beside
    return Path(given)
