"""Are two numbers with units the same amount? Percent, money, degrees, rounded values; a unit may be left out.

Knows nothing about lists or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from distill.verify.conversions import ratios, reduced, temperature
from distill.verify.numbers import could_be_rounded, equal, value_of
from distill.verify.units import Unit
from distill.verify.values import Node, Quantity, number, substituted, symbols

Told = bool | None
"""Whether two things are the same; None where a careful reader could not tell."""


def all_of(told: Sequence[Told]) -> Told:
    if False in told:
        return False
    return None if None in told else True


def doubtful(told: Told) -> Told:
    """For two things that are the same only in one way of looking at them."""
    return None if told is True else told


def quantities(gold: Quantity, answer: Quantity) -> Told:
    g, a = gold.unit, answer.unit
    if gold.scale != answer.scale and gold.unit == answer.unit and same_number(gold.node, answer.node):
        scaled = same_number(_scaled(gold), _scaled(answer))
        return scaled or (None if 1 in (gold.scale, answer.scale) else False)  # `15` where millions are asked
    left, right = _scaled(gold), _scaled(answer)
    if g == a or (g is not None and a is not None and g.dimensions and g == a):
        return _with_rounded(left, right, answer, gold)
    if _is_percent(g) or _is_percent(a):
        return _percent(left, _is_percent(g), right, _is_percent(a), g, a)
    if g is None or a is None:
        unit = g or a
        assert unit is not None
        told = _with_rounded(left, right, answer, gold)
        if told is False and unit.dimensions == UNIT_OF_ANGLE:
            told = same_number(("deg", left) if g else left, ("deg", right) if a else right)
        return None if told is False and unit.dimensions and _convertible(left, right, unit, swap=g is None) else told
    if g.dimensions and a.dimensions:
        if g.dimensions != a.dimensions:
            plain, other = reduced(g), reduced(a)
            if plain.dimensions == other.dimensions:  # `1 N m` and `1 J`
                return same_number(_times(left, plain.factor), _times(right, other.factor))
            here, there = temperature(g), temperature(a)
            if here is not None and there is not None:
                return same_number(_in_kelvins(left, *here), _in_kelvins(right, *there))
            if {g.dimensions, a.dimensions} == {UNIT_OF_ANGLE, RADIANS}:
                return same_number(
                    *(("deg", n) if u.dimensions == UNIT_OF_ANGLE else n for n, u in ((left, g), (right, a)))
                )
            if _is_price(g, a) or _is_price(a, g):
                return same_number(left, right)
            unspecific = any(name == "unit" for unit in (g, a) for name, _ in unit.dimensions)
            return doubtful(same_number(left, right)) if unspecific else False
        return same_number(_times(left, g.factor), _times(right, a.factor))
    if g.words and a.words:
        told = same_number(left, right)
        return told if set(g.words) <= set(a.words) or set(a.words) <= set(g.words) else doubtful(told)
    return doubtful(same_number(left, right))


UNIT_OF_ANGLE = (("angle", 1),)
RADIANS = (("radian", 1),)


def _is_price(whole: Unit, rate: Unit) -> bool:
    """Whether one is an amount of money, and the other the same with what it is paid for."""
    money = whole.dimensions[0][0] in ("dollar", "euro", "yen", "rupee", "peso") and len(whole.dimensions) == 1
    return money and set(whole.dimensions) < set(rate.dimensions)


def _scaled(value: Quantity) -> Node:
    return value.node if value.scale == 1 else ("mul", (value.node, number(value.scale)))


def _times(node: Node, factor: Fraction) -> Node:
    return node if factor == 1 else ("mul", (node, number(factor)))


def _in_kelvins(node: Node, size: Fraction, zero: Fraction) -> Node:
    return ("add", (_times(node, size), number(zero)))


def _with_rounded(left: Node, right: Node, answer: Quantity, gold: Quantity) -> Told:
    """Also by the rounded value that was given beside an exact one."""
    told = same_number(left, right)
    if told is not True and answer.also is not None and equal(left, answer.also):
        return True
    if told is not True and gold.also is not None and (equal(gold.also, right) or answer.also is not None):
        return True if equal(gold.also, right) else doubtful(equal(gold.also, answer.also or right))
    return told


def same_number(gold: Node, answer: Node) -> Told:
    told = equal(gold, answer)
    if gold[0] == answer[0] == "sym" and gold != answer and gold[1].lower() == answer[1].lower():
        return None  # the letter of a choice
    if told is False and "C" in symbols(gold) and "c" in symbols(answer) and "C" not in symbols(answer):
        told = equal(gold, substituted(answer, "c", ("sym", "C")))  # the constant of an integral
    if told is False:
        if could_be_rounded(gold, answer):
            return None
        if _degrees_left_out(gold, answer):
            return None
    return told


def _degrees_left_out(gold: Node, answer: Node) -> bool:
    return (gold[0] == "deg") != (answer[0] == "deg") and bool(
        equal(gold[1] if gold[0] == "deg" else gold, answer[1] if answer[0] == "deg" else answer)
    )


def _is_percent(unit: Unit | None) -> bool:
    return unit is not None and unit.dimensions[:1] == (("percent", 1),)


def _percent(left: Node, gold_has: bool, right: Node, answer_has: bool, g: Unit | None, a: Unit | None) -> Told:
    if gold_has and answer_has:
        return same_number(left, right)
    if (g or a) is not None and g is not None and a is not None:
        return False
    share = same_number(("pct", left) if gold_has else left, ("pct", right) if answer_has else right)
    bare = same_number(left, right)
    if share:
        return True
    if bare and not gold_has:
        size = value_of(left)
        return True if size is not None and abs(size) > 1 else None  # 0.5% where 0.5 is gold
    return bare if gold_has or bare is not True else None


def _convertible(left: Node, right: Node, unit: Unit, *, swap: bool) -> bool:
    """Whether a unit of the same dimension would make both the same: 2 where hours are asked, and 120 minutes."""
    plain, measured = (left, right) if swap else (right, left)
    return any(equal(_times(plain, ratio), measured) for ratio in ratios(unit))
