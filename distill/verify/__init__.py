"""Verifiers decide whether an answer is right: pass, fail or abstain, each with a short fixed reason.

They see an answer and the gold answer, never a model or a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distill.records import Kind, Result


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found. `reason` is empty for a plain pass."""

    outcome: Result
    reason: str = ""
    score: float | None = None


MATH = "distill.verify.math:check_math"
"""The verifier of the kinds `math` and `numeric`, as a VerifierPool's workers import it."""
READ_GOLD = "distill.verify.math:read_gold"
"""Says whether MATH can judge by a gold answer at all, as a VerifierPool's workers import it."""
VERIFIER_OF: Mapping[Kind, str] = {
    "math": "math",
    "numeric": "math",
    "choice": "choice",
    "code": "code",
    "exact": "exact",
}
"""Kind of a prompt → the verifier that it needs; `open` wants none."""
EXISTING = ("math",)
"""Those verifiers that this version has: the one place that says so."""
PASS = Outcome("pass")
BROKEN = ("verifier_crash", "verifier_error")
"""Reasons of an abstention that tell of the verifier, not of the answer."""


def failing(reason: str) -> Outcome:
    return Outcome("fail", reason)


def abstaining(reason: str) -> Outcome:
    return Outcome("abstain", reason)
