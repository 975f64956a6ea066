"""A changed recipe, or edited files, for a run with paid traces: goes on where all of them still count, else is refused
with the difference and the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill import pipeline, specs
from distill.errors import DistillError, RunError
from distill.files import write_text
from distill.generate import changed
from distill.generate.changed import differences, leaves
from distill.prompts import stage as prompts_stage
from distill.rundir import RunDir
from generate.runs import contents, questions, recipe, records, sampled


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """12 questions, two samples of each, paid for."""
    questions(tmp_path / "questions.jsonl", range(12))
    return noted(recipe(tmp_path), sampled(recipe(tmp_path), RunDir(tmp_path / "run")))


def noted(asked: specs.Recipe, run: RunDir) -> RunDir:
    """The run with its sampling in the manifest, as after `distill generate`."""
    inputs = pipeline.inputs_of("generate", asked, run)
    state = run.start_stage("generate", asked.section_hash("generate"), asked.decides("generate"), asked.seed, inputs)
    state.state, state.outputs = "done", run.hashes(run.traces)
    run.write_stage("generate", state)
    return run


def adopts(asked: specs.Recipe, run: RunDir) -> None:
    before = set(run.ledger().index())
    pipeline.adopt(asked, run, ("prompts", "generate"))
    assert pipeline.recipe_of(run) == asked
    assert set(run.ledger().index()) == before
    assert not (run.path / changed.SCRATCH).exists()


def refused(asked: specs.Recipe, run: RunDir, *told: str, stages: tuple[str, ...] = ("prompts", "generate")) -> str:
    before = contents(run)
    with pytest.raises(RunError) as caught:
        pipeline.adopt(asked, run, stages)
    assert contents(run) == before, "nothing of the run was touched, and the scratch folder is gone"
    for text in told:
        assert text in str(caught.value), str(caught.value)
    return str(caught.value)


# --- the identity of every trace ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"generate__sampling": {"temperature": 0.3}}, "generate.sampling.temperature: None → 0.3"),
        ({"seed": 4}, "seed: 0 → 4"),
        ({"teacher_overrides": {"system": "Think."}}, "teacher_overrides.system: None → Think."),
        ({"teacher_overrides": {"revision": "2"}}, "teacher_overrides.revision: None → 2"),
        ({"teacher_overrides": {"instruction": {"math": "Box it."}}}, "instruction"),
        ({"teacher_overrides": {"forced_prefix": "<think>\n"}}, "forced_prefix"),
    ],
)
def test_another_identity_is_refused_with_the_count(
    tmp_path: Path, run: RunDir, settings: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts_stage, "run", never)
    text = refused(recipe(tmp_path, **settings), run, "none of the 24 traces paid for would count", told)
    assert "was made by another recipe" in text
    assert f"--reuse {run.path}" in text


def never(*_: object) -> None:
    raise AssertionError("prompts were made where nothing could come of it")


def test_nothing_is_made_where_nothing_differs_or_no_trace_is_concerned(
    tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts_stage, "run", never)
    monkeypatch.setattr(RunDir, "ledger", never)
    adopting = [
        {},
        {"generate__concurrency": 3, "generate__max_attempts": 1, "filter__keep": "all"},
        {"generate__samples": 5},
        {"generate__max_tokens": 5},
        {"generate__until_correct": 1},
        {"generate__continue_truncated": True},
        {"teacher_overrides": {"price": {"prompt": 1, "completion": 2}, "url": "http://127.0.0.1:8/v1"}},
        {"prompts__0__reasoning": "none"},
    ]
    for settings in adopting:
        pipeline.adopt(recipe(tmp_path, **settings), run, ("prompts", "generate"))
        write_text(run.recipe, specs.dump(recipe(tmp_path)))


def test_fewer_samples_are_refused_with_what_would_be_left_out(tmp_path: Path, run: RunDir) -> None:
    text = refused(recipe(tmp_path, generate__samples=1), run, "12 of the 24 traces paid for still apply")
    assert "12 of 12 prompts (" in text
    assert ", …) do not" in text
    assert "generate.samples: 2 → 1" in text


def test_shards(tmp_path: Path, run: RunDir) -> None:
    """A run that has all may not become a part of it; a part may become all."""
    refused(recipe(tmp_path, generate__shard="1/2"), run, "of the 24 traces paid for", "generate.shard: None → 1/2")
    part = recipe(tmp_path, generate__shard="1/2")
    shard = noted(part, sampled(part, RunDir(tmp_path / "shard")))
    refused(recipe(tmp_path, generate__shard="2/2"), shard, "none of the", "generate.shard: 1/2 → 2/2")
    adopts(recipe(tmp_path), shard)


# --- the prompts ----------------------------------------------------------------------------------------------------


def test_more_prompts_keep_every_trace(tmp_path: Path, run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    questions(tmp_path / "more.jsonl", range(20))
    adopts(recipe(tmp_path, prompts__0__source=str(tmp_path / "more.jsonl")), run)
    assert "all 24 traces still apply" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [{"prompts__0__limit": 12}, {"prepare__min_chars": 5}, {"prepare__shuffle": False}, {"prepare__drop": []}],
)
def test_a_setting_that_takes_no_paid_prompt_away_is_adopted(
    tmp_path: Path, run: RunDir, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    adopts(recipe(tmp_path, **settings), run)
    assert "all 24 traces still apply" in capsys.readouterr().err


def test_prompts_that_would_be_left_out_are_counted_and_named(tmp_path: Path, run: RunDir) -> None:
    text = refused(recipe(tmp_path, prompts__0__limit=9), run, "prompts.0.limit: None → 9")
    assert "18 of the 24 traces paid for still apply, 6 of 3 prompts (" in text
    assert all(name in text for name in ("q9", "q10", "q11"))
    assert "q8" not in text
    refused(
        recipe(tmp_path, prepare__min_chars=16), run, "4 of the 24 traces paid for still apply", "min_chars: 1 → 16"
    )


def test_a_limit_may_be_lowered_to_what_was_paid_for(tmp_path: Path) -> None:
    """An interrupted run that wanted more than it came to."""
    questions(tmp_path / "questions.jsonl", range(12))
    asked, late = recipe(tmp_path, prepare__shuffle=False), [f"q{n}" for n in range(5, 12)]
    run = noted(asked, sampled(asked, RunDir(tmp_path / "run"), left_out=lambda task: task.prompt_id in late))
    adopts(recipe(tmp_path, prepare__shuffle=False, prompts__0__limit=5), run)
    refused(recipe(tmp_path, prepare__shuffle=False, prompts__0__limit=4), run, "8 of the 10 traces", "(q4)")


@pytest.mark.parametrize("edited", ["question", "removed"])
def test_an_edited_file_under_the_same_recipe_is_refused_too(tmp_path: Path, run: RunDir, edited: str) -> None:
    path, asked = tmp_path / "questions.jsonl", recipe(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace("What is", "Compute") if edited == "question" else ""
    path.write_text("".join(lines))
    text = refused(asked, run, "22 of the 24 traces paid for still apply, 2 of 1 prompts (q3)")
    assert "was made before its files or specs were edited" in text
    assert "prompts.0.source: questions.jsonl was edited" in text
    with pytest.raises(RunError, match="22 of the 24"):
        pipeline.run_recipe(asked, run, last="generate")
    assert len(records(run)) == 24


def test_a_file_that_got_longer_is_taken(tmp_path: Path, run: RunDir) -> None:
    questions(tmp_path / "questions.jsonl", range(30))
    adopts(recipe(tmp_path), run)


def test_an_answer_that_was_corrected_changes_no_trace(tmp_path: Path, run: RunDir) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(path.read_text().replace('"answer": "6"', '"answer": "7"'))
    adopts(recipe(tmp_path), run)


def test_an_edited_file_concerns_only_a_start_that_makes_prompts_again(tmp_path: Path, run: RunDir) -> None:
    questions(tmp_path / "questions.jsonl", range(3))
    pipeline.adopt(recipe(tmp_path), run, ("filter",))
    pipeline.adopt(recipe(tmp_path), run)
    refused(recipe(tmp_path), run, "6 of the 24")


def test_a_start_that_was_cut_off_in_its_prompts_is_looked_at_again(tmp_path: Path, run: RunDir) -> None:
    """Its state names the new file already, its prompts are the old ones."""
    questions(tmp_path / "questions.jsonl", range(3))
    asked = recipe(tmp_path)
    run.start_stage("prompts", asked.section_hash("prompts"), asked.decides("prompts"), 0,
                    pipeline.inputs_of("prompts", asked, run))  # fmt: skip
    refused(asked, run, "6 of the 24", "the last start of the prompts stage did not end")


def test_an_edited_spec_of_the_source_is_seen(tmp_path: Path) -> None:
    questions(tmp_path / "questions.jsonl", range(12))
    spec = tmp_path / "source.yaml"
    spec.write_text(f"name: mine\npath: {tmp_path}/questions.jsonl\n")
    asked = recipe(tmp_path, prompts__0__source=str(spec))
    run = noted(asked, sampled(asked, RunDir(tmp_path / "run")))
    adopts(asked, run)
    spec.write_text(f"{spec.read_text()}without: {{answer: ['4']}}\n")
    refused(asked, run, "22 of the 24", "source.0.without", "(q2)")


def test_an_edited_spec_of_the_teacher_is_seen(tmp_path: Path, run: RunDir) -> None:
    spec = tmp_path / "scripted.yaml"
    before = spec.read_text()
    spec.write_text(f"{before}instruction: {{math: Box it.}}\n")
    refused(recipe(tmp_path), run, "none of the 24", "teacher.instruction.math: None → Box it.", "edited")
    pipeline.adopt(recipe(tmp_path), run, ("filter",))
    spec.write_text(f"{before}max_tokens: 9\ndescription: words\nprice: {{prompt: 1, completion: 1}}\n")
    adopts(recipe(tmp_path), run)


def test_a_teachers_spec_that_asks_some_prompts_otherwise_is_seen(tmp_path: Path) -> None:
    """What it said before cannot be loaded any more, so every answer counts as wanted."""
    rows = [
        {"question": f"Say {n}.", "id": f"q{n}", "kind": "open" if n < 2 else "exact", "answer": "4"} for n in range(6)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = recipe(tmp_path, filter__checks=["finished"])
    run = noted(asked, sampled(asked, RunDir(tmp_path / "run")))
    spec = tmp_path / "scripted.yaml"
    spec.write_text(f"{spec.read_text()}instruction: {{open: Be brief.}}\n")
    refused(asked, run, "8 of the 12 traces paid for still apply, 4", "teacher.instruction.open: None → Be brief.")


def test_answers_of_which_the_run_itself_wants_none_are_not_passed_over(tmp_path: Path, run: RunDir) -> None:
    """As after new weights in the teacher's old place."""
    spec = tmp_path / "scripted.yaml"
    spec.write_text(spec.read_text().replace("'1'", "'2'"))
    with pytest.raises(RunError, match="none of the 24 traces paid for would count"):
        pipeline.adopt(recipe(tmp_path, prepare__min_chars=2), run)


