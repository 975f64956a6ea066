"""One row of a source → one prompt, by the columns, templates and patterns that its spec names.

Knows nothing about files. What a row lacks is either an error that names the column, or a mark on the prompt.
"""

from __future__ import annotations

import json
import math
import random
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from distill.errors import InputError, near
from distill.files import sha256_of
from distill.prompts.rows import Row
from distill.records import Prompt, Reasoning, field_names
from distill.source_specs import SourceSpec
from distill.verify.stated import last_boxed

_FIELDS = tuple(field_names(Prompt))
_PUBLISHED = ("id", "question", "answer")
"""Fields that a published dataset's column of the same name is taken for; its `solution` or `source` is another's."""
_LIST_FIELDS = ("choices", "tests")
_PARAGRAPHS = re.compile(r"\n\s*\n\s*\n+")
_FUNCTIONS = "metadata"
"""LiveCodeBench's column that names the function to call, as JSON."""
PROOF = "proof"
"""What an answer column says where a proof was asked for, and the mark of such a question."""


class MissingColumn(InputError):
    """The rows do not have a column that the spec names: a mistake of the spec, not of a row."""


class Mapper:
    """Turns rows of one source into prompts. `qualify` goes before the ids of the rows, where they are unique among
    those of one split alone."""

    def __init__(self, spec: SourceSpec, *, reasoning: Reasoning | None = None, qualify: str = "") -> None:
        self.spec, self.qualify = spec, qualify
        self.reasoning = reasoning or spec.reasoning
        self._pattern = re.compile(spec.answer_pattern) if spec.answer_pattern else None
        self._template = [part for _, part, _, _ in string.Formatter().parse(spec.question or "") if part]
        self._own_names = _FIELDS if spec.dataset is None else _PUBLISHED
        self._choice_fields = () if spec.choices is None else spec.choices.columns

    @property
    def columns(self) -> set[str]:
        """Top-level columns that are read, where a file can leave out others."""
        spec = self.spec
        named = [
            *spec.columns.values(),
            *self._own_names,
            *self._template,
            *spec.only,
            *spec.without,
            *spec.test_columns,
            *([_FUNCTIONS] if spec.tests == "livecodebench" else []),
        ]
        named += [*self._choice_fields, *([spec.choices.labels] if spec.choices and spec.choices.labels else [])]
        return {*named, *(name.partition(".")[0] for name in named)}

    def prompt(self, row: Row) -> Prompt | None:
        """The prompt of a row, None when `only` or `without` leave it out. Raises InputError naming field or column."""
        spec = self.spec
        if any(self._value(row, name) not in wanted for name, wanted in spec.only.items()):
            return None
        if any(self._value(row, name) in unwanted for name, unwanted in spec.without.items()):
            return None
        values, marks = self._fields(row), []
        if spec.question is not None:
            values["question"] = self._from_template(row)
        _require_question(values, spec, row)
        for field in ("id", "answer", "difficulty"):
            _number_as_text(values, field)
        if spec.choices is not None:
            self._choose(values, row)
        marks += self._gold(values)
        marks += self._tests(values, row)
        for field in _LIST_FIELDS:
            if isinstance(values.get(field), str):
                values[field] = _parsed_list(values[field], field)
        if marks:
            values["marks"] = tuple(dict.fromkeys((*(values.get("marks") or ()), *marks)))
        if values.get("id"):
            values["id"] = f"{self.qualify}{values['id']}"
        return Prompt.from_json(values)

    def _fields(self, row: Row) -> dict[str, Any]:
        spec = self.spec
        values: dict[str, Any] = {
            "kind": spec.kind,
            "reasoning": self.reasoning,
            "domain": spec.domain,
            "license": spec.license,
            "language": spec.language,
            "source": spec.name,
        }
        for field in _FIELDS:
            if field in spec.columns:
                value = self._value(row, spec.columns[field])
            else:
                value = row.get(field) if field in self._own_names else None
            if value is not None:
                values[field] = value
        return values

    def _value(self, row: Row, column: str) -> Any:
        """A column by its name, or what a dotted name reaches inside it; None where that part of it is not there."""
        if column in row:
            return row[column]
        head, _, rest = column.partition(".")
        if not rest or head not in row:
            raise MissingColumn(
                f"there is no column '{column}'{near(column, list(row))}", todo=f"columns here: {', '.join(row)}"
            )
        value = row[head]
        for name in rest.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def _from_template(self, row: Row) -> str:
        texts = {}
        for name in self._template:
            value = self._value(row, name)
            texts[name] = "" if value is None else str(value)
        filled = _filled(self.spec.question or "", texts)
        return _PARAGRAPHS.sub("\n\n", filled).strip()

    def _choose(self, values: dict[str, Any], row: Row) -> None:
        """The choices, and the answer as the letter of the right one."""
        settings = self.spec.choices
        assert settings is not None
        found = [self._value(row, name) for name in settings.columns]
        if len(found) == 1 and isinstance(found[0], str):
            found = [_parsed_list(found[0], "choices")]
        choices = list(found[0]) if len(found) == 1 and isinstance(found[0], Sequence) else found
        given = values.get("answer")
        if settings.answer_is == "first":
            right, order = 0, list(range(len(choices)))
            random.Random(sha256_of(values["question"])).shuffle(order)
            choices, right = [choices[place] for place in order], order.index(0)
        elif settings.answer_is == "index":
            right = int(given) if given is not None and str(given).isdigit() else -1
        else:
            labels = self._value(row, settings.labels) if settings.labels else None
            known = [str(label) for label in labels or string.ascii_uppercase[: len(choices)]]
            right = known.index(str(given)) if str(given) in known else -1
        if 0 <= right < len(choices):
            if choices[right] is None:
                raise InputError("the choice that is called right is empty")
            given = string.ascii_uppercase[sum(choice is not None for choice in choices[:right])]
        values["choices"] = [str(choice) for choice in choices if choice is not None]
        values["answer"] = given

    def _gold(self, values: dict[str, Any]) -> list[str]:
        """Takes the gold answer out of its column; returns the marks of one that is not there."""
        spec, answer = self.spec, values.get("answer")
        if answer is None:
            return []
        if isinstance(answer, str) and answer.strip() in spec.no_answer:
            del values["answer"]
            return [PROOF if answer.strip().lower() == PROOF else "no_gold"]
        if spec.answer_in_box:
            boxed = last_boxed(str(answer))
            values["answer"] = boxed.strip() if boxed and boxed.strip() else None
            return [] if values["answer"] else ["no_gold"]
        if self._pattern is not None:
            values["answer"] = _buried_answer(str(answer), self._pattern)
        return []

    def _tests(self, values: dict[str, Any], row: Row) -> list[str]:
        """Tests and solution of a program, as the source writes them; unreadable tests are a mark, no error."""
        from distill.prompts.code_tests import read_tests
        from distill.prompts.solutions import first_python

        form = self.spec.tests
        if form is None:
            return []
        if values.get("solution") is not None:
            values["solution"] = first_python(values["solution"], form)
        found = [self._value(row, name) for name in self.spec.test_columns] or [values.pop("tests", None)]
        values.pop("tests", None)
        try:
            function = _function(row) if form == "livecodebench" else None
            tests = [
                test for value in found if value is not None for test in read_tests(value, form, function=function)
            ]
        except InputError:
            return ["bad_tests"]
        values["tests"] = [test.to_json() for test in tests] or None
        return []


