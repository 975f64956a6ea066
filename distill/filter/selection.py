"""Which of the traces that may be kept are trained on: a band of difficulty, at most K of a prompt, counts by domain.

Works on some numbers per trace in arrays, never on texts; the same traces give the same choice, however many workers
judged them. Knows nothing about verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.filter_specs import SelectSettings
from distill.prompts.grams import mixed

TOO_EASY, TOO_HARD, UNKNOWN, BEYOND, NOT_CHOSEN = (
    "too_easy",
    "too_hard",
    "unknown_difficulty",
    "beyond_per_prompt",
    "beyond_domain_count",
)
REASONS = ("", TOO_EASY, TOO_HARD, UNKNOWN, BEYOND, NOT_CHOSEN)
"""Why a trace that could be kept is not, by code; 0 is kept."""
OTHERS = "*"
"""In `domains`: every domain that is not named."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Traces that the keep rule lets through, in the order of the run; one place in each array is one trace."""

    prompt: NDArray[np.int64]
    """Row of its prompt; traces of a prompt stand together."""
    tokens: NDArray[np.int64]
    """Length; -1 where nobody knows."""
    domain: NDArray[np.int32]
    """Number of its domain in `domains`."""
    bands: NDArray[np.uint32] | None
    """[traces, bands]: MinHash bands, for `diverse`."""
    domains: Sequence[str]


def pass_rates(
    prompt: NDArray[np.int64], right: NDArray[np.bool_], judged: NDArray[np.bool_], rows: int
) -> NDArray[np.float64]:
    """For each of `rows` prompts the share of right answers among those that a verifier could judge; NaN for none."""
    rights = np.bincount(prompt[right & judged], minlength=rows).astype(np.float64)
    counts = np.bincount(prompt[judged], minlength=rows)
    rates = np.full(rows, np.nan)
    np.divide(rights, counts, out=rates, where=counts > 0)
    return rates


def select(found: Candidates, rates: NDArray[np.float64], settings: SelectSettings, seed: int) -> NDArray[np.uint8]:
    """A code of REASONS for each candidate. `rates`: pass rate by row of prompt, as `pass_rates` gives it."""
    codes = np.zeros(len(found.prompt), np.uint8)
    if settings.difficulty is not None:
        low, high = settings.difficulty
        of_trace = rates[found.prompt]
        codes[of_trace > high] = REASONS.index(TOO_EASY)
        codes[of_trace < low] = REASONS.index(TOO_HARD)
        codes[np.isnan(of_trace)] = REASONS.index(UNKNOWN)
    left = np.flatnonzero(codes == 0)
    rank = _ranks(found, left, settings)
    if settings.per_prompt is not None:
        beyond = rank >= settings.per_prompt
        codes[left[beyond]] = REASONS.index(BEYOND)
        left, rank = left[~beyond], rank[~beyond]
    if settings.domains:
        chosen = _by_domain(found, left, rank, settings.domains, seed)
        codes[left[~chosen]] = REASONS.index(NOT_CHOSEN)
    return codes


def _ranks(found: Candidates, left: NDArray[np.int64], settings: SelectSettings) -> NDArray[np.int64]:
    """Of each trace its place among those of its prompt, the best first."""
    prompt = found.prompt[left]
    if settings.prefer in ("short", "long"):
        tokens = found.tokens[left].astype(np.float64)
        worst = np.inf if settings.prefer == "short" else -np.inf
        tokens[tokens < 0] = worst  # unknown ones come last
        order = np.lexsort((np.arange(len(left)), tokens if settings.prefer == "short" else -tokens, prompt))
    else:
        order = np.lexsort((np.arange(len(left)), prompt))
    rank = np.empty(len(left), np.int64)
    starts = np.flatnonzero(np.r_[True, np.diff(prompt[order]) != 0]) if len(left) else np.empty(0, np.int64)
    sizes = np.diff(np.r_[starts, len(left)])
    rank[order] = np.arange(len(left)) - np.repeat(starts, sizes)
    if settings.prefer == "diverse" and found.bands is not None:
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            if size > 1:
                members = order[start : start + size]
                rank[members[_spread(found.bands[left[members]])]] = np.arange(size)
    return rank


def _spread(bands: NDArray[np.uint32]) -> list[int]:
    """An order in which each next one is the least like those before it, beginning with the first: the largest share of
    equal bands counts (farthest-point traversal, Gonzalez 1985)."""
    chosen = [0]
    alike = (bands == bands[0]).mean(axis=1)
    alike[0] = np.inf
    for _ in range(len(bands) - 1):
        following = int(np.argmin(alike))
        chosen.append(following)
        alike = np.maximum(alike, (bands == bands[following]).mean(axis=1))
        alike[chosen] = np.inf
    return chosen


def _by_domain(
    found: Candidates, left: NDArray[np.int64], rank: NDArray[np.int64], counts: Mapping[str, int], seed: int
) -> NDArray[np.bool_]:
    """Whether each is among its domain's count: the best trace of every prompt before the second of any, prompts in an
    order drawn by the seed."""
    chosen = np.ones(len(left), np.bool_)
    drawn = mixed(found.prompt[left].astype(np.uint64) * np.uint64(2) + mixed(np.array([seed], np.uint64)))
    domain = found.domain[left]
    named = {found.domains.index(name) for name in counts if name in found.domains}
    for name, count in counts.items():
        members = (
            np.flatnonzero(~np.isin(domain, list(named)))
            if name == OTHERS
            else np.flatnonzero(domain == found.domains.index(name))
            if name in found.domains
            else np.empty(0, np.int64)
        )
        order = np.lexsort((members, drawn[members], rank[members]))
        chosen[members[order[count:]]] = False
    return chosen
