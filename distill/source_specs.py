"""Specs of prompt sources, and what a recipe says about them: which parts, and how they become the prompts of a run.

Knows nothing about how rows are read or how prompts are checked.
"""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from distill.errors import near
from distill.records import Kind, Prompt, Reasoning, field_names
from distill.strict import Strict

Split = Literal["train", "validation", "test"]
GeneratorName = Literal["arithmetic", "algebra", "counting", "unit-conversion", "programs", "multiple-choice"]
"""Names of the generators in distill/problems/generators.py; a test holds the two equal."""
TestsForm = Literal["apps", "code-contests", "livecodebench", "codeforces", "verifiable-coding"]
"""How a source writes the tests of a program; read by distill/prompts/code_tests.py."""
MARKS = (
    "no_gold",
    "unparseable_gold",
    "multi_part",
    "proof",
    "figure",
    "guessable",
    "bad_choice",
    "no_tests",
    "bad_tests",
)
"""What can make a question hard to verify; distill/prompts/marks.py says when. A test holds the two equal."""

DATA_SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".csv")
"""Files that can be named in place of a source spec, also compressed ones."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Suffix behind that of a file → how it is compressed."""


def _one_or_several(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_several)]
"""One text or a list of them."""
Values = Annotated[tuple[str | bool | int | None, ...], BeforeValidator(_one_or_several)]


class Choices(Strict):
    """Where the choices of a multiple-choice question stand, and which of them is right."""

    columns: Texts
    """A column with the list of choices, or one column for each; dotted names reach inside (`choices.text`)."""
    labels: str | None = None
    """A column with the labels of that list, to which the answer column refers; by default A, B, C…"""
    answer_is: Literal["label", "index", "first"] = "label"
    """What the answer column holds: a label, or a place from 0. `first`: the right choice is that of the first column,
    and all are shuffled by the question's hash."""


