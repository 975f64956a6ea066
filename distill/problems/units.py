"""Conversions between units, with results that are exact and short to write down.

Factors are exact by definition (1 in = 2.54 cm, 1 lb = 0.45359237 kg). A question states those that are not common
knowledge. Knows nothing about models, files or recipes.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from distill.problems.supply import Draft, Split, drafted
from distill.records import Prompt


@dataclass(frozen=True, slots=True)
class Unit:
    """`size` is how many base units of its table one of it is; `note` is its definition, where few know it."""

    one: str
    many: str
    size: Fraction
    note: str = ""


def _unit(one: str, many: str, size: str | int, note: str = "") -> Unit:
    return Unit(one, many, Fraction(size), note)


TABLES: dict[str, tuple[Unit, ...]] = {
    "length": (
        _unit("millimetre", "millimetres", "1/1000"),
        _unit("centimetre", "centimetres", "1/100"),
        _unit("metre", "metres", 1),
        _unit("kilometre", "kilometres", 1000),
        _unit("inch", "inches", "0.0254", "1 inch = 2.54 centimetres"),
        _unit("foot", "feet", "0.3048", "1 foot = 12 inches = 30.48 centimetres"),
        _unit("yard", "yards", "0.9144", "1 yard = 3 feet = 0.9144 metres"),
        _unit("mile", "miles", "1609.344", "1 mile = 5280 feet = 1.609344 kilometres"),
        _unit("nautical mile", "nautical miles", 1852, "1 nautical mile = 1852 metres"),
    ),
    "mass": (
        _unit("milligram", "milligrams", "1/1000"),
        _unit("gram", "grams", 1),
        _unit("kilogram", "kilograms", 1000),
        _unit("tonne", "tonnes", 1_000_000),
        _unit("ounce", "ounces", "28.349523125", "1 ounce = 28.349523125 grams"),
        _unit("pound", "pounds", "453.59237", "1 pound = 16 ounces = 453.59237 grams"),
    ),
    "time": (
        _unit("second", "seconds", 1),
        _unit("minute", "minutes", 60),
        _unit("hour", "hours", 3600),
        _unit("day", "days", 86_400),
        _unit("week", "weeks", 604_800),
    ),
    "data": (
        _unit("bit", "bits", 1),
        _unit("byte", "bytes", 8),
        _unit("kilobyte", "kilobytes", 8_000, "1 kilobyte = 1000 bytes"),
        _unit("megabyte", "megabytes", 8_000_000, "1 megabyte = 1000 kilobytes"),
        _unit("gigabyte", "gigabytes", 8_000_000_000, "1 gigabyte = 1000 megabytes"),
        _unit("kibibyte", "kibibytes", 8 * 2**10, "1 kibibyte = 1024 bytes"),
        _unit("mebibyte", "mebibytes", 8 * 2**20, "1 mebibyte = 1024 kibibytes"),
        _unit("gibibyte", "gibibytes", 8 * 2**30, "1 gibibyte = 1024 mebibytes"),
    ),
    "area": (
        _unit("square centimetre", "square centimetres", "1/10000"),
        _unit("square metre", "square metres", 1),
        _unit("hectare", "hectares", 10_000, "1 hectare = 10000 square metres"),
        _unit("square kilometre", "square kilometres", 1_000_000),
        _unit("square foot", "square feet", "0.09290304", "1 foot = 30.48 centimetres"),
        _unit("square yard", "square yards", "0.83612736", "1 yard = 3 feet = 0.9144 metres"),
    ),
    "volume": (
        _unit("millilitre", "millilitres", "1/1000"),
        _unit("centilitre", "centilitres", "1/100"),
        _unit("decilitre", "decilitres", "1/10"),
        _unit("litre", "litres", 1),
        _unit("cubic metre", "cubic metres", 1000),
        _unit("cubic centimetre", "cubic centimetres", "1/1000"),
        _unit("US gallon", "US gallons", "3.785411784", "1 US gallon = 3.785411784 litres"),
        _unit("US pint", "US pints", "0.473176473", "1 US pint = 0.473176473 litres, an eighth of a US gallon"),
    ),
    "speed": (
        _unit("metre per second", "metres per second", 1),
        _unit("kilometre per hour", "kilometres per hour", "5/18"),
        _unit("metre per minute", "metres per minute", "1/60"),
        _unit("mile per hour", "miles per hour", "0.44704", "1 mile = 1.609344 kilometres"),
        _unit("knot", "knots", "463/900", "1 knot = 1 nautical mile per hour, 1 nautical mile = 1852 metres"),
    ),
}

_MOST_DIGITS = 7
"""Digits of a result: more would ask for patience, not for reasoning."""

_PLAIN = (
    "How many {to} are {amount}?",
    "Convert {amount} to {to}.",
    "Express {amount} in {to}.",
    "A form wants this in {to}, but you know that it is {amount}. What number do you fill in?",
)
_MIXED = ("How many {to} are {parts} together?", "Write {parts} as one number of {to}.", "Convert {parts} to {to}.")
_RATE = (
    "A {thing} at {amount} {of} per {per}. How many {to} is that in {time}?",
    "In every {per}, a {noun} {verb} {amount} {of}. How many {to} does it {plain} in {time}?",
)
_TEMPERATURE = (
    "What is {value} degrees {unit} in degrees {to}?",
    "A thermometer shows {value} °{short}. What would one in degrees {to} show?",
    "Convert {value} °{short} to degrees {to}.",
)


def problems(split: Split, seed: int) -> Iterator[Prompt]:
    """Raises InputError when there are hardly any left."""
    kinds: tuple[Callable[[random.Random], Draft | None], ...] = (_plain, _plain, _mixed, _flow, _temperature)
    return drafted("unit-conversion", split, seed, lambda rng: rng.choice(kinds)(rng))


def written(value: Fraction) -> str | None:
    """The exact decimal of at most `_MOST_DIGITS` digits, None if there is none: `0.75`, `-40`, `1500000`."""
    for places in range(7):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = f"{abs(scaled.numerator):0{places + 1}d}"
            text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
            significant = digits.strip("0") if places == 0 else digits.lstrip("0")
            return ("-" if value < 0 else "") + text if len(significant) <= _MOST_DIGITS and len(text) <= 13 else None
    return None


def _amount(rng: random.Random) -> Fraction:
    """Whole, tenths, hundredths or halves, of very different size."""
    whole = rng.randint(1, 10 ** rng.randint(1, 4))
    return Fraction(whole, rng.choice((1, 1, 1, 2, 4, 10, 100)))


def _told(value: Fraction, unit: Unit) -> str | None:
    text = written(value)
    return None if text is None else f"{text} {unit.one if value == 1 else unit.many}"


def _asking(question: str, units: tuple[Unit, ...], answer: str, level: str) -> Callable[[], Prompt]:
    """The question with the definitions that it needs, and a wish for a number alone."""
    notes = list(dict.fromkeys(unit.note for unit in units if unit.note))
    known = f" ({'; '.join(notes)}.)" if notes else ""
    text = f"{question}{known} Give the exact number."
    return lambda: Prompt(text, kind="numeric", answer=answer, domain="stem", difficulty=level)


def _plain(rng: random.Random) -> Draft | None:
    table = rng.choice(list(TABLES))
    start, end = rng.sample(TABLES[table], 2)
    value = _amount(rng)
    if rng.random() < 0.5:  # from a round result, which is the only way to a short one for many imperial units
        value = value * end.size / start.size
    result = value * start.size / end.size
    amount, answer = _told(value, start), written(result)
    if amount is None or answer is None or value == 1 or start.size == end.size:
        return None
    sides = sorted((f"{value} {start.one}", f"{result} {end.one}"))  # there and back is one problem
    question = rng.choice(_PLAIN).format(amount=amount, to=end.many)
    return Draft(f"{table} {sides[0]} = {sides[1]}", _asking(question, (start, end), answer, "1"))


def _mixed(rng: random.Random) -> Draft | None:
    """`2 hours, 5 minutes and 10 seconds` in one unit."""
    table, names = rng.choice(
        (
            ("time", ("week", "day", "hour", "minute", "second")),
            ("length", ("mile", "yard", "foot", "inch")),
            ("length", ("kilometre", "metre", "centimetre", "millimetre")),
            ("mass", ("tonne", "kilogram", "gram", "milligram")),
            ("mass", ("pound", "ounce")),
            ("volume", ("cubic metre", "litre", "decilitre", "centilitre", "millilitre")),
        )
    )
    known = {unit.one: unit for unit in TABLES[table]}
    first = rng.randrange(len(names) - 1)
    chosen = [known[name] for name in names[first : first + rng.randint(2, 3)]]
    parts = [rng.randint(1, 40)]
    for above, unit in itertools.pairwise(chosen):
        parts.append(rng.randint(1, min(int(above.size / unit.size) - 1, 999)))
    end = rng.choice([known[name] for name in names])
    total = sum((part * unit.size for part, unit in zip(parts, chosen, strict=True)), Fraction(0))
    told = [_told(Fraction(part), unit) or "" for part, unit in zip(parts, chosen, strict=True)]
    answer = written(total / end.size)
    if answer is None:
        return None
    question = rng.choice(_MIXED).format(parts=f"{', '.join(told[:-1])} and {told[-1]}", to=end.many)
    # What is said is one amount of one thing, however it is cut into units.
    return Draft(f"{table} mixed {total} {end.one}", _asking(question, (*chosen, end), answer, "2"))


def _flow(rng: random.Random) -> Draft | None:
    """An amount per time, asked for another unit after another time: two conversions in one."""
    table, thing, noun, verb, plain = rng.choice(
        (
            ("volume", "pipe delivers water", "tap", "releases", "release"),
            ("length", "robot drives", "conveyor belt", "moves", "move"),
            ("mass", "mill grinds grain", "machine", "packs", "pack"),
            ("data", "line carries data", "sensor", "records", "record"),
        )
    )
    metric = [unit for unit in TABLES[table] if "1 " not in unit.note or table == "data"]
    of, to = rng.sample(metric, 2)
    per, after = rng.sample(TABLES["time"], 2)
    amount, time = Fraction(rng.randint(1, 400), rng.choice((1, 1, 2, 10))), Fraction(rng.randint(1, 60))
    result = amount * of.size / per.size * time * after.size / to.size
    answer, told, lasts = written(result), written(amount), _told(time, after)
    if answer is None or told is None or lasts is None or of.size == to.size:
        return None
    form = rng.randrange(2)
    unit = of.one if amount == 1 else of.many
    words = {"thing": thing, "noun": noun, "verb": verb, "plain": plain, "amount": told, "of": unit, "per": per.one}
    question = _RATE[form].format(**words, to=to.many, time=lasts)
    content = f"{table} flow {amount * of.size / per.size} {time * after.size} {to.one}"
    return Draft(content, _asking(question, (of, to), answer, "3"))


def _temperature(rng: random.Random) -> Draft | None:
    """Celsius, Fahrenheit, kelvin; content is the temperature and the pair, whichever way it is asked."""
    scales = ("Celsius", "Fahrenheit", "Kelvin")
    kelvin = Fraction(27315, 100) + Fraction(rng.randint(-1200, 4000), rng.choice((10, 10, 2, 5)))
    start, end = rng.sample(scales, 2)
    values = {"Celsius": kelvin - Fraction(27315, 100), "Kelvin": kelvin}
    values["Fahrenheit"] = values["Celsius"] * 9 / 5 + 32
    shown, answer = written(values[start]), written(values[end])
    if shown is None or answer is None or kelvin <= 0:
        return None
    form = rng.choice(_TEMPERATURE)
    shorts = {"Celsius": "C", "Fahrenheit": "F", "Kelvin": "K"}
    question = form.format(value=shown, unit=start, short=shorts[start], to=end)
    for wrong, right in (("degrees Kelvin", "kelvin"), ("°K", "K")):  # kelvin has no degrees
        question = question.replace(wrong, right)
    note = Unit("", "", Fraction(1), "0 °C = 273.15 K" if "Kelvin" in (start, end) else "")
    pair = " ".join(sorted((start, end)))
    return Draft(f"temperature {kelvin} {pair}", _asking(question, (note,), answer, "2"))
