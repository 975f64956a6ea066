"""Answers that are none: nothing, a placeholder, the question again, nothing to read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from checked_trace import PROMPT, TRACE

from distill.filter.answers import answer_present
from distill.filter_specs import AnswerSettings
from distill.records import Kind, Prompt

SETTINGS = AnswerSettings()
VAGUE = "The answer follows from what was said above, by the same argument that we used before."


def reason(answer: str | None, prompt: Prompt = PROMPT) -> str:
    found = answer_present(prompt, replace(TRACE, answer=answer), SETTINGS)
    assert (found.outcome == "fail") == bool(found.reason)
    return found.reason


@pytest.mark.parametrize("answer", [None, "", " \n\t", "...", "。", "**", "$$", "---", "()", "?!"])
def test_nothing(answer: str | None) -> None:
    assert reason(answer) == "no_answer"


@pytest.mark.parametrize(
    "answer",
    [
        r"\boxed{}",
        r"The final answer is $\boxed{ }$.",
        r"So: \boxed{\text{}}",
        r"\boxed{?}",
        r"\boxed{...}",
        r"\boxed{\,}",
        r"\boxed{answer}",
        r"\boxed{\text{your answer here}}",
        r"The first try gave \boxed{5}, so the answer is \boxed{}.",
        "[answer]",
        "[Your final answer]",
        "Final answer:",
        "(insert answer here)",
        "答案：",
        "TBD",
        "N/A",
    ],
)
def test_placeholders(answer: str) -> None:
    assert reason(answer) == "placeholder"


@pytest.mark.parametrize(
    "answer",
    [
        "4",
        "x",
        "A",
        r"\boxed{A}",
        r"\boxed{\text{A}}",
        r"\boxed{4}",
        r"\boxed{\frac{1}{2}}",
        r"\boxed{\emptyset}",
        r"\boxed{\text{no solution}}",
        r"\boxed{-}  is no sign, 4 is",
        "None of them.",
        "undefined behaviour",
        "no",
        "四",
        "∞",
        "The answer is four, as we found by adding the two numbers in the question one after the other.",
        "The function is even, because it takes the same values on both sides of the point in question.",
        "Paris",
        "\\boxed{",
        r"\boxed{{1, 2}, {3}}",
    ],
)
def test_answers(answer: str) -> None:
    expected = "placeholder" if answer in ("\\boxed{", r"\boxed{-}  is no sign, 4 is") else ""
    assert reason(answer) == expected


def test_the_question_again() -> None:
    prompt = Prompt("How many apples are left in Ben's basket?", kind="open", choices=("Five", "Six"))
    assert (
        reason(
            "how many apples are left in Ben’s basket",
            replace(prompt, question="How many apples are left in Ben s basket?"),
        )
        == "repeats_question"
    )
    assert reason(prompt.question, prompt) == "repeats_question"
    assert reason(prompt.text, prompt) == "repeats_question"
    assert reason(prompt.question + " Five.", prompt) == ""
    assert reason("2 + 2? 4") == ""
    assert reason("∞∞∞", Prompt("∫∫∫", kind="open")) == "", "neither holds a word"


@pytest.mark.parametrize("kind", ["math", "numeric", "choice"])
def test_nothing_to_read(kind: Kind) -> None:
    prompt = Prompt("Which?", kind=kind, choices=("red wine", "white wine") if kind == "choice" else None)
    assert reason(VAGUE, prompt) == "nothing_to_read"
    assert reason(f"{VAGUE} I have a proof.", prompt) == "nothing_to_read"
    assert reason(f"{VAGUE} The answer is A.", prompt) == ""
    assert reason(f"{VAGUE} It is 5.", prompt) == ""
    assert reason(f"{VAGUE} It is \\boxed{{blue}}.", prompt) == ""
    if kind == "choice":
        assert reason(f"{VAGUE} It must be white wine.", prompt) == ""
        assert reason(f"{VAGUE} Option B.", prompt) == ""


@pytest.mark.parametrize("kind", ["open", "code", "exact"])
def test_other_kinds_may_say_anything(kind: Kind) -> None:
    assert reason(VAGUE, Prompt("Which?", kind=kind)) == ""


def test_reading_can_be_turned_off() -> None:
    trace = replace(TRACE, answer=VAGUE)
    assert answer_present(PROMPT, trace, AnswerSettings(readable=False)).outcome == "pass"
