"""Known solutions run on the tests of their problems: which problems are left out, and when nothing is run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distill.errors import InputError, MissingError
from distill.prompts import stage, validation
from distill.prompts.stage import read_prompts
from distill.prompts.validation import validate
from distill.records import CodeTest, Prompt
from distill.rundir import RunDir, StageReport
from distill.source_specs import PrepareSettings, PromptsPart
from distill.specs import Recipe
from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.sandbox import available

DOUBLE = "print(int(input()) * 2)"
STDIN = (CodeTest("1\n", "2\n"), CodeTest("21", "42\n\n"))
CALLS = (CodeTest("[2]", "4", "double"), CodeTest("['ab']", "'abab'", "double"), CodeTest("[(1,)]", "[1, 1]", "double"))
needs_sandbox = pytest.mark.skipif(available().mode is None, reason="no sandbox here")


@needs_sandbox
@pytest.mark.parametrize(
    ("solution", "tests", "outcome"),
    [
        (DOUBLE, STDIN, PASS),
        ('"""Fenced:\n```python\nprint(0)\n```\n"""\n' + DOUBLE, STDIN, PASS),
        ("def double(x):\n    return x * 2", CALLS, PASS),
        ("print(2)", STDIN, failing("wrong_answer")),
        ("def double(x):\n    return x", CALLS, failing("wrong_answer")),
        ("def halve(x): return x", CALLS, failing("no_function")),
        ("raise SystemExit(1)", STDIN, failing("crash")),
        ("import numpy\n" + DOUBLE, STDIN, abstaining("missing_module")),
    ],
)
def test_a_known_solution_is_judged_as_an_answer_would_be(solution: str, tests: Any, outcome: Any) -> None:
    assert validate(Prompt("Double it.", kind="code", tests=tests, solution=solution)) == outcome


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """The prompts whose solutions were run, in this process in the place of worker processes."""
    ran: list[Prompt] = []

    class Here:
        def __init__(self, function: str, **_: object) -> None:
            assert function == validation.VALIDATE

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

        def map(self, items: Iterable[tuple[Prompt]]) -> Iterator[Outcome]:
            for (prompt,) in items:
                ran.append(prompt)
                yield validation.validate(prompt)

    monkeypatch.setattr(validation, "VerifierPool", Here)
    return ran


ROWS: list[dict[str, Any]] = [
    {"question": "Read a number and print its double.", "solution": DOUBLE},
    {"question": "Print the sum of a number and itself, please!", "solution": "print(int(input()) * 2 + 1)"},
    {"question": "Nobody has solved this one so far: what is twice the input?"},
    {"question": "A program that stops halfway: twice as much.", "solution": "int('x')"},
    {"question": "Solved with a library that is not there: two times it.", "solution": "import numpy\n" + DOUBLE},
]


def prepared(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> tuple[RunDir, StageReport]:
    file = folder / "problems.jsonl"
    tests = [{"input": test.input, "output": test.output} for test in STDIN]
    file.write_text("".join(json.dumps({"kind": "code", "tests": tests, **row}) + "\n" for row in rows))
    recipe = Recipe(
        name="r",
        prompts=(PromptsPart(source=str(file)),),
        prepare=PrepareSettings(shuffle=False, near_duplicates=False, **settings),
    )
    run = RunDir(folder / "run")
    return run, stage.run(recipe, run)


@needs_sandbox
def test_a_problem_whose_solution_fails_is_left_out_and_says_why(tmp_path: Path) -> None:
    rows = [*ROWS, {"question": "And this is no program: 1 + 1?", "kind": "math", "answer": "2", "tests": None}]
    run, report = prepared(tmp_path, rows, validate_tests=True)
    assert [prompt.question for prompt in read_prompts(run.prompts)] == [rows[n]["question"] for n in (0, 2, 4, 5)]
    assert report.counts["left_out"] == {"failed_tests": 2}
    told = [(row["place"][-6:], row["reason"], row["detail"]) for row in pq.read_table(run.left_out).to_pylist()]
    assert told == [("line 2", "failed_tests", "wrong_answer"), ("line 4", "failed_tests", "crash")]
    (line,) = (line for line in report.lines if "known solutions" in line)
    assert line.startswith("known solutions of 5 programming problems on their tests: ")
    assert Counter(line.partition(": ")[2].split(", ")) == Counter(
        ("1 passed", "1 wrong_answer", "1 no_solution", "1 crash", "1 missing_module")
    )


@needs_sandbox
@pytest.mark.usefixtures("here")
def test_a_copy_whose_solution_passes_stays_in_the_place_of_the_first(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "solution": "print(1)"}, ROWS[0], ROWS[0]]
    run, report = prepared(tmp_path, rows, validate_tests=True)
    assert report.counts["left_out"] == {"failed_tests": 1, "duplicate": 1}
    assert [prompt.solution for prompt in read_prompts(run.prompts)] == [DOUBLE]


@needs_sandbox
@pytest.mark.usefixtures("here")
def test_where_nothing_is_left_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no prompts left") as caught:
        prepared(tmp_path, [ROWS[1]], validate_tests=True)
    assert caught.value.given == "1 failed_tests (prepare.validate_tests)"


def test_by_default_nothing_is_run(tmp_path: Path, here: list[Prompt]) -> None:
    _, report = prepared(tmp_path, ROWS)
    assert report.counts["prompts"] == 5
    assert not [line for line in report.lines if "known solutions" in line]
    assert here == []


def test_what_is_left_out_for_another_reason_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: list[Prompt]
) -> None:
    monkeypatch.setattr(validation, "validate", lambda prompt: PASS)
    monkeypatch.setattr(validation, "require", lambda: None)
    rows = [{**ROWS[1], "question": "?"}, {**ROWS[3], "tests": []}, ROWS[0]]
    prepared(tmp_path, rows, validate_tests=True, min_chars=9)
    assert [prompt.question for prompt in here] == [ROWS[0]["question"]]


def test_without_a_sandbox_it_refuses_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such/folder")
    monkeypatch.delenv("DISTILL_ALLOW_UNSANDBOXED", raising=False)
    available.cache_clear()
    try:
        with pytest.raises(MissingError, match="programs cannot be verified") as caught:
            prepared(tmp_path, ROWS, validate_tests=True)
        assert "--allow-unsandboxed" in str(caught.value.todo)
        assert not (tmp_path / "run" / "prompts.parquet").exists()
        assert prepared(tmp_path, ROWS)[1].counts["prompts"] == 5
    finally:
        available.cache_clear()


@needs_sandbox
@pytest.mark.usefixtures("here")
def test_the_built_in_problems_pass_their_own_tests(tmp_path: Path) -> None:
    recipe = Recipe(
        name="r", prompts=(PromptsPart(source="programs", limit=5),), prepare=PrepareSettings(validate_tests=True)
    )
    report = stage.run(recipe, RunDir(tmp_path / "run"))
    assert "known solutions of 5 programming problems on their tests: 5 passed" in report.lines