def test_what_an_evaluation_asks_may_take_prompts_away(tmp_path: Path, run: RunDir) -> None:
    questions(tmp_path / "exam.jsonl", range(2))
    exam = [{"source": str(tmp_path / "exam.jsonl"), "split": "test"}]
    adopts(recipe(tmp_path, evaluate__prompts=exam), run)
    pipeline.run_recipe(recipe(tmp_path, evaluate__prompts=exam), run, last="prompts")
    assert run.stages()["prompts"].counts["prompts"] == 10
    adopts(recipe(tmp_path, evaluate__prompts=exam), run)
    text = refused(recipe(tmp_path, evaluate__prompts=[], prompts__0__limit=9), run, "prompts.0.limit: None → 9")
    assert "14 of the 20 traces" in text, "those that the evaluation took away are no longer counted"


def test_an_evaluation_and_prompts_changed_at_once_are_told_apart(tmp_path: Path, run: RunDir) -> None:
    questions(tmp_path / "exam.jsonl", range(2))
    exam = [{"source": str(tmp_path / "exam.jsonl"), "split": "test"}]
    adopts(recipe(tmp_path, evaluate__prompts=exam, prepare__min_chars=2), run)


def test_a_run_without_answers_takes_any_recipe(tmp_path: Path) -> None:
    questions(tmp_path / "questions.jsonl", range(4))
    run = noted(recipe(tmp_path), sampled(recipe(tmp_path), RunDir(tmp_path / "run"), failing=lambda task: True))
    adopts(recipe(tmp_path, seed=9, prompts__0__limit=1), run)


