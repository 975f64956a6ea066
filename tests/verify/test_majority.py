"""Pseudo-golds: who wins, who is told so, and that equal answers are one answer, whoever said what first."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from distill.records import Prompt
from distill.verify import Outcome, abstaining, failing
from distill.verify.majority import MOST_GROUPS, MajoritySettings, comparison, decide, majority, votes
from distill.verify.numeric import check_numeric

MATH = Prompt("What is it?", kind="math")
HALF = {r"\frac{1}{2}", "0.5", "1/2"}


def same(one: str, other: str) -> bool:
    return one == other or {one, other} <= HALF


def never(one: str, other: str) -> bool:
    raise AssertionError(f"compared {one} with {other}")


def boxes(*answers: str | None) -> list[str | None]:
    return [None if answer is None else f"So \\boxed{{{answer}}}." for answer in answers]


def test_most_samples_are_believed() -> None:
    found = majority(MATH, boxes("4", "4", "5", "4"), same)
    passed, minority = Outcome("pass", "", 0.75), Outcome("fail", "minority", 0.25)
    assert (found.answer, found.votes) == ("4", 3)
    assert found.outcomes == (passed, passed, minority, passed)


@pytest.mark.parametrize(
    "answers",
    [
        boxes("4", "4", "5", "5"),
        boxes("4", "4", "4", "5", "5", "5"),
        boxes("4", "4", "4", "5", "6", "7"),
        boxes("4", "4"),
        boxes("4", "4", "5"),
        boxes("4", "4", "4", None, None, None),
        boxes(None, None, None),
        boxes("1", "2", "3", "4"),
        [],
    ],
)
def test_too_few_that_agree_are_no_majority(answers: list[str | None]) -> None:
    found = majority(MATH, answers, same)
    assert found.answer is None
    assert found.outcomes == (abstaining("no_majority"),) * len(answers)


def test_a_sample_without_an_answer_counts_against_the_majority() -> None:
    found = majority(MATH, [*boxes("4", "4", "4"), None, " "], same)
    assert [outcome.reason for outcome in found.outcomes] == ["", "", "", "no_answer", "no_answer"]
    assert found.outcomes[0].score == 0.6
    assert found.outcomes[3] == failing("no_answer")


def test_a_gold_is_never_outvoted() -> None:
    known = Prompt("What is it?", kind="math", answer="5")
    assert majority(known, boxes("4", "4", "4"), never).outcomes == (abstaining("has_gold"),) * 3


def test_the_thresholds_are_the_recipes() -> None:
    answers = boxes("4", "4", "4", "5", "6")
    assert majority(MATH, answers, same, MajoritySettings(share=0.6)).answer is None
    assert majority(MATH, answers, same, MajoritySettings(share=0.59)).answer == "4"
    assert majority(MATH, answers, same, MajoritySettings(votes=4)).answer is None
    assert majority(MATH, boxes("4", "4"), same, MajoritySettings(votes=2)).answer == "4"


def test_answers_in_other_forms_are_one_answer() -> None:
    found = majority(MATH, boxes(r"\frac{1}{2}", "0.5", "1/2", "3"), same)
    assert found.votes == 3
    assert [outcome.outcome for outcome in found.outcomes] == ["pass", "pass", "pass", "fail"]
    assert majority(MATH, boxes(r"\frac{1}{2}", "0.5", "1/2", "3"), lambda one, other: False).answer is None


def test_the_same_in_the_same_form_needs_no_comparison() -> None:
    answers = [r"\boxed{1{,}234}", r"\boxed{\text{1234}}", r"The answer is **1,234**.", "$1234$", r"\boxed{ 1\,234 }"]
    assert majority(MATH, answers, never).votes == 5
    assert majority(MATH, boxes("1 1/2", "1 1/2", "11/2"), lambda *_: False).votes == 2, "one and a half is not 11/2"
    assert majority(MATH, boxes("x", "x", "X"), lambda *_: False).votes == 2


def test_a_near_answer_of_a_near_answer_is_not_near() -> None:
    """1.009 is within 1% of 1.000 and of 1.018, which are not of each other."""
    number = Prompt("How long?", kind="numeric")
    cast = votes(number, boxes("1.009", "1.000", "1.000", "1.018", "1.018"))
    near = {pair for pair in cast.comparisons if check_numeric(comparison(number, pair)[1], pair[0]).outcome == "pass"}
    assert near == {("1.000", "1.009"), ("1.018", "1.009")}
    assert decide(cast, near).votes == 3
    assert decide(cast, near).answer == "1.000"


def test_choices_are_counted_by_letter_and_texts_folded() -> None:
    asked = Prompt("Which?", kind="choice", choices=("12", "42", "7"))
    found = majority(asked, [r"\boxed{B}", "The answer is (B) 42.", r"\boxed{42}", "C"], never)
    assert (found.answer, found.votes) == ("B", 3)
    contradicting = majority(asked, [r"\boxed{B}", r"\boxed{B}", r"\boxed{B}", r"\boxed{B. 7}"], never)
    assert contradicting.outcomes[3] == failing("no_answer")
    text = majority(Prompt("Where?", kind="exact"), ["Paris", "**paris**", r"\boxed{\text{Paris}}", "Rome"], never)
    assert (text.answer, text.votes) == ("paris", 3)


def test_programs_have_no_majority() -> None:
    assert majority(Prompt("Write it.", kind="code"), ["print(1)"] * 5, never).answer is None


def test_comparisons_are_bounded() -> None:
    answers = boxes(*(str(number) for number in range(300)))
    pairs = votes(MATH, answers).comparisons
    assert len(pairs) == MOST_GROUPS * (MOST_GROUPS - 1) // 2 == 120


def test_no_order_of_the_samples_changes_a_verdict() -> None:
    rng = random.Random(7)
    for _ in range(200):
        answers = boxes(*rng.choices(["1/2", "0.5", r"\frac{1}{2}", "2", "3", None], k=rng.randint(1, 9)))
        expected = _by_answer(answers)
        for _ in range(3):
            rng.shuffle(answers)
            assert _by_answer(answers) == expected


def _by_answer(answers: Sequence[str | None]) -> tuple[str | None, set[tuple[str | None, Outcome]]]:
    found = majority(MATH, answers, same)
    return found.answer, set(zip(answers, found.outcomes, strict=True))
