"""The training stage on a hand-made kept folder: a student at the end, an honest error where there is nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill import specs
from distill.contract import Response
from distill.errors import RunError, TrainingError
from distill.rundir import RunDir
from distill.train import stage
from distill.train.encoding import Census
from train.material import spec
from train.test_encoding import keep


@pytest.fixture
def recipe(tmp_path: Path) -> specs.Recipe:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(spec().model_dump(mode="json", exclude_none=True)))
    settings = specs.TrainSettings(precision="fp32", epochs=1, batch_size=4, context_length=64)
    return specs.Recipe(name="r", student=str(path), train=settings)


def kept(run: RunDir, replies: list[str]) -> RunDir:
    keep(run.kept, replies)
    keep(run.kept, [Response("one", "1").render()], split="heldout")
    return run


def test_a_student_is_trained_and_says_on_what(tmp_path: Path, recipe: specs.Recipe) -> None:
    replies = [Response(f"{n} and {n}", str(2 * n)).render() for n in range(10)]
    run = kept(RunDir(tmp_path / "run"), [*replies, Response("9 " * 80, "1").render()])
    report = stage.run(recipe, run)
    counts: dict[str, Any] = report.counts
    assert (counts["traces"], counts["too_long"], counts["steps"], counts["resumed_at"]) == (10, 1, 3, 0)
    assert counts["longest"] > 64
    assert counts["heldout_loss"] > 0
    facts = json.loads((run.student / "distill.json").read_text(encoding="utf-8"))
    assert facts["student"] == "tiny"
    assert facts["contract"]["hash"] == spec().contract.hash
    assert (run.untrained / "model.safetensors").read_bytes() != (run.student / "model.safetensors").read_bytes()
    assert not run.checkpoints.exists()
    assert [json.loads(line)["stage"] for line in run.metrics.read_text().splitlines()]


def test_the_same_run_trains_the_same_student(tmp_path: Path, recipe: specs.Recipe) -> None:
    replies = [Response(f"{n} and {n}", str(2 * n)).render() for n in range(6)]
    runs = [kept(RunDir(tmp_path / name), replies) for name in "ab"]
    for run in runs:
        stage.run(recipe, run)
    assert len({(run.student / "model.safetensors").read_bytes() for run in runs}) == 1


def test_short_traces_on_a_cpu_get_the_attention_that_is_fast_for_them(tmp_path: Path) -> None:
    short, long = Census(100, 0, 100 * 133, 300), Census(100, 0, 100 * 700, 900)
    assert stage.attention_for("cpu", short) == "eager"
    assert {stage.attention_for(*case) for case in (("cpu", long), ("cuda", short), ("cuda", long))} == {"sdpa"}


def test_the_students_folder_says_nothing_of_how_its_attention_was_computed(
    tmp_path: Path, recipe: specs.Recipe
) -> None:
    run = kept(RunDir(tmp_path / "run"), [Response("one", "1").render()])
    stage.run(recipe, run)
    assert "attn" not in (run.student / "config.json").read_text()


@pytest.mark.parametrize(
    ("replies", "given"),
    [([], "no kept traces"), ([Response("9 " * 80, "1").render()] * 2, "2 kept traces, all longer than")],
)
def test_nothing_to_train_on_is_an_honest_error(
    tmp_path: Path, recipe: specs.Recipe, replies: list[str], given: str
) -> None:
    from distill.filter.stage import write_kept

    run = RunDir(tmp_path / "run")
    write_kept(run.kept, [], [])
    if replies:
        keep(run.kept, replies)
    with pytest.raises(TrainingError, match="nothing to train on") as caught:
        stage.run(recipe, run)
    assert given in str(caught.value)
    assert not run.student.exists()


def test_a_run_that_was_not_filtered_says_so(tmp_path: Path, recipe: specs.Recipe) -> None:
    with pytest.raises(RunError, match="no kept traces"):
        stage.run(recipe, RunDir(tmp_path / "run"))
