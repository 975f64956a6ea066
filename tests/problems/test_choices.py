"""Multiple choice: what is asked is worked out again from the text, and exactly one choice is that."""

from __future__ import annotations

import calendar
import datetime
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable
from fractions import Fraction

from distill.problems import choices
from distill.records import Prompt
from problems.material import assert_one_split_each, take

DAYS = list(calendar.day_name)
Check = Callable[[str, re.Match[str], tuple[str, ...]], bool]
"""Whether a choice is right, from itself, the question and all choices."""


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def in_roman(text: str) -> int:
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}[sign] for sign in text]
    return sum(-a if a < b else a for a, b in itertools.zip_longest(values, values[1:], fillvalue=0))


def extreme(choice: str, match: re.Match[str], all_of_them: tuple[str, ...]) -> bool:
    pick = max if match[1] == "largest" else min
    return Fraction(choice) == pick(map(Fraction, all_of_them))


def follows(choice: str, match: re.Match[str], all_of_them: tuple[str, ...]) -> bool:
    text = match.string
    terms = numbers(re.findall(r"\d+(?:, \d+)+", text)[0])
    steps = [b - a for a, b in itertools.pairwise([*terms, int(choice)])]
    if "twice" in text or "three times" in text:
        return all(b == a * (2 if "twice" in text else 3) for a, b in itertools.pairwise([*terms, int(choice)]))
    if "sum of the two before" in text:
        return int(choice) == terms[-1] + terms[-2]
    if "grow by 1" in text:
        return all(b - a == 1 for a, b in itertools.pairwise(steps))
    (amount,) = numbers(re.findall(r"each term is \d+ (?:more|less)", text)[0])
    return set(steps) == {amount if "more" in text else -amount}


def placed(choice: str, match: re.Match[str], all_of_them: tuple[str, ...]) -> bool:
    """Tries all orders of the four against the comparisons told."""
    facts = re.findall(r"(\w+) is (?:taller|older|faster) than (\w+)\.", match.string)
    orders = [o for o in itertools.permutations(all_of_them) if all(o.index(a) < o.index(b) for a, b in facts)]
    assert len(orders) == 1, "the facts leave no doubt"
    word = re.findall(r"the (second )?(tallest|oldest|fastest|shortest|youngest|slowest)", match.string)[-1]
    place = 3 if word[1] in ("shortest", "youngest", "slowest") else 1 if word[0] else 0
    return orders[0][place] == choice


def degrees(choice: str, match: re.Match[str], _: tuple[str, ...]) -> bool:
    turn = int(choice.removesuffix("°"))
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    kind = (
        "reflex" if sine < -1e-9 else "acute" if cosine > 1e-9 else "obtuse" if cosine < -1e-9 and sine > 1e-9 else ""
    )
    return kind == match[1]


def in_days(choice: str, match: re.Match[str], _: tuple[str, ...]) -> bool:
    (days,), (name,) = numbers(match.string), re.findall("|".join(DAYS), match.string)
    monday = datetime.date(2024, 1, 1)
    return DAYS[(monday + datetime.timedelta(days=DAYS.index(name) + days)).weekday()] == choice


def red(choice: str, match: re.Match[str], _: tuple[str, ...]) -> bool:
    (first,) = re.findall(r"(\d+) (?:are )?red", match.string)
    others = re.findall(r"(\d+) (?:blue|green)", match.string)
    return Fraction(choice) == Fraction(int(first), int(first) + sum(map(int, others)))


def sides(choice: str) -> list[int]:
    return sorted(numbers(choice))


CHECKS: dict[str, tuple[str, bool, Check]] = {
    "prime": ("prime", True, lambda c, m, _: [k for k in range(1, int(c) + 1) if int(c) % k == 0] == [1, int(c)]),
    "divisible": (r"(?:divisible by|multiple of) (\d+)\?", True, lambda c, m, _: int(c) % int(m[1]) == 0),
    "gcd": (r"(\d+) and (\d+)\?$", False, lambda c, m, _: int(c) == max(
        k for k in range(1, int(m[1]) + 1) if int(m[1]) % k == 0 == int(m[2]) % k)),
    "binary": (r"(\d+) (?:in binary|written in base 2)", False, lambda c, m, _: int(c, 2) == int(m[1])),
    "roman": (r"(?:numeral|is) ([IVXLCDM]+)\b", False, lambda c, m, _: int(c) == in_roman(m[1])),
    "fraction": (r"(largest|smallest)(?: of these four fractions|\?$)", True, extreme),
    "percent": (r"(\d+)(?:%| percent) of (\d+)", False, lambda c, m, _: 100 * int(c) == int(m[1]) * int(m[2])),
    "sequence": (r"(?:sequence|next number of)", False, follows),
    "angle": (r"(acute|obtuse|reflex)", True, degrees),
    "triangle": (r"(?:sides of a triangle|positive area)", True, lambda c, m, _: sum(sides(c)[:2]) > sides(c)[2]),
    "right triangle": (r"right (?:triangle|angle)", True, lambda c, m, _: math.isclose(
        math.hypot(*sides(c)[:2]), sides(c)[2], rel_tol=1e-12)),
    "leap year": (r"Gregorian", True, lambda c, m, _: calendar.isleap(int(c))),
    "weekday": (r"day of the week", False, in_days),
    "order": (r"(?:taller|older|faster)", False, placed),
    "probability": (r"(?:probability|likely)", False, red),
}  # fmt: skip
"""Family → what gives it away, whether its choices are part of what is asked, and the check."""


