"""Length in the student's tokens."""

from __future__ import annotations

import pytest
from checked_trace import PROMPT, TRACE
from pydantic import ValidationError

from distill.filter.length import length
from distill.filter_specs import LengthSettings


@pytest.mark.parametrize(
    ("settings", "tokens", "outcome", "reason"),
    [
        ({}, 5, "pass", ""),
        ({}, None, "abstain", "unknown_length"),
        ({"min_tokens": 10, "max_tokens": 20}, None, "abstain", "unknown_length"),
        ({"min_tokens": 10}, 9, "fail", "too_short"),
        ({"min_tokens": 10}, 10, "pass", ""),
        ({"max_tokens": 20}, 20, "pass", ""),
        ({"max_tokens": 20}, 21, "fail", "too_long"),
        ({"max_tokens": 20}, 0, "pass", ""),
    ],
)
def test_bounds(settings: dict[str, int], tokens: int | None, outcome: str, reason: str) -> None:
    found = length(PROMPT, TRACE, LengthSettings(**settings), tokens)
    assert (found.outcome, found.reason, found.score) == (outcome, reason, tokens)


def test_bounds_in_the_wrong_order() -> None:
    with pytest.raises(ValidationError, match=r"min_tokens \(21\) is more than max_tokens \(20\)"):
        LengthSettings(min_tokens=21, max_tokens=20)
