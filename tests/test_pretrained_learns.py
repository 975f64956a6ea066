"""A real pretrained student learns what the embedded teacher shows it: SmolLM2-135M on tiny-r1's sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vllm_server import CHECKOUT

from distill import specs
from distill.pipeline import run_recipe
from distill.rundir import RunDir

MODEL = CHECKOUT / ".cache" / "smollm2"

QUICK = {"quick": True, "prompts.0.limit": 110, "train.samples.problems": 4}

pytestmark = pytest.mark.skipif(not MODEL.is_dir(), reason="no .cache/smollm2: make smollm2")


def told(run: RunDir, name: str) -> list[float]:
    """The values of a metric, in order."""
    lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.mark.rehearse
@pytest.mark.timeout(1800)
def test_some_traces_already_show_in_loss_and_form(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run_recipe(specs.recipe("arithmetic-smollm2", QUICK), run, last="train")
    loss, form = told(run, "heldout_loss"), told(run, "sample_tag_rate")
    assert loss[-1] < 0.6 * loss[0]
    assert form[-1] > form[0], "a student that has never seen think tags learns to close them"


@pytest.mark.rehearse
@pytest.mark.timeout(7200)
def test_it_gains_a_quarter_and_stops(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run_recipe(specs.recipe("arithmetic-smollm2"), run, last="evaluate")
    scores: dict[str, Any] = {
        name: json.loads((run.evaluations / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("untrained", "student")
    }
    print({name: (score["pass_at_1"], score["unfinished"]) for name, score in scores.items()})
    print(f"training: {run.stages()['train'].counts['seconds']:.0f} s")
    assert scores["student"]["pass_at_1"] - scores["untrained"]["pass_at_1"] >= 0.25
    assert scores["student"]["unfinished"] <= 0.05
