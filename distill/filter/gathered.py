"""The numbers by which the fate of traces is decided: some per prompt and some per trace, gathered from RUN/judged/.

Knows nothing about what they decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.filter.judged import Judged
from distill.filter.kept import draw_of
from distill.filter.placing import Buckets
from distill.keep_rule import ALWAYS
from distill.prompts.table import PromptTable

RIGHT, WRONG = 1, 2
"""What `correct` said of a trace; 0 where it said neither, as of open prompts."""
_CODES = {"pass": RIGHT, "fail": WRONG}
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AboutPrompts:
    """By row of the prompt: its domain, as a number, and its draw between 0 and 1."""

    domain: NDArray[np.int32]
    draw: NDArray[np.float64]
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AboutTraces:
    """By place in the run: one entry a trace, in the order of prompts and samples."""

    prompt: Numbers
    tokens: Numbers
    key: NDArray[np.uint64]
    """The first 64 bits of its key."""
    correct: NDArray[np.uint8]
    """RIGHT, WRONG or 0."""
    whole: NDArray[np.bool_]
    """Finished and well-formed."""
    starts: dict[int, slice]
    """Bucket → its places."""


def about_prompts(prompts: PromptTable, seed: int) -> AboutPrompts:
    numbers: dict[str, int] = {}
    domains = np.zeros(len(prompts), np.int32)
    draws = np.zeros(len(prompts), np.float64)
    for row, prompt in enumerate(prompts):
        domains[row] = numbers.setdefault(prompt.domain or "", len(numbers))
        draws[row] = draw_of(seed, prompt.question)
    return AboutPrompts(domains, draws, tuple(numbers))


def about_traces(buckets: Buckets, judged: Judged) -> AboutTraces:
    found: dict[str, list[Any]] = {name: [] for name in ("prompt", "tokens", "key", "correct", "whole")}
    starts: dict[int, slice] = {}
    end = 0
    told = [name for name in ("correct", *ALWAYS) if name in judged.checks]
    reason = ("correct.reason",) if "correct" in told else ()
    for bucket in buckets.filled:
        table = judged.read(bucket, "row", "tokens", "key", *(f"{name}.outcome" for name in told), *reason)
        starts[bucket] = slice(end, end + len(table))
        end += len(table)
        outcomes = {name: table.column(f"{name}.outcome").to_pylist() for name in told}
        found["prompt"].append(np.array(table.column("row").to_pylist(), np.int64))
        found["tokens"].append(np.array([-1 if n is None else n for n in table.column("tokens").to_pylist()], np.int64))
        found["key"].append(np.array([int(key[:16], 16) for key in table.column("key").to_pylist()], np.uint64))
        correct = [0] * len(table)
        if reason:  # an open prompt has no right and wrong
            reasons = table.column("correct.reason").to_pylist()
            pairs = zip(outcomes["correct"], reasons, strict=True)
            correct = [0 if why == "open" else _CODES.get(outcome, 0) for outcome, why in pairs]
        found["correct"].append(np.array(correct, np.uint8))
        whole = np.ones(len(table), np.bool_)
        for name in ALWAYS:
            if name in outcomes:
                whole &= np.array([outcome == "pass" for outcome in outcomes[name]], np.bool_)
        found["whole"].append(whole)
    return AboutTraces(**{name: np.concatenate(arrays) for name, arrays in found.items()}, starts=starts)
