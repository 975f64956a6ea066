"""The fourth stage: the student learns the kept traces, after the contract is proven on them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill import specs
from distill.errors import DONE, INTERRUPTED, Interrupted, TrainingError
from distill.progress import say
from distill.rundir import RunDir, StageReport
from distill.train import checkpoints
from distill.train.architecture import sizes_of
from distill.train.check import require
from distill.train.checking import check_run, prove
from distill.train.guards import bytes_needed, check_disk
from distill.train.launch import Placement, check, node_commands, start
from distill.train.learner import check_placement
from distill.train.loop import Result
from distill.train.parallel import World
from distill.train.preparing import Prepared, prepare
from distill.train.token_set import forget_others
from distill.train.training import RESULT, Trained, begin, job_folder, train_student
from distill.train_specs import MASTER, NODE_RANK, TrainSettings


def run(recipe: specs.Recipe, run: RunDir) -> StageReport:
    """Writes `student/`, and `adapter/` for the methods that make one.

    Raises TrainingError when nothing fits or the loss breaks, ContractError when what would be trained is not what
    would be served, DiskFullError when what is to be written does not fit.
    """
    place = _placement(recipe.train)
    if recipe.train.processes > 1:
        check(place)  # before anything is encoded or loaded
    prepared = prepare(recipe, run)
    check_placement(recipe.train, prepared.config.num_attention_heads)
    for line in prepared.census.lines():
        say(f"train: {line}")
    _room(prepared, run)
    require(check_run(recipe, run).checked)  # before weights are loaded
    if place.elsewhere:
        start(run.path, place)
        raise Interrupted("nothing is trained yet", todo="start the commands above, one on each node")
    begin(prepared, run)
    checked = prove(run.untrained, prepared.spec, prepared.tokenizer, run.kept, seed=recipe.seed)
    say(f"train: the contract holds on {checked.traces} traces (`distill train {run.path} --check` shows how)")
    folder = job_folder(prepared, run)
    _tell_of_others(run.checkpoints, folder)
    trained = _launched(prepared, run) if recipe.train.processes > 1 else train_student(prepared, run, World())
    checkpoints.remove_all(run.checkpoints)
    forget_others(run.encoded, (prepared.train, prepared.heldout))
    if recipe.train.method == "full":
        shutil.rmtree(run.adapter, ignore_errors=True)  # of another student than the one that stands beside it now
    return _report(run, prepared, trained)


def _room(prepared: Prepared, run: RunDir) -> None:
    """Raises DiskFullError when checkpoints and student will not fit."""
    settings = prepared.recipe.train
    sizes = sizes_of(prepared.config)
    parameters = sizes.parameters
    trainable = parameters if settings.method == "full" else sizes.lora_parameters(settings.lora.rank)
    stored = settings.precision if settings.method == "full" else "fp32"  # adapters are float32 on any base
    needed = bytes_needed(parameters, trainable, stored, settings.keep_checkpoints, settings.average_checkpoints)
    there = sum(path.stat().st_size for path in job_folder(prepared, run).rglob("*") if path.is_file())
    check_disk(run.path, needed - there, f"training {prepared.spec.name}")


def _tell_of_others(folder: Path, own: Path) -> None:
    """An interrupted training with other settings, data or student keeps its checkpoints until one has ended."""
    others = sorted({path.parent.name for path in folder.glob("*/step-*")} - {own.name})
    if others:
        say(
            f"train: this is another training than the interrupted {', '.join(others)} in {folder} and begins anew; "
            "those are kept until it has ended"
        )


def _launched(prepared: Prepared, run: RunDir) -> Trained:
    """Trains in processes of their own, one per GPU, and reads what they came to."""
    code = start(run.path, _placement(prepared.recipe.train))
    if code == INTERRUPTED:
        raise Interrupted("training stopped, saved", todo="start the same command again; it goes on from there")
    result = job_folder(prepared, run) / RESULT
    if code != DONE or not result.is_file():
        raise TrainingError("the training on several GPUs did not end as it should", given=f"exit code {code}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return Trained(**{**found, "result": Result(**found["result"])})


def commands(recipe: specs.Recipe, run: RunDir) -> list[str]:
    """What to start on each of several machines, once the contract holds. Nothing is loaded for it."""
    require(check_run(recipe, run).checked)
    return node_commands(run.path, _placement(recipe.train))


def join(run: RunDir, recipe: specs.Recipe) -> int:
    """The part of a node other than the first, which prepares, saves and tells; returns the exit code."""
    return start(run.path, _placement(recipe.train))


def _placement(settings: TrainSettings) -> Placement:
    rank = os.environ.get(NODE_RANK)
    return Placement(settings.gpus, settings.nodes, int(rank) if rank else None, os.environ.get(MASTER))


def _report(run: RunDir, prepared: Prepared, trained: Trained) -> StageReport:
    result, census = trained.result, prepared.census
    train, heldout = census.splits["train"], census.splits["heldout"]
    counts = {
        "traces": train.traces - train.lost_traces,
        "too_long": train.lost_traces,
        "heldout": heldout.traces - heldout.lost_traces,
        "heldout_too_long": heldout.lost_traces,
        "special_token": len(prepared.train.special),
        "heldout_special_token": len(prepared.heldout.special),
        "tokens": train.tokens - train.lost_tokens,
        "longest": train.longest,
        "context": prepared.context,
        "parameters": trained.parameters,
        "trained_parameters": trained.trained_parameters,
        **asdict(result),
        **trained.facts,
        "census": census.counts(),
    }
    heldout_loss = f", held-out loss {result.heldout_loss:.3f}" if result.heldout_loss is not None else ""
    line = f"{result.steps} steps over {counts['traces']} traces, loss {result.loss:.3f}{heldout_loss}"
    outputs = (run.student, run.untrained, *((run.adapter,) if prepared.recipe.train.method != "full" else ()))
    return StageReport(counts, outputs, (line,))
