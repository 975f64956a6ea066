"""Choices by letter, text or both, as teachers write them; an order of the choices never changes a verdict."""

from __future__ import annotations

import random
from string import ascii_uppercase

import pytest

from distill.problems.choices import problems
from distill.records import Prompt
from distill.verify import PASS, abstaining, failing
from distill.verify.choice import options, read_gold, verify

NUMBERS = Prompt("How many?", kind="choice", answer="B", choices=("12", "42", "7", "1/2"))
WORDS = Prompt(
    "What does inertia say?",
    kind="choice",
    answer="C",
    choices=("A force is needed", "Nothing moves", "A body at rest stays at rest", "Not all bodies move"),
)
IN_QUESTION = Prompt(
    r"What is 2+3? $\textbf{(A)}\ 4 \qquad \textbf{(B)}\ 5 \qquad\textbf{(C)}\ \frac{1}{2}$", kind="choice", answer="B"
)
UNKNOWN = Prompt("Which of the statements holds?", kind="choice", answer="B")

RIGHT = [
    *(
        (NUMBERS, answer)
        for answer in (
            "B",
            "(B)",
            "B.",
            "**B**",
            "b",
            "(b)",
            "Option B",
            "B) 42",
            "B. 42",
            "B: 42",
            "(B) 42",
            "B 42",
            "42",
            "Answer: B",
            "**Answer:** B",
            "**Answer: (B) 42**",
            r"\boxed{B}",
            r"\boxed{b}",
            r"\boxed{\text{B}}",
            r"\boxed{(B)}",
            r"\boxed{\textbf{(B)}\ 42}",
            r"\boxed{\text{B. } 42}",
            r"\boxed{42}",
            r"\boxed{42.0}",
            r"\boxed{\$42}",
            r"The final answer is $\boxed{B}$.",
            "the correct option is (B) 42",
            "The correct answer is option B.",
            "The answer is B, because 42 is even.",
            "The answer is:\n\n**B. 42**",
            "I think the answer is (B).",
            "Therefore B is correct.",
            "So it is B.",
            "Between A and B, B is the correct one.",
            "First \\boxed{A}, no: \\boxed{B}",
            "\\boxed{E = mc^2}\n\n**Answer: B**",
            "\\boxed{\\langle H \\rangle \\ll \\Delta E}\n\n**Answer: B**",
            "\\boxed{C = \\epsilon A}\n\n**Answer: B**",
            "答案：B",
            "故选B。",
            "I think A is wrong, so B.",
            "A is wrong, so it must be B.",
            "Not A, so B.",
            "Therefore, B.",
            "I would go with B.",
            "It can only be B.",
            "B, not A.",
            "(B), not (A).",
            "The answer is B, not A.",
            "The answer is B rather than A.",
            "The answer is B because A is wrong.",
            "The answer is clear: B.",
            "Final answer: it's B",
            "A, C and D are wrong, which leaves B.",
            "Eliminating A, C and D leaves B.",
            r"\boxed{B, not A}",
            r"\boxed{\text{A is wrong, so B}}",
        )
    ),
    *(
        (WORDS, answer)
        for answer in (
            "C",
            r"\boxed{C}",
            r"\boxed{\text{A body at rest stays at rest}}",
            "A body at rest stays at rest.",
            "C. A body at rest stays at rest",
            "The answer is a body at rest stays at rest.",
        )
    ),
    (IN_QUESTION, r"\boxed{B}"),
    (IN_QUESTION, r"\boxed{5}"),
    (IN_QUESTION, r"\boxed{\textbf{(B)}\ 5}"),
    (UNKNOWN, r"\boxed{B}"),
    (UNKNOWN, "The answer is (B)."),
    (Prompt("Which?", kind="choice", answer="1/2", choices=NUMBERS.choices), r"\boxed{\frac{1}{2}}"),
    (Prompt("Which?", kind="choice", answer="1/2", choices=NUMBERS.choices), r"\boxed{D}"),
    (Prompt("Which?", kind="choice", answer="1/2", choices=NUMBERS.choices), r"\boxed{0.5}"),
    (Prompt("Which?", kind="choice", answer="(B) 42", choices=NUMBERS.choices), r"\boxed{B}"),
    (Prompt("Which?", kind="choice", answer="the red one"), r"\boxed{\text{The red one}}"),
    (Prompt("Which?", kind="choice", answer="AC"), r"\boxed{A, C}"),
    (Prompt("Which?", kind="choice", answer="A, C"), r"\boxed{\text{A and C}}"),
    (Prompt("Base?", kind="choice", answer="T", choices=("C", "A", "T", "G")), r"\boxed{T}"),
    (Prompt("Not?", kind="choice", answer="D", choices=WORDS.choices), "D. Not all bodies move"),
]

