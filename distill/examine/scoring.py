"""From samples and their verdicts to a score with its uncertainty. Pure arithmetic."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Graded:
    """One sample of one problem: right or not, ended by itself or not, how long it was, whether nobody could tell."""

    prompt_id: str
    right: bool
    finished: bool
    tokens: int | None
    """None where the server does not count them."""
    abstained: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """pass@1 is the mean over problems of the share of right samples; its standard error treats problems as the
    independent draws (samples of one problem are not)."""

    problems: int
    samples: int
    pass_at_1: float
    stderr: float
    unfinished: float
    mean_tokens: float | None
    """Over the samples whose length is known; None when no length is."""
    abstained: float
    """Share of samples that the verifier could not judge; they count as wrong."""

    @property
    def interval(self) -> tuple[float, float]:
        """95% by Wilson's formula (doi:10.1080/01621459.1927.10502953), which stays between 0 and 1 and says something
        at both ends too: 0 right of 300 problems is compatible with 1%.

        It is one of single draws; so many of them as would have this standard error stand in for the problems.
        """
        p, z2 = self.pass_at_1, 1.96**2
        draws = p * (1 - p) / self.stderr**2 if self.stderr else self.problems
        middle = (p + z2 / (2 * draws)) / (1 + z2 / draws)
        half = math.sqrt(z2 * p * (1 - p) / draws + z2**2 / (4 * draws**2)) / (1 + z2 / draws)
        return max(0.0, middle - half), min(1.0, middle + half)


def per_problem(graded: Iterable[Graded]) -> dict[str, float]:
    """Prompt id → share of its samples that are right."""
    rights: dict[str, list[bool]] = defaultdict(list)
    for item in graded:
        rights[item.prompt_id].append(item.right)
    return {prompt: sum(found) / len(found) for prompt, found in rights.items()}


def score(graded: Sequence[Graded]) -> Score:
    """Raises ValueError for no samples."""
    if not graded:
        raise ValueError("no samples to score")
    shares = list(per_problem(graded).values())
    lengths = [item.tokens for item in graded if item.tokens is not None]
    mean = sum(shares) / len(shares)
    return Score(
        problems=len(shares),
        samples=len(graded),
        pass_at_1=mean,
        stderr=standard_error(shares),
        unfinished=sum(not item.finished for item in graded) / len(graded),
        mean_tokens=sum(lengths) / len(lengths) if lengths else None,
        abstained=sum(item.abstained for item in graded) / len(graded),
    )


def standard_error(values: Sequence[float]) -> float:
    """Of the mean: sample standard deviation over the square root of the number; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


@dataclass(frozen=True, slots=True)
class Difference:
    """pass@1 of one model minus that of another, paired by problem, with the ends of its 95% interval."""

    mean: float
    low: float
    high: float
    stderr: float


def paired_difference(a: Mapping[str, float], b: Mapping[str, float]) -> Difference:
    """b − a, from the shares of right samples of the problems that both have.

    The interval is normal, and never narrower than what n problems can tell: where none differs, a share of 3/n
    differing ones is still compatible with that at 95% (Hanley and Lippman-Hand, doi:10.1001/jama.1983.03330370053031).
    """
    differences = [b[prompt] - a[prompt] for prompt in a if prompt in b]
    mean, error = sum(differences) / len(differences), standard_error(differences)
    half = max(1.96 * error, 3 / len(differences))
    return Difference(mean, max(-1.0, mean - half), min(1.0, mean + half), error)
