"""Training speed and memory beside TRL's SFTTrainer and a bare PyTorch loop: same model, data, dtype, in one run.

    make smollm2 && python benchmarks/train.py

SmolLM2-135M on traces with R1's spread of lengths (log-normal, mean 5,355 tokens, at most 32,768: arXiv 2501.12948v2,
table 5), shortened by 32, each way in a process of its own, in turn: tokens of traces per second without the first
step, and the most memory that the process had. Eight traces a step for all. TRL is given token ids and labels, as
SFTTrainer takes them: one trace at a time, grouped by length, packed (`bfd`), and eight at a time as they come.
bfloat16 where the machine computes it, float32 elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.hardware import bfloat16_in_hardware

SHORTER, MEAN, LONGEST, SPREAD = 32, 5_355, 32_768, 0.9
"""`SPREAD` is the standard deviation of the logarithm: with it a hundredth of the traces has more than four times the
mean, as R1's sets on the Hub do."""
PROMPT = 100 // SHORTER + 4
BATCH = 8
VOCABULARY = 49_152
RATE = 1e-5
WAYS = ("distill", "TRL, one at a time", "TRL, by length", "TRL, packed", "TRL, eight at a time", "bare loop")


def lengths(count: int) -> list[int]:
    """Tokens of R1-like traces, the same every time."""
    import random

    rng = random.Random(1)
    middle = math.log(MEAN) - SPREAD**2 / 2
    drawn = (rng.lognormvariate(middle, SPREAD) for _ in range(count))
    return [max(PROMPT + 8, int(min(length, LONGEST) / SHORTER)) for length in drawn]


def traces(count: int) -> list[list[int]]:
    import random

    rng = random.Random(2)
    return [[rng.randrange(100, VOCABULARY) for _ in range(length)] for length in lengths(count)]


def model_of(folder: Path, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))


class Clock:
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def step(self, loss: float) -> None:
        self.ends.append(time.perf_counter())
        self.losses.append(loss)


# --- the ways --------------------------------------------------------------------------------------------------------


def distill(model: Any, data: Sequence[list[int]], clock: Clock) -> None:
    import numpy as np

    from distill.train.loop import Job, Loop
    from distill.train.loss import StudentLoss
    from distill.train.mixture import PhasePosition
    from distill.train.optimizer import optimizer_for
    from distill.train.token_set import Example, Row, write_set
    from distill.train_specs import TrainSettings

    class InOrder:
        """The benchmark's order in place of a shuffled one."""

        steps = len(data) // BATCH

        def batch(self, step: int) -> Any:
            return np.arange(step * BATCH, (step + 1) * BATCH)

        def phase_at(self, step: int) -> Any:
            return PhasePosition(settings.phases_of()[0], 0, step, self.steps)

    precision: Any = "bf16" if model.dtype.itemsize == 2 else "fp32"
    settings = TrainSettings(precision=precision, learning_rate=RATE, warmup=0, final_learning_rate=1)
    with tempfile.TemporaryDirectory() as place:
        rows = (Row(Example(f"{n}", np.array(ids, np.int32), PROMPT)) for n, ids in enumerate(data))
        found = write_set(Path(place) / "set", rows)
        schedule: Any = InOrder()
        job = Job("speed", found, found, np.arange(0), schedule, settings, 0, Path(place))
        module = StudentLoss(model)
        watcher: Any = None
        loop = Loop(module, optimizer_for(module, settings, seed=0), job, watcher)
        module.train()
        for step in range(schedule.steps):
            clock.step(loop.step(step)[0])


