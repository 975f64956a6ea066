"""Programming tasks on a list of whole numbers."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence

from distill.problems.program_task import Family, Task, joined, on_numbers

_LINE = "The values on one line, separated by single spaces; the word none if there are none."
_ONE = "One whole number."
_ONE_OR_NONE = "One whole number, or the word none."

_PICK: Mapping[str, Callable[[Sequence[int]], int]] = {"maximum": max, "minimum": min, "sum": sum}
_STEP = {
    "maximum": "if number > value:\n        value = number",
    "minimum": "if number < value:\n        value = number",
    "sum": "value += number",
}
"""How `value` takes in one more number; the first is taken in before the loop."""


def _running(rng: random.Random) -> Task:
    what, every = rng.choice(list(_PICK)), rng.randint(1, 6)
    return on_numbers(
        f"running {what}, every {every}",
        f"For each position of the list take the {what} of all numbers up to and including it. Of these values print "
        + ("all." if every == 1 else f"only those at the positions {every}, {2 * every}, {3 * every}, ..."),
        _LINE,
        lambda v: joined(_PICK[what](v[: end + 1]) for end in range(every - 1, len(v), every)),
        f"""value, found = numbers[0], []
for place, number in enumerate(numbers, start=1):
    if place > 1:
        {_STEP[what].replace(chr(10), chr(10) + "    ")}
    if place % {every} == 0:
        found.append(value)
print(*found or ["none"])
""",
    )


def _window(rng: random.Random) -> Task:
    what, width = rng.choice(list(_PICK)), rng.randint(2, 9)
    return on_numbers(
        f"window {what}, {width}",
        f"Look at every {width} consecutive numbers of the list, from left to right, and print the {what} of each "
        "such window.",
        _LINE,
        lambda v: joined(_PICK[what](v[start : start + width]) for start in range(len(v) - width + 1)),
        f"""found = []
for start in range(len(numbers)):
    if start + {width} > len(numbers):
        break
    value = numbers[start]
    for place in range(start + 1, start + {width}):
        number = numbers[place]
        {_STEP[what].replace(chr(10), chr(10) + "    ")}
    found.append(value)
print(*found or ["none"])
""",
    )


def _pipeline(rng: random.Random) -> Task:
    """Keep some, change each, sum up. Changes that the summing up would not notice are left out."""
    bound, factor = rng.randint(-20, 20), rng.randint(2, 7)
    keeps: list[tuple[str, Callable[[int], bool], str]] = [
        (f"greater than {bound}", lambda n: n > bound, f"not number <= {bound}"),
        (f"less than {bound}", lambda n: n < bound, f"not number >= {bound}"),
        (f"divisible by {factor}", lambda n: n % factor == 0, f"number // {factor} * {factor} == number"),
        (f"not divisible by {factor}", lambda n: n % factor != 0, f"number // {factor} * {factor} != number"),
    ]
    plus, times = rng.randint(1, 30), rng.randint(2, 12)
    changes: list[tuple[str, Callable[[int], int], str]] = [
        ("its square", lambda n: n * n, "number ** 2"),
        ("its absolute value", abs, "number if number > 0 else -number"),
        (f"itself plus {plus}", lambda n: n + plus, f"{plus} + number"),
        (f"{times} times itself", lambda n: n * times, f"sum([number] * {times})"),
    ]
    keep, change, what = rng.choice(keeps), rng.choice(changes), rng.choice(list(_PICK))
    return on_numbers(
        f"of those {keep[0]}, {change[0]}, {what}",
        f"Keep only the numbers that are {keep[0]}. Replace each number that is left by {change[0]}. Print the {what} "
        "of the results, or none if no number is left.",
        _ONE_OR_NONE,
        lambda v: str(_PICK[what]([change[1](n) for n in v if keep[1](n)])) if any(map(keep[1], v)) else "none",
        f"""value = None
for number in numbers:
    if {keep[2]}:
        number = {change[2]}
        if value is None:
            value = number
        else:
            {_STEP[what].replace(chr(10), chr(10) + "        ")}
print("none" if value is None else value)
""",
    )


def _rotate(rng: random.Random) -> Task:
    by, side = rng.randint(1, 25), rng.choice(("left", "right"))
    turn = by if side == "left" else -by
    return on_numbers(
        f"rotate {side} by {by}",
        f"Rotate the list by {by} place{'s' if by > 1 else ''} to the {side}: what leaves it at one end comes back at "
        f"the other.{f' The list may be shorter than {by}.' if by > 1 else ''}",
        "The rotated list on one line, separated by single spaces.",
        lambda v: joined(v[(place + turn) % len(v)] for place in range(len(v))),
        f"""for _ in range({by}):
    numbers {"= numbers[1:] + numbers[:1]" if side == "left" else "= numbers[-1:] + numbers[:-1]"}
