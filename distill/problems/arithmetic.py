"""Multi-step arithmetic word problems with a worked solution, for demos, tests and the embedded teacher.

Every problem belongs to exactly one split: the split is a function of its numbers and operations, so no wording of
the same arithmetic can turn up in two splits. Knows nothing about models, files or recipes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from distill.problems.supply import MOST_DRAWS_IN_VAIN, supply
from distill.problems.supply import Split as Split  # for those who know it by this module
from distill.problems.supply import split_of as split_of

Operator = Literal["+", "-", "*"]

MAX_VALUE = 999
"""Every starting value, operand and intermediate result lies between 1 and this."""


@dataclass(frozen=True, slots=True)
class Step:
    operator: Operator
    operand: int

    def apply(self, value: int) -> int:
        if self.operator == "+":
            return value + self.operand
        if self.operator == "-":
            return value - self.operand
        return value * self.operand


@dataclass(frozen=True, slots=True)
class Problem:
    """One word problem; `irrelevant` is a number of the text that plays no part, or None."""

    start: int
    steps: tuple[Step, ...]
    question: str
    subject: str
    items: str
    irrelevant: int | None

    @property
    def values(self) -> tuple[int, ...]:
        """The value before the first step and after each one, `len(steps) + 1` in all."""
        values = [self.start]
        for step in self.steps:
            values.append(step.apply(values[-1]))
        return tuple(values)

    @property
    def result(self) -> int:
        return self.values[-1]

    @property
    def expression(self) -> str:
        """The arithmetic alone, such as `48+75*2`, read from left to right: what decides the split."""
        return str(self.start) + "".join(f"{step.operator}{step.operand}" for step in self.steps)


def problems(split: Split, seed: int, *, steps: tuple[int, int] = (1, 4), operators: str = "+-*") -> Iterator[Problem]:
    """Endless problems of one split, no arithmetic twice; the same seed gives the same sequence.

    `steps` are the fewest and the most operations in a problem, `operators` those that occur (`+` and `-` always).
    Raises InputError when there are hardly any left.
    """
    rng = random.Random(f"{split}:{seed}")
    return supply(
        split,
        lambda: _draw(rng, rng.randint(*steps), operators),
        lambda problem: problem.expression,
        f"problems of {steps[0]} to {steps[1]} steps",
        todo="lower the limit, or allow more steps in the source spec",
        patience=MOST_DRAWS_IN_VAIN,
    )


# --- numbers -------------------------------------------------------------------------------------------------------


def _draw(rng: random.Random, count: int, operators: str) -> Problem:
    start = rng.randint(10, 400)
    value, steps = start, []
    for _ in range(count):
        step = _draw_step(rng, value, operators)
        steps.append(step)
        value = step.apply(value)
    return _tell(rng, start, tuple(steps))


def _draw_step(rng: random.Random, value: int, operators: str) -> Step:
    choices: list[Step] = []
    if value + 10 <= MAX_VALUE:
        choices.append(Step("+", rng.randint(10, MAX_VALUE - value)))
    if value > 10:
        choices.append(Step("-", rng.randint(10, value - 1)))
    if value * 2 <= MAX_VALUE:
        choices.append(Step("*", rng.randint(2, min(9, MAX_VALUE // value))))
    return rng.choice([choice for choice in choices if choice.operator in operators])


# --- wording -------------------------------------------------------------------------------------------------------

_SHE = ("Maya", "Anna", "Lena", "Sofia", "Nora", "Ruth", "Olga", "Priya", "Mei", "Clara", "Ida", "Zoe")
_HE = ("Tom", "Ben", "Omar", "Luis", "Ivan", "Noah", "Paul", "Kofi", "Hugo", "Ravi", "Max", "Leo")
_ITEMS = (
    "apples", "marbles", "stamps", "coins", "books", "cards", "pencils", "shells", "stickers", "eggs", "buttons",
    "pears", "beads", "tickets", "photos", "toys", "nuts", "lemons", "candles", "bricks",
)  # fmt: skip
_PLACES = (
    "shop", "library", "warehouse", "school", "museum", "farm", "market", "bakery", "factory", "club", "garage",
    "hotel",
)  # fmt: skip

_PERSON = {
    "start": (
        "{S} has {n} {items}.",
        "{S} starts the week with {n} {items}.",
        "{S} owns {n} {items}.",
        "In the morning {S} counts {n} {items}.",
        "{S} keeps {n} {items} in a box.",
    ),
    "+": (
        "{P} buys {n} more.",
        "{P} finds {n} more {items}.",
        "Then {F} gives {o} {n} {items}.",
        "Later {p} gets another {n}.",
        "{F} adds {n} {items} to them.",
        "{P} wins {n} {items} in a game.",
    ),
    "-": (
        "{P} gives {n} {items} to {F}.",
        "{P} loses {n} of them.",
        "Then {p} sells {n}.",
        "{F} takes {n} {items} away.",
        "After that {p} throws {n} out.",
        "{P} lends {n} to {F}.",
    ),
    "*": (
        "Soon {p} has {n} times as many.",
        "Then the number of {items} grows to {n} times what it was.",
        "A year later {p} owns {n} times as many {items}.",
    ),
    "irrelevant": (
        "{P} is {n} years old.",
        "{F} lives {n} miles away.",
        "It takes {o} {n} minutes to count them.",
        "{F} is {n} years old.",
    ),
    "ask": (
        "How many {items} does {S} have now?",
        "How many {items} does {S} have in the end?",
        "What is the number of {items} that {S} has at the end?",
        "Find how many {items} {S} has now.",
    ),
}

_PLACE = {
    "start": (
        "A {S} has {n} {items}.",
        "There are {n} {items} in a {S}.",
        "A {S} opens with {n} {items}.",
        "{n} {items} are stored in a {S}.",
    ),
    "+": (
        "A truck brings {n} more.",
        "Then {n} {items} are added.",
        "{F} delivers {n} {items}.",
        "The next day {n} more {items} arrive.",
        "It receives another {n}.",
    ),
    "-": (
        "It sells {n} of them.",
        "Then {n} {items} are removed.",
        "{F} takes {n} {items} home.",
        "{n} of the {items} break.",
        "On Friday {n} are sent back.",
    ),
    "*": (
        "After a month it holds {n} times as many.",
        "Then the stock grows to {n} times its size.",
        "By summer there are {n} times as many {items}.",
    ),
    "irrelevant": (
        "The {S} is {n} years old.",
        "{n} people work there.",
        "The road to the {S} is {n} miles long.",
        "It opens for {n} hours.",
    ),
    "ask": (
        "How many {items} are in the {S} now?",
        "How many {items} does the {S} have in the end?",
        "What is the number of {items} in the {S} at the end?",
        "Find how many {items} are left in the {S}.",
    ),
}


def _tell(rng: random.Random, start: int, steps: tuple[Step, ...]) -> Problem:
    person = rng.random() < 0.6
    phrases = _PERSON if person else _PLACE
    she = rng.random() < 0.5
    subject = rng.choice(_SHE if she else _HE) if person else rng.choice(_PLACES)
    names = {
        "S": subject,
        "P": "She" if she else "He",
        "p": "she" if she else "he",
        "o": "her" if she else "him",
        "F": rng.choice([name for name in _SHE + _HE if name != subject]),
        "items": rng.choice(_ITEMS),
    }
    irrelevant = _irrelevant(rng, {start, *(step.operand for step in steps)}) if rng.random() < 0.3 else None
    told: list[tuple[str, int]] = [("start", start)]
    told += [(step.operator, step.operand) for step in steps]
    if irrelevant is not None:
        told.insert(rng.randint(1, len(told)), ("irrelevant", irrelevant))
    sentences = [rng.choice(phrases[kind]).format(n=number, **names) for kind, number in told]
    sentences.append(rng.choice(phrases["ask"]).format(**names))
    return Problem(start, steps, " ".join(sentences), subject, names["items"], irrelevant)


def _irrelevant(rng: random.Random, needed: set[int]) -> int:
    """A number that the problem does not need: saying that it does not matter has to be true."""
    return rng.choice([number for number in range(11, 60) if number not in needed])


# --- worked solutions ----------------------------------------------------------------------------------------------


def solve(problem: Problem, rng: random.Random) -> tuple[str, str]:
    """(reasoning, answer): digit by digit from the right, with a check of the last step in about a third."""
    lines = [f"Start with {problem.start} {problem.items}."]
    if problem.irrelevant is not None:
        lines.append(f"The {problem.irrelevant} does not matter.")
    values = problem.values
    for value, step, after in zip(values, problem.steps, values[1:], strict=False):
        lines.append(f"{value}{step.operator}{step.operand}: {_digits(value, step)}, so {after}.")
    if rng.random() < 0.35:
        opening = rng.choice(("Check", "Wait, let me check"))
        lines.append(f"{opening}: {_inverse(values[-2], problem.steps[-1])}. Right.")
    owner = problem.subject if problem.subject[0].isupper() else f"The {problem.subject}"
    return "\n".join(lines), f"{owner} has \\boxed{{{problem.result}}} {problem.items}."


def _inverse(value: int, step: Step) -> str:
    opposite = {"+": "-", "-": "+", "*": "/"}[step.operator]
    return f"{step.apply(value)}{opposite}{step.operand}={value}"


def _digits(value: int, step: Step) -> str:
    """The column-wise working from the lowest digit, such as `8+5=13, 4+7+1=12` for 48+75."""
    top = [int(digit) for digit in reversed(str(value))]
    if step.operator == "*":
        return ", ".join(_times(top, step.operand))
    bottom = [int(digit) for digit in reversed(str(step.operand))]
    return ", ".join((_plus if step.operator == "+" else _minus)(top, bottom))


def _times(top: list[int], factor: int) -> list[str]:
    """A carry is added in a step of its own, `5*7+4=35+4=39`: the table and the addition are learned apart."""
    columns, carry = [], 0
    for digit in top:
        product = digit * factor
        total = product + carry
        columns.append(
            f"{digit}*{factor}+{carry}={product}+{carry}={total}" if carry else f"{digit}*{factor}={product}"
        )
        carry = total // 10
    return columns


def _plus(top: list[int], bottom: list[int]) -> list[str]:
    width, columns, carry = max(len(top), len(bottom)), [], 0
    for column in range(width):
        parts = [digits[column] for digits in (top, bottom) if column < len(digits)] + ([carry] if carry else [])
        total = sum(parts)
        columns.append(f"{'+'.join(map(str, parts))}={total}")
        carry = total // 10
    return columns


def _minus(top: list[int], bottom: list[int]) -> list[str]:
    """Borrowing is written into the column: 523-75 gives `13-5=8, 11-7=4, 4-0=4`."""
    columns, borrow = [], 0
    for column, digit in enumerate(top):
        lower = bottom[column] if column < len(bottom) else 0
        upper = digit - borrow
        borrow = 1 if upper < lower else 0
        upper += 10 * borrow
        columns.append(f"{upper}-{lower}={upper - lower}")
    return columns
