"""AdamW for the student: torch's own for float32 weights, one with stochastic rounding for bfloat16 weights.

Knows nothing about models, data or learning rate schedules: the loop sets each step's rate in `param_groups`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, cast, overload

import torch
from torch.optim.adamw import adamw

from distill.train_specs import LEARNING_RATE, TrainSettings

BETAS, EPSILON = (0.9, 0.95), 1e-8
"""AdamW's, as in the DeepSeek-V3 report (arXiv 2412.19437, section 4.2); not published for R1's students."""
CHUNK = 2**24
"""Weights of one bfloat16 update at a time: its float32 copies then take 320 MB at most, whatever the matrix."""


def optimizer_for(model: torch.nn.Module, settings: TrainSettings, *, seed: int) -> torch.optim.Optimizer:
    """AdamW over what is trained, decay on matrices alone. Weights in bfloat16 are rounded stochastically from `seed`.

    Bytes per trained weight, gradient included: 16 in float32, 8 in bfloat16.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = settings.learning_rate or LEARNING_RATE
    if any(parameter.dtype == torch.bfloat16 for parameter in trained):
        return RoundingAdamW(groups, lr=rate, seed=seed)
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS, eps=EPSILON, fused=True)


class RoundingAdamW(torch.optim.Optimizer):
    """AdamW whose weights and state are kept in the parameters' dtype and whose arithmetic is float32.

    A bfloat16 weight is rounded up or down by chance, in proportion to its distance: an update of a hundredth of the
    spacing moves it every hundredth time, where rounding to nearest would lose it (arXiv 2010.06192). The moments are
    rounded to nearest: at BETAS a change of them falls below half their spacing only within 8% of where they already
    are. What is drawn depends on seed, step, parameter and place in it alone, so that a resumed training draws the
    same and no generator has to be saved. Parameters may be DTensors; every shard draws its own bits, every replica
    the same. torchao's `_AdamW` does this too, but is private, compiles every shape and draws from the global
    generator.
    """

    def __init__(self, params: Any, *, lr: float, seed: int) -> None:
        defaults = {"lr": lr, "betas": BETAS, "eps": EPSILON, "weight_decay": 0.0, "seed": seed}
        super().__init__(params, defaults)
        self._generators: dict[torch.device, torch.Generator] = {}

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        number = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, number)
                number += 1
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any], number: int) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["step"] += 1
        draw = self._generator(parameter, group["seed"], int(state["step"]), number)
        tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        for chunk in _chunks(tensors):
            _update_chunk(chunk, group, state["step"], draw)

    def _generator(self, parameter: torch.Tensor, seed: int, step: int, number: int) -> torch.Generator:
        device = _local(parameter).device
        generator = self._generators.setdefault(device, torch.Generator(device))
        key = f"{seed}:{step}:{number}:{_shard(parameter)}"
        generator.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "little"))
        return generator


def _update_chunk(
    chunk: tuple[torch.Tensor, ...], group: dict[str, Any], step: torch.Tensor, draw: torch.Generator
) -> None:
    """One AdamW step of torch on float32 copies, written back. `step` counts this one already."""
    weight, gradient, mean, square = (tensor.float() for tensor in chunk)
    adamw(
        [weight],
        [gradient],
        [mean],
        [square],
        [],
        [(step - 1).to(weight.device)],
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
    if chunk[0].dtype == torch.bfloat16:
        round_stochastically(weight, draw)
    for kept, new in zip((chunk[0], *chunk[2:]), (weight, mean, square), strict=True):
        kept.copy_(new)


def round_stochastically(values: torch.Tensor, generator: torch.Generator) -> None:
    """Rounds float32 `values`, in place, to numbers that bfloat16 holds: to either neighbour, with the probability
    that makes the expected value the number itself. Infinity and nan stay what they are."""
    bits = values.view(torch.int32)
    bits.add_(_random_16_bits(values.numel(), values.device, generator).view(values.shape)).bitwise_and_(-(2**16))


def _random_16_bits(count: int, device: torch.device, generator: torch.Generator) -> torch.Tensor:
    """`count` numbers of 0 to 65,535, four out of every 64 random bits."""
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:count].to(torch.int32).bitwise_and_(2**16 - 1)


def _chunks(tensors: tuple[torch.Tensor | None, ...]) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same CHUNK elements of every tensor's local part, as flat views."""
    flat = [_local(cast(torch.Tensor, tensor)) for tensor in tensors]
    if all(tensor.is_contiguous() for tensor in flat):
        yield from zip(*(torch.split(tensor.view(-1), CHUNK) for tensor in flat), strict=True)
    else:
        yield tuple(flat)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a DTensor; any other tensor as it is."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _shard(tensor: torch.Tensor) -> tuple[int, ...]:
    """Which of a DTensor's shards this process holds; the same for all that hold a replica of it."""
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return ()
    places = tensor.device_mesh.get_coordinate() or ()
    return tuple(place for place, kind in zip(places, tensor.placements, strict=True) if kind.is_shard())
