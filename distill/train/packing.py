"""Traces side by side in one row without padding: which share a pack, and the tensors of a pack.

A pack holds whole traces that do not see each other: positions start anew at each, attention goes by `segments`.
Knows nothing about models, tokenizers or files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distill.train.attention import Kernel, Segments
from distill.train.token_set import Example

if TYPE_CHECKING:
    import torch

IGNORE = -100
"""Label of positions outside the loss, as torch's cross-entropy has it."""
EVEN_AT = 12 * 3_584
"""Tokens at which a trace's attention costs as much as all the rest: per layer and token, causal attention over n
tokens takes 2·n·h operations and the matrices of a dense layer 24·h², so 12·h for a hidden size h; Qwen2.5-7B here."""


# --- which traces share a pack ---------------------------------------------------------------------------------------


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs of positions in `lengths`: from long to short, each trace goes where the least room is left after it.

    None is split. One longer than `capacity` has a pack of its own. Takes n · log(n · capacity) steps.
    """
    packs: list[list[int]] = []
    rooms = _Rooms(capacity)
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        length = lengths[place]
        found = rooms.take(length)
        if found is None:
            pack, room = len(packs), capacity
            packs.append([])
        else:
            pack, room = found
        packs[pack].append(place)
        if length < room:
            rooms.add(room - length, pack)
    return packs


class _Rooms:
    """Packs by the room left in them; finds one with the least room that is enough. A tree of counts over rooms."""

    def __init__(self, capacity: int) -> None:
        self._leaves = 1 << capacity.bit_length()
        self._counts = [0] * (2 * self._leaves)
        self._packs: dict[int, list[int]] = {}

    def add(self, room: int, pack: int) -> None:
        self._packs.setdefault(room, []).append(pack)
        self._change(room, 1)

    def take(self, length: int) -> tuple[int, int] | None:
        """(pack, its room), which is taken out; None where nothing has room for `length`."""
        room = self._at_least(length)
        if room is None:
            return None
        self._change(room, -1)
        return self._packs[room].pop(), room

    def _change(self, room: int, by: int) -> None:
        node = self._leaves + room
        while node:
            self._counts[node] += by
            node //= 2

    def _at_least(self, room: int) -> int | None:
        if room >= self._leaves:
            return None
        node = self._leaves + room
        while not self._counts[node]:
            while node % 2:  # a right child: what is further right lies beyond its parent
                node //= 2
            if not node:
                return None
            node += 1
        while node < self._leaves:
            node = 2 * node if self._counts[2 * node] else 2 * node + 1
        return node - self._leaves


def passes(lengths: Sequence[int], capacity: int, ranks: int, *, even_at: float = EVEN_AT) -> list[list[list[int]]]:
    """One optimizer step's traces as [pass][rank] → positions in `lengths`, every pack within `capacity`.

    All ranks have the same number of passes, as few as best-fit packing needs. Ranks wait for each other in each pass,
    so the packs of a pass cost about the same: a trace of n tokens costs n · (1 + n / `even_at`). Packs are empty only
    where there are fewer traces than packs. A trace longer than `capacity` has a pack of its own.

    tests/train/test_packing.py holds steps of 64 R1-like traces to this: on one rank packs of 16,384 / 32,768 / 65,536
    are 96 / 94 / 90% full; on eight, packs of 65,536 take at most 1% longer than traces that could be cut anywhere,
    packs of 32,768, for which two passes are needed, at most 2 to 14%.
    """
    packed = best_fit(lengths, capacity)
    costs = [length * (1 + length / even_at) for length in lengths]
    count = -(-len(packed) // ranks)
    levelled = _levelled(lengths, costs, capacity, count, ranks)
    if levelled is not None:
        return levelled
    packs = _split_up(packed, costs, count * ranks)
    packs.sort(key=lambda pack: -sum(costs[place] for place in pack))
    return [packs[start : start + ranks] for start in range(0, len(packs), ranks)]


def _levelled(
    lengths: Sequence[int], costs: Sequence[float], capacity: int, count: int, ranks: int
) -> list[list[list[int]]] | None:
    """Pass after pass, from long to short: the costliest trace left sets how far the others of its pass are filled.

    None where the last pass cannot hold what the others left to it.
    """
    rest = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    found = []
    for later in reversed(range(count)):
        level = math.inf
        if later:
            level = max(costs[rest[0]], sum(costs[place] for place in rest) / (ranks * (later + 1)))
        most = max(len(rest) - ranks * later, min(ranks, len(rest)))  # the later passes have to get some too
        packs, rest = _fill(rest, lengths, costs, capacity, ranks, level, most)
        found.append(packs)
        if later and not rest:
            break
    return None if rest or len(found) < count else found


def _fill(
    order: Sequence[int],
    lengths: Sequence[int],
    costs: Sequence[float],
    capacity: int,
    ranks: int,
    level: float,
    most: int,
) -> tuple[list[list[int]], list[int]]:
    """(packs of one pass, what is left over): each trace goes into the cheapest pack with room for it."""
    packs: list[list[int]] = [[] for _ in range(ranks)]
    rooms, spent = [capacity] * ranks, [0.0] * ranks
    over: list[int] = []
    for number, place in enumerate(order):
        length, cost = lengths[place], costs[place]
        fitting = [
            rank for rank in range(ranks) if not packs[rank] or (rooms[rank] >= length and spent[rank] + cost <= level)
        ]
        if not fitting or number - len(over) == most:
            over.append(place)
            continue
        rank = min(fitting, key=spent.__getitem__)
        packs[rank].append(place)
        rooms[rank] -= length
        spent[rank] += cost
    return packs, over


def _split_up(packed: Sequence[Sequence[int]], costs: Sequence[float], slots: int) -> list[list[int]]:
    """Best-fit packs, of which the costliest with several traces are halved until there are `slots`."""
    packs = [list(pack) for pack in packed]
    while len(packs) < slots:
        several = [pack for pack in packs if len(pack) > 1]
        if not several:
            packs.append([])
            continue
        costliest = max(several, key=lambda pack: sum(costs[place] for place in pack))
        packs.remove(costliest)
        halves: tuple[list[int], list[int]] = ([], [])
        for place in sorted(costliest, key=lambda place: -costs[place]):
            min(halves, key=lambda half: sum(costs[other] for other in half)).append(place)
        packs.extend(halves)
    return packs


# --- the tensors of a pack -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Traces one after the other in a row of N tokens, filler at the end."""

    input_ids: torch.Tensor
    """[1, N] int64."""
    position_ids: torch.Tensor
    """[1, N] int64, from 0 in each trace."""
    places: torch.Tensor
    """[L] int64: positions in the row whose next token is inside the loss."""
    targets: torch.Tensor
    """[L] int64: those next tokens, of the same trace; IGNORE at filler."""
    segments: Segments
    """Where each trace starts and ends, the filler counted as one."""
    tokens: int
    """Of the traces, without filler."""
    loss_tokens: int

    def to(self, device: torch.device | str) -> Pack:
        tensors = {name: getattr(self, name).to(device) for name in ("input_ids", "position_ids", "places", "targets")}
        segments = dataclasses.replace(self.segments, bounds=self.segments.bounds.to(device))
        return dataclasses.replace(self, segments=segments, **tensors)


