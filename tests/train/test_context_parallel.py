"""A trace's tokens over several ranks: slices and exchanges alone. That training stays the same: test_parallel.py."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from distill.errors import SpecError
from distill.train.context_parallel import check_heads, heads_for_tokens, split_pack, tokens_for_heads
from distill.train.loss import IGNORE
from distill.train.parallel import World, joined
from train import many, ranks


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_slices_together_are_the_row(size: int) -> None:
    pack = many.pack(many.traces(3, seed=4), "apart")
    count = pack.input_ids.shape[1]
    split: Any = [split_pack(pack, World(rank, size, rank, size), pad=7) for rank in range(size)]
    width = -(-count // size)
    assert {part.input_ids.shape for part in split} == {part.position_ids.shape for part in split} == {(1, width)}
    ids = torch.cat([part.input_ids for part in split], 1)
    positions = torch.cat([part.position_ids for part in split], 1)
    filler = size * width - count
    assert torch.equal(ids[:, :count], pack.input_ids)
    assert torch.equal(positions[:, :count], pack.position_ids)
    assert ids[0, count:].tolist() == [7] * filler
    assert positions[0, count:].tolist() == list(range(filler))
    for part in split:
        assert sum(part.segments.lengths) == int(part.segments.bounds[-1]) == size * width
        assert part.segments.lengths[:3] == pack.segments.lengths
        assert (part.tokens, part.loss_tokens) == (pack.tokens, pack.loss_tokens)
    placed = [
        (rank * width + place, target)
        for rank, part in enumerate(split)
        for place, target in zip(part.places.tolist(), part.targets.tolist(), strict=True)
        if target != IGNORE
    ]
    assert placed == list(zip(pack.places.tolist(), pack.targets.tolist(), strict=True))


def test_a_slice_outside_the_loss_still_takes_part() -> None:
    pack = dataclasses.replace(many.pack([(list(range(8)), 7)], "apart"))
    first: Any = split_pack(pack, World(0, 2, 0, 2), pad=0)  # type: ignore[arg-type]
    assert (first.places.tolist(), first.targets.tolist()) == ([0], [IGNORE])


def test_one_rank_keeps_its_pack() -> None:
    pack: Any = many.pack(many.traces(2), "apart")
    assert split_pack(pack, World(), pad=0) is pack


def test_heads_that_cannot_be_shared() -> None:
    check_heads(12, 4)
    with pytest.raises(SpecError, match="cannot be shared") as caught:
        check_heads(12, 8)
    assert "context_parallel: 8, 12 attention heads" in str(caught.value)
    assert "1, 2, 3, 4, 6, 12" in str(caught.value)


def exchanged(heads: int) -> list[Any]:
    """Rank r has the tokens 2r and 2r + 1 of `heads` heads; head h at token t is filled with 100·h + t."""
    with joined() as world:
        tokens = torch.arange(2) + 2 * world.rank
        own = (100 * torch.arange(heads)[:, None] + tokens)[None, :, :, None].expand(1, heads, 2, 3).double()
        own.requires_grad_()
        found = tokens_for_heads(own, None)
        (found * (world.rank + 1)).sum().backward()
        back = heads_for_tokens(found.detach(), None)
        assert own.grad is not None
        return [tensor[0, :, :, 0].tolist() for tensor in (found.detach(), back, own.grad)]


@pytest.mark.parametrize("heads", [4, 1])
def test_tokens_are_exchanged_for_heads(heads: int) -> None:
    """Each rank has all tokens of its heads, in order, and gets its own tokens of all heads back; one head is
    repeated, and its gradient comes from both ranks."""
    for rank, (found, back, gradient) in enumerate(ranks.run(2, exchanged, heads)):
        own = [2 * rank, 2 * rank + 1] if heads == 4 else [0]
        assert found == [[100.0 * head + token for token in range(4)] for head in own]
        every = range(4) if heads == 4 else [0, 0]
        assert back == [[100.0 * head + token for token in (2 * rank, 2 * rank + 1)] for head in every]
        weights = [1, 1, 2, 2] if heads == 4 else [3]
        assert gradient == [[float(weight)] * 2 for weight in weights]
