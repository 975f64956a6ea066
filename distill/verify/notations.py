"""Times, ratios, numerals in a base and congruences: are two of them the same, also where only one is written so?

Knows nothing about text.
"""

from __future__ import annotations

from fractions import Fraction

from distill.verify.labels import one_name
from distill.verify.numbers import equal, value_of
from distill.verify.quantities import Told, all_of, doubtful
from distill.verify.values import Based, Clock, Congruence, Quantity, Ratio, number


def ratios(gold: Ratio, answer: Ratio) -> Told:
    if len(gold.items) != len(answer.items):
        return False
    pairs = list(zip(gold.items, answer.items, strict=True))
    (first, second), rest = pairs[0], pairs[1:]
    return all_of([equal(("mul", (first, b)), ("mul", (second, a))) for a, b in rest])


def ratio_number(ratio: Ratio, quantity: Quantity) -> Told:
    if len(ratio.items) != 2 or quantity.unit is not None:
        return False
    told = equal(("div", *ratio.items), quantity.node)
    return doubtful(told) if ratio.items[1] == number(1) else told


def clocks(gold: Clock, answer: Clock) -> Told:
    if gold.half and answer.half:
        return gold == answer
    times = {(clock.hours, clock.minutes, clock.seconds) for clock in (gold, answer)}
    if len(times) == 1:
        return True
    half = gold.half or answer.half
    if half:
        marked, bare = (gold, answer) if gold.half else (answer, gold)
        hours = marked.hours % 12 + (12 if half == "pm" else 0)
        return (hours, marked.minutes, marked.seconds) == (bare.hours, bare.minutes, bare.seconds)
    first = _as_ratio(gold)
    return None if first is not None and first == _as_ratio(answer) else False


def _as_ratio(clock: Clock) -> Fraction | None:
    return Fraction(clock.hours, clock.minutes) if clock.minutes and not clock.seconds else None


def clock_ratio(clock: Clock, other: Ratio) -> Told:
    ratio = Ratio((number(clock.hours), number(clock.minutes)))
    return False if clock.half or not clock.minutes else ratios(ratio, other)


def clock_number(clock: Clock, other: Quantity) -> Told:
    ratio = _as_ratio(clock)
    return None if ratio is not None and not clock.half and equal(number(ratio), other.node) else False


def gold_base(based: Based, quantity: Quantity) -> Told:
    """The base was asked for and may be left out; the value in base ten instead is another answer to most."""
    if quantity.node[0] != "num" or quantity.unit is not None:
        return None
    try:
        if int(str(quantity.node[1]), based.base) == based.value:
            return True
    except ValueError:
        pass
    return None if quantity.node[1] == based.value else False


def answer_base(quantity: Quantity, based: Based) -> Told:
    told = gold_base(based, quantity)
    return doubtful(told)


def congruences(gold: Congruence, answer: Congruence) -> Told:
    modulus = equal(gold.modulus, answer.modulus)
    if modulus is not True or not one_name(gold.name, answer.name):
        return modulus if modulus is not True else False
    apart, size = value_of(("add", (gold.value, ("neg", answer.value)))), value_of(gold.modulus)
    if not isinstance(apart, Fraction) or not isinstance(size, Fraction) or size == 0:
        return equal(gold.value, answer.value)
    return (apart / size).denominator == 1


def congruence_number(congruence: Congruence, quantity: Quantity) -> Told:
    return doubtful(equal(congruence.value, quantity.node))
