"""What a mathematical answer can be: numbers with units, words, lists, tuples, intervals, relations, matrices, times.

An expression inside them is a tree of plain tuples, `Node`, whose first member names its kind. Frozen and hashable;
knows nothing about how they are written or compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from distill.verify.units import Unit

Node: TypeAlias = tuple[Any, ...]
"""("num", Fraction, decimals or None) · ("sym", name) · ("const", "pi" | "e" | "i") · ("inf",) · ("neg", a) ·
("add" | "mul", (a, b, …)) · ("div" | "pow" | "binom", a, b) · ("root", n, a) · ("fn", name, a) · ("log", base, a) ·
("fact" | "abs" | "deg" | "pct", a) · ("call", name, (a, …))"""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An expression, its unit where it has one, and the scale word that is not part of `node`: `15 million`.

    `also` is a rounded value given beside the exact one. `loose` marks a text that can be read as another expression.
    """

    node: Node
    unit: Unit | None = None
    scale: int = 1
    also: Node | None = None
    loose: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """Words that are an answer by themselves, lower case."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Values in brackets, in order: a tuple, a point, an interval or a vector."""

    items: tuple[Value, ...]
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Values whose order says nothing, unless there is an ellipsis among them; `braces` for a written set."""

    items: tuple[Value, ...]
    braces: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """An interval of the real line, a point where both ends are the same; ("inf",) and its negative for no end."""

    low: Node
    low_closed: bool
    high: Node
    high_closed: bool


@dataclass(frozen=True, slots=True)
class Real:
    """A set of real numbers as disjoint spans in order, and the variable that ranges over it where one was named."""

    spans: tuple[Span, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """`operator` is =, <, leq, neq, in, notin or rightarrow; > and geq are turned round."""

    operator: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Congruence:
    value: Node
    modulus: Node
    name: str = ""


@dataclass(frozen=True, slots=True)
class Matrix:
    """`kind` is matrix or vmatrix, a determinant."""

    rows: tuple[tuple[Node, ...], ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Ratio:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """`3:45 pm`: as written, hours, minutes, seconds; `half` is am, pm or empty."""

    hours: int
    minutes: int
    seconds: int = 0
    half: str = ""


@dataclass(frozen=True, slots=True)
class Based:
    """An integer in a base that was named."""

    value: int
    base: int


@dataclass(frozen=True, slots=True)
class NamedSet:
    """R, Z, N, Q, C, or R+ and the like."""

    name: str


Value: TypeAlias = (
    Quantity | Words | Group | Listing | Real | Relation | Congruence | Matrix | Ratio | Clock | Based | NamedSet
)


PLUS_MINUS: Node = ("sym", "±")
"""1 in one value of an expression with ± in it, -1 in the other."""


def number(value: int | Fraction, decimals: int | None = None) -> Node:
    return ("num", Fraction(value), decimals)


INF: Node = ("inf",)
MINUS_INF: Node = ("neg", INF)
ALL = Real((Span(MINUS_INF, False, INF, False),))
POSITIVE = Real((Span(("num", Fraction(0), None), False, INF, False),))


def symbols(node: Node) -> frozenset[str]:
    """The names in an expression, functions that were called included."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current[0] == "sym":
            found.add(current[1])
        elif current[0] == "call":
            found.add(current[1])
            waiting.extend(current[2])
        elif current[0] in ("add", "mul"):
            waiting.extend(current[1])
        else:
            waiting.extend(part for part in current[1:] if isinstance(part, tuple))
    return frozenset(found)


def substituted(node: Node, name: str, value: Node) -> Node:
    """`node` with every symbol of this name replaced."""
    if node == ("sym", name):
        return value
    return tuple(
        substituted(part, name, value)
        if isinstance(part, tuple) and part and isinstance(part[0], str)
        else tuple(substituted(inner, name, value) for inner in part)
        if isinstance(part, tuple)
        else part
        for part in node
    )