print(*numbers)
""",
    )


def _sort(rng: random.Random) -> Task:
    modulus = rng.randint(3, 12)
    keys: list[tuple[str, Callable[[int], int], str]] = [
        ("absolute value", abs, "max(n, -n)"),
        ("sum of decimal digits (a minus sign is ignored)", _digit_sum, "abs(n) // 10 + abs(n) % 10"),
        (f"remainder after division by {modulus}, from 0 to {modulus - 1}", lambda n: n % modulus, f"n % {modulus}"),
        (f"distance to {modulus}", lambda n: abs(n - modulus), f"max(n - {modulus}, {modulus} - n)"),
    ]
    key, falling = rng.choice(keys), rng.random() < 0.5
    word = "largest" if falling else "smallest"

    def expected(v: list[int]) -> str:
        ordered: list[int] = sorted(v, key=key[1], reverse=falling)
        return joined(ordered)

    return on_numbers(
        f"sort by {key[0]}, {word} first",
        f"Sort the numbers by their {key[0]}, the {word} first. Numbers with the same value of it keep the order in "
        "which they were given.",
        "The sorted list on one line, separated by single spaces.",
        expected,
        f"""def key(n):
    return {key[2]}

done = []
for number in numbers:
    place = len(done)
    while place > 0 and key(done[place - 1]) {"<" if falling else ">"} key(number):
        place -= 1
    done.insert(place, number)
print(*done)
""",
    )


def _digit_sum(number: int) -> int:
    return sum(int(digit) for digit in str(abs(number)))


def _ranked(rng: random.Random) -> Task:
    rank, word = rng.randint(2, 12), rng.choice(("largest", "smallest"))
    return on_numbers(
        f"number {rank} of the {word} distinct",
        f"Remove duplicates and rank the numbers that are left, the {word} at place 1. Print the number at place "
        f"{rank}, or none if there are fewer than {rank} different numbers.",
        _ONE_OR_NONE,
        lambda v: joined(sorted(set(v), reverse=word == "largest")[rank - 1 : rank]),
        f"""left = list(numbers)
for _ in range({rank - 1}):
    if left:
        best = {"max" if word == "largest" else "min"}(left)
        left = [number for number in left if number != best]
print({"max" if word == "largest" else "min"}(left) if left else "none")
""",
    )


def _pairs(rng: random.Random) -> Task:
    total, what = rng.randint(-12, 12), rng.choice(("sum", "difference"))
    if what == "difference":
        total = abs(total)
    asked = f"whose sum is {total}" if what == "sum" else f"whose values differ by exactly {total}"
    fits: Callable[[int, int], bool] = (
        (lambda a, b: a + b == total) if what == "sum" else (lambda a, b: abs(a - b) == total)
    )
    wanted = f"[{total} - number]" if what == "sum" else f"{{number - {total}, number + {total}}}"
    return on_numbers(
        f"pairs with {what} {total}",
        f"Count the pairs of two different positions in the list {asked}. The order within a pair does not matter.",
        _ONE,
        lambda v: str(sum(fits(a, b) for a, b in itertools.combinations(v, 2))),
        f"""seen, count = {{}}, 0
for number in numbers:
    for other in {wanted}:
        count += seen.get(other, 0)
    seen[number] = seen.get(number, 0) + 1
print(count)
""",
        most=20,
    )


def _longest_run(rng: random.Random) -> Task:
    bound, factor = rng.randint(-6, 6), rng.randint(2, 5)
    kinds: list[tuple[str, Callable[[Sequence[int]], bool], str]] = [
        ("each number is greater than the one before", lambda r: all(a < b for a, b in itertools.pairwise(r)), "p < n"),
        ("each number is at most the one before", lambda r: all(a >= b for a, b in itertools.pairwise(r)), "p >= n"),
        ("neighbours differ by at most " + str(factor),
         lambda r: all(abs(a - b) <= factor for a, b in itertools.pairwise(r)), f"-{factor} <= p - n <= {factor}"),
        (f"all numbers are greater than {bound}", lambda r: min(r) > bound, f"n > {bound} and p > {bound}"),
        (f"all numbers are less than {bound}", lambda r: max(r) < bound, f"n < {bound} and p < {bound}"),
        (f"no number is divisible by {factor}", lambda r: all(n % factor for n in r), f"n % {factor} and p % {factor}"),
    ]  # fmt: skip
    kind = rng.choice(kinds)

    def expected(v: list[int]) -> str:
        runs = (v[start:end] for start in range(len(v)) for end in range(start + 1, len(v) + 1))
        return str(max((len(run) for run in runs if kind[1](run)), default=0))

    return on_numbers(
        f"longest run, {kind[0]}",
        f"A run is a part of the list without gaps. Find the length of the longest run in which {kind[0]}. Print 0 if "
        "there is no such run; a single number is a run too.",
        _ONE,
        expected,
        f"""def fits(p, n):
    return {kind[2]}