def _require_question(values: dict[str, Any], spec: SourceSpec, row: Row) -> None:
    column = spec.columns.get("question", "question")
    if "question" in values and not isinstance(values["question"], str | None):
        return  # from_json names the type
    if not (values.get("question") or "").strip() and (column in row or spec.question is not None or "." in column):
        raise InputError("field 'question' is empty")
    if "question" not in values:
        raise MissingColumn(
            "there is no column 'question'",
            todo=f"name it in the source spec, `columns: {{question: COLUMN}}`; columns here: {', '.join(row)}",
        )


def _function(row: Row) -> str | None:
    try:
        name = json.loads(row.get(_FUNCTIONS) or "{}").get("func_name")
    except (ValueError, AttributeError) as error:
        raise InputError(f"column '{_FUNCTIONS}' is no JSON object") from error
    return name if isinstance(name, str) else None


def _filled(template: str, texts: Mapping[str, str]) -> str:
    """The template with its columns' texts; braces inside those mean nothing."""
    parts = []
    for literal, name, _, _ in string.Formatter().parse(template):
        parts += [literal, texts[name] if name else ""]
    return "".join(parts)


def _number_as_text(values: dict[str, Any], field: str) -> None:
    if isinstance(values.get(field), int | float) and not isinstance(values[field], bool):
        number = values.pop(field)
        if math.isfinite(number):  # NaN is how some programs write that there is none
            values[field] = json.dumps(number)


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
