"""Memory per GPU of training R1's students at 32,768 tokens, counted on fake tensors, beside the prediction.

    python benchmarks/train_at_size.py                    the table of docs/scale.md, one row after the other
    python benchmarks/train_at_size.py R1-Distill-Qwen-7B 8 2      one student, GPUs, GPUs per trace

Needs no GPU and next to no memory; a row takes one to five minutes of one core. Gigabytes are 10^9 bytes.
"""

from __future__ import annotations

import sys

from distill.sizes import R1_STUDENTS
from distill.train.at_size import Layout, config_with, measure
from distill.training_sizes import OUTSIDE, training_memory

GPU = 80e9
ROWS = [
    ("R1-Distill-Qwen-1.5B", 8, 1),
    ("R1-Distill-Qwen-7B", 8, 1),
    ("R1-Distill-Llama-8B", 8, 1),
    ("R1-Distill-Qwen-14B", 16, 1),
    ("R1-Distill-Qwen-32B", 32, 1),
    ("R1-Distill-Qwen-32B", 32, 4),
    ("R1-Distill-Llama-70B", 64, 1),
    ("R1-Distill-Llama-70B", 64, 8),
]


def row(name: str, ranks: int, shared: int) -> str:
    sizes = R1_STUDENTS[name]
    config = config_with(sizes)
    found = measure(config, Layout(ranks, shared))
    predicted = training_memory(sizes, ranks=ranks, context_parallel=shared).peak
    parts = (
        found.parameters,
        found.gradients,
        found.optimizer,
        found.activations,
        found.working,
        found.peak,
        predicted,
    )
    figures = " | ".join(f"{part / 1e9:.1f}" for part in parts)
    return f"| {name} | {ranks} | {shared} | {figures} | {'yes' if found.peak + OUTSIDE <= GPU else 'no'} |"


def main() -> None:
    print("| student | GPUs | per trace | weights | gradients | optimizer | activations | working | peak |", end="")
    print(f" predicted | with {OUTSIDE / 1e9:.0f} GB more in {GPU / 1e9:.0f} GB |")
    print("|---|" + "---:|" * 9 + "---|")
    rows = [(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))] if len(sys.argv) > 3 else ROWS
    for each in rows:
        print(row(*each), flush=True)


if __name__ == "__main__":
    main()
