"""The built-in problems: splits that cannot meet, the same for the same seed, and worked solutions that are right."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import InputError
from distill.problems import arithmetic
from distill.problems.arithmetic import MAX_VALUE, Operator, Problem, Split, Step, problems, solve, split_of

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def take(split: Split, seed: int, count: int, steps: tuple[int, int] = (1, 4)) -> list[Problem]:
    return list(itertools.islice(problems(split, seed, steps=steps), count))


def evaluate(expression: str) -> int:
    """Left to right, as the story goes, on its own: no use of the code under test."""
    first, *rest = re.findall(r"\d+|[-+*]", expression)
    value = int(first)
    for operator, operand in zip(rest[::2], rest[1::2], strict=True):
        value = {"+": value + int(operand), "-": value - int(operand), "*": value * int(operand)}[operator]
    return value


# --- problems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_gives_the_same_problems_and_another_seed_others(split: Split) -> None:
    first = take(split, 3, 40)
    assert first == take(split, 3, 40)
    assert first[:20] == take(split, 3, 20), "a longer list begins with the shorter one"
    assert not {p.expression for p in first} & {p.expression for p in take(split, 4, 40)}


def test_the_sequence_is_pinned() -> None:
    """Runs of the same seed in two versions must ask the same questions."""
    first = take("test", 0, 1)[0]
    assert (first.question, first.expression, first.result, split_of(first.expression)) == (
        "In the morning Sofia counts 64 photos. She gives 48 photos to Ben. She is 22 years old. "
        "Find how many photos Sofia has now.",
        "64-48",
        16,
        "test",
    )


def test_a_supply_that_is_used_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "MOST_DRAWS_IN_VAIN", 30)
    few = problems("test", 0, steps=(1, 1), operators="+-")
    with pytest.raises(InputError, match=r"hardly more than \d+ different problems of 1 to 1 steps") as caught:
        list(few)
    assert "lower the limit" in str(caught.value)


def test_no_arithmetic_is_in_two_splits_or_twice_in_one() -> None:
    owners: dict[str, Split] = {}
    for split in SPLITS:
        drawn = [p for seed in (0, 1) for p in take(split, seed, 150)]
        for p in drawn:
            assert owners.setdefault(p.expression, split) == split == split_of(p.expression)
        assert len({p.expression for p in drawn[:150]}) == 150


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 999), st.lists(st.tuples(st.sampled_from("+-*"), st.integers(1, 999)), min_size=1, max_size=4))
def test_the_split_follows_from_the_arithmetic_alone(start: int, steps: list[tuple[Operator, int]]) -> None:
    told = [
        Problem(start, tuple(Step(*step) for step in steps), question, "Maya", items, irrelevant)
        for question, items, irrelevant in (("q", "nuts", None), ("other", "eggs", 12))
    ]
    assert told[0].expression == told[1].expression == f"{start}" + "".join(f"{o}{n}" for o, n in steps)
    assert split_of(told[0].expression) in SPLITS


def test_splits_have_their_shares() -> None:
    shares = Counter(split_of(f"{a}+{b}") for a in range(100) for b in range(100))
    assert sum(shares.values()) == 10_000
    assert 8_900 < shares["train"] < 9_100
    assert 430 < shares["validation"] < 570
    assert 430 < shares["test"] < 570


@pytest.mark.parametrize("steps", [(1, 1), (2, 3), (4, 4)])
def test_the_number_of_steps_is_as_asked(steps: tuple[int, int]) -> None:
    assert {len(p.steps) for p in take("train", 0, 60, steps)} == set(range(steps[0], steps[1] + 1))


def test_values_are_right_and_within_bounds() -> None:
    for p in take("train", 1, 400):
        assert p.result == p.values[-1] == evaluate(p.expression)
        assert len(p.values) == len(p.steps) + 1
        assert all(1 <= value <= MAX_VALUE for value in p.values)
        for step in p.steps:
            assert 1 <= step.operand <= MAX_VALUE
            assert step.operator in "+-*"
            assert step.operator != "*" or 2 <= step.operand <= 9


def test_every_kind_of_problem_turns_up() -> None:
    drawn = take("train", 2, 300)
    assert {step.operator for p in drawn for step in p.steps} == {"+", "-", "*"}
    assert 0.2 < sum(p.irrelevant is not None for p in drawn) / len(drawn) < 0.4
    assert max(step.operand for p in drawn for step in p.steps) > 100, "three digits"
    asked = {re.split(r"[.] ", p.question)[-1].split()[0] for p in drawn}
    assert asked == {"How", "What", "Find"}


def test_the_text_tells_every_number_in_order_and_nothing_else() -> None:
    for p in take("train", 3, 300):
        told = [int(number) for number in re.findall(r"\d+", p.question)]
        needed = [p.start, *(step.operand for step in p.steps)]
        if p.irrelevant is not None:
            assert sorted(told) == sorted([*needed, p.irrelevant])
            assert p.irrelevant not in needed, "it would not be true that it does not matter"
            if p.irrelevant in needed:
                continue
            told.remove(p.irrelevant)
        assert told == needed
        assert "{" not in p.question
        assert p.question.endswith(("?", "."))


def test_an_irrelevant_number_does_not_change_the_result() -> None:
    distracted = [p for p in take("train", 4, 300) if p.irrelevant is not None]
    assert len(distracted) > 50
    for p in distracted:
        without = Problem(p.start, p.steps, p.question, p.subject, p.items, None)
        assert without.result == p.result == evaluate(p.expression)
        assert without.expression == p.expression
        reasoning, answer = solve(p, random.Random(0))
        plain, same_answer = solve(without, random.Random(0))
        assert answer == same_answer
        assert reasoning.replace(f"The {p.irrelevant} does not matter.\n", "") == plain


# --- worked solutions ------------------------------------------------------------------------------------------------

LINE = re.compile(r"(\d+)([-+*])(\d+): (.+), so (\d+)\.")
CHECK = re.compile(r"(?:Check|Wait, let me check): (\d+)([-+/])(\d+)=(\d+)\. Right\.")
COLUMN = re.compile(r"(\d+)((?:[-+*]\d+)*)=(?:(\d+)\+(\d+)=)?(\d+)")
"""`8+5=13`; `4=4`, where a digit has nothing to meet; `5*7+4=35+4=39`, where a carry joins a product."""


def column_value(first: str, rest: str) -> int:
    """`8*7+5` with multiplication first, which is how a column reads."""
    value = int(first)
    for operator, operand in re.findall(r"([-+*])(\d+)", rest):
        value = {"+": value + int(operand), "-": value - int(operand), "*": value * int(operand)}[operator]
    return value


def assert_worked(value: int, operator: str, operand: int, working: str, after: int) -> None:
    """Each column is right, is made of the numbers' own digits, and the columns together give the result."""
    columns = working.split(", ")
    digits = []
    carry = 0
    top, bottom = str(value)[::-1], str(operand)[::-1]
    for place, text in enumerate(columns):
        match = COLUMN.fullmatch(text)
        assert match is not None, text
        total = int(match[5])
        assert column_value(match[1], match[2]) == total, text
        assert (match[3] is not None) == (operator == "*" and carry > 0), text
        if match[3] is not None:
            assert int(match[4]) == carry, text
            assert int(match[3]) + carry == total, text
        upper = int(top[place]) if place < len(top) else 0
        lower = operand if operator == "*" else int(bottom[place]) if place < len(bottom) else 0
        if operator == "-":
            assert total == upper - carry - lower + (10 if upper - carry < lower else 0), text
            carry = upper - carry < lower
            assert 0 <= total <= 9
        else:
            assert total == (upper * lower if operator == "*" else upper + lower) + carry, text
            carry = total // 10
        digits.append(str(total % 10))
    number = "".join(reversed(digits))
    assert int(f"{carry}{number}" if operator != "-" else number) == after
    assert operator != "-" or not carry
    assert after == evaluate(f"{value}{operator}{operand}")


