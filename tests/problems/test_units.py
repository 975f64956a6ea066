"""Conversions done again from the text with factors of their own, and written so that the verifier reads them."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Hashable
from fractions import Fraction

import pytest

from distill.problems import units
from distill.problems.units import TABLES, written
from distill.records import Prompt
from problems.material import assert_number_is_read, assert_one_split_each, take

INCH, POUND, MINUTE = Fraction(254, 10_000), Fraction(45_359_237, 100_000), 60
FOOT, MILE, LITRE = INCH * 12, INCH * 12 * 5280, Fraction(1000)
"""In metres, grams, seconds and millilitres: factors that do not come from the table under test."""
GALLON = INCH**3 * 231 * 10**6
SIZES: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(size))
    for dimension, units in {
        "length": {
            "millimetre": Fraction(1, 1000), "centimetre": Fraction(1, 100), "metre": 1, "kilometre": 1000,
            "inch": INCH, "inche": INCH, "foot": FOOT, "feet": FOOT, "yard": 3 * FOOT, "mile": MILE,
            "nautical mile": 1852,
        },
        "mass": {
            "milligram": Fraction(1, 1000), "gram": 1, "kilogram": 1000, "tonne": 10**6, "ounce": POUND / 16,
            "pound": POUND,
        },
        "time": {"second": 1, "minute": MINUTE, "hour": 60 * MINUTE, "day": 1440 * MINUTE, "week": 10_080 * MINUTE},
        "data": {
            "bit": Fraction(1, 8), "byte": 1, "kilobyte": 10**3, "megabyte": 10**6, "gigabyte": 10**9,
            "kibibyte": 2**10, "mebibyte": 2**20, "gibibyte": 2**30,
        },
        "area": {
            "square centimetre": Fraction(1, 100**2), "square metre": 1, "hectare": 100**2, "square kilometre": 1000**2,
            "square foot": FOOT**2, "square feet": FOOT**2, "square yard": 9 * FOOT**2,
        },
        "volume": {
            "millilitre": 1, "centilitre": 10, "decilitre": 100, "litre": LITRE, "cubic metre": 100**3,
            "cubic centimetre": 1, "US gallon": GALLON, "US pint": GALLON / 8,
        },
        "speed": {
            "metre per second": 1, "metres per second": 1, "kilometre per hour": Fraction(1000, 3600),
            "kilometres per hour": Fraction(1000, 3600), "metre per minute": Fraction(1, 60),
            "metres per minute": Fraction(1, 60), "mile per hour": MILE / 3600, "miles per hour": MILE / 3600,
            "knot": Fraction(1852, 3600),
        },
    }.items()
    for name, size in units.items()
}  # fmt: skip
UNIT = "|".join(sorted((name + "(?:s)?" if not name.endswith("s") else name for name in SIZES), key=len, reverse=True))
SCALES = r"degrees Celsius|degrees Fahrenheit|kelvin|°C|°F|\bK\b"


def size(unit: str) -> tuple[str, Fraction]:
    return SIZES[unit] if unit in SIZES else SIZES[unit.removesuffix("s")]


def asked(prompt: Prompt) -> str:
    """The question without the definitions behind it."""
    return re.sub(r"(?<=[.?]) \(.*| Give the exact number\.$", "", prompt.question)


def worked(prompt: Prompt) -> tuple[str, Hashable, Fraction]:
    """(kind of question, what is asked, its result), from the text."""
    text = asked(prompt)
    if re.search(SCALES, text):
        value, *_ = re.findall(r"-?\d+(?:\.\d+)?", text)
        start, end = (word.replace("degrees ", "").replace("°", "")[0].upper() for word in re.findall(SCALES, text))
        kelvin = {
            "C": Fraction(value) + Fraction("273.15"),
            "F": (Fraction(value) + Fraction("459.67")) / Fraction("1.8"),
            "K": Fraction(value),
        }[start]
        result = {"C": kelvin - Fraction("273.15"), "F": kelvin * Fraction("1.8") - Fraction("459.67"), "K": kelvin}[
            end
        ]
        return "temperature", (kelvin, frozenset((start, end))), result
    flows = re.search(r"\bper (second|minute|hour|day|week)\. How|^In every (second|minute|hour|day|week)", text)
    if flows:
        text = re.sub(r" per [a-z]+\. ", ". ", text)
    amounts = [(Fraction(number), unit) for number, unit in re.findall(rf"(\d+(?:\.\d+)?) ({UNIT})(?![a-z])", text)]
    (to,) = re.findall(rf"(?:to|in|many|of) ({UNIT})(?![a-z])", text.replace("one number of", "of"))[:1]
    base = [(number * size(unit)[1], size(unit)[0]) for number, unit in amounts]
    if flows:
        per = flows[1] or flows[2]
        (first, _), (time, kind) = base
        assert kind == "time"
        rate = first / size(per)[1]
        return "flow", (rate, time, to), rate * time / size(to)[1]
    total = sum(amount for amount, _ in base)
    assert {kind for _, kind in base} == {size(to)[0]}
    if len(amounts) > 1:
        return "mixed", (total, to), total / size(to)[1]
    ((_, unit),) = amounts
    pair = frozenset(word.removesuffix("s").replace("feet", "foot").replace("s per", " per") for word in (unit, to))
    return "plain", (total, pair), total / size(to)[1]


DRAWN = take("unit-conversion", "train", 0, 1500)


def test_converted_again() -> None:
    kinds: Counter[str] = Counter()
    for prompt in DRAWN:
        kind, _, result = worked(prompt)
        assert prompt.answer is not None
        assert Fraction(prompt.answer) == result, prompt.question
        assert (prompt.kind, prompt.domain) == ("numeric", "stem")
        kinds[kind] += 1
    assert kinds.keys() == {"plain", "mixed", "flow", "temperature"}
    assert min(kinds.values()) > 150


def test_the_verifier_reads_every_gold() -> None:
    for prompt in DRAWN[:200]:
        assert prompt.answer is not None
        assert_number_is_read(prompt.answer)


def test_one_split_each() -> None:
    """There and back is one problem, and so is one amount however it is cut into units."""
    assert_one_split_each("unit-conversion", lambda prompt: worked(prompt)[:2], (1500, 300, 300))


def test_one_amount_is_one_problem_however_it_is_cut() -> None:
    """Drawn so often that the same amount turns up in other units: its content is the same."""
    contents: dict[Hashable, set[str]] = {}
    rng = random.Random(0)
    for _ in range(20_000):
        draft = units._mixed(rng)
        if draft is not None:
            contents.setdefault(worked(draft.prompt())[1], set()).add(draft.content)
    cut = Counter(len(found) for found in contents.values())
    assert set(cut) == {1}
    assert len(contents) > 10_000


def test_definitions_of_imperial_units_are_told() -> None:
    told = {
        "inch": "2.54 cent",
        "pound": "453.59",
        "US gallon": "3.785",
        "kibibyte": "1024 bytes",
        "knot": "1852 metres",
    }
    seen = set()
    for prompt in DRAWN:
        for unit, words in told.items():
            if re.search(rf"{unit}(?:e?s)?\b", asked(prompt)):
                assert words in prompt.question, prompt.question
                seen.add(unit)
    assert seen == told.keys()


def test_every_unit_turns_up() -> None:
    text = " ".join(asked(prompt) for prompt in DRAWN)
    for unit in (unit for table in TABLES.values() for unit in table):
        assert re.search(rf"\b{unit.many}\b", text), unit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("3/2", "1.5"), ("-40", "-40"), ("1/3", None), ("1/128", None), ("1500000", "1500000"), ("0", "0"),
        ("1/1000000", "0.000001"), ("12345678", None), ("-1/8", "-0.125"), ("10000000000000", None),
    ],
)  # fmt: skip
def test_only_short_exact_decimals_are_written(value: str, text: str | None) -> None:
    assert written(Fraction(value)) == text
