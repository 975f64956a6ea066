"""The prompts stage: one file, each question once, and no prompt that could never be judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError, RunError
from distill.prompts import stage
from distill.prompts.stage import read_prompts, require_gold, unique, write_prompts
from distill.records import CodeTest, Prompt
from distill.rundir import RunDir
from distill.source_specs import PrepareSettings, PromptsPart
from distill.specs import EvaluateSettings, FilterSettings, Recipe


def recipe(tmp_path: Path, *rows: dict[str, Any], **changed: Any) -> Recipe:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Recipe(name="r", prompts=(PromptsPart(source=str(path)),), **changed)


def test_prompts_are_written_in_order_and_read_back(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": str(n)} for n in range(5)]
    run = RunDir(tmp_path / "run")
    report = stage.run(recipe(tmp_path, *rows, rows[1], prepare=PrepareSettings(shuffle=False)), run)
    assert [(p.question, p.answer) for p in read_prompts(run.prompts)] == [(f"q{n}", str(n)) for n in range(5)]
    counts = report.counts
    assert (counts["prompts"], counts["read"], counts["left_out"]) == (5, 6, {"duplicate": 1})
    assert (counts["kinds"], counts["sources"], counts["samples_of_each"]) == ({"math": 5}, {"rows": 5}, 5)
    assert counts["census"]["all"]["prompts"] == counts["census"]["all"]["verifiable"]["math"] == 5
    assert not (run.path / ".prompts").exists(), "the temporary folder is gone"


def test_every_field_survives_the_file(tmp_path: Path) -> None:
    prompts = [
        Prompt("q", "a", "code", "none", None, None, (CodeTest("1", "2", "f"), CodeTest("", "")), "d", "s", "MIT"),
        Prompt("Wo? 思考 \U0001f600", kind="choice", choices=("x", "y")),
    ]
    write_prompts(tmp_path / "p.parquet", prompts)
    assert list(read_prompts(tmp_path / "p.parquet")) == prompts


def test_the_same_run_writes_the_same_bytes(tmp_path: Path) -> None:
    runs = [RunDir(tmp_path / name) for name in "ab"]
    asked = Recipe(name="r", prompts=(PromptsPart(source="arithmetic", limit=30),))
    for run in runs:
        stage.run(asked, run)
    assert runs[0].prompts.read_bytes() == runs[1].prompts.read_bytes()


def test_one_id_for_two_questions_is_an_error(tmp_path: Path) -> None:
    asked = recipe(
        tmp_path, {"id": "7", "question": "one", "answer": "1"}, {"id": "7", "question": "two", "answer": "2"}
    )
    with pytest.raises(InputError, match="two different questions have the id '7'") as caught:
        stage.run(asked, RunDir(tmp_path / "run"))
    rows = tmp_path / "rows.jsonl"
    assert f"{rows}, line 1: 'one' and {rows}, line 2: 'two'" in str(caught.value)
    assert not (tmp_path / "run" / "prompts.parquet").exists()


def test_a_question_under_two_ids_is_asked_once() -> None:
    found = list(unique([Prompt("q", id="a"), Prompt("q", id="b"), Prompt("q", id="c", choices=("x",))]))
    assert [prompt.id for prompt in found] == ["a", "c"], "with choices it is another question"


def test_a_missing_gold_answer_is_refused_where_a_verifier_needs_it(tmp_path: Path) -> None:
    rows = [{"question": "one", "answer": "1"}, {"question": "two"}, {"question": "three", "answer": " "}]
    run = RunDir(tmp_path / "run")
    with pytest.raises(InputError, match="2 prompts of kind math have no gold answer") as caught:
        stage.run(recipe(tmp_path, *rows), run)
    assert f"the first: {tmp_path / 'rows.jsonl'}, line 2" in str(caught.value)
    assert "'two'" in str(caught.value)
    assert f"prepare.drop=[{', '.join(PrepareSettings().drop)}, no_gold]" in str(caught.value), "no other mark is lost"
    dropping = PrepareSettings(drop=("no_gold",))
    assert stage.run(recipe(tmp_path, *rows, prepare=dropping), run).counts["left_out"] == {"no_gold": 2}
    unverified = FilterSettings(checks=("finished", "think_format"))
    assert stage.run(recipe(tmp_path, *rows, filter=unverified), run).counts["prompts"] == 3


@pytest.mark.parametrize("answer", ["null", "nan", "No answer", "?", "-"])
def test_a_word_for_no_answer_is_no_gold_either(tmp_path: Path, answer: str) -> None:
    """A verifier reads some of them as a symbol: sampled for them, every answer would be wrong."""
    rows = [
        {"question": "one", "answer": "1"},
        {"question": "two", "answer": answer},
        {"question": "3", "kind": "open"},
    ]
    with pytest.raises(InputError, match="1 prompts of kind math have no gold answer") as caught:
        stage.run(recipe(tmp_path, *rows, prepare=PrepareSettings(drop=())), RunDir(tmp_path / "run"))
    assert "line 2" in str(caught.value)


def test_an_evaluation_without_gold_is_told_what_helps_there(tmp_path: Path) -> None:
    """prepare.drop and filter.checks are about the prompts of the run alone."""
    (tmp_path / "test.jsonl").write_text('{"question": "two"}\n')
    problems = EvaluateSettings(prompts=(PromptsPart(source=str(tmp_path / "test.jsonl")),))
    with pytest.raises(InputError, match="1 prompts of kind math have no gold answer") as caught:
        stage.run(recipe(tmp_path, {"question": "one", "answer": "1"}, evaluate=problems), RunDir(tmp_path / "run"))
    assert "prepare.drop" not in str(caught.value)
    assert "take these problems out of the evaluation" in str(caught.value)


def test_no_prompts_left_is_an_error(tmp_path: Path) -> None:
    asked = recipe(tmp_path, {"question": "one", "answer": "1"})
    beyond = (asked.prompts[0].model_copy(update={"skip": 5}),)
    with pytest.raises(InputError, match="there are no prompts left") as caught:
        stage.run(asked.model_copy(update={"prompts": beyond}), RunDir(tmp_path / "run"))
    assert "skip 5" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really"])
def test_a_damaged_file_of_the_run_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prompts.parquet"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"prompts\.parquet cannot be read") as caught:
        list(read_prompts(path))
    assert "run the prompts stage again" in str(caught.value)


def test_no_problems_left_to_evaluate_on_is_an_error(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": str(n)} for n in range(4)]
    apart = EvaluateSettings(prompts=(PromptsPart(source=str(tmp_path / "rows.jsonl"), skip=50),))
    asked = Recipe(name="r", prompts=(*recipe(tmp_path, *rows).prompts,), evaluate=apart)
    with pytest.raises(InputError, match="no problems to evaluate on") as caught:
        stage.run(asked, RunDir(tmp_path / "run"))
    assert "skip 50" in str(caught.value)


def test_other_kinds_need_no_gold_answer() -> None:
    tested = Prompt("q", kind="code", tests=(CodeTest("1", "1"),))
    require_gold([Prompt("q", kind="open"), tested, Prompt("q", kind="numeric", answer="1")])
    with pytest.raises(InputError, match="1 programming problems have no tests"):
        require_gold([tested, Prompt("p", kind="code")])


def test_a_recipe_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no prompts"):
        stage.run(Recipe(name="r"), RunDir(tmp_path))


def test_problems_of_the_evaluation_are_no_prompts_of_the_run(tmp_path: Path) -> None:
    asked = recipe(tmp_path, {"question": "one  two", "answer": "1"}, {"question": "three", "answer": "3"})
    (tmp_path / "test.jsonl").write_text(
        '{"question": "one two\\n", "answer": "1"}\n{"question": "four", "answer": "4"}\n'
    )
    part = PromptsPart(source=str(tmp_path / "test.jsonl"))
    both = asked.model_copy(update={"evaluate": EvaluateSettings(prompts=(part,))})
    run = RunDir(tmp_path / "run")
    assert stage.run(both, run).counts["left_out"] == {"contaminated": 1}
    assert [prompt.question for prompt in read_prompts(run.prompts)] == ["three"]
    stage.evaluation_problems(both, read_prompts(run.prompts))
    with pytest.raises(InputError, match="1 of 2 problems of the evaluation are prompts of this run as well"):
        stage.evaluation_problems(both, [Prompt("one two")])


def test_a_problem_that_stands_twice_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text('{"question": "one", "answer": "1"}\n' * 3)
    asked = Recipe(name="r", evaluate=EvaluateSettings(prompts=(PromptsPart(source=str(path)),)))
    assert len(stage.evaluation_problems(asked, ())) == 1