def test_imported_traces_are_judged_by_settings_alone(tmp_path: Path, run: RunDir) -> None:
    imported = recipe(tmp_path, generate__engine="imported", prompts__0__limit=12)
    write_text(run.recipe, specs.dump(imported))
    questions(tmp_path / "questions.jsonl", range(2))  # a second import writes its file anew
    adopts(imported, run)
    adopts(recipe(tmp_path, generate__engine="imported", prompts__0__limit=20), run)
    refused(recipe(tmp_path, generate__engine="imported", prompts__0__limit=3), run, "prompts.0.limit: 20 → 3")
    refused(recipe(tmp_path, prompts__0__limit=20), run, "generate.engine: imported → None")


def test_a_mistake_in_the_new_prompts_shows_and_nothing_is_adopted(tmp_path: Path, run: RunDir) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps({"question": ""}) + "\n")
    before = contents(run)
    with pytest.raises(DistillError, match="empty"):
        pipeline.adopt(recipe(tmp_path, prompts__0__source=str(tmp_path / "bad.jsonl")), run, ("prompts",))
    assert contents(run) == before


def test_a_scratch_folder_of_a_killed_start_does_not_matter(tmp_path: Path, run: RunDir) -> None:
    (run.path / changed.SCRATCH).mkdir()
    (run.path / changed.SCRATCH / "prompts.parquet").write_text("half")
    adopts(recipe(tmp_path, prompts__0__limit=12), run)


# --- in words -------------------------------------------------------------------------------------------------------


def test_leaves_name_what_differs() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert list(leaves(before, {"a": {"b": 1, "c": [1, 3]}, "d": 1})) == [("a.c.1", 2, 3)]
    assert list(leaves(before, {"a": {"b": 2, "c": [1]}, "d": 1})) == [("a.b", 1, 2), ("a.c", [1, 2], [1])]


def test_differences_say_where_they_come_from(tmp_path: Path, run: RunDir) -> None:
    asked = recipe(tmp_path)
    found = differences(asked, recipe(tmp_path, seed=2), run, ())
    assert (found.prompts, found.asking, found.settings, found.specs) == (
        ("seed: 0 → 2",),
        ("seed: 0 → 2",),
        True,
        False,
    )
    questions(tmp_path / "questions.jsonl", range(3))
    found = differences(asked, asked, run, ("prompts",))
    assert (found.prompts, found.asking, found.settings) == (
        ("prompts.0.source: questions.jsonl was edited",),
        (),
        False,
    )
