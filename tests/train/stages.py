"""A run with hand-made kept traces and a tiny student, for the tests of the training stage."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distill import specs
from distill.contract import Response
from distill.prompts.stage import write_prompts
from distill.records import Prompt
from distill.rundir import RunDir
from train.material import keep, spec

REPLIES = [Response(f"{n} and {n}", str(2 * n)).render() for n in range(12)]
TOO_LONG = Response("9 " * 80, "1").render()
FP32: Mapping[str, Any] = {"precision": "fp32", "epochs": 1, "batch_size": 4, "context_length": 64}


def recipe_in(folder: Path, *, student: Any = None, seed: int = 0, **settings: Any) -> specs.Recipe:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump((student or spec()).model_dump(mode="json", exclude_none=True)))
    train = specs.TrainSettings(**{**FP32, **settings})
    return specs.Recipe(name="r", student=str(path), seed=seed, train=train)


def changed(recipe: specs.Recipe, **settings: Any) -> specs.Recipe:
    return recipe.model_copy(update={"train": specs.TrainSettings(**{**recipe.train.model_dump(), **settings})})


def kept(run: RunDir, replies: Sequence[str] = REPLIES, *, prompts: int = 0) -> RunDir:
    """`prompts`: how many held-out problems there are to ask."""
    keep(run.kept, list(replies))
    keep(run.kept, [Response("one", "1").render()] * max(1, prompts), split="heldout")
    if prompts:
        asked = [Prompt(f"q{n}", id=f"heldout-{n}", kind="math", answer=str(n)) for n in range(prompts)]
        write_prompts(run.prompts, asked)
    return run


def told(run: RunDir, name: str = "loss") -> dict[int, float]:
    """Step → its value, as it was told last."""
    lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


class Stopping(RunDir):
    """A run that asks its training to stop once the loss of step `at` is told."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path)
        self.at = at

    def log_metrics(self, stage: str, values: Mapping[str, Any]) -> None:
        super().log_metrics(stage, values)
        if "loss" in values and values["step"] == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
