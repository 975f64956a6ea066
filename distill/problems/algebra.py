"""Equations with exact solutions: linear and quadratic ones of reasoning-gym, and systems of two linear ones.

The wording is ours: reasoning-gym asks for rounded decimals, here every gold answer is exact. Knows nothing about
models, files or recipes.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction

from distill.problems import gym
from distill.problems.supply import Draft, Split, drafted
from distill.records import Prompt

_UNKNOWNS = "xyztabcnmpw"
"""Without letters that look like digits or stand for constants."""
_TERM = re.compile(r"([+-]?)(\d+)?\*?([a-z])?(?:\*\*(\d+))?")

_LINEAR = (
    "Solve for ${x}$: $${equation}$$",
    "Find the value of ${x}$ if ${equation}$.",
    "What number is ${x}$, if ${equation}$?",
    "Given that ${equation}$, determine ${x}$.",
)
_QUADRATIC = (
    "What is the largest real solution of the equation ${equation}$? Give it exactly, not as a rounded decimal.",
    "Consider all real numbers ${x}$ with ${equation}$. Find the greatest of them, in exact form.",
    "The equation ${equation}$ has at least one real solution. Determine the largest one exactly.",
)
_SYSTEM = (
    "Given ${first}$ and ${second}$, find ${asked}$.",
    "The numbers ${x}$ and ${y}$ satisfy $$\\begin{{cases}} {first} \\\\ {second} \\end{{cases}}$$ What is ${asked}$?",
    "Two numbers ${x}$ and ${y}$ fulfil both ${first}$ and ${second}$. Determine ${asked}$.",
)


def problems(split: Split, seed: int) -> Iterator[Prompt]:
    """Raises MissingError without reasoning-gym, InputError when there are hardly any left."""
    linear_item = gym.task("simple_equations", max_value=20)
    quadratic_item = gym.task("polynomial_equations", min_degree=2, max_degree=2, max_value=12)

    def draw(rng: random.Random) -> Draft | None:
        kind = rng.choices(("linear", "system", "quadratic"), weights=(5, 4, 1))[0]  # sympy solves a quadratic: slow
        if kind == "linear":
            return _linear(rng, linear_item(rng))
        return _quadratic(rng, quadratic_item(rng)) if kind == "quadratic" else _system(rng)

    return drafted("algebra", split, seed, draw)


def coefficients(polynomial: str) -> dict[int, int]:
    """Power → coefficient of a polynomial in one unknown, written as sympy does: `-10*e**2 - 4*e + 3`."""
    found: dict[int, int] = {}
    for sign, number, unknown, power in _TERM.findall(polynomial.replace(" ", "")):
        if number or unknown:
            place = int(power or 1) if unknown else 0
            found[place] = found.get(place, 0) + int(f"{sign}{number or 1}")
    return found


def shown(terms: Mapping[str, int]) -> str:
    """`3x^2 - x + 4` from what each coefficient belongs to; `` stands for the constant. Zeros are left out."""
    text = ""
    for unknown, value in terms.items():
        if value:
            size = "" if abs(value) == 1 and unknown else str(abs(value))
            text += f"{' - ' if value < 0 else ' + '}{size}{unknown}"
    text = text.removeprefix(" + ")
    return "-" + text.removeprefix(" - ") if text.startswith(" - ") else text or "0"


# --- linear ---------------------------------------------------------------------------------------------------------


def _linear(rng: random.Random, item: gym.Item) -> Draft | None:
    left, right = item.values["equation"].split(" = ")
    terms = coefficients(left)
    factor, constant = terms.get(1, 0), terms.get(0, 0)
    if factor == 0:  # the terms cancelled out: every number would be a solution
        return None
    x = rng.choice(_UNKNOWNS)
    sides = [shown({x: factor, "": constant} if rng.random() < 0.5 else {"": constant, x: factor}), right]
    if rng.random() < 0.2:
        sides.reverse()
    question = rng.choice(_LINEAR).format(x=x, equation=" = ".join(sides))
    return Draft(
        f"linear {factor} {constant} {right}",
        lambda: Prompt(question, kind="math", answer=item.answer, domain="math", difficulty="1"),
    )


# --- quadratic ------------------------------------------------------------------------------------------------------


def _quadratic(rng: random.Random, item: gym.Item) -> Draft | None:
    terms = coefficients(item.values["polynomial_expr"])
    a, b, c = (terms.get(power, 0) for power in (2, 1, 0))
    if a == 0 or b * b < 4 * a * c:
        return None
    x = rng.choice(_UNKNOWNS)
    question = rng.choice(_QUADRATIC).format(x=x, equation=shown({f"{x}^2": a, x: b, "": c}) + " = 0")
    scale = math.gcd(a, b, c) * (1 if a > 0 else -1)
    a, b, c = a // scale, b // scale, c // scale
    answer = largest_root(a, b, c)
    level = "3" if "sqrt" in answer else "2"
    return Draft(
        f"quadratic {a} {b} {c}",
        lambda: Prompt(question, kind="math", answer=answer, domain="math", difficulty=level),
    )


def largest_root(a: int, b: int, c: int) -> str:
    r"""LaTeX of the larger solution of ax² + bx + c = 0 in lowest terms, such as `\frac{-1+\sqrt{5}}{2}`; a > 0."""
    root, rest = _square_part(b * b - 4 * a * c)
    if rest in (0, 1):
        return fraction(Fraction(-b + root * rest, 2 * a))
    shared = math.gcd(b, root, 2 * a)
    whole, root, below = -b // shared, root // shared, 2 * a // shared
    surd = f"{'' if root == 1 else root}\\sqrt{{{rest}}}"
    above = f"{whole}+{surd}" if whole else surd
    return above if below == 1 else f"\\frac{{{above}}}{{{below}}}"


def _square_part(number: int) -> tuple[int, int]:
    """(r, s) with number = r²·s and s free of squares; (1, 0) for 0."""
    root, rest, factor = 1, number, 2
    while rest and factor * factor <= rest:
        if rest % (factor * factor) == 0:
            root, rest = root * factor, rest // (factor * factor)
        else:
            factor += 1
    return root, rest


def fraction(value: Fraction) -> str:
    r"""`3`, `-\frac{2}{5}`."""
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


# --- systems --------------------------------------------------------------------------------------------------------


def _system(rng: random.Random) -> Draft | None:
    """Two equations in two unknowns with one whole solution; reasoning-gym has no such task."""
    solution = (rng.randint(-12, 12), rng.randint(-12, 12))
    rows = [(rng.randint(-7, 7), rng.randint(-7, 7)) for _ in range(2)]
    (a, b), (c, d) = rows
    if a * d == b * c or (0, 0) in ((a, b), (c, d)):
        return None
    x, y = rng.choice(("xy", "ab", "mn", "pq", "st", "uv"))
    values = [left * solution[0] + right * solution[1] for left, right in rows]
    first, second = (
        f"{shown({x: left, y: right})} = {value}" for (left, right), value in zip(rows, values, strict=True)
    )
    asked, answer = rng.choice(
        [
            (x, solution[0]),
            (y, solution[1]),
            (f"{x} + {y}", solution[0] + solution[1]),
            (f"{x} - {y}", solution[0] - solution[1]),
            (f"{x}{y}", solution[0] * solution[1]),
        ]
    )
    question = rng.choice(_SYSTEM).format(x=x, y=y, first=first, second=second, asked=asked)
    return Draft(
        _system_content(rows, values),
        lambda: Prompt(question, kind="math", answer=str(answer), domain="math", difficulty="2"),
    )


def _system_content(rows: list[tuple[int, int]], values: list[int]) -> str:
    """The same for either order of the equations and of the unknowns, whatever is asked."""
    told = [(left, right, value) for (left, right), value in zip(rows, values, strict=True)]
    return f"system {min(sorted(told), sorted((right, left, value) for left, right, value in told))}"
