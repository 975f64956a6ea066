"""Traces of another run taken over by their identity: never bought again or taken twice, the other run untouched."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from http_teacher import HttpTeacher, Said

from distill import pipeline
from distill.errors import RunError, UsageError
from distill.generate.reusing import Reused, reuse
from distill.ledger import Ledger
from distill.rundir import RunDir
from generate.runs import contents, prepared, questions, recipe, records, sampled, tasks


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> RunDir:
    """20 questions, two samples of each; sample 1 of q3 failed."""
    questions(tmp_path / "questions.jsonl", range(20))
    asked = recipe(tmp_path)
    prompts = prepared(asked, RunDir(tmp_path / "source"))
    failing = next(task.key for task in tasks(asked, prompts) if (task.prompt_id, task.sample) == ("q3", 1))
    return sampled(asked, RunDir(tmp_path / "source"), failing=lambda task: task.key == failing)


def test_what_applies_is_taken_and_only_the_rest_is_bought(tmp_path: Path, source: RunDir) -> None:
    """Other questions, one sample more, some of the old ones left out: 39 answers, those of q5 to q19 are wanted."""
    before = contents(source)
    questions(tmp_path / "questions.jsonl", range(5, 30))
    with HttpTeacher(lambda question: Said("4", reasoning="I add."), model="scripted") as teacher:
        asked = recipe(tmp_path, generate__samples=3, generate__url=teacher.url)
        run = prepared(asked, RunDir(tmp_path / "run"))
        assert reuse(source, run, asked) == Reused(answers=39, wanted=30, taken=30)
        assert reuse(source, run, asked) == Reused(answers=39, wanted=30, taken=0)
        assert len(records(run)) == 30
        pipeline.run_recipe(asked, run, last="generate")
        assert len(teacher.chats) == 25 * 3 - 30
    assert contents(source) == before
    theirs = {trace.key: trace for trace in source.ledger().traces()}
    taken = [trace for trace in run.ledger().traces() if trace.key in theirs]
    assert len(taken) == 30
    assert all(trace == theirs[trace.key] for trace in taken)


def test_a_part_of_which_all_is_wanted_is_taken_as_a_file(tmp_path: Path, source: RunDir) -> None:
    with Ledger(source.traces) as ledger:  # a second part, without the failure
        failed = next(trace for trace in ledger.records() if trace.finish_reason == "error")
        ledger.append(replace(failed, finish_reason="stop", error=None, raw="8", revision=1))
    asked = recipe(tmp_path, generate__samples=5)
    run = prepared(asked, RunDir(tmp_path / "run"))
    assert reuse(source, run, asked).taken == 40
    second = source.ledger().parts()[1].stat().st_ino
    assert [part.stat().st_ino == second for part in run.ledger().parts()] == [True, False]
    assert sorted(trace.key for trace in records(run)) == sorted(source.ledger().index()), "each once, no failure"


def test_the_id_is_the_one_that_the_prompt_has_here(tmp_path: Path, source: RunDir) -> None:
    lines = (tmp_path / "questions.jsonl").read_text().replace('"id": "q', '"id": "other')
    (tmp_path / "questions.jsonl").write_text(lines)
    asked = recipe(tmp_path)
    run = prepared(asked, RunDir(tmp_path / "run"))
    assert reuse(source, run, asked).taken == 39
    theirs = {trace.key: trace for trace in source.ledger().traces()}
    for trace in run.ledger().traces():
        assert trace == replace(theirs[trace.key], prompt_id=trace.prompt_id)
        assert trace.prompt_id == theirs[trace.key].prompt_id.replace("q", "other")


def test_a_failure_here_gives_way_and_an_answer_here_stays(tmp_path: Path, source: RunDir) -> None:
    asked = recipe(tmp_path)
    run = sampled(
        asked, RunDir(tmp_path / "run"), text="mine", failing=lambda task: task.sample == 1, left_out=lambda task: False
    )
    assert reuse(source, run, asked) == Reused(answers=39, wanted=39, taken=19)
    traces = list(run.ledger().traces())
    assert (
        sorted(trace.raw == "mine" for trace in traces if trace.finish_reason != "error") == [False] * 19 + [True] * 20
    )
    assert sum(trace.finish_reason == "error" for trace in traces) == 1


def test_the_latest_revision_is_taken(tmp_path: Path, source: RunDir) -> None:
    one = next(source.ledger().traces())
    with Ledger(source.traces) as ledger:
        ledger.append(replace(one, answer="read anew", revision=1))
    asked = recipe(tmp_path, generate__samples=1)
    run = prepared(asked, RunDir(tmp_path / "run"))
    reuse(source, run, asked)
    assert {trace.key: trace for trace in run.ledger().traces()}[one.key].answer == "read anew"


@pytest.mark.parametrize("changed", [{"seed": 3}, {"generate__sampling": {"temperature": 0.1}}])
def test_another_identity_brings_nothing(tmp_path: Path, source: RunDir, changed: dict[str, object]) -> None:
    asked = recipe(tmp_path, **changed)
    run = prepared(asked, RunDir(tmp_path / "run"))
    assert reuse(source, run, asked) == Reused(39, 0, 0)
    assert not run.traces.exists()


def test_a_shard_takes_only_its_own(tmp_path: Path, source: RunDir) -> None:
    asked = recipe(tmp_path, generate__shard="1/2")
    run = prepared(asked, RunDir(tmp_path / "run"))
    taken = reuse(source, run, asked).taken
    assert 0 < taken < 39
    assert {trace.key for trace in records(run)} <= {task.key for task in tasks(asked, run)}


def test_what_cannot_be_reused_is_refused(tmp_path: Path, source: RunDir) -> None:
    asked = recipe(tmp_path)
    with pytest.raises(RunError, match="is no run directory"):
        reuse(RunDir(tmp_path / "nothing"), source, asked)
    with pytest.raises(UsageError, match="names the run itself"):
        reuse(RunDir(tmp_path / "source/../source"), source, asked)
    run = RunDir(tmp_path / "run")
    with pytest.raises(RunError, match=r"has no prompts\.parquet yet"):
        reuse(source, run, asked)
    with pytest.raises(UsageError, match="imported"):
        reuse(source, run, recipe(tmp_path, generate__engine="imported"))
    assert not run.path.exists()


def test_a_run_of_which_nothing_is_left_to_read_is_a_run_all_the_same(tmp_path: Path, source: RunDir) -> None:
    subprocess.run(["rm", "-r", source.traces], check=True)
    asked = recipe(tmp_path)
    run = prepared(asked, RunDir(tmp_path / "run"))
    assert reuse(source, run, asked) == Reused(0, 0, 0)
