"""How fast a training is: tokens per second, and the share of the device's peak compute that its model used (MFU).

Knows nothing about data or optimizers. After PaLM (arXiv 2204.02311, appendix B) and Kaplan et al. (arXiv 2001.08361,
section 2.1): only the products that the model itself needs count, not what activation checkpointing computes again, not
padding, and not the rows of the head whose loss nobody wants.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.sizes import Sizes

if TYPE_CHECKING:
    import torch


def training_flops(sizes: Sizes, lengths: Iterable[int], loss_tokens: int, *, adapter_parameters: int = 0) -> float:
    """Floating-point operations of forward and backward over traces of these lengths, in tokens.

    A weight takes part in a multiplication and an addition per token, 2 operations, in the forward pass; as many again
    for the gradient of its input, and again for its own: 6. The head counts for `loss_tokens` alone, looking up an
    embedding not at all. Attention multiplies queries with keys and weights with values, 4 operations per head, size
    and pair of tokens, three times in all; a token at place i looks at i of them, so l tokens make l (l + 1) / 2 pairs:
    6 × layers × heads × head size × l a token at length l, where PaLM, without the causal mask, writes 12. With an
    adapter (`adapter_parameters` > 0) the other weights get no gradient of their own: 4 instead of 6.
    """
    lengths = list(lengths)
    per_weight = 4 if adapter_parameters else 6
    tokens = sum(lengths)
    matrices = per_weight * (sizes.linear_parameters * tokens + sizes.vocab * sizes.hidden * loss_tokens)
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    attention = 12 * sizes.layers * sizes.heads * sizes.head_dim * pairs
    return matrices + 6 * adapter_parameters * tokens + attention


PEAKS: Mapping[str, float] = {
    "B200": 2_250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A40": 149.7e12,
    "A10": 125e12,
    "RTX 6000 Ada": 364.2e12,
    "RTX A6000": 154.8e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}
"""Part of the name torch.cuda.get_device_name gives → operations per second in bfloat16 without sparsity, adding up in
float32: NVIDIA's data sheets of the products (where those only name the rate with sparsity: half of it), for GeForce
the appendices of the architecture papers of GA102, AD102 and GB202. H100, H200 and B200 are the SXM boards."""


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations per second that a device can do at best, and where that number comes from."""

    flops: float
    source: str
    """`data sheet`, or `matmul rate` where it was measured here."""


def peak_of(device: torch.device, dtype: torch.dtype) -> Peak:
    """The data sheet's for bfloat16 on a GPU it is known of, else the rate of a large product, measured once."""
    import torch

    if device.type == "cuda" and dtype == torch.bfloat16:
        known = peak_by_name(torch.cuda.get_device_name(device))
        if known is not None:
            return Peak(known, "data sheet")
    return Peak(measured_peak(device, dtype), "matmul rate")


def peak_by_name(name: str) -> float | None:
    """By whole words: an `L4` is no `L40S`, and neither a part of a card (MIG) nor a variant of it (Ti) is the card."""
    words = name.replace("-", " ").split()
    if {"MIG", "Laptop", "Mobile", "Ti", "D"} & set(words):
        return None
    for model in sorted(PEAKS, key=lambda model: -len(model)):
        wanted = model.split()
        if any(words[place : place + len(wanted)] == wanted for place in range(len(words))):
            return PEAKS[model]
    return None


LARGEST = 8_192
BUDGET_SECONDS = 0.5


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the fastest of some square products, found in about BUDGET_SECONDS.

    The side doubles until one product takes a tenth of that. Random numbers of its own, so that no seed is touched: a
    GPU multiplies zeros faster than anything that occurs.
    """
    import torch

    generator = torch.Generator(device).manual_seed(0)
    started, side, best = time.perf_counter(), 256, 0.0
    factor = torch.randn(side, side, device=device, generator=generator).to(dtype)
    with torch.no_grad():
        _timed(factor)  # the first product pays for the library's start
        while True:
            seconds = _timed(factor)
            best = max(best, 2 * side**3 / seconds)
            if time.perf_counter() - started >= BUDGET_SECONDS:
                return best
            if seconds < BUDGET_SECONDS / 10 and side < LARGEST:
                side *= 2
                factor = torch.randn(side, side, device=device, generator=generator).to(dtype)


def _timed(factor: torch.Tensor) -> float:
    import torch

    def wait() -> None:
        if factor.device.type == "cuda":
            torch.cuda.synchronize(factor.device)

    wait()
    started = time.perf_counter()
    factor @ factor
    wait()
    return max(time.perf_counter() - started, 1e-9)


class Speedometer:
    """Counts what was trained since the last look. `devices` is the number of them that share the work."""

    def __init__(self, sizes: Sizes, peak: Peak, *, devices: int = 1, adapter_parameters: int = 0) -> None:
        self.sizes, self.peak, self.devices, self.adapter_parameters = sizes, peak, devices, adapter_parameters
        self._tokens, self._flops, self._seconds = 0, 0.0, 0.0

    def add(self, lengths: Iterable[int], loss_tokens: int, seconds: float) -> None:
        """One optimizer step: all its traces, over all devices, and the time it took."""
        lengths = list(lengths)
        self._tokens += sum(lengths)
        self._flops += training_flops(self.sizes, lengths, loss_tokens, adapter_parameters=self.adapter_parameters)
        self._seconds += seconds

    def read(self) -> dict[str, float]:
        """`tokens_per_s` and `mfu` since the last call; empty where there was nothing."""
        tokens, flops, seconds = self._tokens, self._flops, self._seconds
        self._tokens, self._flops, self._seconds = 0, 0.0, 0.0
        if not seconds:
            return {}
        return {"tokens_per_s": tokens / seconds, "mfu": flops / seconds / (self.peak.flops * self.devices)}
