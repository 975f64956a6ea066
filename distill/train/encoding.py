"""From kept traces to token ids with their loss mask, and from those to batches. No trace is ever cut."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.contract import Contract, Encoded, parse_canonical
from distill.errors import RunError
from distill.files import reading

if TYPE_CHECKING:
    import torch

WINDOW = 32
"""Steps' worth of traces among which batches are grouped by length."""
WIDTH = 16
"""Batches are padded to a multiple of this. On a CPU every new shape costs a kernel and memory: with a hundred widths
training fell to 60% of its speed within 400 steps and took three times the memory (benchmarks/training_speed.py)."""
IGNORE = -100
"""Label of tokens outside the loss, as torch's cross-entropy has it."""


@dataclass(frozen=True, slots=True)
class Example:
    """One training text; `trace_id` leads back to its trace."""

    trace_id: str
    encoded: Encoded

    @property
    def length(self) -> int:
        return len(self.encoded.ids)

    @property
    def loss_tokens(self) -> int:
        return self.length - self.encoded.loss_start


@dataclass(frozen=True, slots=True)
class Census:
    """How many traces fit the context, how many did not, and their lengths in tokens."""

    fitting: int
    too_long: int
    tokens: int
    longest: int


def encode_kept(
    folder: Path, split: str, tokenizer: Any, contract: Contract, context_length: int
) -> tuple[list[Example], Census]:
    """The examples of kept/SPLIT-*.parquet. Traces over `context_length` tokens are left out and counted."""
    import pyarrow.parquet as pq

    files = sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise RunError(f"there are no kept traces ({split})", given=str(folder), todo="run `distill filter` first")
    examples, too_long, longest = [], 0, 0
    for file in files:
        with reading(file, "make it again with `distill filter RUN`"):
            rows = pq.read_table(file, columns=["trace_id", "kind", "messages"]).to_pylist()
        for row in rows:
            question, reply = (message["content"] for message in row["messages"])
            messages = contract.messages(question, row["kind"])
            encoded = contract.encode(tokenizer, messages, parse_canonical(reply))
            longest = max(longest, len(encoded.ids))
            if len(encoded.ids) > context_length:
                too_long += 1
            else:
                examples.append(Example(row["trace_id"], encoded))
    return examples, Census(len(examples), too_long, sum(example.length for example in examples), longest)


def steps_in(examples: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps; every epoch ends with a smaller batch where the numbers do not divide."""
    per_epoch = -(-examples // batch_size)
    return max(1, round(per_epoch * epochs))


def batches(examples: Sequence[Example], batch_size: int, seed: int) -> Iterator[list[Example]]:
    """Endless batches, a new order every epoch from `seed`; traces of similar length share a batch.

    Within a window of WINDOW batches traces are sorted by length, then the batches are shuffled: little padding, and
    no drift from short to long.
    """
    epoch = 0
    while True:
        rng = random.Random(f"{seed}:{epoch}")
        order = list(examples)
        rng.shuffle(order)
        for start in range(0, len(order), batch_size * WINDOW):
            window = sorted(order[start : start + batch_size * WINDOW], key=lambda example: example.length)
            groups = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
            rng.shuffle(groups)
            yield from groups
        epoch += 1


def micro_batches(batch: Sequence[Example], tokens: int) -> Iterator[list[Example]]:
    """A batch in parts of at most `tokens` tokens with padding, at least one trace each."""
    part: list[Example] = []
    for example in sorted(batch, key=lambda example: example.length):
        if part and padded(example.length, WIDTH) * (len(part) + 1) > tokens:
            yield part
            part = []
        part.append(example)
    if part:
        yield part


def collate(part: Sequence[Example], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(input ids, labels), each [traces, width], padded on the right; labels outside the loss are IGNORE.

    Causal attention never looks to the right, so padding there needs no attention mask.
    """
    import torch

    width = padded(max(example.length for example in part), WIDTH)
    inputs = torch.full((len(part), width), pad)
    labels = torch.full((len(part), width), IGNORE)
    for row, example in enumerate(part):
        ids, start = torch.tensor(example.encoded.ids), example.encoded.loss_start
        inputs[row, : len(ids)] = ids
        labels[row, start : len(ids)] = ids[start:]
    return inputs.to(device), labels.to(device)


def padded(count: int, multiple: int) -> int:
    """The smallest multiple that holds `count`."""
    return -(-count // multiple) * multiple
