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
import time
from pathlib import Path
from typing import Any

from distill.train.encoding import Example

from distill import specs
from distill.contract import Response
from distill.problems import arithmetic
from distill.train import encoding, loop
from distill.train.student import load_student, prepare_tokenizer

WAYS = {"few shapes": (encoding.WIDTH, loop.HEAD_ROWS), "every shape": (1, 1)}


def examples(tokenizer: Any, spec: specs.StudentSpec, count: int) -> list[Example]:
    rng = random.Random(1)
    found = []
    for problem in itertools.islice(arithmetic.problems("train", 1), count):
        response = Response(*arithmetic.solve(problem, rng))
        messages = spec.contract.messages(problem.question, "math")
        found.append(Example(problem.expression, spec.contract.encode(tokenizer, messages, response)))
    return found


def measure(way: str, steps: int) -> dict[str, float]:
    """Tokens/s of the first and the last quarter, and the peak memory in MB, of this process."""
    import torch

    encoding.WIDTH, loop.HEAD_ROWS = WAYS[way]
    spec, settings = specs.student("tiny-qwen"), specs.TrainSettings(batch_size=16, learning_rate=1e-3)
    tokenizer = prepare_tokenizer(spec)
    model: Any = load_student(spec, tokenizer, seed=1, dtype=torch.float32)
    model.set_attn_implementation("eager")
    model.train()
    data = examples(tokenizer, spec, 2_000)
    running = loop._Loop(model, loop.Job("speed", data, [], settings, 0, 1, Path("unused")), lambda values: None)
    rates = []
    for step, batch in enumerate(itertools.islice(encoding.batches(data, 16, 1), steps)):
        started = time.monotonic()
        running._step(step, batch)
        rates.append((sum(example.length for example in batch), time.monotonic() - started))
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
        print(json.dumps(measure(options.only, options.steps)))
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
