"""Trains one student from its saved beginning to its saved end, by any method, in one process or many.

Knows nothing about how processes are started, or what the manifest says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.files import replacing_folder
from distill.rundir import RunDir
from distill.train.averaging import Averager, average_steps
from distill.train.learner import Learner
from distill.train.loop import Job, Loop, Result
from distill.train.parallel import World
from distill.train.preparing import Prepared
from distill.train.watching import watching

RESULT = "result.json"
"""In the job's folder, written by the first process of several when the student is saved."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to."""

    result: Result
    parameters: int
    trained_parameters: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is told of the student: how its adapter was merged, how many checkpoints were averaged."""


def begin(prepared: Prepared, run: RunDir) -> None:
    """Writes the untrained student, from which every process of the training starts; one that is there stays.

    It proves beforehand that the student can be saved, and is what the contract is checked on.
    """
    import torch

    from distill.train.student import base_commit, load_student, save_student, saved_facts

    spec, facts = prepared.spec, {"student": prepared.spec.name, "trained": False, "job": prepared.name}
    if saved_facts(run.untrained).get("job") == prepared.name:
        return
    dtype = torch.float32 if spec.base is None else torch.bfloat16
    model = load_student(spec, prepared.tokenizer, seed=prepared.recipe.seed, dtype=dtype)
    with replacing_folder(run.untrained) as folder:
        save_student(
            model, prepared.tokenizer, spec.contract, folder, facts={**facts, "base_commit": base_commit(model)}
        )


def train_student(prepared: Prepared, run: RunDir, world: World) -> Trained:
    """From `untrained/` to `student/`, all ranks together. Raises what the loop raises."""
    student = Learner.of(prepared, run, world)
    settings, place = prepared.recipe.train, job_folder(prepared, run)
    snapshots = average_steps(prepared.schedule.steps, settings.average_checkpoints)
    averager = Averager(place / "average", snapshots, first=world.first)
    pad = prepared.tokenizer.pad_token_id
    job = Job(
        prepared.name,
        prepared.train,
        prepared.heldout,
        prepared.heldout_places,
        prepared.schedule,
        settings,
        pad,
        place,
    )
    with watching(prepared, run, student, world) as watch:
        loop = Loop(student.module, student.optimizer(), job, watch, world, watch.speed, averager)
        result = loop.run()
    if snapshots:
        world.barrier()  # the first rank has written the last one
        averager.put_mean(student.inner)
        if result.heldout_loss is not None:  # of the mean, which is the student, not of its last member
            result = dataclasses.replace(result, heldout_loss=loop.heldout_loss())
    return Trained(result, student.parameters, student.trained_parameters, student.save(prepared, run))


def job_folder(prepared: Prepared, run: RunDir) -> Path:
    """Where the checkpoints of this job lie."""
    return run.checkpoints / prepared.name[:12]
