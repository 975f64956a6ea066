"""The training stage on a hand-made kept folder: a student at the end, an honest error where there is nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TOKENIZER
from distill.train.encoding import Census

from distill import specs
from distill.contract import Response
from distill.errors import RunError, TrainingError
from distill.rundir import RunDir
from distill.train import checkpoints, stage
from distill.train.loop import Job, Result
from train.material import keep, spec


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


def test_heldout_traces_measure_and_are_counted(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = RunDir(tmp_path / "run")
    keep(run.kept, [Response(f"{n} and {n}", str(2 * n)).render() for n in range(8)])
    strange = [Response("9 8 7 6 5", "zyx").render(), Response("9 " * 80, "1").render()]
    keep(run.kept, strange, split="heldout")
    counts = stage.run(long_enough(recipe), run).counts
    assert (counts["traces"], counts["heldout"], counts["heldout_too_long"]) == (8, 1, 1)
    assert counts["heldout_loss"] > counts["loss"] + 0.2, "never seen, and it shows"


def long_enough(recipe: specs.Recipe) -> specs.Recipe:
    """To learn something by heart."""
    settings = recipe.train.model_copy(update={"epochs": 40.0, "learning_rate": 1e-2})
    return recipe.model_copy(update={"train": settings})


def trained(recipe: specs.Recipe, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job that the stage would train, without training it."""
    jobs: list[Job] = []

    def note(model: Any, job: Job, run: RunDir) -> Result:
        jobs.append(job)
        return Result(1, 1.0, None, 1.0, 0)

    monkeypatch.setattr(stage, "_train", note)
    stage.run(recipe, run)
    return jobs[0]


def test_a_job_is_another_one_with_other_settings_data_student_or_base(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = [Response(f"{n} and {n}", str(2 * n)).render() for n in range(3)]
    run = kept(RunDir(tmp_path / "run"), replies)
    own_tokenizer = tmp_path / "tokenizer"
    shutil.copytree(TOKENIZER, own_tokenizer)
    path = Path(recipe.student)
    path.write_text(yaml.safe_dump(spec(own_tokenizer).model_dump(mode="json", exclude_none=True)))
    jobs = [trained(recipe, run, monkeypatch)]
    jobs.append(trained(recipe, run, monkeypatch))
    assert jobs[0].name == jobs[1].name
    faster = recipe.train.model_copy(update={"learning_rate": 3e-4})
    jobs.append(trained(recipe.model_copy(update={"train": faster}), run, monkeypatch))
    jobs.append(trained(recipe.model_copy(update={"seed": 9}), run, monkeypatch))
    jobs.append(trained(recipe, kept(RunDir(tmp_path / "more"), [*replies, replies[0]]), monkeypatch))
    changed = json.loads((own_tokenizer / "tokenizer_config.json").read_text())
    (own_tokenizer / "tokenizer_config.json").write_text(json.dumps({**changed, "added": 1}))
    jobs.append(trained(recipe, run, monkeypatch))
    assert len({job.name for job in jobs}) == 5
    assert jobs[3].seed == 9
    assert {job.checkpoints.parent.name for job in jobs} == {"checkpoints"}
    assert len({job.checkpoints.name for job in jobs}) == 5


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("mixed", "float32"), ("fp32", "float32")])
def test_the_weights_are_of_the_recipes_precision_and_seed(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch, precision: str, dtype: str
) -> None:
    seen: list[Any] = []

    def note(model: Any, job: Job, run: RunDir) -> Result:
        seen.append((str(model.dtype), float(next(model.parameters()).detach().float().sum())))
        return Result(1, 1.0, None, 1.0, 0)

    monkeypatch.setattr(stage, "_train", note)
    settings = recipe.train.model_copy(update={"precision": precision})
    for seed in (1, 2, 1):
        run = kept(RunDir(tmp_path / f"run{len(seen)}"), [Response("one", "1").render()])
        stage.run(recipe.model_copy(update={"seed": seed, "train": settings}), run)
    assert {kind for kind, _ in seen} == {f"torch.{dtype}"}
    assert seen[0] == seen[2] != seen[1]


RUNNER = """
import sys
from distill import specs
from distill.rundir import RunDir
from distill.train import loop, stage

class Talking(RunDir):
    def log_metrics(self, *args):
        super().log_metrics(*args)
        print("step", flush=True)

loop.LOG_STEPS = 1
stage.run(specs.recipe(sys.argv[1]), Talking(sys.argv[2]))
"""
"""Trains a run and says on stdout whenever a loss was measured: to be killed from outside."""


def test_a_killed_training_goes_on_and_one_with_other_settings_keeps_its_checkpoints(
    tmp_path: Path, recipe: specs.Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = [Response(f"{n} and {n}", str(2 * n)).render() for n in range(12)]
    every_step = recipe.train.model_copy(update={"checkpoint_steps": 1, "epochs": 4.0})
    recipe = recipe.model_copy(update={"train": every_step})
    whole = kept(RunDir(tmp_path / "whole"), replies)
    stage.run(recipe, whole)
    run = kept(RunDir(tmp_path / "cut"), replies)
    file = tmp_path / "recipe.yaml"
    file.write_text(specs.dump(recipe))
    command = [sys.executable, "-c", RUNNER, str(file), str(run.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(6):
        assert process.stdout.readline() == "step\n"
    process.kill()
    process.communicate()
    other = recipe.model_copy(update={"train": every_step.model_copy(update={"learning_rate": 3e-4})})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "remove_all", lambda folder: None)
        assert stage.run(other, run).counts["resumed_at"] == 0
    assert "this is another training than the interrupted" in capsys.readouterr().err
    counts = stage.run(recipe, run).counts
    assert counts["resumed_at"] >= 2
    assert (run.student / "model.safetensors").read_bytes() == (whole.student / "model.safetensors").read_bytes()
    assert not run.checkpoints.exists()


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


def test_a_damaged_kept_file_is_named(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = kept(RunDir(tmp_path / "run"), [Response("one", "1").render()])
    file = run.kept / "train-00000.parquet"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(RunError, match=r"train-00000\.parquet cannot be read") as caught:
        stage.run(recipe, run)
    assert "distill filter" in str(caught.value)


def test_a_run_that_was_not_filtered_says_so(tmp_path: Path, recipe: specs.Recipe) -> None:
    with pytest.raises(RunError, match="no kept traces"):
        stage.run(recipe, RunDir(tmp_path / "run"))
