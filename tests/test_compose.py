"""Recipes from command-line options: what is left out stays the run's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill import specs
from distill.compose import changed_recipe, evaluation_recipe, quantize_recipe
from distill.rundir import RunDir, StageState
from distill.show import run_lines


def test_an_examination_takes_the_runs_problems_unless_others_are_named() -> None:
    base = specs.recipe("quickstart")
    own = evaluation_recipe(None, None, 10, [], base)
    assert [(part.source, part.split, part.limit) for part in own.evaluate.prompts] == [("arithmetic-sums", "test", 10)]
    assert (own.evaluate.samples, own.evaluate.max_tokens, own.seed) == (4, 160, base.seed)
    other = evaluation_recipe("arithmetic", 2, 5, ["evaluate.max_tokens=99"], base)
    assert [(part.source, part.split, part.limit) for part in other.evaluate.prompts] == [("arithmetic", "test", 5)]
    assert (other.evaluate.samples, other.evaluate.max_tokens) == (2, 99)
    assert evaluation_recipe(None, None, None, [], base).evaluate == base.evaluate


def test_a_quantization_limits_the_problems_of_a_generator_that_it_names() -> None:
    base = specs.recipe("quickstart")
    other = quantize_recipe(["nf4"], "arithmetic", None, 7, [], base)
    assert [(part.source, part.limit) for part in other.evaluate.prompts] == [("arithmetic", 7)]
    assert quantize_recipe(["nf4"], None, None, 7, [], base).evaluate == base.evaluate


def test_another_student_under_the_overrides_of_the_first_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path)
    run.recipe.write_text(specs.dump(specs.recipe("quickstart", {"student_overrides": {"thinks": True}})))
    for more, told in (([], True), (["student_overrides={}"], False), (["student_overrides.thinks=true"], False)):
        changed_recipe(run, more, {"student": "tiny-llama"})
        assert ("student_overrides hold for tiny-llama too (thinks: True)" in capsys.readouterr().err) == told
    changed_recipe(run, ["train.epochs=1"])
    assert capsys.readouterr().err == "", "the same student"


def test_a_failed_stage_is_shown_with_all_of_its_error(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_stage("train", StageState("failed", "now", "", {}, 0, counts={"error": "what\n  given: this"}))
    lines = list(run_lines(run))
    assert lines[lines.index("    what") + 1] == "      given: this"
