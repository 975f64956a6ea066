"""Packing: every trace once, capacity held, close to the optimum; and packs in which no trace sees another."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from conftest import tiny_model
from hypothesis import given
from hypothesis import strategies as st

from distill.train.loss import StudentLoss
from distill.train.packing import EVEN_AT, HEAD_ROWS, IGNORE, Pack, best_fit, collate, passes
from distill.train.token_set import Example

LENGTHS = st.lists(st.integers(1, 40), max_size=60)


def r1_like(count: int, seed: int, longest: int = 32_768) -> list[int]:
    """Lognormal, mean 5,400 before the cut at `longest`: R1's mean (arXiv 2501.12948v2, table 5), its shape a guess."""
    sigma = 0.9
    drawn = np.random.RandomState(seed).lognormal(math.log(5_400) - sigma**2 / 2, sigma, count)
    return [int(min(max(n, 1), longest)) for n in drawn]


def loads(lengths: Sequence[int], packs: Sequence[Sequence[int]]) -> list[int]:
    return [sum(lengths[place] for place in pack) for pack in packs]


# --- best fit --------------------------------------------------------------------------------------------------------


@given(LENGTHS, st.integers(1, 50))
def test_every_trace_is_in_one_pack_and_packs_hold_their_capacity(lengths: list[int], capacity: int) -> None:
    packs = best_fit(lengths, capacity)
    assert sorted(itertools.chain(*packs)) == list(range(len(lengths)))
    for pack, load in zip(packs, loads(lengths, packs), strict=True):
        assert load <= capacity or len(pack) == 1
    assert all(packs)


@given(LENGTHS, st.integers(1, 50))
def test_no_two_packs_would_have_fitted_into_one(lengths: list[int], capacity: int) -> None:
    """A new pack is opened only for a trace that none had room for. So there are less than twice as many as needed."""
    found = sorted(loads(lengths, best_fit(lengths, capacity)))
    assert len(found) < 2 or found[0] + found[1] > capacity


