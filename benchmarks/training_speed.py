"""Training speed over time with few shapes, as the loop has it, and with every shape there is, in one run.

    python benchmarks/training_speed.py

`tiny-qwen` on solutions of the built-in problems, each way in a process of its own, in turn: tokens/s over the first
and the last quarter of the steps, and the memory at the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill import specs
from distill.contract import Response
from distill.problems import arithmetic
from distill.student_specs import StudentSpec
from distill.train import loop, packing
from distill.train.loss import StudentLoss
from distill.train.mixture import Schedule
from distill.train.optimizer import optimizer_for
from distill.train.student import load_student
from distill.train.token_set import Example, Row, TokenSet, write_set
from distill.train.tokenizer import prepare_tokenizer
from distill.train_specs import TrainSettings

WAYS = ("few shapes", "every shape")


def token_set(folder: Path, tokenizer: Any, spec: StudentSpec, count: int) -> TokenSet:
    rng = random.Random(1)
    found = []
    for problem in itertools.islice(arithmetic.problems("train", 1), count):
        response = Response(*arithmetic.solve(problem, rng))
        encoded = spec.contract.encode(tokenizer, spec.contract.messages(problem.question, "math"), response)
        found.append(Row(Example(problem.expression, np.array(encoded.ids, np.int32), encoded.loss_start)))
    return write_set(folder, found)


class Nobody:
    """Looks on and says nothing."""

    def begin(self, done: int) -> None:
        del done

    def log(self, values: Mapping[str, Any]) -> None:
        del values

    def after_step(self, done: int, steps: int, stop: Callable[[], bool]) -> bool:
        return False


class EveryShape(loop.Loop):
    """Rows as long as their traces are."""

    def _multiple(self, traces: Sequence[Example]) -> int:
        return 1


def measure(way: str, steps: int, folder: Path) -> dict[str, float]:
    """Tokens/s of the first and the last quarter, and the peak memory in MB, of this process."""
    import torch

    spec = specs.student("tiny-qwen")
    settings = TrainSettings(batch_size=16, learning_rate=1e-3, precision="fp32", epochs=float(steps))
    tokenizer = prepare_tokenizer(spec)
    model: Any = load_student(spec, tokenizer, seed=1, dtype=torch.float32)
    data, nothing = (token_set(folder / str(count), tokenizer, spec, count) for count in (2_000, 0))
    unknown = [None] * len(data)
    schedule = Schedule(data.lengths, unknown, unknown, settings.phases_of(), settings.batch_size, 1)
    pad = tokenizer.pad_token_id
    job = loop.Job("speed", data, nothing, np.zeros(0, np.int64), schedule, settings, pad, folder / "checkpoints")
    module = StudentLoss(model).train()
    if way == "every shape":
        packing.HEAD_ROWS = 1
    kind = EveryShape if way == "every shape" else loop.Loop
    running = kind(module, optimizer_for(module, settings, seed=1), job, Nobody())
    rates = []
    for step in range(steps):
        started = time.monotonic()
        running.step(step)
        rates.append((int(data.lengths[schedule.batch(step)].sum()), time.monotonic() - started))
    quarters = {"first": rates[: steps // 4], "last": rates[-(steps // 4) :]}
    speeds = {name: sum(t for t, _ in part) / sum(s for _, s in part) for name, part in quarters.items()}
    return {**speeds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options.only, options.steps, Path(folder))))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.runs):
        for way in WAYS:
            command = [sys.executable, __file__, "--only", way, "--steps", str(options.steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    median = {way: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for way, runs in found.items()}
    for way, values in median.items():
        print(f"{way:<12} first quarter {values['first']:.0f} tokens/s, last {values['last']:.0f}, ", end="")
        print(f"{values['memory']:.0f} MB")
    few, every = median.values()
    speed, memory = few["last"] / every["last"], few["memory"] / every["memory"]
    print(f"few shapes to every shape: speed in the last quarter {speed:.2f}, memory {memory:.2f}")


if __name__ == "__main__":
    main()
