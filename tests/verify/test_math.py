"""Verdicts on mathematical answers: bars over labelled pairs, 128 replies read by eye, reasons, properties."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from distill.prompts.sources import read_prompts
from distill.records import Prompt
from distill.specs import source
from distill.verify import PASS, abstaining, failing, second_opinion
from distill.verify.math import LONGEST, check_math, last_boxed, literal, read_gold, same_text, told_by_text, verify

DATA = Path(__file__).parents[1] / "data"
MOST_WRONG, MOST_ABSTAINED = 0.01, 0.05
"""Of the right answers called wrong, and of all pairs without a verdict."""


def pairs(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("name", "fast"),
    [
        ("math_pairs.jsonl", True),
        ("math_pairs_blind.jsonl", True),
        ("math_pairs_blind.jsonl", False),
        ("math_pairs_held_back.jsonl", True),
    ],
)
def test_the_bars_hold_on_labelled_pairs(name: str, fast: bool) -> None:
    rows = pairs(name)
    assert len(rows) >= 200
    found = [(row, check_math(row["answer"], row["gold"], fast=fast)) for row in rows]
    assert [row for row, outcome in found if outcome.outcome == "pass" and not row["right"]] == []
    lost = [row for row, outcome in found if outcome.outcome == "fail" and row["right"]]
    assert len(lost) <= MOST_WRONG * sum(row["right"] for row in rows), lost
    told_nothing = [row for row, outcome in found if outcome.outcome == "abstain"]
    assert len(told_nothing) <= MOST_ABSTAINED * len(rows), told_nothing


def test_the_pairs_know_every_form_once_right_and_once_wrong() -> None:
    forms: dict[str, set[bool]] = {}
    for row in pairs("math_pairs_blind.jsonl"):
        forms.setdefault(row["form"], set()).add(row["right"])
    assert len(forms) >= 25
    lopsided = {form for form, labels in forms.items() if len(labels) < 2}
    assert lopsided <= {"typical_wrong"}


@pytest.mark.parametrize(
    ("answer", "gold", "outcome", "reason"),
    [
        (r"\boxed{71}", "72", "fail", "wrong_answer"),
        (r"\boxed{x^2+1}", "x^2", "fail", "wrong_answer"),
        ("I do not know.", "72", "fail", "no_answer"),
        (r"\boxed{}", "72", "fail", "no_answer"),
        ("", "72", "fail", "no_answer"),
        ("  \n", "72", "fail", "no_answer"),
        (None, "72", "fail", "no_answer"),
        (r"\boxed{72}", None, "abstain", "no_gold"),
        (r"\boxed{72}", " ", "abstain", "no_gold"),
        (r"\boxed{72}", r"\text{}", "abstain", "unparseable_gold"),
        (r"\boxed{72}", r"\frac{1}{", "abstain", "unparseable_gold"),
        (r"\boxed{\frac{\frac{1}}{2}}", "72", "abstain", "unparseable_answer"),
        (r"\boxed{2 dozen}", "2", "abstain", "ambiguous_answer"),
        (r"\boxed{10_2}", "10", "abstain", "ambiguous_answer"),
        (r"\boxed{50 \text{ cents}}", "0.5", "abstain", "ambiguous_answer"),
        (r"\boxed{\sqrt{2}}", "1.414", "abstain", "ambiguous_answer"),
        (r"\boxed{1.41421356}", r"\sqrt{2}", "abstain", "ambiguous_answer"),
        (r"\boxed{0.5\%}", "0.5", "abstain", "ambiguous_answer"),
        (r"\boxed{(5,7)}", "5, 7", "abstain", "ambiguous_answer"),
        (r"\boxed{\text{Ann beats Tom}}", "Tom beats Ann", "abstain", "ambiguous_answer"),
        (r"\boxed{2x = 4}", "x = 2", "abstain", "ambiguous_answer"),
        (r"\boxed{(A) or (B)}", "A", "fail", "wrong_answer"),
        (r"\boxed{\text{Yes, or no}}", "yes", "fail", "wrong_answer"),
        (r"\boxed{|x|}", "x", "abstain", "ambiguous_answer"),
        (r"\boxed{\cos(n\pi)}", "(-1)^n", "abstain", "ambiguous_answer"),
        (r"\boxed{\ln 2}", r"\log 2", "abstain", "ambiguous_answer"),
        (r"\boxed{9^{9^{9^9}}+1}", "9^{9^{9^9}}", "abstain", "ambiguous_answer"),
        ("She had 20 and gave away 5, leaving 15.", "5", "abstain", "ambiguous_answer"),
        ("That leaves 15 of the 20 apples.", "20", "abstain", "ambiguous_answer"),
        (r"\boxed{7" + " " * LONGEST + "+ 1}", "7", "abstain", "unparseable_answer"),
    ],
)
def test_outcomes_have_names(answer: str | None, gold: str | None, outcome: str, reason: str) -> None:
    found = check_math(answer, gold)
    assert (found.outcome, found.reason) == (outcome, reason)


STATED = [
    # (gold, answer without a box, outcome)
    ("72", "The answer is 72 clips, not 48.", "pass"),
    ("5", "The answer is 5 apples, not 6.", "pass"),
    ("72", "The answer is 72 clips rather than 48.", "pass"),
    ("72", "The answer is **72 clips** and not 48.", "pass"),
    ("72", "The answer is not 48 but 72.", "pass"),
    ("72", "The answer is $72$ clips, not $48$.", "pass"),
    ("72", "It is 72, not 48.", "pass"),
    ("72", "Answer: 72 (not 48)", "pass"),
    ("72", "The answer is seventy-two clips, not 48.", "pass"),
    ("72", "The answer is 72 clips, since she sold half as many in May.", "pass"),
    ("72", "The answer is 72 clips because 48 + 24 = 72.", "pass"),
    ("72", "The answer is 72 clips (48 + 24).", "pass"),
    ("72", "The answer is 72 clips; 48 were sold in April.", "pass"),
    ("72", "The answer is 72, as expected.", "pass"),
    ("72", "The answer: it's 72.", "pass"),
    ("72", "The answer should be 72 clips, not 48.", "pass"),
    ("x>3", "The answer is $x>3$, not $x<3$.", "pass"),
    ("1, 2", "The answer is 1 and 2, not 3.", "pass"),
    ("(1, 2)", "The answer is (1, 2), because order matters.", "pass"),
    ("B", "The answer is B, not A.", "pass"),
    ("no solution", "The answer is no solution, not 3.", "pass"),
    ("2", "The answer is 2 or 3.", "fail wrong_answer"),
    ("48", "The answer is 72 clips, not 48.", "fail wrong_answer"),
    ("48", "The answer is not 48 but 72.", "fail wrong_answer"),
    ("48", "It is 72, not 48.", "fail wrong_answer"),
    ("73", "The answer is 72 clips because 48 + 24 = 72.", "fail wrong_answer"),
    ("800", "Thus it is $2500 - 250000 = -250000$ parts", "fail wrong_answer"),
    ("-250000", "Thus it is $2500 - 250000 = -250000$ parts", "abstain unparseable_answer"),
    ("24", "The answer is 72 clips, which is 48 + 24.", "abstain ambiguous_answer"),
    ("72", "The answer is 72 clips, which is half of 144.", "abstain ambiguous_answer"),
    ("144", "The answer is 72 clips, so both sold 144.", "abstain ambiguous_answer"),
    ("72", "The answer is 72 clips in April and May.", "abstain ambiguous_answer"),
    ("48", "The answer is 72 clips, 48 in April and 24 in May.", "abstain ambiguous_answer"),
    ("72", "The answer is 72!", "abstain ambiguous_answer"),
    ("72", "It cannot be 72.", "abstain ambiguous_answer"),
    ("72", "It is less than 72.", "abstain ambiguous_answer"),
    ("x", "The answer is 5 more than $x$.", "abstain unparseable_answer"),
    ("72", "The answer is not 72.", "abstain unparseable_answer"),
    ("72", "The answer is less than 72.", "abstain unparseable_answer"),
    ("5", "The answer is 5 if it rains and 7 else.", "abstain unparseable_answer"),
    ("72", "She thus has seventy-two clips left after she has sold the other ones to her friends.",
     "abstain unparseable_answer"),
    ("72", "The answer is unknown.", "fail no_answer"),
    ("72", "I do not know, not yet.", "fail no_answer"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer", "expected"), STATED)
def test_statements_with_reasons_and_rejected_values(gold: str, answer: str, expected: str) -> None:
    found = check_math(answer, gold)
    assert f"{found.outcome} {found.reason}".strip() == expected


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{72}", "72"),
        (r"\boxed {72}", "72"),
        (r"\boxed{\frac{1}{2}} and more", r"\frac{1}{2}"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"\boxed{1} \boxed{2} \boxed{\boxed{3}", "3"),
        (r"} \boxed{1} } \boxed{2", "1"),
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
        ("1  1/2", "1 1/2", True),
        ("1,23", "123", False),
    ],
)
def test_the_literal_form(a: str, b: str, same: bool) -> None:
    assert (literal(a) == literal(b)) is same


def test_a_word_after_the_box_counts_as_in_it() -> None:
    assert same_text(r"It is \boxed{5}.", "5")
    assert not same_text(r"It is \boxed{5} million.", "5")
    assert told_by_text(r"It is \boxed{5} million.", "5") is None
    assert check_math(r"It is \boxed{5} million.", "5000000") == PASS
    assert check_math(r"It is \(\boxed{50}\%\).", "0.5") == PASS
    assert check_math(r"It takes \boxed{90} minutes.", "1.5 hours") == PASS
    assert check_math(r"It takes \boxed{90} minutes.", "90 hours") == failing("wrong_answer")


def test_two_readings_that_disagree_are_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def ask(gold: str, answer: str) -> second_opinion.Opinion:
        asked.append((gold, answer))
        return second_opinion.Opinion(equal=True, whole=True)

    monkeypatch.setattr(second_opinion, "ask", ask)
    assert check_math(r"\boxed{x+2}", "x+1") == abstaining("ambiguous_answer")
    assert asked == [("x+1", "x+2")]
    assert check_math(r"\boxed{\sqrt{2}}", r"\sqrt{3}") == failing("wrong_answer"), "constants are read exactly"
    assert check_math(r"\boxed{x+1}", "5") == failing("wrong_answer")
    assert len(asked) == 1
    assert check_math(r"\boxed{\int x dx}", r"\frac{x^2}{2}") == PASS, "unread by us, and read whole"
    monkeypatch.setattr(second_opinion, "ask", lambda *_: second_opinion.Opinion(equal=True, whole=False))
    assert check_math(r"\boxed{\int x dx}", r"\frac{x^2}{2}") == abstaining("ambiguous_answer")
    monkeypatch.setattr(second_opinion, "ask", lambda *_: None)
    assert check_math(r"\boxed{\int x dx}", r"\frac{x^2}{2}") == abstaining("unparseable_answer")
    assert check_math(r"\boxed{x+2}", "x+1") == failing("wrong_answer")


def test_the_gold_answer_of_the_prompt_is_asked() -> None:
    assert verify(Prompt("1 + 1?", kind="math", answer="2"), r"\boxed{2.0}") == PASS
    assert verify(Prompt("1 + 1?", kind="math", answer="3"), r"\boxed{2.0}") == failing("wrong_answer")
    assert verify(Prompt("1 + 1?", kind="math"), r"\boxed{2.0}") == abstaining("no_gold")


def test_the_verdicts_agree_with_a_reading_by_eye() -> None:
    rows = pairs("teacher_outputs_128.jsonl")
    by_eye = json.loads((DATA / "teacher_outputs_by_eye.json").read_text(encoding="utf-8"))
    assert set(by_eye) == {str(number) for number in range(len(rows))}
    verdicts = [check_math(row["text"], row["gold"]) for row in rows]
    assert [outcome for outcome in verdicts if outcome.outcome == "abstain"] == []
    right = [outcome == PASS for outcome in verdicts]
    assert [n for n, told in enumerate(right) if told != (by_eye[str(n)]["verdict"] == "right")] == []
    assert sum(right) == 28


def test_every_gold_answer_of_gsm8k_is_understood() -> None:
    prompts = list(read_prompts(DATA / "gsm8k_200.jsonl", source("gsm8k")))
    assert len(prompts) == 200
    for prompt in prompts:
        assert prompt.kind == "math"
        assert prompt.answer
        # another number than the gold one: the gold has to be read, not only compared as text
        assert check_math(r"\boxed{-123456}", prompt.answer).reason == "wrong_answer", prompt.answer
        assert check_math(rf"\boxed{{{prompt.answer}}}", prompt.answer).outcome == "pass", prompt.answer


# --- properties -------------------------------------------------------------------------------------------------------

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
WHOLE = st.integers(-10_000, 10_000)
RATIONALS = st.builds(Fraction, WHOLE, st.sampled_from((1, 2, 4, 5, 8, 20, 3, 7, 12)))


def renderings(value: Fraction) -> list[str]:
    """Ways to write one number."""
    above, below = value.numerator, value.denominator
    sign, size = "-" * (above < 0), abs(above)
    found = [
        rf"\frac{{{above}}}{{{below}}}",
        f"{above}/{below}",
        rf"{sign}\dfrac{{{size}}}{{{below}}}",
        f"x = {above}/{below}",
    ]
    found += [
        rf"\frac{{{3 * above}}}{{{3 * below}}}",
        rf"\${sign}{size}/{below}".replace("$-", "$ -"),
        rf"{above} \div {below}",
    ]
    if below > 1 and size > below:
        found += [
            rf"{sign}{size // below}\frac{{{size % below}}}{{{below}}}",
            f"{sign}{size // below} {size % below}/{below}",
        ]
    if all(prime in (2, 5) for prime in _primes(below)):
        decimal = f"{sign}{size * 10**4 // below:05d}"
        found += [f"{decimal[:-4]}.{decimal[-4:]}", rf"{decimal[:-4]}.{decimal[-4:]}00 \text{{ apples}}"]
    if below == 1:
        found += [f"{above:,}", f"{above}.", f"{above:,}".replace(",", "{,}"), rf"{above} \text{{ cm}}^2", f"{above}^1"]
    return found


def _primes(number: int) -> set[int]:
    return {prime for prime in (2, 3, 5, 7) if number % prime == 0}


@QUICK
@given(RATIONALS, st.data())
def test_a_number_is_itself_however_it_is_written_and_no_other(value: Fraction, data: st.DataObject) -> None:
    gold, answer = (data.draw(st.sampled_from(renderings(value)), label=name) for name in ("gold", "answer"))
    units = [("$" in text) + 2 * ("apples" in text) + 4 * ("cm" in text) for text in (gold, answer)]
    assume(units[0] == units[1] or 0 in units)  # dollars are no apples
    assert check_math(rf"\boxed{{{answer}}}", gold, fast=False) == PASS
    neighbour = data.draw(st.sampled_from([value + 1, value + Fraction(1, 20), -value + (value == 0), value * 10 + 1]))
    other = data.draw(st.sampled_from(renderings(neighbour)), label="other")
    if neighbour != value:
        assert check_math(rf"\boxed{{{other}}}", gold).outcome != "pass"


VALUES = st.sampled_from(
    ["7", "-7", r"\frac{1}{2}", "0.5", r"\sqrt{2}", r"2\pi", "x^2+1", "x+1", "(x+1)^2", "(1,2)", "(2,1)", "[1,2]",
     "1, 2", r"\{1,2\}", "x > 1", r"(1,\infty)", r"\begin{pmatrix}1&2\end{pmatrix}", "no solution", "yes", "5 cm",
     "0.05 m", "3:45", "1011_2", r"1 \pm \sqrt{2}", "50\\%", r"90^\circ"]
)  # fmt: skip


@QUICK
@given(VALUES, VALUES, st.data())
def test_spacing_and_sizes_of_brackets_change_no_verdict(gold: str, answer: str, data: st.DataObject) -> None:
    plain = check_math(rf"\boxed{{{answer}}}", gold, fast=False)
    dressed = answer.replace("(", r"\left(").replace(")", r"\right)") if data.draw(st.booleans()) else answer
    chosen = {sign: data.draw(st.sampled_from((sign, f" {sign}", f"{sign}\\, ", f" {sign} \\;"))) for sign in "+,=>()"}
    dressed = re.sub(r"[+,=>()]", lambda sign: chosen[sign[0]], dressed)
    dressed = data.draw(st.sampled_from(("{}", " {} ", "${}$", "{}.", r"\displaystyle {}", r"\, {} \!"))).replace(
        "{}", dressed, 1
    )
    assert check_math(rf"\boxed{{{dressed}}}", gold, fast=False) == plain, dressed


@QUICK
@given(VALUES, VALUES)
def test_equality_does_not_depend_on_which_one_is_gold(a: str, b: str) -> None:
    there, back = (check_math(rf"\boxed{{{x}}}", y, fast=False).outcome for x, y in ((a, b), (b, a)))
    assert {there, back} != {"pass", "fail"}


@QUICK
@given(VALUES, st.text(max_size=30))
def test_any_text_has_a_verdict_and_a_box_of_the_gold_passes(gold: str, text: str) -> None:
    assert check_math(rf"{text} \boxed{{{gold}}}", gold) == PASS
    assert check_math(rf"\boxed{{{text}}}", gold).outcome in ("pass", "fail", "abstain")
    assert check_math(text, gold).outcome in ("pass", "fail", "abstain")
    assert read_gold(text).outcome in ("pass", "abstain")