class SourceSpec(Strict):
    """Where prompts come from, a built-in generator, a file or a dataset of the Hub, and how its columns map onto a
    prompt's fields."""

    name: str
    description: str = ""
    generator: GeneratorName | None = None
    steps: tuple[int, int] = (1, 4)
    """For the generator `arithmetic`: fewest and most operations in a problem."""
    operators: Literal["+-", "+-*"] = "+-*"
    """For the generator `arithmetic`: the operations that occur."""
    path: str | None = None
    """A JSONL, Parquet or CSV file, or a folder with a copy of the dataset; a relative one lies beside the spec or in
    the working directory."""
    dataset: str | None = None
    """Id on the Hugging Face Hub, such as openai/gsm8k."""
    revision: str | None = None
    """Commit of the dataset, so that the same questions are found again."""
    config: str | None = None
    """Name of the dataset's configuration, where it has several."""
    files: dict[Split, Texts] = {}
    """Split → patterns of the files inside the dataset, such as `data/train-*.parquet`; by default those that the
    dataset's own card names."""
    splits: dict[Split, str] = {}
    """Split → what the dataset calls it, where that differs: `{validation: valid}`."""
    expected_rows: dict[Split, int] = {}
    """Rows in the dataset at this revision: any other number is an error."""
    columns: dict[str, str] = {}
    """Field of a prompt ← column; fields not named take the column of their own name. Dotted names reach inside, as
    in `answer.value`."""
    question: str | None = None
    """A template over the columns, as `{instruction}\\n\\n{context}`, where no single column is the question; empty
    lines of missing columns fall away."""
    only: dict[str, Values] = {}
    """Column → values: other rows are left out."""
    without: dict[str, Values] = {}
    """Column → values: such rows are left out."""
    answer_pattern: str | None = None
    """A regular expression whose first group is the gold answer inside the answer column."""
    answer_in_box: bool = False
    """The gold answer is in the last `\\boxed{}` of the answer column."""
    no_answer: tuple[str, ...] = ()
    """What the answer column says where there is none, as `notfound`; `proof` also marks the question as one."""
    choices: Choices | None = None
    tests: TestsForm | None = None
    """How the column mapped onto `tests`, and onto `solution`, is written."""
    test_columns: Texts = ()
    """Several columns that hold tests, in place of the one mapped onto `tests`."""
    kind: Kind = "math"
    reasoning: Reasoning = "required"
    domain: str | None = None
    license: str | None = None
    language: str | None = None
    benchmark_task: str | None = None
    """For a dataset that the Hub lists as a benchmark: what its own eval.yaml calls the task, under which results show
    on the model's page (https://huggingface.co/docs/hub/eval-results)."""
    source: str | None = None
    """Where the figures above come from."""

    @field_validator("columns")
    @classmethod
    def _known_fields(cls, value: dict[str, str]) -> dict[str, str]:
        fields = field_names(Prompt)
        for name in value:
            if name not in fields:
                raise ValueError(f"a prompt has no field '{name}'{near(name, fields)}")
        return value

    @field_validator("question")
    @classmethod
    def _names_columns(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parts = list(string.Formatter().parse(value))
            except ValueError as error:
                raise ValueError(f"not a template: {error}; a brace of the text itself is doubled, {{{{") from error
            names = [(name, form, convert) for _, name, form, convert in parts if name is not None]
            if not names or any(not name or form or convert for name, form, convert in names):
                raise ValueError(
                    "the template has to name columns in braces, as '{instruction}', and nothing else there"
                )
        return value

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
            if groups < 1:
                raise ValueError("the pattern needs a group around the gold answer, such as '#### (.+)'")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.generator is not None and (self.path is not None or self.dataset is not None):
            raise ValueError("give either generator or path or dataset, not several")
        if self.dataset is not None and self.revision is None:
            raise ValueError("a dataset needs its revision: the commit, as its page on the Hub shows it")
        if not 1 <= self.steps[0] <= self.steps[1]:
            raise ValueError("steps are the fewest and the most operations, such as [1, 4]")
        if self.answer_pattern is not None and self.answer_in_box:
            raise ValueError("give either answer_pattern or answer_in_box, not both")
        return self


class PromptsPart(Strict):
    """One source of a recipe's prompts."""

    source: str
    """Name or path of a source spec, or a data file."""
    path: str | None = None
    """The data file, or the folder with a copy of the dataset, instead of the spec's own."""
    split: Split = "train"
    """For a generator or a dataset; a file holds one split."""
    skip: int = Field(0, ge=0)
    """Leave out this many prompts at the beginning, so that one file can serve training and evaluation."""
    limit: int | None = Field(None, ge=1)
    """At most this many prompts after that, in the source's order."""
    reasoning: Reasoning | None = None
    """Overrides the source's own."""

    @property
    def names_a_file(self) -> bool:
        """Whether `source` is a data file itself instead of a spec."""
        path = Path(self.source)
        return Path(path.stem if path.suffix.lower() in COMPRESSIONS else path.name).suffix.lower() in DATA_SUFFIXES


class Selection(Strict):
    """Prompts with all these properties (any value where none is named), and how many traces are wanted of them."""

    domain: Texts = ()
    difficulty: Texts = ()
    license: Texts = ()
    language: Texts = ()
    kind: Texts = ()
    source: Texts = ()
    """Name of a source spec."""
    count: int | None = Field(None, ge=1)
    """At most this many of them, drawn by chance; by default all."""
    max_repeats: int = Field(1, ge=1)
    """Where fewer than `count` are there, each is sampled up to this many times as often, to make up the count."""


class PrepareSettings(Strict):
    """What happens to prompts before anything is paid for."""

    drop: tuple[str, ...] = ("unparseable_gold", "multi_part", "proof", "figure", "bad_choice", "no_tests", "bad_tests")
    """Marks whose questions are left out: nobody could verify the answers that they get."""
    near_duplicates: bool = True
    """Leave out questions that repeat an earlier one but for wording, names or layout."""
    decontaminate: tuple[PromptsPart, ...] = ()
    """Evaluation sets, beside those of `evaluate.prompts`, whose questions must not be trained on."""
    validate_tests: bool = False
    """Run each programming problem's known solution on its tests, in the sandbox, and leave the problem out where it
    fails (`failed_tests`): what answers are judged by would be wrong. Problems without a known solution stay."""
    languages: Texts = ()
    """ISO 639-1 codes; other languages are left out. Questions too short to tell are kept."""
    licenses: Texts = ()
    """Licences as the source specs name them; others are left out."""
    min_chars: int = Field(1, ge=1)
    max_chars: int = Field(50_000, ge=1)
    """Characters of a question; shorter and longer ones are left out."""
    select: tuple[Selection, ...] = ()
    """Each prompt belongs to the first of these that it fits, and is left out when it fits none."""
    shuffle: bool = True
    """Order the prompts by chance, so that whatever part of them is sampled first is a fair sample."""

    @field_validator("drop")
    @classmethod
    def _known_marks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in MARKS:
                raise ValueError(f"unknown mark '{name}'{near(name, list(MARKS))}; known: {', '.join(MARKS)}")
        return value

    @field_validator("languages")
    @classmethod
    def _codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch("[a-z]{2}", name):
                raise ValueError(f"'{name}' is no ISO 639-1 code, two small letters such as en")
        return value

    @model_validator(mode="after")
    def _some_length(self) -> Self:
        if self.min_chars > self.max_chars:
            raise ValueError("min_chars is above max_chars: no question would be left")
        return self
