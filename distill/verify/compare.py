"""Does an answer's value say what the gold value says? True, False, or None where a careful reader could not tell.

What a value is written as counts where it is part of the answer: open or closed ends, the order in a tuple, the base of
a numeral, the dimension of a unit. Knows nothing about text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from distill.verify import equations, notations, spans, wording
from distill.verify.labels import assignments, label, names, one_name, solutions
from distill.verify.numbers import equal
from distill.verify.quantities import Told, all_of, doubtful, quantities
from distill.verify.tidy import Unreadable
from distill.verify.values import (
    PLUS_MINUS,
    Based,
    Clock,
    Congruence,
    Group,
    Listing,
    Matrix,
    NamedSet,
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
        listed = names(left)
        if listed and isinstance(right, Group) and isinstance(left, Group) and len(right.items) == len(left.items):
            return Relation("=", left, right)
        if isinstance(right, Listing) and label(left):
            return Relation("=", left, right)
        return Relation("=", left, right) if right != value.right else value
    if isinstance(value, Listing):
        items: list[Value] = []
        for item in value.items:
            plain = _plain(item)
            if isinstance(plain, Listing) and (isinstance(item, Quantity) or not (plain.braces or value.braces)):
                items.extend(plain.items)
            else:
                items.append(plain)
        return Listing(tuple(items), value.braces)
    return value


def _signed(value: Quantity, sign: int) -> Quantity:
    return Quantity(substituted(value.node, PLUS_MINUS[1], number(sign)), value.unit, value.scale, None, value.loose)


# --- what stands before an equals sign --------------------------------------------------------------------------------


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
        return notations.gold_base(gold, answer)
    if isinstance(gold, Quantity) and isinstance(answer, Based):
        return notations.answer_base(gold, answer)
    if isinstance(gold, Group | Matrix) and isinstance(answer, Quantity) and "j" in symbols(answer.node):
        return None  # i + 2j
    for kinds, compare in _PAIRS:
        if isinstance(gold, kinds[0]) and isinstance(answer, kinds[1]):
            return compare(gold, answer)
        if isinstance(gold, kinds[1]) and isinstance(answer, kinds[0]):
            return compare(answer, gold)
    return False


def _named(gold: Value, answer: Value) -> object:
    first, second = assignments(gold), assignments(answer)
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
    if not one_name(found[0].name, found[1].name):
        return False
    return spans.same_spans(*found)


def _lists(gold: Value, answer: Value) -> Told:
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        told = equations.same_relations(gold, answer)
        labels = label(gold.left), label(answer.left)
        if told is True or not all(labels) or (told is None and labels[0] != labels[1]):
            return told
    gold_name, golds = solutions(gold)
    answer_name, answers = solutions(answer)
    if (isinstance(gold, Relation) and not gold_name) or (isinstance(answer, Relation) and not answer_name):
        return (
            _of_expression(gold, answer) if isinstance(answer, Relation) and not isinstance(gold, Relation) else False
        )
    if len(golds) == len(answers) == 1 and not isinstance(golds[0], Relation | Listing):
        told = same(golds[0], answers[0])
    elif isinstance(gold, Group) or isinstance(answer, Group):
        tuple_, others = (gold, answers) if isinstance(gold, Group) else (answer, golds)
        assert isinstance(tuple_, Group)
        if len(others) == 1:
            return same(golds[0], answers[0])
        if len(others) != len(tuple_.items):
            return False
        if (isinstance(gold, Listing) and gold.braces) or (isinstance(answer, Listing) and answer.braces):
            return False
        return doubtful(all_of([same(a, b) for a, b in zip(tuple_.items, others, strict=True)]))
    else:
        told = _matched(golds, answers)
        if told is None and any(isinstance(value, Listing) and value.braces for value in (gold, answer)):
            told = _matched(_distinct(golds), _distinct(answers))
    if told is not False and not one_name(gold_name.split("_")[0], answer_name.split("_")[0]):
        return False
    return told


def _of_expression(gold: Value, answer: Relation) -> Told:
    """For `a + b = 7` where 7 is gold. That another value is wrong is certain only if nothing is left to solve for."""
    if answer.operator != "=" or not isinstance(answer.left, Quantity) or not isinstance(answer.right, Quantity):
        return None
    if symbols(answer.right.node) or not isinstance(gold, Quantity):
        return None
    told = same(gold, answer.right)
    return told if told is not False or len(symbols(answer.left.node)) > 1 else None


def _distinct(values: Sequence[Value]) -> list[Value]:
    """Without those that were there before: a set has nothing twice."""
    found: list[Value] = []
    for value in values[:MOST_ITEMS]:
        if not any(same(value, other) for other in found):
            found.append(value)
    return found


def _matched(golds: Sequence[Value], answers: Sequence[Value]) -> Told:
    """Lists in any order; with an ellipsis among the items in the order given."""
    if max(len(golds), len(answers)) > MOST_ITEMS:
        raise Unreadable("too many items")
    conditions = [
        [v for v in vs if isinstance(v, Relation) and v.operator in ("in", "notin")] for vs in (golds, answers)
    ]
    if bool(conditions[0]) != bool(conditions[1]):
        rest = [[v for v in vs if v not in cs] for vs, cs in zip((golds, answers), conditions, strict=True)]
        return doubtful(_matched(*rest)) if all(rest) else False
    if _ELLIPSIS in golds or _ELLIPSIS in answers:
        if len(golds) != len(answers):
            shown = zip(
                itertools.takewhile(_ELLIPSIS.__ne__, golds),
                itertools.takewhile(_ELLIPSIS.__ne__, answers),
                strict=False,
            )
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


def _groups(gold: Group, answer: Group) -> Told:
    if len(gold.items) != len(answer.items):
        return False
    told = all_of([same(a, b) for a, b in zip(gold.items, answer.items, strict=True)])
    shapes = {(value.left.replace("<<", "("), value.right.replace(">>", ")")) for value in (gold, answer)}
    if len(shapes) == 1:
        return told
    return False if len(gold.items) == 2 else told  # of two it may be an interval


def _matrices(gold: Matrix, answer: Matrix) -> Told:
    if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
        return False
    told = all_of([equal(a, b) for x, y in zip(gold.rows, answer.rows, strict=True) for a, b in zip(x, y, strict=True)])
    return told if gold.kind == answer.kind else doubtful(told)


def _column(matrix: Matrix, group: Group) -> Told:
    flat = [row[0] for row in matrix.rows] if len(matrix.rows[0]) == 1 else list(matrix.rows[0])
    if 1 not in (len(matrix.rows), len(matrix.rows[0])) or len(flat) != len(group.items):
        return False
    told = all_of([same(Quantity(node), item) for node, item in zip(flat, group.items, strict=True)])
    return told if group.left == "<<" else doubtful(told)


def _based(gold: Based, answer: Based) -> Told:
    return gold == answer


_PAIRS: tuple[tuple[tuple[type, type], Callable[..., Told]], ...] = (
    ((Group, Group), _groups),
    ((Matrix, Matrix), _matrices),
    ((Matrix, Group), _column),
    ((Matrix, Quantity), lambda matrix, quantity: None if matrix.kind == "vmatrix" else False),
    ((Ratio, Ratio), notations.ratios),
    ((Ratio, Quantity), notations.ratio_number),
    ((Clock, Clock), notations.clocks),
    ((Clock, Ratio), notations.clock_ratio),
    ((Clock, Quantity), notations.clock_number),
    ((Based, Based), _based),
    ((Congruence, Congruence), notations.congruences),
    ((Congruence, Quantity), notations.congruence_number),
    ((NamedSet, NamedSet), lambda gold, answer: gold == answer),
)
