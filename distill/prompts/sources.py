"""Prompt sources: a built-in generator or a file of questions, mapped onto prompts. Knows nothing about sampling."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill import specs
from distill.errors import InputError, UsageError, near
from distill.prompts import arithmetic
from distill.prompts.rows import Row, rows, unit_of
from distill.records import Prompt, field_names
from distill.source_specs import PromptsPart, SourceSpec

_LIST_FIELDS = ("choices", "tests")


def prompts_of(part: PromptsPart, seed: int) -> Iterator[Prompt]:
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


def read_prompts(path: Path, spec: SourceSpec) -> Iterator[Prompt]:
    """Prompts of a JSONL, Parquet or CSV file. Raises InputError naming the file, the row and the field."""
    pattern = re.compile(spec.answer_pattern) if spec.answer_pattern else None
    empty = True
    for number, row in rows(path):
        empty = False
        where = f"{path}, {unit_of(path)} {number}"
        try:
            yield _prompt(row, spec, pattern)
        except InputError as error:
            given = error.given or repr(dict(row))[:160]
            raise InputError(f"{where}: {error.what}", given=given, todo=error.todo) from error
    if empty:
        raise InputError(f"{path} holds no rows", todo="give a file with at least one question")


def place_of(prompt: Prompt, parts: Sequence[PromptsPart]) -> str | None:
    """`FILE, line N` of the first row with this prompt's question; None for one that no file holds."""
    for place, path in data_files(parts).items():
        column = _spec_for(parts[place]).columns.get("question", "question")
        for number, row in rows(path):
            if row.get(column) == prompt.question:
                return f"{path}, {unit_of(path)} {number}"
    return None


def data_files(parts: Sequence[PromptsPart]) -> dict[int, Path]:
    """Place of a part → the file it reads, for those that read one which exists."""
    found = {place: (_spec_for(part), part) for place, part in enumerate(parts)}
    files = {place: _data_file(spec, part) for place, (spec, part) in found.items() if spec.generator is None}
    return {place: file for place, file in files.items() if file.is_file()}


def _prompt(row: Row, spec: SourceSpec, pattern: re.Pattern[str] | None) -> Prompt:
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


def _arithmetic(spec: SourceSpec, split: arithmetic.Split, seed: int, reasoning: str) -> Iterator[Prompt]:
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


def _spec_for(part: PromptsPart) -> SourceSpec:
    """A source spec by name; a data file named directly gets a plain spec of its own."""
    path = Path(part.source)
    if part.names_a_file:  # no spec says that its prompts need reasoning, so a plain teacher will do
        return SourceSpec(name=path.stem, path=part.source, reasoning="optional")
    return specs.source(part.source)


def _data_file(spec: SourceSpec, part: PromptsPart) -> Path:
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
