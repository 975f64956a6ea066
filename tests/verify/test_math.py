"""Verdicts on hand-written pairs in the forms that GSM8K and MATH answers take, and on 128 replies read by eye."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill.prompts.sources import read_prompts
from distill.specs import source
from distill.verify.math import LONGEST, check_math, last_boxed, literal

DATA = Path(__file__).parents[1] / "data"

RIGHT = [
    # (gold, answer)
    ("72", r"\boxed{72}"),
    ("72", r"Therefore \(\boxed{72}\)."),
    ("72", r"\boxed{72 \text{ clips}}"),
    ("72", r"\boxed{72 clips}"),
    ("15", r"\boxed{15 dollars}"),
    ("15", r"\boxed{\text{15 dollars}}"),
    ("15", r"\boxed{15 \text{ dollars}}"),
    ("6", r"\boxed{6 \text{ miles per hour}}"),
    ("6", r"\boxed{\$6.00 per hour}"),
    ("15", r"\boxed{\$15}"),
    ("15", r"\boxed{$15}"),
    ("1234", r"\boxed{\$1,234}"),
    ("1234", r"\boxed{1{,}234}"),
    ("1234", r"\boxed{1\,234}"),
    ("1234", r"\boxed{1 234}"),
    ("1,234", r"\boxed{1234}"),
    ("1,000,000", r"\boxed{1000000}"),
    ("1500", r"\boxed{\$1,500 dollars}"),
    ("1234.5", r"\boxed{1,234.50}"),
    ("10", r"\boxed{10.00}"),
    ("8", r"\boxed{8.}"),
    ("0.5", r"\boxed{.5}"),
    ("0.5", r"\boxed{\frac{1}{2}}"),
    (r"\frac{1}{2}", r"\boxed{1/2}"),
    (r"\frac{1}{2}", r"\boxed{\frac12}"),
    ("0.75", r"\boxed{\dfrac{3}{4}}"),
    ("5/2", r"\boxed{2.5}"),
    ("3/2", r"\boxed{1 1/2}"),
    (r"\frac{3}{2}", r"\boxed{1\frac{1}{2}}"),
    ("5.75", r"\boxed{5 \frac{3}{4} \text{ hours}}"),
    ("50", r"\boxed{50\%}"),
    (r"50\%", r"\boxed{0.5}"),
    ("-5", r"\boxed{-5}"),
    ("-5", r"\boxed{- 5}"),
    ("-0.5", r"\boxed{-\frac{1}{2}}"),
    ("90", r"\boxed{90^\circ}"),
    ("12", r"\boxed{12 \text{ cm}^2}"),
    ("7", r"\boxed{x=7}"),
    ("62", r"\boxed{100 - 38 = 62}"),
    ("20", r"\boxed{5 \times 4}"),
    ("1024", r"\boxed{2^{10}}"),
    (r"\sqrt{12}", r"\boxed{2\sqrt{3}}"),
    (r"(x+1)^2", r"\boxed{x^2+2x+1}"),
    ("(3, 4)", r"\boxed{(3,4)}"),
    (r"\{2,1\}", r"\boxed{\{1,2\}}"),
    ("5, 7", r"\boxed{7, 5}"),
    (r"\text{even}", r"\boxed{\text{even}}"),
    (r"15\text{ million}", r"\boxed{15 \text{ million}}"),
    ("8", r"\boxed{\boxed{8}}"),
    ("6", r"\boxed{5}, no, wait: \boxed{6}"),
    ("6", r"It is \boxed{6}. She had 7 friends and 8 cats."),
    ("20", r"Putting the answer in \boxed{}, we get \boxed{20}"),
    ("15", "So she had 20 and gave away 5, leaving 15 apples."),
    ("1200", "It costs $1,200 in total."),
    ("18", "**Answer: 18 dollars**"),
    ("72", "#### 72"),
]

NOT_RIGHT = [
    ("72", r"\boxed{71}"),
    ("72", r"\boxed{720}"),
    ("720", r"\boxed{72}"),
    ("72", r"\boxed{7.2}"),
    ("5", r"\boxed{-5}"),
    ("-5", r"\boxed{5}"),
    ("1", r"\boxed{1,000}"),
    ("1000", r"\boxed{1}"),
    ("200", "It costs $1,200 in total."),
    ("5", r"\boxed{5}, no, wait: \boxed{6}"),
    ("9", r"\boxed{8}, or 9 with the rotten one"),
    ("12", r"\boxed{12}\text{ or }\boxed{13}"),
    ("7", r"\boxed{7 \text{ or } 8}"),
    ("7", r"\boxed{5, 7}"),
    ("12", r"\boxed{1 2}"),
    ("11/2", r"\boxed{1 1/2}"),
    (r"\frac{11}{2}", r"\boxed{1\frac{1}{2}}"),
    ("15", r"\boxed{15 \text{ million}}"),
    ("15", r"\boxed{15 thousand}"),
    ("2", r"\boxed{2 \text{ dozen}}"),
    ("3", r"\boxed{3 \text{ squared}}"),
    ("15", r"\boxed{15 \text{ minutes } 30 \text{ seconds}}"),
    ("2", r"\boxed{2 \text{ hours and } 30 \text{ minutes}}"),
    ("5", r"\boxed{> 5}"),
    ("5", r"\boxed{x > 5}"),
    ("5", r"\boxed{\geq 5}"),
    ("10", r"\boxed{10_2}"),
    ("5", r"\boxed{5!}"),
    ("5", r"\boxed{5 \pm 1}"),
    ("5", r"\boxed{5x}"),
    ("5", r"\boxed{x = 5 \text{ or } x = -5}"),
    ("50", r"\boxed{\$0.50}"),
    ("0.5", r"\boxed{50 \text{ cents}}"),
    ("500", r"\boxed{5\%}"),
    ("3", r"\boxed{3:45}"),
    (r"\frac{1}{3}", r"\boxed{0.333}"),
    (r"\pi", r"\boxed{3.14}"),
    (r"\sqrt{12}", r"\boxed{\sqrt{13}}"),
    ("(x+1)^2", r"\boxed{x^2+2x-1}"),
    ("(3, 4)", r"\boxed{(4,3)}"),
    ("[0, 1]", r"\boxed{(0,1)}"),
    (r"\text{even}", r"\boxed{\text{odd}}"),
    ("13", r"\boxed{12\text{ cm}}"),
    ("100", r"\boxed{100 - 38 = 62}"),
    ("7", r"\boxed{3 + 4 = 8}"),
    ("1234567", r"\boxed{12,345,67}"),
    ("100000000000000000000", r"\boxed{99999999999999999999}"),
    ("5", r"\boxed{\text{any positive integer}}"),
    ("20", "So she had 20 and gave away 5, leaving 15 apples."),
    ("5", "Thus 5 + 6 = 11 apples."),
    ("5", r"\boxed{}"),
    ("5", r"\boxed"),
    ("5", "I do not know."),
    ("7", r"\boxed{7" + " " * LONGEST + "+ 1}"),
]


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right(gold: str, answer: str) -> None:
    assert check_math(answer, gold).outcome == "pass"


@pytest.mark.parametrize(("gold", "answer"), NOT_RIGHT)
def test_never_passes(gold: str, answer: str) -> None:
    found = check_math(answer, gold)
    assert found.outcome != "pass"
    assert found.reason in ("wrong_answer", "no_answer", "ambiguous_answer")


@pytest.mark.parametrize(
    ("answer", "gold", "outcome", "reason"),
    [
        (r"\boxed{71}", "72", "fail", "wrong_answer"),
        ("I do not know.", "72", "fail", "no_answer"),
        (r"\boxed{}", "72", "fail", "no_answer"),
        ("", "72", "fail", "no_answer"),
        ("  \n", "72", "fail", "no_answer"),
        (None, "72", "fail", "no_answer"),
        (r"\boxed{72}", None, "abstain", "no_gold"),
        (r"\boxed{72}", " ", "abstain", "no_gold"),
        (r"\boxed{72}", r"\text{}", "abstain", "unparseable_gold"),
        (r"\boxed{2 \text{ dozen}}", "24", "abstain", "ambiguous_answer"),
    ],
)
def test_outcomes_have_names(answer: str | None, gold: str | None, outcome: str, reason: str) -> None:
    found = check_math(answer, gold)
    assert (found.outcome, found.reason) == (outcome, reason)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{72}", "72"),
        (r"\boxed{\frac{1}{2}} and more", r"\frac{1}{2}"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"\boxed{\boxed{8}}", "8"),
        (r"\boxed{{{}}{}}", "{{}}{}"),
        (r"\boxed{}", ""),
        (r"\boxed{", None),
        ("no box", None),
    ],
)
def test_the_last_box_that_closes_counts(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("$1,234", "1234", True),
        (r"\left( 1, 2 \right)", "(1,2)", True),
        ("7.00", "7", True),
        ("x + 1", "x+1", True),
        ("7.50", "7.5", False),
        ("1 1/2", "11/2", False),
        ("1,23", "123", False),
    ],
)
def test_the_literal_form(a: str, b: str, same: bool) -> None:
    assert (literal(a) == literal(b)) is same


def test_the_verdicts_agree_with_a_reading_by_eye() -> None:
    lines = (DATA / "teacher_outputs_128.jsonl").read_text(encoding="utf-8").splitlines()
    by_eye = json.loads((DATA / "teacher_outputs_by_eye.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in lines]
    assert set(by_eye) == {str(number) for number in range(len(rows))}
    verdicts = [check_math(row["text"], row["gold"]).outcome == "pass" for row in rows]
    differing = [n for n, right in enumerate(verdicts) if right != (by_eye[str(n)]["verdict"] == "right")]
    assert differing == []
    assert sum(verdicts) == 28


def test_every_gold_answer_of_gsm8k_is_understood() -> None:
    prompts = list(read_prompts(DATA / "gsm8k_200.jsonl", source("gsm8k")))
    assert len(prompts) == 200
    for prompt in prompts:
        assert prompt.kind == "math"
        assert prompt.answer
        # another number than the gold one: the gold has to be parsed, not only compared as text
        assert check_math(r"\boxed{-123456}", prompt.answer).reason == "wrong_answer", prompt.answer
        assert check_math(rf"\boxed{{{prompt.answer}}}", prompt.answer).outcome == "pass", prompt.answer
