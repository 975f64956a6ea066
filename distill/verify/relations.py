"""What relations and lists of them say: a chain of equations one value, inequalities in a variable a set of numbers.

Knows nothing about tokens or comparing answers.
"""

from __future__ import annotations

from distill.verify import spans
from distill.verify.measures import added
from distill.verify.numbers import equal
from distill.verify.tidy import Unreadable
from distill.verify.values import Listing, Matrix, NamedSet, Node, Quantity, Real, Relation, Value, symbols


def related(sides: list[Value | None], operators: list[str]) -> Value:
    """What a chain of relations says."""
    if operators[0] in ("<", ">", "leq", "geq", "neq") and set(operators) <= {"<", ">", "leq", "geq", "neq"}:
        return spans.of_inequalities(sides, operators)
    first = sides[0]
    if first is None or None in sides:
        if operators == ["="] or operators == ["approx"]:
            assert sides[1] is not None
            return sides[1]
        raise Unreadable("half a relation")
    found = [side for side in sides if side is not None]
    if operators == ["in"] or operators == ["notin"]:
        return _membership(operators[0], found[0], found[1])
    if operators == ["equiv"] or operators == ["rightarrow"]:
        return Relation("=" if operators == ["equiv"] else "rightarrow", found[0], found[1])
    if set(operators) <= {"=", "approx"}:
        return _equation(found, operators)
    raise Unreadable("a chain of relations")


def _membership(operator: str, left: Value, right: Value) -> Value:
    name = left.node[1] if isinstance(left, Quantity) and left.node[0] == "sym" else None
    if operator == "in" and name is not None and not isinstance(right, NamedSet):
        if isinstance(right, Listing):
            return Relation("=", left, right)
        real = spans.as_real(right)
        if real is not None:
            return Real(real.spans, name)
    if operator == "notin" and name is not None and (real := spans.as_real(right)) is not None:
        return Real(spans.complement(real.spans), name)
    return Relation(operator, left, right)


def _equation(sides: list[Value], operators: list[str]) -> Value:
    """Of `x = 1/2 = 0.5` the variable and one value; of `3 + 4 = 7` the value. All constant sides have to agree."""
    exact = sides
    also: Value | None = None
    if operators[-1] == "approx" and len(sides) > 1:
        exact, also = sides[:-1], sides[-1]
        if len(exact) == 1 and isinstance(exact[0], Quantity) and symbols(exact[0].node):
            exact, also = sides, None
    nodes = [side.node for side in exact if isinstance(side, Quantity)]
    free = [symbols(node) for node in nodes]
    if len(nodes) == len(exact) > 1 and not free[-1]:
        constant = [node for node, names in zip(nodes, free, strict=True) if not names]
        if any(equal(node, constant[-1]) is not True for node in constant[:-1]):
            raise Unreadable("sides that are not equal")
        if len(constant) == len(exact):
            return _with_also(exact[-1], also)
    elif len(exact) > 2:
        raise Unreadable("a chain of equations")
    if len(exact) == 1:
        return _with_also(exact[0], also)
    return Relation("=", exact[0], _with_also(exact[-1], also))


def _with_also(value: Value, also: Value | None) -> Value:
    if also is None:
        return value
    if not isinstance(value, Quantity) or not isinstance(also, Quantity):
        raise Unreadable("an approximation")
    return Quantity(value.node, value.unit or also.unit, value.scale, also.node, value.loose)


def times(factor: Node, matrix: Matrix) -> Matrix:
    """Every entry multiplied. Raises Unreadable for a determinant."""
    if matrix.kind != "matrix":
        raise Unreadable("a multiple of a determinant")
    return Matrix(tuple(tuple(("mul", (factor, entry)) for entry in row) for row in matrix.rows), matrix.kind)


def assembled(clauses: list[Value], joints: list[str]) -> Value:
    """One value of the clauses of a statement."""
    if len(clauses) == 1:
        return clauses[0]
    if all(isinstance(clause, Real) for clause in clauses):
        return spans.joined([clause for clause in clauses if isinstance(clause, Real)], joints)
    if isinstance(clauses[0], Real) and all(isinstance(clause, Quantity) for clause in clauses[1:]):
        return spans.without(clauses[0], [clause.node for clause in clauses[1:] if isinstance(clause, Quantity)])
    if isinstance(clauses[0], Quantity) and "or" not in joints:
        try:
            total = clauses[0]
            for clause in clauses[1:]:
                total = added(total, clause)
            return total
        except Unreadable:
            pass
    return Listing(tuple(clauses))
