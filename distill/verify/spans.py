"""Sets of real numbers: intervals, unions, and what inequalities in one variable say.

Ends are compared as numbers, so that `[√4, 3)` is `[2, 3)`. Knows nothing about text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cmp_to_key
from itertools import pairwise
from typing import Any

from distill.verify.evaluate import inexact
from distill.verify.numbers import equal, value_of
from distill.verify.tidy import Unreadable
from distill.verify.values import (
    ALL,
    INF,
    MINUS_INF,
    PLUS_MINUS,
    Group,
    Listing,
    Node,
    Quantity,
    Real,
    Relation,
    Span,
    Value,
    number,
    substituted,
    symbols,
)

_TURNED = {">": "<", "geq": "leq"}
MOST_SPANS = 50


def order(a: Node, b: Node) -> int:
    """-1, 0 or 1. Raises Unreadable for what is no real constant."""
    if a == b:
        return 0
    left, right = value_of(a), value_of(b)
    if left is None or right is None:
        raise Unreadable("ends that are no numbers")
    if not isinstance(left, float) and not isinstance(right, float) and equal(a, b):
        return 0
    pair: list[Any] = []
    for value in (left, right):
        number = value if isinstance(value, float) else inexact(value)
        if getattr(number, "imag", 0) != 0:
            raise Unreadable("ends that are not real")
        pair.append(number if isinstance(number, float) else number.real)
    return -1 if pair[0] < pair[1] else 1


def as_real(value: Value | None) -> Real | None:
    """A value as a set of real numbers, where it is one: an interval in brackets, or a set of constants."""
    if isinstance(value, Real):
        return value
    if isinstance(value, Group) and len(value.items) == 2 and {value.left, value.right} <= {"(", ")", "[", "]"}:
        low, high = value.items
        if isinstance(low, Quantity) and isinstance(high, Quantity) and low.unit is None and high.unit is None:
            return _interval(low.node, value.left == "[", high.node, value.right == "]")
    if isinstance(value, Listing) and value.braces:
        points = [item.node for item in value.items if isinstance(item, Quantity) and not symbols(item.node)]
        if len(points) == len(value.items):
            return _tidied([Span(point, True, point, True) for point in points])
    return None


def _interval(low: Node, low_closed: bool, high: Node, high_closed: bool) -> Real | None:
    if symbols(low) or symbols(high):
        return None
    try:
        if order(low, high) >= 0:
            return None
    except Unreadable:
        return None
    return Real((Span(low, low_closed and low != MINUS_INF, high, high_closed and high != INF),))


def _tidied(found: Sequence[Span]) -> Real:
    """In order, overlapping ones made one. Raises Unreadable for ends that have no order."""
    if len(found) > MOST_SPANS:
        raise Unreadable("too many intervals")

    def compare(a: Span, b: Span) -> int:
        return order(a.low, b.low) or (b.low_closed - a.low_closed)

    result: list[Span] = []
    for span in sorted(found, key=cmp_to_key(compare)):
        if result:
            last = result[-1]
            side = order(span.low, last.high)
            if side < 0 or (side == 0 and (span.low_closed or last.high_closed)):
                further = order(span.high, last.high)
                high, closed = (span.high, span.high_closed) if further > 0 else (last.high, last.high_closed)
                if further == 0:
                    closed = last.high_closed or span.high_closed
                result[-1] = Span(last.low, last.low_closed, high, closed)
                continue
        result.append(span)
    return Real(tuple(result))


def complement(found: Sequence[Span]) -> tuple[Span, ...]:
    gaps: list[Span] = []
    low, low_closed = MINUS_INF, False
    for span in found:
        if span.low != MINUS_INF:
            gaps.append(Span(low, low_closed, span.low, not span.low_closed))
        low, low_closed = span.high, not span.high_closed
    if low != INF:
        gaps.append(Span(low, low_closed and low != MINUS_INF, INF, False))
    return tuple(gap for gap in gaps if not (gap.low == gap.high and not (gap.low_closed and gap.high_closed)))


def _common(a: Real, b: Real) -> Real:
    outside = [*complement(a.spans), *complement(b.spans)]
    return Real(complement(_tidied(outside).spans))


def combined(left: Value, operator: str, right: Value) -> Value:
    """∪, ∩ or ∖ of two sets. Raises Unreadable for other values."""
    a, b = as_real(left), as_real(right)
    if a is None or b is None:
        raise Unreadable("sets that are no intervals")
    if operator == "cup":
        return _tidied([*a.spans, *b.spans])
    return _common(a, Real(complement(b.spans)) if operator == "setminus" else b)


def without(real: Real, points: Sequence[Node]) -> Real:
    """Of `x ≠ 1, 2` the numbers meant, given those that `x ≠ 1` says. Raises Unreadable where that says another set."""
    holes = complement(real.spans)
    if not holes or any(hole.low != hole.high for hole in holes):
        raise Unreadable("numbers after an inequality")
    further = _tidied([*holes, *(Span(point, True, point, True) for point in points)])
    return Real(complement(further.spans), real.name)


def joined(clauses: Sequence[Real], joints: Sequence[str]) -> Real:
    """What inequalities say together: with `or` any, with `and` all; after a comma all where that is possible."""
    if len(clauses) > MOST_SPANS:
        raise Unreadable("too many inequalities")
    if len({clause.name for clause in clauses}) > 1:
        raise Unreadable("inequalities in several variables")
    kinds = set(joints)
    if "or" in kinds and kinds != {"or"} and kinds != {"or", ","}:
        raise Unreadable("or and and")
    every = clauses[0]
    for clause in clauses[1:]:
        every = _common(every, clause)
    if "or" in kinds or ("and" not in kinds and not every.spans):
        return Real(_tidied([span for clause in clauses for span in clause.spans]).spans, clauses[0].name)
    return Real(every.spans, clauses[0].name)


def of_inequalities(sides: Sequence[Value | None], operators: Sequence[str]) -> Value:
    """A chain of inequalities: about one variable alone on a side a set of real numbers, else a relation."""
    nodes: list[Node | None] = []
    for side in sides:
        if side is not None and not isinstance(side, Quantity):
            raise Unreadable("an inequality of other than numbers")
        nodes.append(None if side is None else side.node)
    names = set().union(*(symbols(node) for node in nodes if node is not None))
    if operators == ["neq"] and PLUS_MINUS[1] in names and nodes[0] is not None and nodes[1] is not None:
        first, second = (substituted(nodes[1], PLUS_MINUS[1], number(sign)) for sign in (1, -1))
        one = _half_line(nodes[0], "neq", first) if not symbols(first) else None
        if one is not None:
            return without(Real(one.spans, nodes[0][1]), [second])
    if len(sides) == 2 and len(names) == 1 and (near := _of_distance(nodes[0], operators[0], nodes[1], *names)):
        return near
    bare = all(node is None or node[0] == "sym" or not symbols(node) for node in nodes)
    if bare and (len(names) == 1 or (not names and nodes[0] is None)) and nodes.count(None) <= 1:
        found: Real | None = None
        for (left, right), operator in zip(pairwise(nodes), operators, strict=True):
            one = _half_line(left, operator, right)
            if one is None:
                if found is None or left is None or right is None:
                    raise Unreadable("an inequality without a variable")
                continue
            found = one if found is None else _common(found, one)
        assert found is not None
        return Real(found.spans, next(iter(names), ""))
    if len(operators) > 1 or nodes[0] is None:
        raise Unreadable("a chain of inequalities")
    left_side, right_side = sides
    assert left_side is not None
    assert right_side is not None
    if operators[0] in _TURNED:
        return Relation(_TURNED[operators[0]], right_side, left_side)
    return Relation(operators[0], left_side, right_side)


def _of_distance(left: Node | None, operator: str, right: Node | None, name: str) -> Real | None:
    """What `|x - 2| < 3` says, the inside linear; None for anything else."""
    if left is None or right is None or operator == "neq":
        return None
    if right[0] == "abs":
        left, right, operator = right, left, {"<": ">", ">": "<", "leq": "geq", "geq": "leq"}[operator]
    size = value_of(right)
    if left[0] != "abs" or size is None or getattr(size, "imag", 0) != 0 or size <= 0:
        return None
    at = [substituted(left[1], name, number(place)) for place in (0, 1, 2)]
    slope: Node = ("add", (at[1], ("neg", at[0])))
    if not equal(at[2], ("add", (at[1], slope))) or value_of(slope) in (None, 0):
        return None
    ends: list[Node] = [("div", ("add", (end, ("neg", at[0]))), slope) for end in (("neg", right), right)]
    if order(*ends) > 0:
        ends.reverse()
    inside = Span(ends[0], operator in ("leq", ">"), ends[1], operator in ("leq", ">"))
    if operator in ("<", "leq"):
        return Real((inside,), name)
    return Real(complement([inside]), name)


def _half_line(left: Node | None, operator: str, right: Node | None) -> Real | None:
    """The numbers that the variable on one side can be; None where neither side is one."""
    variable_left = left is None or left[0] == "sym"
    variable_right = right is not None and right[0] == "sym"
    if variable_left == variable_right:
        return None
    bound = right if variable_left else left
    assert bound is not None
    if operator == "neq":
        return Real(complement([Span(bound, True, bound, True)]))
    above = (operator in (">", "geq")) == variable_left
    closed = operator in ("leq", "geq")
    return Real((Span(bound, closed, INF, False) if above else Span(MINUS_INF, False, bound, closed),))


def same_spans(a: Real, b: Real) -> bool:
    """Raises Unreadable for ends that have no order."""
    if len(a.spans) != len(b.spans):
        return False
    return all(
        (x.low_closed, x.high_closed) == (y.low_closed, y.high_closed)
        and order(x.low, y.low) == 0
        and order(x.high, y.high) == 0
        for x, y in zip(a.spans, b.spans, strict=True)
    )


__all__ = ["ALL", "as_real", "combined", "complement", "joined", "of_inequalities", "order", "same_spans"]
