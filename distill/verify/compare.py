"""Does an answer's value say what the gold value says? True, False, or None where a careful reader could not tell.

What a value is written as counts where it is part of the answer: open or closed ends, the order in a tuple, the base of
a numeral, the dimension of a unit. Knows nothing about text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

from distill.verify import equations, spans, wording
from distill.verify.latex import Unreadable
from distill.verify.numbers import could_be_rounded, equal, value_of
from distill.verify.reading import PLUS_MINUS
from distill.verify.units import UNITS, Unit
from distill.verify.values import (
    Based,
    Clock,
    Congruence,
    Group,
    Listing,
    Matrix,
    NamedSet,
    Node,
    Quantity,
    Ratio,
    Real,
    Relation,
    Value,
    Words,
    number,
    substituted,
    symbols,
)

Told = bool | None
MOST_ITEMS = 60
"""Of a list that is matched item by item in any order."""
_ELLIPSIS = Words("...")


def same(gold: Value, answer: Value) -> Told:
    """Raises Unreadable where the values cannot be compared at all."""
    if gold == answer:
        return True
    gold, answer = _plain(gold), _plain(answer)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return wording.same_words(gold, answer)
    told = _by_kind(gold, answer)
    return None if told is False and (_is_loose(gold) or _is_loose(answer)) else told


def all_of(told: Sequence[Told]) -> Told:
    if False in told:
        return False
    return None if None in told else True


def doubtful(told: Told) -> Told:
    """For two things that are the same only in one way of looking at them."""
    return None if told is True else told


def _is_loose(value: Value) -> bool:
    if isinstance(value, Quantity):
        return value.loose
    if isinstance(value, Relation):
        return _is_loose(value.left) or _is_loose(value.right)
    return isinstance(value, Group | Listing) and any(map(_is_loose, value.items))


def _plain(value: Value) -> Value:
    """± as two values, phrases as what they stand for, a list of equations in one variable as that of its values."""
    if isinstance(value, Words):
        return wording.meaning(value)
    if isinstance(value, Quantity) and "±" in symbols(value.node):
        return Listing(tuple(_signed(value, sign) for sign in (1, -1)))
    if isinstance(value, Relation) and value.operator == "=":
        left, right = value.left, _plain(value.right)
        names = _names(left)
        if names and isinstance(right, Group) and isinstance(left, Group) and len(right.items) == len(left.items):
            return Relation("=", left, right)
        if isinstance(right, Listing) and label(left):
            return Relation("=", left, right)
        return Relation("=", left, right) if right != value.right else value
    if isinstance(value, Listing):
        items: list[Value] = []
        for item in value.items:
            plain = _plain(item)
            if isinstance(plain, Listing) and not plain.braces and not value.braces:
                items.extend(plain.items)
            elif isinstance(plain, Listing) and isinstance(item, Quantity):
                items.extend(plain.items)
            else:
                items.append(plain)
        return Listing(tuple(items), value.braces)
    return value


def _signed(value: Quantity, sign: int) -> Quantity:
    return Quantity(substituted(value.node, PLUS_MINUS[1], number(sign)), value.unit, value.scale, None, value.loose)


# --- what stands before an equals sign --------------------------------------------------------------------------------


def _names(left: Value) -> tuple[str, ...]:
    """The symbols of `(x, y)`."""
    if not isinstance(left, Group):
        return ()
    names = [item.node[1] for item in left.items if isinstance(item, Quantity) and item.node[0] == "sym"]
    return tuple(names) if len(names) == len(left.items) else ()


def label(left: Value) -> str:
    """What is said to have the value on the right: `x`, `f(x)`, `(x,y)`, `area`; empty for an expression."""
    if isinstance(left, Quantity):
        if left.node[0] == "sym":
            return str(left.node[1])
        if left.node[0] == "call" and all(part[0] == "sym" for part in left.node[2]):
            return f"{left.node[1]}({','.join(str(part[1]) for part in left.node[2])})"
        if left.node[0] == "mul" and all(part[0] == "sym" for part in left.node[1]):
            return "".join(str(part[1]) for part in left.node[1])
    if isinstance(left, Words):
        return left.text
    names = _names(left)
    return f"({','.join(names)})" if names else ""


def _stripped(value: Value) -> tuple[str, Value]:
    if isinstance(value, Relation) and value.operator == "=" and (name := label(value.left)):
        return name, value.right
    if isinstance(value, Real):
        return value.name, Real(value.spans)
    return "", value


def _one_name(a: str, b: str) -> bool:
    """Whether two labels can mean the same thing: none, equal, or of one letter with different indices."""
    return not a or not b or a == b or {a, b} in ({"y", "f(x)"}, {"y", "g(x)"}, {"y", "y(x)"}) or " " in a + b


def _assignments(value: Value) -> dict[str, Value] | None:
    """Of `x = 1, y = 2` or `(x, y) = (1, 2)`: name → value, two at least."""
    if isinstance(value, Relation) and value.operator == "=" and isinstance(value.right, Group):
        names = _names(value.left)
        if len(names) == len(value.right.items) and len(set(names)) == len(names) > 1:
            return dict(zip(names, value.right.items, strict=True))
    if isinstance(value, Listing) and len(value.items) > 1:
        pairs = [_stripped(item) for item in value.items if isinstance(item, Relation)]
        names = tuple(name for name, _ in pairs)
        if len(pairs) == len(value.items) and all(names) and len(set(names)) == len(names):
            return dict(pairs)
    return None


def _solutions(value: Value) -> tuple[str, list[Value]]:
    """The values of one variable, and its name: of `x = 1 or x = 2`, `x = 1, 2`, `x_1 = 1, x_2 = 2`, `1, 2`."""
    if isinstance(value, Relation):
        name, right = _stripped(value)
        if name:
            return name, list(right.items) if isinstance(right, Listing) else [right]
    if isinstance(value, Listing):
        pairs = [_stripped(item) for item in value.items]
        bases = {name.split("_")[0] for name, _ in pairs if name}
        if len(bases) == 1 and pairs[0][0]:
            spread: list[Value] = []
            for _, item in pairs:
                spread.extend(item.items if isinstance(item, Listing) and not value.braces else [item])
            return next(iter(bases)), spread
        return "", list(value.items)
    return "", [value]


# --- by kind ----------------------------------------------------------------------------------------------------------


def _by_kind(gold: Value, answer: Value) -> Told:
    if isinstance(gold, Quantity) and isinstance(answer, Quantity):
        return quantities(gold, answer)
    named = _named(gold, answer)
    if named is not NotImplemented:
        return named  # type: ignore[return-value]  # NotImplemented aside it is a Told
    real = _reals(gold, answer)
    if real is not NotImplemented:
        return real  # type: ignore[return-value]
    if isinstance(gold, Listing | Relation) or isinstance(answer, Listing | Relation):
        return _lists(gold, answer)
    if isinstance(gold, Based) and isinstance(answer, Quantity):
        return _gold_base(gold, answer)
    if isinstance(gold, Quantity) and isinstance(answer, Based):
        return _answer_base(gold, answer)
    for kinds, compare in _PAIRS:
        if isinstance(gold, kinds[0]) and isinstance(answer, kinds[1]):
            return compare(gold, answer)
        if isinstance(gold, kinds[1]) and isinstance(answer, kinds[0]):
            return compare(answer, gold)
    return False


def _named(gold: Value, answer: Value) -> object:
    first, second = _assignments(gold), _assignments(answer)
    if first is not None and second is not None:
        if first.keys() != second.keys():
            return NotImplemented if {name.split("_")[0] for name in (*first, *second)} else False
        return all_of([same(first[name], second[name]) for name in first])
    named, other = (first, answer) if first is not None else (second, gold)
    if named is None:
        return NotImplemented
    if isinstance(other, Group) and len(other.items) == len(named) and other.left != "[":
        if len({name.split("_")[0] for name in named}) == 1 and any("_" in name for name in named):
            return NotImplemented
        ordered = [named[name] for name in sorted(named)]
        return all_of([same(a, b) for a, b in zip(ordered, other.items, strict=True)])
    if isinstance(other, Listing) and len(other.items) == len(named) and len({n.split("_")[0] for n in named}) > 1:
        if any(isinstance(item, Relation) for item in other.items):
            return NotImplemented
        ordered = [named[name] for name in sorted(named)]
        return doubtful(all_of([same(a, b) for a, b in zip(ordered, other.items, strict=True)]))
    return NotImplemented


def _reals(gold: Value, answer: Value) -> object:
    if not isinstance(gold, Real) and not isinstance(answer, Real):
        return NotImplemented
    found: list[Real] = []
    for value in (gold, answer):
        real = spans.as_real(value)
        if real is None and isinstance(value, Listing) and not value.braces:
            parts = [spans.as_real(item) for item in value.items]
            if parts and None not in parts:
                real = spans.joined([Real(part.spans) for part in parts if part], ["or"] * (len(parts) - 1))
        if real is None:
            return NotImplemented if isinstance(value, Relation | Listing) else False
        found.append(real)
    if not _one_name(found[0].name, found[1].name):
        return False
    return spans.same_spans(*found)


def _lists(gold: Value, answer: Value) -> Told:
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        told = equations.same_relations(gold, answer)
        if told is True or not (label(gold.left) and label(answer.left)):
            return told
    gold_name, golds = _solutions(gold)
    answer_name, answers = _solutions(answer)
    if isinstance(gold, Relation) and not gold_name or isinstance(answer, Relation) and not answer_name:
        return None if isinstance(answer, Relation) and not isinstance(gold, Relation) else False
    if len(golds) == len(answers) == 1 and not isinstance(golds[0], Relation | Listing):
        told = same(golds[0], answers[0])
    elif isinstance(gold, Group) or isinstance(answer, Group):
        tuple_, others = (gold, answers) if isinstance(gold, Group) else (answer, golds)
        assert isinstance(tuple_, Group)
        if len(others) == 1:
            return same(golds[0], answers[0])
        if len(others) != len(tuple_.items):
            return False
        if isinstance(gold, Listing) and gold.braces or isinstance(answer, Listing) and answer.braces:
            return False
        return doubtful(all_of([same(a, b) for a, b in zip(tuple_.items, others, strict=True)]))
    else:
        told = _matched(golds, answers)
    if told is not False and not _one_name(gold_name.split("_")[0], answer_name.split("_")[0]):
        return False
    return told


def _matched(golds: Sequence[Value], answers: Sequence[Value]) -> Told:
    """Lists in any order; with an ellipsis among the items in the order given."""
    if max(len(golds), len(answers)) > MOST_ITEMS:
        raise Unreadable("too many items")
    conditions = [[v for v in vs if isinstance(v, Relation) and v.operator in ("in", "notin")] for vs in (golds, answers)]
    if bool(conditions[0]) != bool(conditions[1]):
        rest = [[v for v in vs if v not in cs] for vs, cs in zip((golds, answers), conditions, strict=True)]
        return doubtful(_matched(*rest)) if all(rest) else False
    if _ELLIPSIS in golds or _ELLIPSIS in answers:
        if len(golds) != len(answers):
            shown = zip(itertools.takewhile(_ELLIPSIS.__ne__, golds), itertools.takewhile(_ELLIPSIS.__ne__, answers), strict=False)
            return doubtful(all_of([same(a, b) for a, b in shown]))
        return all_of([same(a, b) for a, b in zip(golds, answers, strict=True)])
    left, unsure = list(answers), False
    missing = 0
    for gold in golds:
        told = [same(gold, answer) for answer in left]
        if True in told:
            left.pop(told.index(True))
        elif None in told:
            left.pop(told.index(None))
            unsure = True
        else:
            missing += 1
    if not missing and not left:
        return None if unsure else True
    if all(any(same(g, a) for a in answers) for g in golds) and all(any(same(g, a) for g in golds) for a in answers):
        return None  # one of them written twice
    return False


# --- numbers with units -----------------------------------------------------------------------------------------------


def quantities(gold: Quantity, answer: Quantity) -> Told:
    g, a = gold.unit, answer.unit
    if gold.scale != answer.scale and gold.unit == answer.unit and same_number(gold.node, answer.node):
        scaled = same_number(_scaled(gold), _scaled(answer))
        return scaled if scaled else None if 1 in (gold.scale, answer.scale) else False  # `15` where millions are asked
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
            if {g.dimensions, a.dimensions} == {UNIT_OF_ANGLE, (("radian", 1),)}:
                return same_number(*(("deg", n) if u.dimensions == UNIT_OF_ANGLE else n for n, u in ((left, g), (right, a))))
            unspecific = any(name == "unit" for unit in (g, a) for name, _ in unit.dimensions)
            return doubtful(same_number(left, right)) if unspecific else False
        return same_number(_times(left, g.factor), _times(right, a.factor))
    if g.words and a.words:
        told = same_number(left, right)
        return told if set(g.words) <= set(a.words) or set(a.words) <= set(g.words) else doubtful(told)
    return doubtful(same_number(left, right))


UNIT_OF_ANGLE = (("angle", 1),)


def _scaled(value: Quantity) -> Node:
    return value.node if value.scale == 1 else ("mul", (value.node, number(value.scale)))


def _times(node: Node, factor: Fraction) -> Node:
    return node if factor == 1 else ("mul", (node, number(factor)))


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
    if len(unit.dimensions) != 1 or unit.dimensions[0][1] != 1:
        return False
    factors = {size for name, size in UNITS.values() if name == unit.dimensions[0][0]}
    plain, measured = (left, right) if swap else (right, left)
    return any(equal(_times(plain, factor), _times(measured, unit.factor)) for factor in factors if factor != unit.factor)


# --- the rest ---------------------------------------------------------------------------------------------------------


def _groups(gold: Group, answer: Group) -> Told:
    if len(gold.items) != len(answer.items):
        return False
    told = all_of([same(a, b) for a, b in zip(gold.items, answer.items, strict=True)])
    shapes = {(value.left.replace("<<", "("), value.right.replace(">>", ")")) for value in (gold, answer)}
    if len(shapes) == 1:
        return told
    return False if len(gold.items) == 2 else doubtful(told)


def _matrices(gold: Matrix, answer: Matrix) -> Told:
    if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
        return False
    told = all_of([equal(a, b) for x, y in zip(gold.rows, answer.rows, strict=True) for a, b in zip(x, y, strict=True)])
    return told if gold.kind == answer.kind else doubtful(told)


def _column(matrix: Matrix, group: Group) -> Told:
    flat = [row[0] for row in matrix.rows] if len(matrix.rows[0]) == 1 else list(matrix.rows[0])
    if 1 not in (len(matrix.rows), len(matrix.rows[0])) or len(flat) != len(group.items):
        return False
    return doubtful(all_of([same(Quantity(node), item) for node, item in zip(flat, group.items, strict=True)]))


def _ratios(gold: Ratio, answer: Ratio) -> Told:
    if len(gold.items) != len(answer.items):
        return False
    pairs = list(zip(gold.items, answer.items, strict=True))
    (first, second), rest = pairs[0], pairs[1:]
    return all_of([equal(("mul", (first, b)), ("mul", (second, a))) for a, b in rest])


def _ratio_number(ratio: Ratio, quantity: Quantity) -> Told:
    if len(ratio.items) != 2 or quantity.unit is not None:
        return False
    told = equal(("div", *ratio.items), quantity.node)
    return doubtful(told) if ratio.items[1] == number(1) else told


def _clocks(gold: Clock, answer: Clock) -> Told:
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


def _clock_ratio(clock: Clock, other: Ratio) -> Told:
    ratio = Ratio((number(clock.hours), number(clock.minutes)))
    return False if clock.half or not clock.minutes else _ratios(ratio, other)


def _clock_number(clock: Clock, other: Quantity) -> Told:
    ratio = _as_ratio(clock)
    return None if ratio is not None and not clock.half and equal(number(ratio), other.node) else False


def _based(gold: Based, answer: Based) -> Told:
    return gold == answer


def _gold_base(based: Based, quantity: Quantity) -> Told:
    """The base was asked for and may be left out; the value in base ten instead is another answer to most."""
    if quantity.node[0] != "num" or quantity.unit is not None:
        return None
    try:
        if int(str(quantity.node[1]), based.base) == based.value:
            return True
    except ValueError:
        pass
    return None if quantity.node[1] == based.value else False


def _answer_base(quantity: Quantity, based: Based) -> Told:
    told = _gold_base(based, quantity)
    return doubtful(told)


def _congruences(gold: Congruence, answer: Congruence) -> Told:
    modulus = equal(gold.modulus, answer.modulus)
    if modulus is not True or not _one_name(gold.name, answer.name):
        return modulus if modulus is not True else False
    apart, size = value_of(("add", (gold.value, ("neg", answer.value)))), value_of(gold.modulus)
    if not isinstance(apart, Fraction) or not isinstance(size, Fraction) or size == 0:
        return equal(gold.value, answer.value)
    return (apart / size).denominator == 1


def _congruence_number(congruence: Congruence, quantity: Quantity) -> Told:
    return doubtful(equal(congruence.value, quantity.node))


_PAIRS: tuple[tuple[tuple[type, type], Callable[..., Told]], ...] = (
    ((Group, Group), _groups),
    ((Matrix, Matrix), _matrices),
    ((Matrix, Group), _column),
    ((Matrix, Quantity), lambda matrix, quantity: None if matrix.kind == "vmatrix" else False),
    ((Ratio, Ratio), _ratios),
    ((Ratio, Quantity), _ratio_number),
    ((Clock, Clock), _clocks),
    ((Clock, Ratio), _clock_ratio),
    ((Clock, Quantity), _clock_number),
    ((Based, Based), _based),
    ((Congruence, Congruence), _congruences),
    ((Congruence, Quantity), _congruence_number),
    ((NamedSet, NamedSet), lambda gold, answer: gold == answer),
)


__all__ = ["Told", "all_of", "doubtful", "label", "quantities", "same", "same_number"]
