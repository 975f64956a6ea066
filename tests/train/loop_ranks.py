"""The loop over a student on one rank or several: what the ranks of the tests run."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

from distill.errors import Interrupted, TrainingError
from distill.train import loop
from distill.train.loop import Loop
from distill.train.loss import StudentLoss
from distill.train.optimizer import optimizer_for
from distill.train.parallel import joined, shard
from train.many import full
from train.material import PLAIN, Log, examples, job, model


def kill() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Start:
    """One start of a training: `stop_at` is the step whose loss is told to rank 0 as it is asked to stop, `stop_pass`
    the pass that the last rank begins then, `spoil_at` the step after which a weight is no number."""

    name: str = "job"
    seed: int = 0
    count: int = 9
    settings: Any = PLAIN
    stop_at: int | None = None
    stop_pass: int | None = None
    spoil_at: int | None = None


def trained(folder: Path, starts: list[Start]) -> list[dict[str, Any]]:
    """Losses by step, how each start ended, and the weights after it."""
    loop.LOG_STEPS = 1
    found = []
    with joined() as world:
        for number, start in enumerate(starts):
            own = folder / f"rank-{world.rank}-{number}"  # ranks must not write the same traces at once
            what = job(own, train=examples(start.count), settings=start.settings, name=start.name)
            what = dataclasses.replace(what, checkpoints=folder / "checkpoints")
            module = StudentLoss(model(start.seed))
            if world.size > 1:
                shard(module, world, precision="fp32")
            log = Log()
            running = Loop(module, optimizer_for(module, start.settings, seed=5), what, log, world)
            if start.stop_at is not None and world.first:
                log.at[start.stop_at] = kill
            if start.stop_pass is not None and world.rank == world.size - 1:
                _at_pass(module, start.stop_pass)
            if start.spoil_at is not None:
                log.at[start.spoil_at] = lambda module=module: _spoil(module)
            end: dict[str, Any] = {}
            try:
                end["resumed_at"] = running.run().resumed_at
            except (Interrupted, TrainingError) as error:
                end["error"], end["given"] = error.what, error.given
            held = {name: full(weight.detach()).numpy() for name, weight in module.model.named_parameters()}
            found.append({"losses": log.losses, "heldout": log.heldout, "weights": held, **end})
    return found


def _at_pass(module: Any, number: int) -> None:
    seen: list[int] = []

    def hook(*_: Any) -> None:
        if module.training:
            seen.append(1)
            if len(seen) == number:
                kill()

    module.register_forward_pre_hook(hook)


def _spoil(module: Any) -> None:
    import torch

    with torch.no_grad():
        weight = module.model.model.norm.weight
        (weight.to_local() if hasattr(weight, "to_local") else weight).fill_(float("nan"))