def family(prompt: Prompt) -> tuple[str, re.Match[str]]:
    found = [(name, match) for name, (mark, _, _) in CHECKS.items() if (match := re.search(mark, prompt.question))]
    assert found, prompt.question
    return max(found, key=lambda pair: list(CHECKS).index(pair[0]))


def facts(prompt: Prompt) -> Hashable:
    name, match = family(prompt)
    assert prompt.choices is not None
    if name == "order":
        orders = [o for o in itertools.permutations(prompt.choices) if placed_all(o, match.string)]
        return name, orders[0], prompt.choices["ABCD".index(prompt.answer or "")]
    words = re.findall(f"more|less|twice|three|sum|grow|{'|'.join(DAYS)}", match.string) if not CHECKS[name][1] else ()
    told = (match[1] if match.re.groups else "", *map(str, numbers(match.string)), *words)
    among = CHECKS[name][1]
    return name, told if not among or match.re.groups else "", tuple(sorted(prompt.choices)) if among else ""


def placed_all(order: tuple[str, ...], text: str) -> bool:
    told = re.findall(r"(\w+) is (?:taller|older|faster) than (\w+)\.", text)
    return all(order.index(a) < order.index(b) for a, b in told)


DRAWN = take("multiple-choice", "train", 0, 2000)


def test_exactly_the_choice_that_the_letter_names_is_right() -> None:
    seen: Counter[str] = Counter()
    for prompt in DRAWN:
        assert prompt.choices is not None
        assert (prompt.kind, len(prompt.choices), len(set(prompt.choices))) == ("choice", 4, 4)
        name, match = family(prompt)
        right = [CHECKS[name][2](choice, match, prompt.choices) for choice in prompt.choices]
        assert right.count(True) == 1, prompt
        assert "ABCD"[right.index(True)] == prompt.answer, prompt
        seen[name] += 1
    assert seen.keys() == CHECKS.keys() == choices.FAMILIES.keys()
    assert min(seen.values()) > 80


def test_every_letter_is_right_equally_often() -> None:
    letters = Counter(prompt.answer for prompt in DRAWN)
    assert letters.keys() == set("ABCD")
    assert all(430 < count < 570 for count in letters.values()), letters
    for name in CHECKS:  # no family may have a favourite
        own = Counter(prompt.answer for prompt in DRAWN if family(prompt)[0] == name)
        assert max(own.values()) < 0.45 * sum(own.values()), (name, own)


def test_one_split_each() -> None:
    assert_one_split_each("multiple-choice", facts, (1500, 250, 250))


def test_the_right_number_is_neither_always_the_largest_nor_the_smallest() -> None:
    """A guesser who looks at sizes alone must not win."""
    ranks: dict[str, Counter[int]] = {name: Counter() for name in ("gcd", "roman", "percent", "sequence", "binary")}
    for prompt in take("multiple-choice", "train", 0, 2000):
        name = family(prompt)[0]
        if name in ranks:
            assert prompt.choices is not None
            values = [int(choice) for choice in prompt.choices]
            ranks[name][sorted(values).index(values["ABCD".index(prompt.answer or "")])] += 1
    for name, counts in ranks.items():
        assert max(counts.values()) < 0.7 * sum(counts.values()), (name, counts)


def test_a_question_that_stands_alone_is_its_own_content() -> None:
    one = choices.Question("gcd 12 18", ("?",), "6", ("3", "2", "9"))
    assert one.content == choices.Question("gcd 12 18", ("!",), "6", ("4", "2", "12")).content
    among = choices.Question("prime", ("?",), "7", ("9", "15", "21"), among=True)
    assert among.content == choices.Question("prime", ("!",), "7", ("21", "9", "15"), among=True).content
    assert among.content != choices.Question("prime", ("?",), "7", ("9", "15", "25"), among=True).content


def test_an_angle_of_a_type_is_that_for_all_its_degrees() -> None:
    for kind, (low, high) in choices.ANGLES.items():
        match = re.search("(acute|obtuse|reflex)", kind)
        assert match is not None
        fitting = [turn for turn in range(1, 360) if degrees(f"{turn}°", match, ())]
        assert fitting == list(range(low, high + 1))


def test_roman_numerals() -> None:
    assert [choices.roman(n) for n in (4, 14, 49, 388, 399, 1994)] == [
        "IV", "XIV", "XLIX", "CCCLXXXVIII", "CCCXCIX", "MCMXCIV",
    ]  # fmt: skip
    assert all(in_roman(choices.roman(n)) == n for n in range(1, 2000))
