"""Training speed on the CPU by kind of attention and length of the traces, as a ratio in one run.

    python benchmarks/attention_speed.py

One optimizer step of `tiny-qwen` on random tokens, 4,096 of them whatever the length: torch's own attention (`sdpa`, in
bfloat16 the flash kernel) against products and softmax written out (`eager`). `train.stage` chooses by the result.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from distill.train.encoding import Example

from distill import specs
from distill.contract import Encoded
from distill.train.loop import Job, _Loop
from distill.train.student import load_student, prepare_tokenizer

TOKENS = 4_096
KINDS = ("sdpa", "eager")


def examples(length: int, vocabulary: int) -> list[Example]:
    """One batch of traces of this length, a third of each being prompt."""
    import torch

    rows = torch.randint(0, vocabulary, (TOKENS // length, length), generator=torch.Generator().manual_seed(length))
    return [Example(str(n), Encoded(row, length // 3)) for n, row in enumerate(rows.tolist())]


def seconds_of(model: Any, batch: list[Example], steps: int) -> float:
    """Of one step, the mean over `steps` after one that does not count."""
    settings = specs.TrainSettings(precision="mixed", micro_batch_tokens=TOKENS)
    loop = _Loop(model, Job("speed", batch, [], settings, 0, 0, Path("unused")), lambda values: None)
    loop._step(0, batch)
    started = time.monotonic()
    for _ in range(steps):
        loop._step(0, batch)
    return (time.monotonic() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="tiny-qwen")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    import torch

    spec = specs.student(options.student)
    tokenizer = prepare_tokenizer(spec)
    model: Any = load_student(spec, tokenizer, seed=0, dtype=torch.float32)
    model.train()
    print("tokens in a trace   sdpa tokens/s   eager tokens/s   ratio")
    for length in options.lengths:
        batch = examples(length, len(tokenizer))
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(options.runs):  # in turn, so that a slow minute of the machine meets both
            for kind in KINDS:
                model.set_attn_implementation(kind)
                found[kind].append(seconds_of(model, batch, options.steps))
        sdpa, eager = (TOKENS / statistics.median(found[kind]) for kind in KINDS)
        print(f"{length:<19} {sdpa:>13.0f} {eager:>16.0f} {eager / sdpa:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