def slow_best_fit(lengths: list[int], capacity: int) -> int:
    """The number of packs by the rule as the books have it, looking at every pack for every trace."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [place for place, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=rooms.__getitem__)] -= length
        else:
            rooms.append(capacity - length)
    return len(rooms)


@given(LENGTHS, st.integers(40, 130))
def test_it_is_best_fit_from_long_to_short(lengths: list[int], capacity: int) -> None:
    assert len(best_fit(lengths, capacity)) == slow_best_fit(lengths, capacity)


def test_the_pack_with_the_least_room_left_is_taken() -> None:
    assert best_fit([6, 5, 4, 3], 10) == [[0, 2], [1, 3]]
    assert best_fit([5, 7, 3, 2, 2], 10) == [[1, 2], [0, 3, 4]], "3 into the room of 3, not of 5"


def fewest(lengths: Sequence[int], capacity: int) -> int:
    """By trying every way: each trace into one of the packs so far, or into a new one."""

    def search(place: int, rooms: tuple[int, ...], best: int) -> int:
        if len(rooms) >= best:
            return best
        if place == len(lengths):
            return len(rooms)
        length = lengths[place]
        for number, room in enumerate(rooms):
            if room >= length:
                best = search(place + 1, (*rooms[:number], room - length, *rooms[number + 1 :]), best)
        return search(place + 1, (*rooms, capacity - length), best)

    return search(0, (), len(lengths) + 1) if lengths else 0


def test_against_the_optimum_on_small_inputs() -> None:
    rng = random.Random(1)
    worse = 0
    for _ in range(400):
        lengths = [rng.randrange(1, 30) for _ in range(rng.randrange(0, 9))]
        least = fewest(lengths, 40)
        found = len(best_fit(lengths, 40))
        assert found <= 11 / 9 * least + 6 / 9, "the bound of first fit from long to short (Dosa 2007)"
        worse += found > least
    assert worse <= 4, "of 400; seldom worse than the optimum at all"


def test_a_trace_beyond_the_capacity_has_a_pack_of_its_own() -> None:
    assert best_fit([4, 90, 3, 11, 3], 10) == [[1], [3], [0, 2, 4]]
    assert best_fit([], 10) == []


def test_a_hundred_thousand_r1_like_traces_leave_little_room() -> None:
    lengths = r1_like(100_000, seed=0)
    packs = best_fit(lengths, 32_768)
    assert sum(map(len, packs)) == 100_000
    assert sum(lengths) / (len(packs) * 32_768) > 0.999


# --- passes ----------------------------------------------------------------------------------------------------------


@given(LENGTHS, st.integers(1, 60), st.integers(1, 9))
def test_all_ranks_have_the_same_passes_and_none_is_lost(lengths: list[int], capacity: int, ranks: int) -> None:
    found = passes(lengths, capacity, ranks)
    assert all(len(packs) == ranks for packs in found)
    flat = list(itertools.chain(*found))
    assert sorted(itertools.chain(*flat)) == list(range(len(lengths)))
    for pack, load in zip(flat, loads(lengths, flat), strict=True):
        assert load <= capacity or len(pack) == 1
    assert len(found) == -(-len(best_fit(lengths, capacity)) // ranks), "as few passes as best fit needs"
    assert sum(not pack for pack in flat) == max(0, len(flat) - len(lengths))
    assert passes(lengths, capacity, ranks) == found


def test_a_rank_has_nothing_to_do_only_where_there_are_too_few_traces() -> None:
    assert passes([5, 5], 100, 3) == [[[0], [1], []]]
    assert passes([10] * 5, 10, 4)[1][1:] == [[], [], []], "the long ones fill a pass, and one is over"


def cost(lengths: Sequence[int], pack: Sequence[int], even_at: float) -> float:
    return sum(lengths[place] * (1 + lengths[place] / even_at) for place in pack)


@pytest.mark.parametrize(
    ("capacity", "even_at", "reached"),
    [
        (32_768, 1e12, 0.98),
        (32_768, EVEN_AT, 0.88),
        (32_768, 4_000, 0.92),
        (65_536, 1e12, 0.99),
        (65_536, EVEN_AT, 0.99),
        (65_536, 4_000, 0.99),
    ],
)
def test_the_packs_of_a_pass_cost_about_the_same(capacity: int, even_at: float, reached: float) -> None:
    """Ranks wait for the slowest in every pass: steps of 64 R1-like traces on 8 ranks, against a time that none can be
    under, when all ranks have the same to do, or one has the costliest trace alone; capacity is not counted in."""
    spent = least = 0.0
    for seed in range(20):
        lengths = r1_like(64, seed)
        found = passes(lengths, capacity, 8, even_at=even_at)
        spent += sum(max(cost(lengths, pack, even_at) for pack in packs) for packs in found)
        one_by_one = [cost(lengths, [place], even_at) for place in range(64)]
        least += max(sum(one_by_one) / 8, max(one_by_one))
    assert least / spent > reached


def test_where_attention_dominates_a_long_trace_counts_for_more_than_its_tokens() -> None:
    lengths = [8, 4, 4, 4, 4, 4, 4]
    by_tokens = passes(lengths, 100, 2, even_at=1e9)
    by_attention = passes(lengths, 100, 2, even_at=1)
    assert sorted(loads(lengths, by_tokens[0])) == [16, 16]
    assert sorted(loads(lengths, by_attention[0])) == [12, 20]


def test_packs_too_tight_to_balance_are_best_fits_own() -> None:
    lengths = [6, 6, 5, 5, 5, 3]
    assert len(best_fit(lengths, 15)) == 2, "6 + 6 + 3 and 5 + 5 + 5"
    assert sorted(loads(lengths, passes(lengths, 15, 2)[0])) == [15, 15]
    found = passes([6, 6, 5, 5, 5, 3, 2, 1], 15, 3)
    assert max(loads([6, 6, 5, 5, 5, 3, 2, 1], found[0])) <= 15
    assert all(found[0])


@pytest.mark.parametrize(("capacity", "filled"), [(16_384, 0.96), (32_768, 0.94), (65_536, 0.90)])
def test_how_full_the_packs_of_a_step_are(capacity: int, filled: float) -> None:
    """What the docstring of `passes` says: steps of 64 R1-like traces on one GPU."""
    tokens = room = 0
    for seed in range(50):
        lengths = [n for n in r1_like(64, seed) if n <= capacity]
        packs = list(itertools.chain(*passes(lengths, capacity, 1)))
        tokens += sum(lengths)
        room += len(packs) * capacity
    assert tokens / room > filled


# --- collate ---------------------------------------------------------------------------------------------------------


def example(ids: Sequence[int], loss_start: int, name: str = "t") -> Example:
    return Example(name, np.array(ids, np.int32), loss_start)


THREE = [example([11, 12, 13, 14], 2), example([21, 22], 1), example([31, 32, 33], 2)]


def rows(pack: Pack) -> tuple[list[int], list[int], list[int]]:
    """Ids, positions, and at every place of the row the token that is learned there, IGNORE elsewhere."""
    labels = [IGNORE] * pack.input_ids.shape[1]
    for place, target in zip(pack.places.tolist(), pack.targets.tolist(), strict=True):
        if target != IGNORE:
            assert labels[place] == IGNORE, "every place once"
            labels[place] = target
    return pack.input_ids[0].tolist(), pack.position_ids[0].tolist(), labels


def assert_bounds_are_those_of_the_lengths(pack: Pack) -> None:
    bounds = pack.segments.bounds
    assert bounds.tolist() == [0, *itertools.accumulate(pack.segments.lengths)]
    assert bounds.dtype == torch.int32
    assert bounds[-1] == pack.input_ids.shape[1] == pack.position_ids.shape[1]


def test_positions_restart_and_targets_are_the_next_token_of_the_same_trace() -> None:
    pack = collate(THREE)
    ids, positions, labels = rows(pack)
    assert ids == [11, 12, 13, 14, 21, 22, 31, 32, 33]
    assert positions == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert labels == [IGNORE, 13, 14, IGNORE, 22, IGNORE, IGNORE, 33, IGNORE]
    assert pack.places.tolist() == [1, 2, 4, 7]
    assert pack.targets.tolist() == [13, 14, 22, 33]
    assert pack.segments.lengths == (4, 2, 3)
    assert (pack.segments.longest, pack.tokens, pack.loss_tokens) == (4, 9, 4)
    assert_bounds_are_those_of_the_lengths(pack)
    assert {t.dtype for t in (pack.input_ids, pack.position_ids, pack.places, pack.targets)} == {torch.int64}
    assert pack.input_ids.shape == pack.position_ids.shape == (1, 9)


def test_the_kernel_is_the_one_asked_for() -> None:
    assert collate(THREE).segments.kernel == "apart"
    assert collate(THREE, kernel="varlen").segments.kernel == "varlen"


@pytest.mark.parametrize(("multiple", "size"), [(1, 9), (2, 10), (3, 9), (8, 16), (64, 64)])
def test_filler_is_a_trace_of_its_own_outside_the_loss(multiple: int, size: int) -> None:
    bare, pack = collate(THREE), collate(THREE, multiple=multiple, pad=7)
    assert pack.input_ids.shape == (1, size)
    for with_filler, without in zip(rows(pack), rows(bare), strict=True):
        assert with_filler[:9] == without
    ids, positions, labels = (row[9:] for row in rows(pack))
    assert ids == [7] * (size - 9)
    assert positions == list(range(size - 9))
    assert labels == [IGNORE] * (size - 9)
    assert pack.segments.lengths == ((4, 2, 3, size - 9) if size > 9 else (4, 2, 3))
    assert_bounds_are_those_of_the_lengths(pack)
    assert (pack.tokens, pack.loss_tokens) == (9, 4)
    assert pack.segments.longest == max(4, size - 9)


def test_places_are_filled_up_where_rows_are() -> None:
    assert len(collate(THREE).places) == 4
    pack = collate(THREE, multiple=2)
    assert len(pack.places) == len(pack.targets) == HEAD_ROWS
    assert set(pack.places[4:].tolist()) == {0}
    assert set(pack.targets[4:].tolist()) == {IGNORE}
    many = [example(range(HEAD_ROWS + 2), 1)]
    assert len(collate(many, multiple=2).places) == 2 * HEAD_ROWS


def test_a_rank_without_traces_has_filler_alone() -> None:
    for multiple, size in ((1, 1), (16, 16)):
        pack = collate([], multiple=multiple, pad=7)
        assert rows(pack) == ([7] * size, list(range(size)), [IGNORE] * size)
        assert (pack.segments.lengths, pack.segments.longest) == ((size,), size)
        assert_bounds_are_those_of_the_lengths(pack)
        assert (pack.tokens, pack.loss_tokens) == (0, 0)
        assert len(pack.places) >= 1, "every rank calls the head"


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), max_size=8), st.integers(1, 16))
def test_loss_tokens_are_the_targets_that_count(parts: list[tuple[int, int]], multiple: int) -> None:
    found = [example(range(100, 100 + length), min(start, length)) for length, start in parts]
    pack = collate(found, multiple=multiple)
    assert int((pack.targets != IGNORE).sum()) == pack.loss_tokens == sum(e.loss_tokens for e in found)
    assert pack.input_ids.shape[1] % multiple == 0
    assert pack.tokens == sum(e.length for e in found)


def random_traces() -> list[Example]:
    rng = random.Random(3)
    return [example([rng.randrange(700) for _ in range(n)], rng.randrange(1, n)) for n in (9, 30, 2, 17)]


def token_losses(module: StudentLoss, pack: Pack) -> torch.Tensor:
    """Of every token inside the loss: the summed loss of a pack with that one target alone."""
    found = []
    with torch.no_grad():
        for place in torch.nonzero(pack.targets != IGNORE).flatten().tolist():
            only = torch.full_like(pack.targets, IGNORE)
            only[place] = pack.targets[place]
            found.append(module(dataclasses.replace(pack, targets=only)))
    return torch.stack(found)


def test_the_loss_of_a_pack_is_that_of_its_traces_one_by_one() -> None:
    """Token by token through a real model; with positions that run on or segments that are one, it is not."""
    module, traces = StudentLoss(tiny_model("qwen2", initializer_range=0.3)), random_traces()
    apart = torch.cat([token_losses(module, collate([trace])) for trace in traces])
    packed = token_losses(module, collate(traces, multiple=16, pad=721))
    assert len(packed) == sum(trace.loss_tokens for trace in traces)
    assert torch.allclose(packed, apart, atol=1e-4)
    pack = collate(traces)
    size = pack.input_ids.shape[1]
    shared = dataclasses.replace(pack.segments, lengths=(size,), bounds=torch.tensor([0, size], dtype=torch.int32))
    for broken in (
        dataclasses.replace(pack, segments=shared),
        dataclasses.replace(pack, segments=shared, position_ids=torch.arange(size)[None]),
    ):
        assert not torch.allclose(token_losses(module, broken), apart, atol=1e-2), "traces see each other"


def test_positions_that_run_on_change_nothing_that_relative_ones_would_see() -> None:
    """Rotary positions are relative, so a start elsewhere is harmless alone; what isolates traces is the segments.
    Positions out of step inside a trace are found."""
    module, traces = StudentLoss(tiny_model("qwen2", initializer_range=0.3)), random_traces()
    pack = collate(traces)
    apart = token_losses(module, pack)
    running_on = dataclasses.replace(pack, position_ids=torch.arange(pack.input_ids.shape[1])[None])
    assert torch.allclose(token_losses(module, running_on), apart, atol=1e-3)
    doubled = dataclasses.replace(pack, position_ids=2 * pack.position_ids)
    assert not torch.allclose(token_losses(module, doubled), apart, atol=1e-2)
