"""A training as a user starts it, killed without warning and started again: the same losses, the same student."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from distill import specs
from distill.errors import INTERRUPTED
from distill.pipeline import run_recipe
from distill.rundir import RunDir
from train.stages import changed, kept, recipe_in, told, weights

WAIT = 240
"""Seconds that a process has to get where a test wants it: a loaded machine needs some 20 to start one."""


def start(run: RunDir, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "distill.cli", "train", str(run.path), *options]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    _, said = process.communicate(timeout=WAIT)
    assert process.returncode == code, said
    return said


def until(process: subprocess.Popen[str], there: Callable[[], bool]) -> bool:
    """Waits for something to be there; whether it came before the process ended."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if there():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    process.kill()
    raise AssertionError(f"nothing within {WAIT} s")


def a_run(folder: Path, recipe: specs.Recipe) -> RunDir:
    run = kept(RunDir(folder))
    run.recipe.write_text(specs.dump(recipe), encoding="utf-8")
    return run


def checkpoint(run: RunDir) -> int:
    """The newest whole one's step."""
    return max((int(path.name.removeprefix("step-")) for path in run.checkpoints.glob("*/step-*")), default=0)


def being_written(run: RunDir) -> bool:
    return any(run.checkpoints.glob("*/.step-*"))


def kill_somewhere(run: RunDir, rng: random.Random, steps: int, *, writing: bool) -> bool:
    """Starts the training and kills it: some steps later than it begins, while it writes a checkpoint if `writing`.
    Whether it was still going on."""
    process = start(run)
    try:
        before = checkpoint(run)
        target = before + rng.randrange(1, max(2, steps // 6))
        alive = until(process, lambda: checkpoint(run) >= target)
        if writing:
            alive = alive and until(process, lambda: being_written(run))
        else:
            time.sleep(rng.random() * 0.02)
    finally:
        process.kill()
        process.communicate()
    return alive and process.returncode == -signal.SIGKILL


def killed_often(tmp_path: Path, kills: int, epochs: float) -> None:
    recipe = recipe_in(tmp_path, epochs=epochs, checkpoint_steps=1, warmup=0.1, learning_rate=5e-3)
    whole, run = a_run(tmp_path / "whole", recipe), a_run(tmp_path / "cut", recipe)
    run_recipe(recipe, whole, first="train", last="train")
    steps = max(told(whole))
    rng = random.Random(1)
    left_over = 0
    for number in range(kills):
        assert kill_somewhere(run, rng, steps, writing=number % 2 == 0), "it was to be killed on the way"
        left_over += being_written(run)
        assert not run.student.exists()
        assert 0 < checkpoint(run) < steps
    assert left_over, "at least one was killed in the middle of writing"
    finish(start(run))
    for name in ("loss", "heldout_loss", "lr", "norm"):
        assert told(run, name) == pytest.approx(told(whole, name), abs=1e-5), name
    assert weights(run.student) == weights(whole.student)
    assert run.stages()["train"].state == "done"
    assert run.stages()["train"].counts["resumed_at"] > 0
    assert not run.checkpoints.exists()
    assert not list(run.path.glob(".*.tmp"))


@pytest.mark.slow
def test_a_training_killed_three_times_ends_as_an_unkilled_one(tmp_path: Path) -> None:
    killed_often(tmp_path, 3, 10)


@pytest.mark.rehearse
@pytest.mark.timeout(3_000)
def test_a_training_killed_twenty_times_ends_as_an_unkilled_one(tmp_path: Path) -> None:
    killed_often(tmp_path, 20, 400)


# --- several processes -----------------------------------------------------------------------------------------------


def assert_as_one(run: RunDir, alone: RunDir, names: Sequence[str] = ("loss", "heldout_loss", "lr", "norm")) -> None:
    for name in names:
        assert told(run, name) == pytest.approx(told(alone, name), abs=1e-5), name
    import torch
    from safetensors.torch import load_file

    mine, theirs = (load_file(place.student / "model.safetensors") for place in (run, alone))
    assert mine.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.allclose(mine[name].float(), weight.float(), rtol=2e-2, atol=1e-3), name


@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"method": "lora"}, marks=pytest.mark.rehearse)], ids=["full", "lora"]
)
def test_two_processes_train_the_student_of_one(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Samples included, which all ranks draw together and the first one tells."""
    asked = {"problems": 2, "every_steps": 5, "max_tokens": 6}
    recipe = recipe_in(tmp_path, epochs=4, learning_rate=3e-3, samples=asked, **settings)
    alone, run = (kept(RunDir(tmp_path / name), prompts=2) for name in ("one", "two"))
    run_recipe(recipe, alone, first="train", last="train")
    run.recipe.write_text(specs.dump(changed(recipe, gpus=2)), encoding="utf-8")
    finish(start(run))
    assert_as_one(run, alone)
    assert list(told(run, "sample_stop_rate")) == [5, 10, 12]
    logs = [(place.logs / "samples-00000012.jsonl").read_text().splitlines() for place in (run, alone)]
    assert len(logs[0]) == len(logs[1]) == 2
    if settings:
        assert sorted(path.name for path in run.adapter.iterdir()) == sorted(p.name for p in alone.adapter.iterdir())
    assert run.stages()["train"].counts["trained_parameters"] == alone.stages()["train"].counts["trained_parameters"]
    assert not run.checkpoints.exists()


@pytest.mark.rehearse  # minutes; the other tests here show most of it
def test_two_processes_stopped_by_sigterm_go_on_on_two_and_on_one(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, epochs=60, learning_rate=1e-3)
    alone, run = a_run(tmp_path / "one", recipe), a_run(tmp_path / "two", changed(recipe, gpus=2))
    run_recipe(recipe, alone, first="train", last="train")
    process = start(run)
    assert until(process, lambda: run.metrics.is_file() and max(told(run, "heldout_loss"), default=0) > 0)
    os.kill(process.pid, signal.SIGTERM)
    said = finish(process, INTERRUPTED)
    assert "start the same command again" in said
    stopped = checkpoint(run)
    assert 0 < stopped < max(told(alone))
    on_one = RunDir(shutil.copytree(run.path, tmp_path / "two, then one"))
    finish(start(run))
    finish(start(on_one, "--gpus", "1"))
    for again in (run, on_one):
        assert again.stages()["train"].counts["resumed_at"] == stopped
        assert_as_one(again, alone)
