"""Where R1's students fit: the GPU of this machine, or its memory and the usual consumer GPUs. A table, nothing else.

Computed, not measured: weights, cache and a fixed overhead, from distill/sizes.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distill.hardware import Gpu, Memory
from distill.sizes import R1_STUDENTS, SHOWN_SCHEMES, Fit, best_fit

GPU_SHARE, RAM_SHARE = 0.95, 0.8
"""Share of a memory that a model may take: the rest belongs to the driver and the display, or to the system."""
CONSUMER_GPUS = (8, 12, 16, 24)
"""GiB of memory of the usual consumer GPUs."""
CONTEXT = 32_768
"""Tokens of KV cache counted in: R1's evaluation length (arXiv 2501.12948, section 3)."""
GIB = 2**30

Fits = dict[str, dict[str, str]]
"""Student → column → what fits there."""


def columns(gpus: Sequence[Gpu], memory: Memory) -> dict[str, float]:
    """Column → bytes a model may take there. Models are not spread over GPUs: the largest one counts."""
    if gpus:
        largest = max(gpus, key=lambda gpu: gpu.memory)
        return {f"{largest.name} ({largest.memory / GIB:.0f} GiB)": largest.memory * GPU_SHARE}
    ram = {f"RAM {memory.total / GIB:.0f} GiB": memory.total * RAM_SHARE} if memory.total else {}
    return {**ram, **{f"{size} GB GPU": size * GIB * GPU_SHARE for size in CONSUMER_GPUS}}


def fits(gpus: Sequence[Gpu], memory: Memory) -> Fits:
    return {
        name: {column: _cell(best_fit(sizes, room, CONTEXT)) for column, room in columns(gpus, memory).items()}
        for name, sizes in R1_STUDENTS.items()
    }


def fit_lines(table: Fits) -> Iterator[str]:
    """The table for a reader: GB of weights by scheme and of the cache, then what fits where."""
    places = list(next(iter(table.values())))
    yield f"R1's students, computed: GB of weights, GB of KV cache of {CONTEXT:,} tokens (bf16), the best that fits"
    header = "".join(f"{scheme:>8}" for scheme in SHOWN_SCHEMES)
    yield f"{'':<22}{header}{'KV':>7}   " + "  ".join(f"{place:>12}" for place in places)
    for name, cells in table.items():
        sizes = R1_STUDENTS[name]
        weights = "".join(f"{sizes.weight_bytes(scheme) / 1e9:>8.1f}" for scheme in SHOWN_SCHEMES)
        cache = sizes.kv_bytes_per_token() * CONTEXT / 1e9
        row = "  ".join(f"{cells[place]:>{max(12, len(place))}}" for place in places)
        yield f"{name:<22}{weights}{cache:>7.1f}   {row}"


def _cell(fit: Fit | None) -> str:
    if fit is None:
        return "no"
    return fit.scheme if fit.context >= CONTEXT else f"{fit.scheme} {fit.context // 1_024}k"