best = length = 0
before = None
for number in numbers:
    if before is not None and fits(before, number):
        length += 1
    else:
        length = 1 if {"fits(number, number)" if kind[0].startswith(("all", "no")) else "True"} else 0
    best = max(best, length)
    before = number
print(best)
""",
    )


def _differences(rng: random.Random) -> Task:
    order, gap = rng.randint(1, 3), rng.randint(1, 4)
    return on_numbers(
        f"differences, {order} times, {gap} apart",
        f"Replace the list by its differences: the number at each place minus the number {gap} places before it, as "
        f"far as there is one. Do this {order} time{'s' if order > 1 else ''} in all and print what is left.",
        _LINE,
        lambda v: joined(
            sum((-1) ** k * math.comb(order, k) * v[place - k * gap] for k in range(order + 1))
            for place in range(order * gap, len(v))
        ),
        f"""for _ in range({order}):
    numbers = [late - early for early, late in zip(numbers, numbers[{gap}:])]
print(*numbers or ["none"])
""",
    )


def _best_sum(rng: random.Random) -> Task:
    least, word = rng.randint(1, 6), rng.choice(("largest", "smallest"))
    pick = max if word == "largest" else min

    def expected(v: list[int]) -> str:
        ends = itertools.combinations(range(len(v) + 1), 2)
        return str(pick((sum(v[a:b]) for a, b in ends if b - a >= least), default="none"))

    return on_numbers(
        f"{word} sum of a run of {least} or more",
        f"Among all parts of the list without gaps that hold at least {least} number{'s' if least > 1 else ''}, find "
        f"the {word} sum. Print none if the list is too short.",
        _ONE_OR_NONE,
        expected,
        f"""sums = [0]
for number in numbers:
    sums.append(sums[-1] + number)
best, edge = None, sums[0]
for end in range({least}, len(sums)):
    edge = {"min" if word == "largest" else "max"}(edge, sums[end - {least}])
    if best is None or sums[end] - edge {">" if word == "largest" else "<"} best:
        best = sums[end] - edge
print("none" if best is None else best)
""",
    )


def _gcd(rng: random.Random) -> Task:
    first, every = rng.randint(1, 4), rng.randint(1, 6)
    return on_numbers(
        f"gcd of places {first} + {every}k",
        f"Take the numbers at the positions {first}, {first + every}, {first + 2 * every}, ... (the first position is "
        "1). Print the greatest common divisor of their absolute values; it is 0 if all are 0. Print none if there is "
        "no such position.",
        _ONE_OR_NONE,
        lambda v: str(math.gcd(*v[first - 1 :: every])) if len(v) >= first else "none",
        f"""value, place = None, {first - 1}
while place < len(numbers):
    a, b = value or 0, abs(numbers[place])
    while b:
        a, b = b, a % b
    value = a
    place += {every}
print("none" if value is None else value)
""",
    )


def _classes(rng: random.Random) -> Task:
    modulus, which = rng.randint(2, 15), rng.choice(("first", "last"))
    return on_numbers(
        f"{which} of each remainder mod {modulus}",
        f"Two numbers belong together if they leave the same remainder (from 0 to {modulus - 1}) when divided by "
        f"{modulus}. Of those that belong together keep only the {which} one, and print what is kept in the order of "
        "the list.",
        "The numbers on one line, separated by single spaces.",
        lambda v: joined(
            n
            for place, n in enumerate(v)
            if n % modulus not in [m % modulus for m in (v[:place] if which == "first" else v[place + 1 :])]
        ),
        f"""kept, seen = [], set()
for number in {"numbers" if which == "first" else "reversed(numbers)"}:
    if number % {modulus} not in seen:
        seen.add(number % {modulus})
        kept.append(number)
print(*kept{"" if which == "first" else "[::-1]"})
""",
    )


def _peaks(rng: random.Random) -> Task:
    by, what = rng.randint(1, 15), rng.choice(("greater", "less"))
    sign = 1 if what == "greater" else -1
    return on_numbers(
        f"inner numbers {what} by {by}",
        f"Count the numbers, other than the first and the last of the list, that are {what} than both neighbours by at "
        f"least {by}.",
        _ONE,
        lambda v: str(sum(min(sign * (b - a), sign * (b - c)) >= by for a, b, c in zip(v, v[1:], v[2:], strict=False))),
        f"""count = 0
for place in range(1, len(numbers) - 1):
    edge = {"max" if sign == 1 else "min"}(numbers[place - 1], numbers[place + 1])
    if numbers[place] {">= edge +" if sign == 1 else "<= edge -"} {by}:
        count += 1
print(count)
""",
    )


FAMILIES: tuple[Family, ...] = (
    _running, _window, _pipeline, _rotate, _sort, _ranked, _pairs, _longest_run, _differences, _best_sum, _gcd,
    _classes, _peaks,
)  # fmt: skip
