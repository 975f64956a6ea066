"""Do two equations or inequalities say the same? Yes where one is a multiple of the other, no where a root of one is
none of the other's. Knows nothing about text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distill.verify.evaluate import UNBASED, TooBigError, UndefinedError, evaluate, inexact
from distill.verify.numbers import _LOG, DIGITS, _point, equal, proportional
from distill.verify.quantities import all_of
from distill.verify.values import Node, Quantity, Relation, Value, symbols

TRIES = 3


def same_relations(gold: Relation, answer: Relation) -> bool | None:
    if gold.operator != answer.operator:
        return False
    left, right = _zero_form(gold), _zero_form(answer)
    if left is None or right is None:
        return _by_parts(gold, answer)
    if gold.operator in ("in", "notin", "rightarrow"):
        return _by_parts(gold, answer)
    if symbols(left) != symbols(right):
        return False
    told = proportional(left, right, positive=gold.operator in ("<", "leq"))
    if told and _is_solved(gold) != _is_solved(answer):
        return None  # `2x = 4` where `x = 2` was asked for
    if told is not False or gold.operator != "=":
        return told
    return _share_roots(left, right)


def _is_solved(relation: Relation) -> bool:
    """Whether it gives one variable a constant."""
    sides = [side.node for side in (relation.left, relation.right) if isinstance(side, Quantity)]
    return len(sides) == 2 and any(a[0] == "sym" and not symbols(b) for a, b in (sides, sides[::-1]))


def _by_parts(gold: Relation, answer: Relation) -> bool | None:
    from distill.verify.compare import same  # which asks this module: a relation holds values

    return all_of([same(gold.left, answer.left), same(gold.right, answer.right)])


def _zero_form(relation: Relation) -> Node | None:
    nodes = [_node(side) for side in (relation.left, relation.right)]
    if nodes[0] is None or nodes[1] is None:
        return None
    return ("add", (nodes[0], ("neg", nodes[1])))


def _node(side: Value) -> Node | None:
    return side.node if isinstance(side, Quantity) and side.unit is None else None


def _share_roots(a: Node, b: Node) -> bool | None:
    """False where a point of one curve does not lie on the other; None where they met at every point tried."""
    from mpmath import mp  # type: ignore[import-untyped]  # it ships no types

    names = sorted(symbols(a))
    with mp.workdps(DIGITS):
        for name in names:
            for number in range(TRIES):
                env: dict[str, Any] = {other: inexact(_point(other, number)) for other in names if other != name}
                env[UNBASED] = inexact(_LOG)
                for first, second in ((a, b), (b, a)):
                    try:
                        root = _root(_in(first, name, env))
                        if root is None:
                            continue
                        apart = abs(_in(second, name, env)(root))
                    except (TooBigError, UndefinedError, ZeroDivisionError, ValueError):
                        continue
                    if apart > mp.mpf(10) ** -12:
                        return False
    return None


def _in(node: Node, name: str, env: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda value: inexact(evaluate(node, {**env, name: value}))


def _root(function: Callable[[Any], Any]) -> Any:
    """Near 1.3 by the secant method, which finds complex roots from a complex start; None without success."""
    from mpmath import mp

    x0, x1 = mp.mpf("1.3"), mp.mpc("1.7", "0.4")
    f0, f1 = function(x0), function(x1)
    for _ in range(60):
        if abs(f1) < mp.mpf(10) ** -30:
            return x1
        if f1 == f0:
            return None
        x0, x1, f0 = x1, x1 - f1 * (x1 - x0) / (f1 - f0), f1
        f1 = function(x1)
    return None


__all__ = ["equal", "same_relations"]
