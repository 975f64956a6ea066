"""Compares quantized tensors with the weights they were made of. Knows nothing about files or programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from distill.quantize.schemes import LARGEST_ERROR, bits_of

MISSING = "missing"
"""In place of a type, for a tensor that is not in the file."""


@dataclass(frozen=True, slots=True)
class TensorFact:
    """One tensor of a quantized file; `error` is |made − original| over |original|, by the Frobenius norm."""

    name: str
    type: str
    elements: int
    error: float


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What the tensors of a file really are."""

    types: dict[str, int]
    """Type → weights of that type, the most frequent first."""
    worst: TensorFact
    """The tensor that is furthest from its original, measured by what its type may lose."""

    @property
    def elements(self) -> int:
        return sum(self.types.values())

    @property
    def four_bit_share(self) -> float:
        """Share of the weights that lie in a 4-bit type."""
        return sum(count for name, count in self.types.items() if bits_of(name) == 4) / self.elements

    def to_json(self) -> dict[str, Any]:
        error = round(self.worst.error, 5) if math.isfinite(self.worst.error) else None  # JSON has no infinity
        worst = {"name": self.worst.name, "type": self.worst.type, "relative_error": error}
        share = self.four_bit_share
        return {"elements": self.elements, "types": self.types, "four_bit_share": share, "worst_tensor": worst}


def fidelity(facts: Iterable[TensorFact]) -> Fidelity:
    """Raises ValueError for a file without tensors."""
    types: Counter[str] = Counter()
    worst: TensorFact | None = None
    for fact in facts:
        types[fact.type] += fact.elements
        if worst is None or _strain(fact) > _strain(worst):
            worst = fact
    if worst is None:
        raise ValueError("the file has no tensors")
    return Fidelity(dict(types.most_common()), worst)


def missing(name: str, elements: int) -> TensorFact:
    """The fact of a tensor that the student has and the file does not."""
    return TensorFact(name, MISSING, elements, math.inf)


def relative_error(made: Any, original: Any) -> float:
    """|made − original| / |original| of two arrays of the same shape; 0 when both are all zeros.

    Raises ValueError when the shapes differ.
    """
    if made.shape != original.shape:
        raise ValueError(f"{tuple(made.shape)} instead of {tuple(original.shape)}")
    length = float((original**2).sum()) ** 0.5
    distance = float(((made - original) ** 2).sum()) ** 0.5
    if not math.isfinite(distance):
        return math.inf
    return distance / length if length else (0.0 if distance == 0 else math.inf)


def error_fault(found: Fidelity) -> str | None:
    """Why the weights cannot be what rounding made of the student's; None when they can."""
    limit = LARGEST_ERROR[bits_of(found.worst.type)]
    if found.worst.error <= limit:
        return None
    if found.worst.type == MISSING:
        return f"the weights of {found.worst.name} are missing"
    return (
        f"the weights of {found.worst.name} ({found.worst.type}) are {found.worst.error:.0%} off the student's, where "
        f"rounding explains at most {limit:.1%}"
    )


def _strain(fact: TensorFact) -> float:
    return fact.error / LARGEST_ERROR[bits_of(fact.type)]
