"""Equations: sympy solves what the text says, and no equation is in two splits under any name of its unknowns."""

from __future__ import annotations

import random
import re
from collections.abc import Hashable

import pytest
import sympy
from sympy.parsing.sympy_parser import implicit_multiplication_application, parse_expr, standard_transformations

from distill.problems import algebra
from distill.problems.gym import Item
from distill.records import Prompt
from distill.verify.math import check_math
from problems.material import assert_one_split_each, take

TRANSFORMATIONS = (*standard_transformations, implicit_multiplication_application)


def parsed(text: str) -> sympy.Expr:
    letters = {letter: sympy.Symbol(letter) for letter in re.findall(r"[a-z]", text)}
    product = re.sub(r"([a-z])([a-z])", r"\1*\2", text.replace("^", "**"))
    return parse_expr(product, local_dict=letters, transformations=TRANSFORMATIONS)


def equations(prompt: Prompt) -> list[sympy.Eq]:
    sides = re.findall(
        r"(?<![a-z\\])(-?[\d a-z^+-]*[\da-z])\s=\s(-?[\d a-z^+-]*[\da-z])", without_words(prompt.question)
    )
    return [sympy.Eq(parsed(left), parsed(right), evaluate=False) for left, right in sides]


def without_words(question: str) -> str:
    r"""What stands between dollar signs, without LaTeX's commands."""
    return " ; ".join(re.sub(r"\\[a-z]+\{cases\}|\\\\", " ; ", part) for part in re.findall(r"\$+([^$]+)\$+", question))


def asked(prompt: Prompt) -> sympy.Expr:
    last = [part for part in without_words(prompt.question).split(" ; ") if "=" not in part and part.strip()]
    return parsed(last[-1])


def solution(prompt: Prompt) -> sympy.Expr:
    found = equations(prompt)
    if len(found) == 2:
        symbols = sorted(set().union(*(e.free_symbols for e in found)), key=str)
        (values,) = sympy.solve(found, symbols, dict=True)
        return sympy.simplify(asked(prompt).subs(values))
    (equation,) = found
    (symbol,) = equation.free_symbols
    roots = sympy.Poly(equation.lhs - equation.rhs, symbol)
    real = {root for root in sympy.roots(roots) if root.is_real}
    assert real, prompt.question
    return max(real)


def facts(prompt: Prompt) -> Hashable:
    """The equations with every side as it is, the unknowns renamed; a quadratic one divided by its factor."""
    found = equations(prompt)
    names = sorted(set().union(*(e.free_symbols for e in found)), key=str)
    versions = []
    for order in ([0, 1], [1, 0]):
        renamed = {name: sympy.Symbol(f"z{place}") for name, place in zip(names, order, strict=False)}
        sides = [(e.lhs - e.rhs).subs(renamed, simultaneous=True) for e in found]
        if len(found) == 1:
            poly = sympy.Poly(sides[0])
            if poly.degree() == 2:
                poly = poly.primitive()[1]
            return str(poly.as_expr() if poly.LC() > 0 else -poly.as_expr()) + (
                str(found[0]) if poly.degree() == 1 else ""
            )
        versions.append(sorted(map(str, sides)))
    return str(min(versions))


DRAWN = take("algebra", "train", 0, 150) + take("algebra", "train", 1, 150)


def test_sympy_finds_the_same_solution_and_the_verifier_takes_its_form() -> None:
    kinds = set()
    for prompt in DRAWN:
        right = solution(prompt)
        assert prompt.answer is not None
        assert (prompt.kind, prompt.domain) == ("math", "math")
        assert check_math(f"\\boxed{{{prompt.answer}}}", prompt.answer).outcome == "pass"
        assert check_math(f"\\boxed{{{sympy.latex(right)}}}", prompt.answer).outcome == "pass", prompt
        assert check_math(f"\\boxed{{{sympy.latex(right + 1)}}}", prompt.answer).outcome == "fail", prompt
        kinds.add((prompt.difficulty, right.is_Integer, right.is_Rational))
    assert kinds >= {("1", True, True), ("2", True, True), ("2", False, True), ("3", False, False)}


@pytest.mark.parametrize("drawn", [(60, 15, 15), pytest.param((150, 40, 40), marks=pytest.mark.rehearse)])
def test_one_split_each(drawn: tuple[int, int, int]) -> None:
    assert_one_split_each("algebra", facts, drawn)


def test_an_equation_that_every_number_solves_is_no_problem() -> None:
    """Where the terms cancel out, reasoning-gym still names one number as the answer."""
    assert algebra._linear(random.Random(0), Item("7", {"equation": "0 = 0"})) is None
    assert algebra._linear(random.Random(0), Item("7", {"equation": "12 = 12"})) is None
    assert algebra._quadratic(random.Random(0), Item("", {"polynomial_expr": "3*x**2 + x + 9"})) is None
    assert algebra._quadratic(random.Random(0), Item("", {"polynomial_expr": "3*x + 9"})) is None


def test_content_knows_no_wording_and_no_names() -> None:
    linear = Item("4", {"equation": "3*x + 5 = 17"})
    halves = [Item("", {"polynomial_expr": text}) for text in ("x**2 - 3*x + 2", "-2*y**2 + 6*y - 4")]
    drafts = [algebra._linear(random.Random(seed), linear) for seed in range(40)]
    quadratic = [algebra._quadratic(random.Random(seed), item) for seed in range(40) for item in halves]
    for found in (drafts, quadratic):
        assert len({draft.prompt().question for draft in found if draft}) > 20
        assert len({draft.content for draft in found if draft}) == 1
    rows, values = [(2, 3), (-1, 4)], [12, 5]
    turned = [(3, 2), (4, -1)]
    same = [(rows, values), (rows[::-1], values[::-1]), (turned, values), (turned[::-1], values[::-1])]
    assert len({algebra._system_content(*told) for told in same}) == 1
    assert algebra._system_content(rows, values) != algebra._system_content(rows, values[::-1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-10*e**2 - 4*e", {2: -10, 1: -4}),
        ("x", {1: 1}),
        ("20 - x", {0: 20, 1: -1}),
        ("0", {0: 0}),
        ("12*s**2 + 5 - s", {2: 12, 0: 5, 1: -1}),
    ],
)
def test_what_sympy_writes_is_read(text: str, expected: dict[int, int]) -> None:
    assert algebra.coefficients(text) == expected


def test_roots_in_lowest_terms() -> None:
    assert algebra.largest_root(1, -1, -1) == "\\frac{1+\\sqrt{5}}{2}"
    assert algebra.largest_root(1, 0, -8) == "2\\sqrt{2}"
    assert algebra.largest_root(2, -4, 1) == "\\frac{2+\\sqrt{2}}{2}"
    assert algebra.largest_root(1, -2, -1) == "1+\\sqrt{2}"
    assert algebra.largest_root(4, 4, 1) == "-\\frac{1}{2}"
    assert algebra.largest_root(3, 0, 0) == "0"


def test_terms_are_shown_as_people_write_them() -> None:
    assert algebra.shown({"x^2": 3, "x": -1, "": 4}) == "3x^2 - x + 4"
    assert algebra.shown({"x": -2, "": 0}) == "-2x"
    assert algebra.shown({"": 1, "x": 1}) == "1 + x"
    assert algebra.shown({"x": 0, "": 0}) == "0"
