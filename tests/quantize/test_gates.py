"""What a file may lose: the reasons of each gate."""

from __future__ import annotations

import pytest

from distill.examine.scoring import Difference, paired_difference
from distill.quantize.gates import four_bit_gate, loss_gate


@pytest.mark.parametrize(
    ("found", "bar", "reason"),
    [
        (Difference(-0.01, -0.04, 0.02, 0.01), -0.05, None),
        (Difference(-0.03, -0.06, 0.0, 0.01), -0.05, "may lose 6.0% against the student in bf16 (difference -3.0%"),
        (Difference(-0.03, -0.06, 0.0, 0.01), -0.1, None),
        (Difference(-0.9, -0.95, -0.85, 0.01), None, None),
        (Difference(-0.05, -0.05, -0.05, 0.01), -0.05, None),
    ],
)
def test_the_lower_end_of_the_interval_decides(found: Difference, bar: float | None, reason: str | None) -> None:
    told = loss_gate(found, 0.9, bar)
    assert told is None if reason is None else reason in (told or "")


def test_ten_problems_without_a_difference_prove_no_loss_below_five_points() -> None:
    solved = {f"p{n}": 1.0 for n in range(10)}
    assert "may lose 30.0%" in (loss_gate(paired_difference(solved, solved), 1.0, -0.05) or "")


def test_a_student_that_solves_nothing_proves_nothing() -> None:
    assert "a loss of 5% could not show" in (loss_gate(Difference(0, -0.01, 0.01, 0.01), 0.02, -0.05) or "")
    assert loss_gate(Difference(0, -0.01, 0.01, 0.01), 0.02, None) is None


def test_four_bits_are_asked_only_of_what_promises_them() -> None:
    facts = {"four_bit_share": 0.7, "elements": 10, "types": {"Q4_K": 7, "Q5_0": 3}}
    assert four_bit_gate(facts, 8, 0.8) is None
    assert four_bit_gate(facts, 4, 0.7) is None
    assert four_bit_gate(facts, 4, None) is None
    reason = four_bit_gate(facts, 4, 0.8)
    assert reason == (
        "70.0% of its weights are of a 4-bit type, less than quantize.min_four_bit_share=0.8 (Q4_K 70%, Q5_0 30%)"
    )