HEAD_ROWS = 256
"""Places are filled up to multiples of this many on a row that is itself filled up, for the same reason: few shapes."""


def collate(examples: Sequence[Example], *, multiple: int = 1, pad: int = 0, kernel: Kernel = "apart") -> Pack:
    """The pack of some examples, in their order, on the CPU; N is a multiple of `multiple`.

    What is missing up to it is one more trace of `pad` tokens outside the loss: shapes repeat, and ranks that share a
    row get equal parts. Without examples the row is filler alone, for a rank that has nothing to do in a pass.
    """
    import torch

    lengths = [example.length for example in examples]
    tokens = sum(lengths)
    filler = padded(max(tokens, 1), multiple) - tokens
    segments = [*lengths, filler] if filler else lengths
    ids = np.full(tokens + filler, pad, np.int64)
    places: list[npt.NDArray[np.int64]] = []
    start = 0
    for example in examples:
        first = max(example.loss_start, 1)
        ids[start : start + example.length] = example.ids
        places.append(np.arange(start + first - 1, start + example.length - 1, dtype=np.int64))
        start += example.length
    learned = np.concatenate([*places, np.zeros(0, np.int64)])
    spare = padded(max(len(learned), 1), HEAD_ROWS if multiple > 1 else 1) - len(learned)
    positions = np.concatenate([np.arange(length, dtype=np.int64) for length in segments])
    bounds = np.concatenate([np.zeros(1, np.int32), np.cumsum(segments, dtype=np.int32)])
    return Pack(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        places=torch.from_numpy(np.concatenate([learned, np.zeros(spare, np.int64)])),
        targets=torch.from_numpy(np.concatenate([ids[learned + 1], np.full(spare, IGNORE, np.int64)])),
        segments=Segments(torch.from_numpy(bounds), tuple(segments), kernel),
        tokens=tokens,
        loss_tokens=sum(example.loss_tokens for example in examples),
    )


def padded(count: int, multiple: int) -> int:
    """The smallest multiple that holds `count`."""
    return -(-count // multiple) * multiple