WRONG = [
    *(
        (NUMBERS, answer)
        for answer in ("A", r"\boxed{C}", r"\boxed{12}", "Answer: D", "C) 7", "(D) 1/2", "the answer is A")
    ),
    (NUMBERS, "A is correct"),
    (NUMBERS, "I think A is wrong, so C."),
    (NUMBERS, "The answer is A, not B."),
    (NUMBERS, "B and C are wrong, which leaves A."),
    (NUMBERS, r"\boxed{0.5}"),
    (NUMBERS, r"\boxed{A, B}"),
    (NUMBERS, r"\boxed{\text{A or B}}"),
    (NUMBERS, "The answer is A and B."),
    (WORDS, r"\boxed{\text{Nothing moves}}"),
    (WORDS, "A. A force is needed"),
    (WORDS, "A force is needed"),
    (IN_QUESTION, r"\boxed{4}"),
    (IN_QUESTION, r"\boxed{A}"),
    (UNKNOWN, r"\boxed{C}"),
    (Prompt("Which?", kind="choice", answer="AC"), r"\boxed{A}"),
    (Prompt("Which?", kind="choice", answer="AC"), r"\boxed{ABC}"),
    (Prompt("Which?", kind="choice", answer="the red one"), r"\boxed{\text{the blue one}}"),
]

NO_ANSWER = [
    *(
        (NUMBERS, answer)
        for answer in (" ", "I cannot tell.", r"\boxed{E}", r"\boxed{43}", "Answer: F", "none of these")
    ),
    (WORDS, r"\boxed{\text{A body at rest}}"),
    (IN_QUESTION, r"\boxed{6}"),
    (IN_QUESTION, r"\boxed{D}"),
    (UNKNOWN, r"\boxed{Z}"),
]

ABSTAINED = [
    (NUMBERS, r"\boxed{B. 7}", "ambiguous_answer"),
    (NUMBERS, r"\boxed{A. 42}", "ambiguous_answer"),
    (NUMBERS, r"\boxed{B: 43}", "ambiguous_answer"),
    (NUMBERS, "\\boxed{B}. Answer: C", "ambiguous_answer"),
    (NUMBERS, "The answer is (B) 42 and not (C) 7.", "ambiguous_answer"),
    (NUMBERS, "So 42 is it.", "ambiguous_answer"),
    *(
        (prompt, answer, "ambiguous_answer")
        for prompt in (NUMBERS, WORDS, UNKNOWN)
        for answer in (
            "It is not A.",
            "A is wrong.",
            "A, C and D are wrong.",
            "A is not correct, B is.",
            "The answer is not A but B.",
            "I am between A and B.",
            "Neither A nor B.",
            "This does not mean that it must be B.",
            "Statement B holds.",
            r"\boxed{\text{not A}}",
        )
    ),
    (NUMBERS, "Both (A) and (B) look right.", "ambiguous_answer"),
    (NUMBERS, "The answer is B is wrong", "ambiguous_answer"),
    (WORDS, "B. A force is needed", "ambiguous_answer"),
    (UNKNOWN, r"\boxed{5}", "ambiguous_answer"),
    (Prompt("Which?", kind="choice", answer="the red one"), r"\boxed{B}", "ambiguous_answer"),
    (Prompt("Base?", kind="choice", answer="A", choices=("C", "A", "T", "G")), r"\boxed{C}", "unparseable_gold"),
    (Prompt("Base?", kind="choice", answer="T", choices=("C", "A", "T", "G")), r"\boxed{A}", "ambiguous_answer"),
    (Prompt("Which?", kind="choice", answer="E", choices=NUMBERS.choices), r"\boxed{E}", "unparseable_gold"),
    (Prompt("Which?", kind="choice", answer="43", choices=NUMBERS.choices), r"\boxed{43}", "unparseable_gold"),
    (Prompt("Which?", kind="choice", answer="0.5", choices=("0.5", "0.5")), r"\boxed{A}", "unparseable_gold"),
    (Prompt("Which?", kind="choice", choices=NUMBERS.choices), r"\boxed{B}", "no_gold"),
]


