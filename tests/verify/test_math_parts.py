"""The parts of the mathematical verifier: the final statement, words and units, values, numbers, the second opinion."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from distill.verify import PASS, Outcome, abstaining, failing, second_opinion
from distill.verify.compare import same
from distill.verify.evaluate import MOST_BITS, TooBigError, UndefinedError, evaluate
from distill.verify.final import final
from distill.verify.latex import DEEPEST, LONGEST_NUMBER, tokens
from distill.verify.math import check_math
from distill.verify.numbers import equal
from distill.verify.readings import read
from distill.verify.spans import as_real
from distill.verify.tidy import Unreadable, tidy
from distill.verify.units import number_of, unit_of
from distill.verify.values import Group, Listing, Quantity, Real, number


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (r"So \boxed{5}", "5"),
        (r"\boxed{2} or \boxed{3}", "2, 3"),
        (r"\boxed{2}, \boxed{3} \text{ and } \boxed{4}", "2, 3, 4"),
        (r"First \boxed{2}. Then \boxed{3}", "3"),
        (r"\boxed{5}\%", r"5\%"),
        (r"\boxed{5}^\circ", r"5^\circ"),
        (r"\boxed{5} million people", r"5 \text{ million}"),
        (r"\boxed{5} in the evening", "5"),
        (r"\boxed{5} miles per hour", r"5 \text{ miles per hour}"),
        (r"\boxed 7", "7"),
        ("The answer is 5.", "5"),
        ("The answer is $x = 5$. I hope it is correct.", "x = 5"),
        ("**Answer:** $\\frac{1}{2}$", r"\frac{1}{2}"),
        ("#### 12", "12"),
        ("The answer is 5. Wait, that is wrong.\n\nSo it is 6.", "6"),
        ("The final answer is\n\n$$\n\\frac{3}{7}\n$$", "\n\\frac{3}{7}\n"),
        ("Thus $x = 3$ or $x = -3$.", "x = 3, x = -3"),
        ("So there are 24 students.", "24"),
        ("That is 600 at first and 7200/year later.", "7200"),
        ("So it is > 7", "So it is > 7"),
        ("No solution exists.", "No solution exists"),
        ("It costs $5 per pound.", "$5"),
        (r"The answer is $2 \text{ since } 3$.", r"2 \text{ since } 3"),
    ],
)
def test_the_final_statement(answer: str, text: str) -> None:
    found = final(answer)
    assert found is not None
    assert found.text == text


def test_numbers_that_the_statement_holds_besides() -> None:
    found = final("She had 20 and gave away 5, leaving 15.")
    assert found is not None
    assert (found.text, found.others) == ("15", ("20", "5"))
    unsure = final("That leaves 15 of the 20 apples.")
    assert unsure is not None
    assert unsure.text in unsure.others, "the last number need not be the answer here"
    assert final("") is None


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("zero", 0), ("twelve", 12), ("twenty five", 25), ("two hundred and six", 206), ("one thousand", 1_000),
        ("fifteen hundred", 1_500), ("two million three hundred thousand", 2_300_000), ("three dozen", 36),
        ("five six", None), ("twenty eleven", None), ("many", None), ("", None), ("dozen", None),
    ],
)  # fmt: skip
def test_numbers_in_words(words: str, value: int | None) -> None:
    assert number_of(words.split()) == value


@pytest.mark.parametrize(
    ("a", "b", "ratio"),
    [
        ("km", "m", 1_000), ("miles per hour", "mph", 1), ("km / h", "m / s", Fraction(5, 18)), ("square cm",
        "cm ^ 2", 1),
        ("cubic cm", "ml", 1), ("hours", "min", 60), ("feet", "in", 12), ("dollars", "cents", 100), ("sq ft",
        "ft squared", 1),
    ],
)  # fmt: skip
def test_units_of_one_dimension(a: str, b: str, ratio: Fraction) -> None:
    first, second = unit_of(a.split()), unit_of(b.split())
    assert first is not None
    assert second is not None
    assert first.dimensions == second.dimensions
    assert first.factor / second.factor == ratio


@pytest.mark.parametrize("parts", ["apples", "cm ^ x", "cubed", "5", ""])
def test_words_that_are_no_unit(parts: str) -> None:
    assert unit_of(parts.split()) is None


@pytest.mark.parametrize(
    ("gold", "answer", "outcome"),
    [
        (r"5\text{ J}", r"5\text{ N m}", PASS),
        (r"5\text{ J}", r"5\text{ kN m}", failing("wrong_answer")),
        (r"1\text{ kWh}", r"3.6\text{ MJ}", PASS),
        (r"1\text{ mol/L}", r"1000\text{ mol/m}^3", PASS),
        (r"2.5\text{ kPa}", r"2500\text{ Pa}", PASS),
        (r"25\text{ °C}", "25 degrees Celsius", PASS),
        ("25℃", r"25^\circ\text{C}", PASS),
        (r"77^\circ\text{F}", r"25^\circ\text{C}", PASS),
        (r"20^\circ\text{C}", r"20^\circ\text{F}", failing("wrong_answer")),
        (r"25^\circ\text{C}", r"298.15\text{ kelvins}", PASS),
        ("0.75 g/mol", r"\frac{3}{4}\text{ g/mol}", PASS),
        ("0.75 eV", r"\frac{3}{4}eV", PASS),
        ("5", "5 J/mol", PASS),
        ("5", "5kJ/mol", abstaining("unparseable_answer")),
        (r"5\text{ W/(K mol)}", r"5\text{ W/K/mol}", PASS),
        ("5", r"5\text{ thousandths}", abstaining("ambiguous_answer")),
        ("0.05", r"\text{five hundredths}", PASS),
        ("5", r"5\text{ sec}", PASS),
        (r"2\pi \text{ m}", r"2\pi", PASS),
        ("-5\\%", "-0.05", PASS),
        (r"2\sqrt{3}", "√12", PASS),
        ("40", "USD 40", PASS),
        ("7%", "7 per cent", PASS),
        ("50000", "5万", PASS),
        (r"5 \text{ books/shelf}", r"5 \text{ books per shelf}", PASS),
    ],
)
def test_units_of_science_and_words_behind_a_number(gold: str, answer: str, outcome: Outcome) -> None:
    assert check_math(rf"\boxed{{{answer}}}", gold, fast=False) == outcome


def test_tokens_have_limits() -> None:
    assert [token.text for token in tokens(tidy(r"\dfrac{1}{2}x"))] == ["frac", "{", "1", "}", "{", "2", "}", "x"]
    with pytest.raises(Unreadable):
        tokens("1" * (LONGEST_NUMBER + 1))
    with pytest.raises(Unreadable):
        tokens(r"\text{" * (DEEPEST + 2) + "}" * (DEEPEST + 2))
    with pytest.raises(Unreadable):
        tidy("7\ud800")


@pytest.mark.parametrize(
    "text",
    [
        "", "1 2", "(1", "1)", "(1]", "{1", r"\frac{1}", "2x3", "5 or", "1 =", "x = 1 = 2", "3 + 4 = 8", "|x",
        "5^", "5 +",
        r"\text{more than } 5", r"\text{square root of } 5",
        "f(x) = x for all x", r"\begin{pmatrix}1\\2&3\end{pmatrix}",
        r"\{1 \text{ or } 2\}", "5 than 6", r"\sum_{k=1}^3 k", r"\int x dx", "(" * 60 + "1" + ")" * 60, "(x)" * 200,
    ],
)  # fmt: skip
def test_what_is_not_read(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("(1,2)", Group),
        ("1,2", Listing),
        (r"\{1,2\}", Listing),
        ("1<x<2", Real),
        (r"x \ne 2", Real),
        ("5 cm", Quantity),
    ],
)
def test_kinds_of_values(text: str, kind: type) -> None:
    assert isinstance(read(text), kind)


@pytest.mark.parametrize("brackets", ["(2,1)", "(1,1)", "(x,2)", "(1,2,3)", "(1 cm, 2 cm)", "1,2"])
def test_what_is_no_interval(brackets: str) -> None:
    assert as_real(read(brackets)) is None


def value(text: str) -> Any:
    found = read(text)
    assert isinstance(found, Quantity)
    return evaluate(found.node, {})


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("2^{10}", 1_024), (r"\sqrt{\frac{9}{4}}", Fraction(3, 2)), ("(-8)^2", 64), (r"\sqrt[3]{-8}", -2),
        ("5!", 120),
        (r"\binom{10}{3}", 120), (r"\binom{200}{198}", 19_900), (r"\log_2 8", 3), (r"\log_2 \frac{1}{4}", -2),
        ("8^{2/3}", 4),
        (r"\lfloor \pi \rfloor", 3), (r"\lceil -1/2 \rceil", 0), ("|3-5|", 2),
        (r"0.1\overline{6}", Fraction(1, 6)), ("2^{-1}", Fraction(1, 2)),
        ("(-1)^{10^9}", 1), (r"3\frac{1}{3}", Fraction(10, 3)), (r"3\frac{4}{3}", 4),
    ],
)  # fmt: skip
def test_exact_values(text: str, exact: Fraction) -> None:
    assert value(text) == exact
    assert isinstance(value(text), Fraction)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1/0", UndefinedError), ("0^0", UndefinedError), (r"\ln 0", UndefinedError), (r"\infty + 1", UndefinedError),
        ("(-3)!", UndefinedError), (f"2^{{{MOST_BITS + 2}}}", TooBigError), ("9999!", TooBigError),
        (r"e^{10^{13}}", TooBigError),
        (r"\binom{10^9}{10^8}", TooBigError), (r"\sin(2^{20000})", TooBigError), (r"\exp(10^{12})", TooBigError),
        ("3^{3^{3^3}}", TooBigError),
    ],
)  # fmt: skip
def test_values_that_are_not_computed(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        value(text)


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("x", "x", True), ("(x+1)^2", "x^2+2x+1", True), ("x", "y", False), ("|x|", "x", None),
        (r"\ln|x|", r"\ln x", None),
        (r"\cos(n\pi)", "(-1)^n", None), (r"\sqrt{1/n}", r"1/\sqrt{n}", True), ("1/(1/x)", "x", True), ("x^{500}",
        "x^{501}", False),
        (r"\sqrt{10^{100}+1}", "10^{50}", False), ("e^{-200}", "0", False), (r"\sin\pi", "0", True),
        ("x+e^{-300}", "x", False),
        (r"\log 100", "2", None), (r"\log 8 / \log 2", "3", True), (r"\ln 8 / \ln 2", "3", True), ("f(x)",
        "f(y)", False),
        ("f(x+1)", "f(1+x)", True), ("9^{9^{9^9}}", "9^{9^{9^9}}", True), ("9^{9^{9^9}}", "9^{9^{9^8}}", None),
    ],
)  # fmt: skip
def test_equality_of_expressions(a: str, b: str, told: bool | None) -> None:
    nodes = [found.node for found in map(read, (a, b)) if isinstance(found, Quantity)]
    assert equal(*nodes) is told
    assert equal(*reversed(nodes)) is told


def test_a_tree_is_no_deeper_than_the_stack() -> None:
    deep = read("(" * (DEEPEST - 1) + "x" + "+1)" * (DEEPEST - 1))
    assert same(deep, read("x" + "+1" * (DEEPEST - 1))) is True
    assert same(Quantity(number(1)), Quantity(number(2))) is False


def test_math_verify_is_asked_only_about_what_does_no_harm() -> None:
    for text in ("9^{9^9}", "99999!", "2^{99999}", "1" * 50, r"\sum_{k=1}^{9} k",
    "(" * 9 + "1" + ")" * 9, "x" * 400, "7\ud800",
                 "= " * 8, "some words that are no formula", "10^{{999999999}}"):  # fmt: skip
        assert not second_opinion.harmless(text), text
        assert second_opinion.ask("1", text) is None
    assert second_opinion.ask("x+1", "1+x") == second_opinion.Opinion(equal=True, whole=True)
    assert second_opinion.ask("x+1", "x+2") == second_opinion.Opinion(equal=False, whole=True)
    for text in ("6 = 5", r"5 \text{ apples}", "5'", "5 6", r"5 \ldots", "x5"):
        opinion = second_opinion.ask("5", text)
        assert opinion is None or not opinion.whole, text
