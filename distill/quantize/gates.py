"""What a quantized file may lose before it does not pass. Pure functions: a reason, or None."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.examine.scoring import Difference


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
