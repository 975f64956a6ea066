"""Verifiers decide whether an answer is right: pass, fail or abstain, each with a short fixed reason.

They see an answer and the gold answer, never a model or a file.
"""

from __future__ import annotations

from dataclasses import dataclass

from distill.records import Result


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found. `reason` is empty for a plain pass; `score` is a share from 0 to 1 where there is one."""

    outcome: Result
    reason: str = ""
    score: float | None = None

    def __reduce__(self) -> tuple[type[Outcome], tuple[Result, str, float | None]]:
        """Pickled as its values: many go from worker processes to their parent."""
        return Outcome, (self.outcome, self.reason, self.score)


READ_GOLD = "distill.verify.math:read_gold"
"""Says whether the math verifier can judge by a gold answer at all, as a VerifierPool's workers import it."""
PASS = Outcome("pass")
BROKEN = ("verifier_crash", "verifier_error")
"""Reasons of an abstention that tell of the verifier, not of the answer."""
TRANSIENT = (
    *BROKEN,
    "verifier_timeout",
    "verifier_limit",
    "no_sandbox",
    "no_compiler",
    "judge_failed",
    "judge_unasked",
)
"""Reasons of an abstention that tell of this machine at this time, or of a limit: never taken over by a later start."""


def failing(reason: str) -> Outcome:
    return Outcome("fail", reason)


def abstaining(reason: str) -> Outcome:
    return Outcome("abstain", reason)
