"""A trace's tokens shared by several GPUs (Ulysses, arXiv 2309.14509): everywhere but in attention each rank holds its
slice of the row; for attention ranks exchange tokens for heads, so that each has all tokens of some heads.

Knows nothing about weights, optimizers or data.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from distill.errors import SpecError
from distill.train.packing import IGNORE

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from distill.train.packing import Pack
    from distill.train.parallel import World


def check_heads(heads: int, size: int) -> None:
    """Raises SpecError unless `size` ranks can share the attention heads; key and value heads are repeated instead."""
    if heads % size:
        todo = ", ".join(str(count) for count in range(1, heads + 1) if heads % count == 0)
        raise SpecError(
            "the attention heads of the student cannot be shared by so many GPUs",
            given=f"train.context_parallel: {size}, {heads} attention heads",
            todo=f"use one of {todo}",
        )


def split_pack(pack: Pack, world: World, *, pad: int) -> Pack:
    """This rank's slice of a pack: tokens, position ids and the places inside the loss; segments stay those of the
    whole row. Rows are filled up with the token `pad`, as a trace of its own, to a multiple of the ranks.

    Counts are those of the whole pack, which its ranks have in common (`World.total`). Places lose their shape here:
    on a GPU, split before moving the pack there.
    """
    rank, size = world.context_rank, world.context_parallel
    if size == 1:
        return pack
    total = sum(pack.segments.lengths)
    filler = -total % size
    part = (total + filler) // size
    start, stop = rank * part, (rank + 1) * part
    own = (pack.places >= start) & (pack.places < stop)
    places, targets = pack.places[own] - start, pack.targets[own]
    if not len(places):  # every rank takes part in every gradient
        places, targets = pack.places.new_zeros(1), pack.targets.new_full((1,), IGNORE)
    positions = torch.cat([pack.position_ids, torch.arange(filler, device=pack.position_ids.device)[None]], 1)
    ids = torch.cat([pack.input_ids, pack.input_ids.new_full((1, filler), pad)], 1)
    segments = pack.segments
    if filler:
        bounds = torch.cat([segments.bounds, segments.bounds[-1:] + filler])
        segments = replace(segments, bounds=bounds, lengths=(*segments.lengths, filler))
    group = world.mesh.get_group("context") if world.mesh is not None else None
    segments = replace(
        segments,
        exchange=functools.partial(tokens_for_heads, group=group),
        give_back=functools.partial(heads_for_tokens, group=group),
    )
    return replace(
        pack,
        input_ids=ids[:, start:stop],
        position_ids=positions[:, start:stop],
        places=places,
        targets=targets,
        segments=segments,
    )


def tokens_for_heads(tensor: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """[1, heads, own tokens, d] → [1, own heads, all tokens, d].

    Fewer heads than ranks, as of keys and values, are repeated as often as it takes for each rank to have its own.
    """
    size = dist.get_world_size(group)
    heads = tensor.shape[1]
    tensor = tensor.repeat_interleave(math.lcm(heads, size) // heads, 1) if heads % size else tensor
    _, heads, tokens, width = tensor.shape
    by_rank = tensor.reshape(size, heads // size, tokens, width)
    found = _all_to_all(by_rank, group)  # [ranks' tokens, own heads, tokens, d]
    return found.transpose(0, 1).reshape(1, heads // size, size * tokens, width)


def heads_for_tokens(tensor: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """[1, own heads, all tokens, d] → [1, heads, own tokens, d]."""
    size = dist.get_world_size(group)
    _, heads, tokens, width = tensor.shape
    by_rank = tensor.reshape(heads, size, tokens // size, width).transpose(0, 1)
    found = _all_to_all(by_rank, group)  # [ranks' heads, heads, own tokens, d]
    return found.reshape(1, size * heads, tokens // size, width)


def _all_to_all(tensor: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """Part i of the first dimension goes to rank i, whose part stands at its rank; so does the gradient."""
    found: torch.Tensor = _AllToAll.apply(tensor, group)  # type: ignore[no-untyped-call]
    return found


class _AllToAll(torch.autograd.Function):
    """torch's own differentiable form returns a tensor subclass that is waited for later, which activation
    checkpointing would have to keep; this one returns when the tokens are here."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
        ctx.group = group
        given = tensor.contiguous()
        found = torch.empty_like(given)
        dist.all_to_all_single(found, given, group=group)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _all_to_all(gradient, ctx.group), None
