"""The stage around the examination: whom a recipe wants examined, on which problems, and the gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from examine.material import Student, a_student, examinee, recipe
from verify.in_process import InProcess

from distill.errors import InputError, RunError
from distill.evaluate import stage
from distill.examine import examination
from distill.prompts.stage import write_prompts
from distill.records import Prompt
from distill.rundir import RunDir
from distill.specs import Recipe


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "VerifierPool", InProcess)


def test_problems_that_were_trained_on_are_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    write_prompts(run.prompts, [Prompt("What  is\n2?", kind="math", answer="2")])
    with pytest.raises(InputError, match="1 of 4 problems of the evaluation are prompts of this run as well"):
        stage.run(recipe(tmp_path), run)


def test_a_run_without_problems_or_student_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no problems"):
        stage.run(Recipe(name="r"), RunDir(tmp_path / "run"))
    with pytest.raises(RunError, match="there is no student student in this run"):
        stage.run(recipe(tmp_path), RunDir(tmp_path / "run"))


@pytest.mark.parametrize(("bar", "failed"), [(0.5, 0), (0.7, 1), (None, 0)])
def test_a_gate_that_did_not_pass_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bar: float | None, failed: int
) -> None:
    monkeypatch.setattr(stage, "_examinee", lambda name, recipe, run: examinee(Student((4, 3, 2, 0)), name))
    report = stage.run(recipe(tmp_path, min_pass_at_1=bar), RunDir(tmp_path / "run"))
    assert len(report.failed_gates) == failed
    assert report.counts["student"]["pass_at_1"] == pytest.approx(0.5625)
    assert any("56.2%" in line and "4 × 4" in line for line in report.lines)


def test_a_student_in_a_run_is_not_examined_on_what_it_was_trained_on(
    tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    run = RunDir(tmp_path / "run")
    write_prompts(run.prompts, [Prompt("What is 2?", kind="math", answer="2")])
    run.recipe.write_text("name: r\n")
    folder = a_student(run.student, model_folder)
    with pytest.raises(InputError, match="1 of 4 problems of the evaluation are prompts of this run as well"):
        stage.examine_alone(str(folder), None, recipe(tmp_path), tmp_path / "out")


def test_a_students_folder_is_named_after_its_run(tmp_path: Path) -> None:
    (tmp_path / "mine" / "student").mkdir(parents=True)
    assert stage._name_of(tmp_path / "mine" / "student") == "student"
    (tmp_path / "mine" / "recipe.yaml").write_text("name: r\n")
    assert stage._name_of(tmp_path / "mine" / "student") == "mine-student"