def test_every_line_of_every_solution_is_right() -> None:
    rng = random.Random(9)
    checks = 0
    for p in take("train", 5, 500):
        reasoning, answer = solve(p, rng)
        lines = reasoning.split("\n")
        assert lines.pop(0) == f"Start with {p.start} {p.items}."
        if p.irrelevant is not None:
            assert lines.pop(0) == f"The {p.irrelevant} does not matter."
        value = p.start
        for step in p.steps:
            match = LINE.fullmatch(lines.pop(0))
            assert match is not None, reasoning
            assert (int(match[1]), match[2], int(match[3])) == (value, step.operator, step.operand)
            assert_worked(value, step.operator, step.operand, match[4], int(match[5]))
            value = int(match[5])
        if lines:
            match = CHECK.fullmatch(lines.pop(0))
            assert match is not None, reasoning
            before, operand = p.values[-2], p.steps[-1].operand
            assert (int(match[1]), int(match[3]), int(match[4])) == (value, operand, before)
            assert match[2] == {"+": "-", "-": "+", "*": "/"}[p.steps[-1].operator]
            assert {"-": value - operand, "+": value + operand, "/": value / operand}[match[2]] == before
            checks += 1
        assert lines == []
        assert re.findall(r"\\boxed\{(\d+)\}", answer) == [str(value)] == [str(p.result)]
        assert answer.endswith(f"\\boxed{{{value}}} {p.items}.")
    assert 120 < checks < 230


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 999), st.sampled_from("+-*"), st.integers(1, 999))
def test_columns_are_right_for_all_numbers(value: int, operator: Operator, operand: int) -> None:
    if operator == "*":
        operand = 2 + operand % 8
    if operator == "-" and operand >= value:
        value, operand = operand + 1, value
    step = Step(operator, operand)
    assert_worked(value, operator, operand, arithmetic._digits(value, step), step.apply(value))


def test_the_documented_examples() -> None:
    assert arithmetic._digits(48, Step("+", 75)) == "8+5=13, 4+7+1=12"
    assert arithmetic._digits(523, Step("-", 75)) == "13-5=8, 11-7=4, 4-0=4"
    assert arithmetic._digits(123, Step("*", 8)) == "3*8=24, 2*8+2=16+2=18, 1*8+1=8+1=9"


def test_solutions_depend_only_on_problem_and_generator() -> None:
    p = take("validation", 6, 1)[0]
    assert [solve(p, random.Random(1)) for _ in range(3)] == [solve(p, random.Random(1))] * 3
    assert len({solve(p, random.Random(seed))[0] for seed in range(40)}) == 3, "plain, and two ways to check"
