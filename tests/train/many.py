"""A tiny student trained on the same packs by one process or by many: what the ranks of the tests run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conftest import tiny_model

from distill.train import checkpoints
from distill.train.adapters import plain, with_adapter
from distill.train.attention import Kernel, Segments
from distill.train.context_parallel import split_pack
from distill.train.loss import StudentLoss
from distill.train.packing import IGNORE, Pack
from distill.train.parallel import World, activation_checkpointing, joined, shard, world_of
from distill.train.weights import gather_full_state, load_sharded, on_meta, save_weights
from distill.train_specs import LoraSettings

Trace = tuple[list[int], int]
"""Token ids, and where the loss starts."""


@dataclass(frozen=True)
class Setting:
    """How the student is trained."""

    architecture: str = "qwen2"
    tied: bool = True
    context_parallel: int = 1
    precision: Any = "fp32"
    kernel: Kernel = "apart"
    checkpointing: bool = False
    steps: int = 2
    adapter: bool = False
    """LoRA, and some vocabulary rows, on a frozen base."""


def traces(count: int = 8, seed: int = 0) -> list[Trace]:
    rng = random.Random(seed)
    lengths = [rng.randrange(5, 18) for _ in range(count)]
    return [([rng.randrange(768) for _ in range(length)], rng.randrange(1, length - 1)) for length in lengths]


def pack(found: Sequence[Trace], kernel: Kernel) -> Pack:
    lengths = tuple(len(ids) for ids, _ in found)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    places, targets = [], []
    for start, (ids, first) in zip(bounds.tolist(), found, strict=False):
        places += [start + place for place in range(first - 1, len(ids) - 1)]
        targets += ids[first:]
    return Pack(
        torch.tensor([[token for ids, _ in found for token in ids]]),
        torch.cat([torch.arange(length) for length in lengths])[None],
        torch.tensor(places),
        torch.tensor(targets),
        Segments(bounds.int(), lengths, kernel),
        sum(lengths),
        len(targets),
    )


def empty(kernel: Kernel) -> Pack:
    """For a rank that has nothing to do in a pass: filler alone."""
    zero = torch.zeros(1, 2, dtype=torch.int64)
    segments = Segments(torch.tensor([0, 2], dtype=torch.int32), (2,), kernel)
    return Pack(zero, torch.arange(2)[None], zero[0, :1], torch.tensor([IGNORE]), segments, 0, 0)


def student(setting: Setting, seed: int = 0) -> Any:
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": setting.tied}
    model = tiny_model(setting.architecture, seed=seed, initializer_range=0.05, **sizes)
    return plain(with_adapter(model, LoraSettings(rank=4), [5, 700], seed=seed)) if setting.adapter else model


def module(setting: Setting, world: World, seed: int = 0) -> StudentLoss:
    """Sharded, where there are several ranks; every rank draws the same weights."""
    model = student(setting, seed)
    found = StudentLoss(model).train()
    if setting.checkpointing:
        activation_checkpointing(model)
    if world.size > 1:
        shard(found, world, precision=setting.precision)
    return found


def full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.clone()  # type: ignore[no-any-return]


def optimizer(found: torch.nn.Module) -> torch.optim.Optimizer:
    """With a large epsilon: a gradient that is zero but for rounding shall not make a full step."""
    return torch.optim.AdamW(found.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-3)


def take_steps(
    found: StudentLoss, state: torch.optim.Optimizer, setting: Setting, world: World, first: int = 0
) -> dict[str, Any]:
    """Losses and gradient norms of each step, the gradients of the first, the weights at the end."""
    told: dict[str, Any] = {"losses": [], "norms": []}
    for step in range(first, first + setting.steps):
        packs: list[Pack] = [pack(traces(2, seed=10 * step + number), setting.kernel) for number in range(4)]
        total, summed = sum(pack.loss_tokens for pack in packs), 0.0
        packs += [empty(setting.kernel)] * (-len(packs) % world.data_size)  # every rank has as many passes
        for mine in packs[world.data_rank :: world.data_size]:
            loss = found(split_pack(mine, world, pad=0)) / total
            loss.backward()
            summed += float(loss.detach())
        told["losses"].append(world.total_of_parts(summed))
        if step == first:
            told["gradients"] = {
                name: full(weight.grad).numpy() for name, weight in found.named_parameters() if weight.requires_grad
            }
        norm = torch.nn.utils.clip_grad_norm_(found.parameters(), 1.0)
        told["norms"].append(float(full(norm)))
        state.step()
        state.zero_grad()
    told["weights"] = {name: full(weight.detach()).numpy() for name, weight in found.named_parameters()}
    return told


def trained(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """One training after the other in the world that torchrun's variables describe."""
    return list(_trained(settings))


def _trained(settings: Sequence[Setting]) -> Iterator[dict[str, Any]]:
    with joined() as alone:
        for setting in settings:
            world = alone
            if alone.size > 1:
                world = world_of("cpu", alone.rank, alone.size, alone.local_rank, setting.context_parallel)
            found = module(setting, world)
            told = take_steps(found, optimizer(found), setting, world)
            kinds = sorted({type(weight).__name__ for weight in found.parameters()})
            held = sum(
                (weight.to_local() if hasattr(weight, "to_local") else weight).numel() for weight in found.parameters()
            )
            yield {**told, "kinds": kinds, "held": held}


GOING_ON = Setting(tied=False, steps=1)


def saved_and_reloaded(own: Path, others: Sequence[Path]) -> list[dict[str, Any]]:
    """Trains a step and saves in `own`; then loads each of `others` into another student and trains the next step."""
    told = []
    with joined() as world:
        found = module(GOING_ON, world)
        state = optimizer(found)
        take_steps(found, state, GOING_ON, world)
        position = checkpoints.Position(1, "job", 0.5, {"losses": [1.5]})
        checkpoints.save(own, position, found, state, keep=1, world=world)
        for folder in others:
            found = module(GOING_ON, world, seed=1)
            state = optimizer(found)
            newest = checkpoints.newest(folder, "job", world=world)
            assert newest is not None
            assert newest[1] == position
            checkpoints.load(newest[0], found, state, world=world)
            told.append(take_steps(found, state, GOING_ON, world, first=1))
    return told


def reloaded(folder: Path, tied: Path, grown: Path, out: Path) -> dict[str, Any]:
    """Students filled from `folder` and `tied` and trained a step; one with more vocabulary rows, saved again."""
    from transformers import AutoConfig

    with joined() as world:

        def filled(config: Path, weights: Path) -> StudentLoss:
            model = on_meta(AutoConfig.from_pretrained(config), torch.float32)
            found = StudentLoss(model).train()
            if world.size > 1:
                shard(found, world, precision="fp32")
            load_sharded(model, weights, world)
            return found

        found, found_tied, found_grown = filled(folder, folder), filled(tied, tied), filled(grown, folder)
        held = {name: weight.to_local().numel() for name, weight in found.named_parameters()} if world.size > 1 else {}
        save_weights(found_grown.model, out, world, dtype=torch.float32, file_bytes=50_000)
        whole = {name: tensor.numpy() for name, tensor in gather_full_state(found_grown.model, world)}
        told = [take_steps(found, optimizer(found), Setting(steps=1), world) for found in (found, found_tied)]
    return {"untied": told[0], "tied": told[1], "held": held, "whole": whole}