def bare(model: Any, data: Sequence[list[int]], clock: Clock) -> None:
    """One trace after the other, nothing around it."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), fused=True)
    model.train()
    for start in range(0, len(data), BATCH):
        batch = data[start : start + BATCH]
        total, summed = sum(len(ids) - PROMPT for ids in batch), 0.0
        for ids in batch:
            tokens = torch.tensor([ids])
            logits = model(input_ids=tokens, use_cache=False).logits[0, PROMPT - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits.float(), tokens[0, PROMPT:], reduction="sum") / total
            loss.backward()  # type: ignore[no-untyped-call]
            summed += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step(summed)


TRL: dict[str, dict[str, Any]] = {
    "TRL, one at a time": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH},
    "TRL, by length": {"per_device_train_batch_size": BATCH, "train_sampling_strategy": "group_by_length"},
    "TRL, packed": {
        "per_device_train_batch_size": 1,
        "packing": True,
        "packing_strategy": "bfd",
        "max_length": LONGEST // SHORTER,
    },
    "TRL, eight at a time": {"per_device_train_batch_size": BATCH, "train_sampling_strategy": "sequential"},
}


def trl(options: dict[str, Any], model: Any, data: Sequence[list[int]], clock: Clock, tokenizer: Any) -> None:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class Note(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                clock.step(float(logs["loss"]))

    rows = {"input_ids": list(data), "labels": [[-100] * PROMPT + ids[PROMPT:] for ids in data]}
    with tempfile.TemporaryDirectory() as place:
        config = SFTConfig(
            output_dir=place,
            num_train_epochs=1,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            bf16=False,  # the weights have the dtype already
            gradient_checkpointing=False,
            use_cpu=True,
            disable_tqdm=True,
            **{"max_length": None, "gradient_accumulation_steps": 1, **options},
        )
        trainer = SFTTrainer(
            model,
            args=config,
            train_dataset=Dataset.from_dict(rows),
            processing_class=tokenizer,
            callbacks=[Note()],
        )
        trainer.train()


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(way: str, folder: Path, count: int, dtype: str) -> dict[str, Any]:
    """Of this process: tokens/s after the first step, the most memory in MB, and the first step's loss."""
    from transformers import AutoTokenizer

    data, clock = traces(count), Clock()
    model = model_of(folder, dtype)
    started = time.perf_counter()
    if way == "distill":
        distill(model, data, clock)
    elif way == "bare loop":
        bare(model, data, clock)
    else:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        trl(TRL[way], model, data, clock, tokenizer)
    tokens = sum(map(len, data))
    steps = len(clock.ends)
    first = clock.ends[0] - started
    per_step = (clock.ends[-1] - clock.ends[0]) / (steps - 1)
    return {
        "tokens_per_s": tokens / (per_step * steps),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "loss": clock.losses[0],
        "first": first,
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(".cache/smollm2"))
    parser.add_argument("--traces", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"])
    parser.add_argument("--way", choices=WAYS, help="Measure this alone, in this process.")
    options = parser.parse_args()
    dtype = options.dtype or ("bfloat16" if bfloat16_in_hardware() else "float32")
    if options.way:
        print(json.dumps(measure(options.way, options.model, options.traces, dtype)))
        return
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    sizes = lengths(options.traces)
    print(f"{options.traces} traces, {sum(sizes):,} tokens, {min(sizes)} to {max(sizes)}; {dtype}", flush=True)
    for _ in range(options.runs):  # in turn, so that a slow minute of the machine meets all
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--model", str(options.model)]
            command += ["--traces", str(options.traces), "--dtype", dtype]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{way} failed:\n{done.stderr[-2000:]}")
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    median = {way: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for way, runs in found.items()}
    print(f"{'way':<22} {'tokens/s':>9} {'memory MB':>10} {'loss of step 1':>15} {'steps':>6}")
    for way, values in median.items():
        print(
            f"{way:<22} {values['tokens_per_s']:>9.1f} {values['memory']:>10.0f} {values['loss']:>15.5f} "
            f"{values['steps']:>6.0f}"
        )
    own = median["distill"]["tokens_per_s"]
    best = max(TRL, key=lambda way: median[way]["tokens_per_s"])
    print(f"distill to TRL's best ({best}): {own / median[best]['tokens_per_s']:.2f} (bar 1.0)")
    print(f"distill to TRL, eight at a time: {own / median['TRL, eight at a time']['tokens_per_s']:.2f} (bar 1.5)")
    print(f"distill to the bare loop: {own / median['bare loop']['tokens_per_s']:.2f} (bar 0.95)")
    difference = abs(median["distill"]["loss"] - median["TRL, eight at a time"]["loss"])
    print(f"loss of step 1, distill and TRL on the same eight traces: {difference:.5f} apart")


if __name__ == "__main__":
    main()
