"""What a quantized file may lose before it does not pass. Pure functions: a reason, or None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill.examine.scoring import paired_difference


@dataclass(frozen=True, slots=True)
class Difference:
    """pass@1 of a file minus that of the student, paired by problem, with the ends of its 95% interval."""

    mean: float
    low: float
    high: float


def difference(student: Mapping[str, float], file: Mapping[str, float]) -> Difference:
    """From the shares of right samples per problem.

    The interval is normal, and never narrower than what n problems can tell: where none differs, a share of 3/n
    differing ones is still compatible with that at 95% (Hanley and Lippman-Hand, doi:10.1001/jama.1983.03330370053031).
    """
    mean, error = paired_difference(dict(student), dict(file))
    half = max(1.96 * error, 3 / len(student))
    return Difference(mean, max(-1.0, mean - half), min(1.0, mean + half))


def loss_gate(found: Difference, reference: float, bar: float | None) -> str | None:
    """`reference` is the student's own pass@1: one that solves nothing has nothing to lose, and that proves nothing."""
    if bar is None:
        return None
    if reference <= -bar:
        return (
            f"the student itself solves {reference:.1%}, so a loss of {-bar:.0%} could not show; evaluate on easier "
            "problems, or set quantize.min_difference=null"
        )
    if found.low >= bar:
        return None
    return (
        f"it may lose {-found.low:.1%} against the student in bf16 (difference {found.mean:+.1%}, 95% {found.low:+.1%} "
        f"to {found.high:+.1%}), more than quantize.min_difference={bar} allows"
    )


def four_bit_gate(facts: Mapping[str, Any], bits: int, bar: float | None) -> str | None:
    """Only for a scheme that promises 4 bits."""
    if bar is None or bits != 4 or facts["four_bit_share"] >= bar:
        return None
    types = ", ".join(f"{name} {count / facts['elements']:.0%}" for name, count in facts["types"].items())
    return (
        f"{facts['four_bit_share']:.1%} of its weights are of a 4-bit type, less than quantize.min_four_bit_share={bar}"
        f" ({types})"
    )