@pytest.mark.parametrize(("prompt", "answer"), RIGHT)
def test_right(prompt: Prompt, answer: str) -> None:
    assert verify(prompt, answer) == PASS


@pytest.mark.parametrize(("prompt", "answer"), WRONG)
def test_wrong(prompt: Prompt, answer: str) -> None:
    assert verify(prompt, answer) == failing("wrong_answer")


@pytest.mark.parametrize(("prompt", "answer"), NO_ANSWER)
def test_no_answer(prompt: Prompt, answer: str) -> None:
    assert verify(prompt, answer) == failing("no_answer")


@pytest.mark.parametrize(("prompt", "answer", "reason"), ABSTAINED)
def test_abstains(prompt: Prompt, answer: str, reason: str) -> None:
    assert verify(prompt, answer) == abstaining(reason)


def test_golds() -> None:
    assert read_gold(NUMBERS) == PASS
    assert read_gold(UNKNOWN) == PASS
    assert read_gold(Prompt("Which?", kind="choice", answer="43", choices=("1", "2"))) == abstaining("unparseable_gold")
    assert read_gold(Prompt("Which?", kind="choice")) == abstaining("no_gold")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which?\nA. red fox\nB. blue\nC. green", ("red fox", "blue", "green")),
        ("Which? A) red B) blue C) green fox", ("red", "blue", "green fox")),
        ("Which is right?\nA. True\nB. False", ("True", "False")),
        ("下列哪个正确？A．红 B．蓝 C．绿", ("红", "蓝", "绿")),
        (r"x? $\text{(A) } 12 \quad \text{(B) } 15 \quad \text{(C) } 18$", ("12", "15", "18")),
        ("Sets (A) and (B) are given.\nA. one\nB. two", ("one", "two")),
        ("Triangles (A) and (B) are equal. Why?", ()),
        ("Which?\nA. red\nC. green", ()),
        ("Which?\nA. red\nB. red", ()),
        ("What is 2 + 2?", ()),
    ],
)
def test_choices_inside_a_question(question: str, expected: tuple[str, ...]) -> None:
    assert options(Prompt(question, kind="choice")) == expected


@pytest.mark.parametrize("seed", range(3))
def test_no_order_of_the_choices_changes_a_verdict(seed: int) -> None:
    """Letter, text and both, right and wrong, for built-in problems whose choices are numbers, words and names."""
    rng = random.Random(seed)
    made = problems("train", seed)
    for _ in range(60):
        prompt = next(made)
        choices, right = list(prompt.choices or ()), ascii_uppercase.index(prompt.answer or "")
        said = rng.randrange(len(choices))
        expected = PASS if said == right else failing("wrong_answer")
        for _ in range(3):
            order = rng.sample(range(len(choices)), len(choices))
            shuffled = tuple(choices[place] for place in order)
            letter, gold = ascii_uppercase[order.index(said)], ascii_uppercase[order.index(right)]
            for key in (gold, choices[right]):
                asked = Prompt(prompt.question, kind="choice", answer=key, choices=shuffled)
                for answer in (f"\\boxed{{{letter}}}", f"\\boxed{{{choices[said]}}}", f"({letter}) {choices[said]}"):
                    assert verify(asked, answer) == expected, (asked, answer)
