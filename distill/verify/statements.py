"""Whole answers: from tokens to a value, every token used or Unreadable.

Lists, tuples, intervals and their unions, relations and what they say about one variable, matrices, units, words,
times, ratios, numerals in a base. Knows nothing about comparing.
"""

from __future__ import annotations

from distill.verify import spans
from distill.verify.cursor import END, OPENING
from distill.verify.measures import RELATIONS, Measures
from distill.verify.relations import assembled, related, times
from distill.verify.tidy import Unreadable
from distill.verify.values import (
    ALL,
    POSITIVE,
    Based,
    Congruence,
    Group,
    Listing,
    Matrix,
    NamedSet,
    Node,
    Quantity,
    Real,
    Relation,
    Value,
    Words,
    symbols,
)

_ELLIPSIS = Words("...")


class Statements(Measures):
    """Reads a statement; its parts are clauses, its clauses sides around relation signs."""

    def statement(self) -> Value:
        clauses, joints = self.clauses()
        if self.next is not END:
            raise Unreadable(f"{self.next.text!r} at {self.at}")
        return assembled(clauses, joints)

    def clauses(self) -> tuple[list[Value], list[str]]:
        """Clauses and what stands between them: `,`, `;`, `or` or `and`."""
        found, joints = [self.clause()], []
        while (joint := self.joint()) is not None:
            if self.next is END:
                if joint in ("or", "and"):
                    raise Unreadable("nothing after a joint")
                break
            found.append(self.clause())
            joints.append(joint)
        return found, joints

    def joint(self) -> str | None:
        found = None
        while True:
            token = self.next
            if token.kind == "op" and token.text in (",", ";"):
                found = found or token.text
            elif token.kind == "word" and token.text.lower() in ("or", "and"):
                found = token.text.lower()
            elif token.kind == "op" and token.text == "." and self.at + 1 == len(self.tokens):
                pass
            else:
                return found
            self.at += 1

    def relation(self) -> str | None:
        token = self.next
        found = None
        if token.kind in ("op", "cmd"):
            found = token.text if token.text in RELATIONS else None
        elif self.is_equals():
            found = "="
        if found is not None:
            self.at += 1
        return found

    def clause(self) -> Value:
        sides: list[Value | None] = [None if self._at_relation() else self.side()]
        operators: list[str] = []
        while (operator := self.relation()) is not None:
            operators.append(operator)
            sides.append(self.side())
        if not operators:
            assert sides[0] is not None
            return self.modulo(sides[0])
        return self.modulo(related(sides, operators))

    def _at_relation(self) -> bool:
        return self.next.kind in ("op", "cmd") and self.next.text in RELATIONS

    def modulo(self, value: Value) -> Value:
        """`value` as a congruence where `(mod n)` follows it."""
        start = self.at
        if self.is_sign("pmod"):
            self.at += 1
            modulus = self.script()
        elif self.is_sign("(") and self.peek(1).text in ("mod", "bmod"):
            self.at += 2
            modulus = self.expression()
            self.expect(")")
        elif self.next.text in ("mod", "bmod"):
            self.at += 1
            modulus = self.expression()
        else:
            return value
        name = ""
        if isinstance(value, Relation) and value.operator == "=" and isinstance(value.left, Quantity):
            name, value = "".join(symbols(value.left.node)), value.right
        if not isinstance(value, Quantity) or value.unit is not None:
            raise Unreadable(f"a modulus at {start}")
        return Congruence(value.node, modulus, name)

    # --- one side of a relation ---------------------------------------------------------------------------------------

    def side(self) -> Value:
        value = self.operand()
        while self.next.kind == "cmd" and self.next.text in ("cup", "cap", "setminus"):
            operator = self.next.text
            self.at += 1
            value = spans.combined(value, operator, self.operand())
        if self.is_sign("setminus"):
            raise Unreadable("setminus")
        return value

    def operand(self) -> Value:
        token = self.next
        if token.kind == "set":
            self.at += 1
            return {"R": ALL, "R+": POSITIVE}.get(token.text) or NamedSet(token.text)
        if token.kind == "based":
            self.at += 1
            digits, base = token.text.split("_")
            return Based(int(digits, int(base)), int(base))
        if token.kind == "cmd":
            if token.text == "emptyset":
                self.at += 1
                return Listing((), braces=True)
            if token.text == "ldots":
                self.at += 1
                return _ELLIPSIS
            if token.text.startswith("begin "):
                return self.matrix()
        if token.kind in ("op", "cmd") and token.text in OPENING and token.text != "{":
            if token.text in ("(", "[") and self.peek(1).text.startswith("begin "):
                self.at += 1
                value = self.matrix()
                self.at += 1  # the brackets were paired before
                return value
            several = self.at in self.several
            if several and self._ends_after(self.partner[self.at]):
                return self.brackets()
            if token.text in ("\\{", "<<"):
                return self.brackets()
        if token.kind == "word":
            return self.wording()
        if self._is_named_point():
            self.at += 1
            point = self.brackets()
            return _chosen(point) if token.text == "C" else point
        found = self.measured(())
        if self.next.text.startswith("begin ") and isinstance(found, Quantity) and found.unit is None:
            return times(found.node, self.matrix())
        return found

    def _is_named_point(self) -> bool:
        name, bracket = self.next, self.at + 1
        if name.kind != "name" or not name.text.isupper() or bracket not in self.several:
            return False
        return self._ends_after(self.partner[bracket])

    def _ends_after(self, at: int) -> bool:
        """Whether a bracket that closes there is a whole operand, no factor of anything."""
        following = self.tokens[at + 1] if at + 1 < len(self.tokens) else END
        return following.kind in ("end", "word") or following.text in (
            *RELATIONS, ",", ";", ")", "]", "\\}", ">>", "cup", "cap", "setminus", ".", "|",
        )  # fmt: skip

    def brackets(self) -> Value:
        opened, closes = self.next.text, self.partner[self.at]
        self.at += 1
        if opened == "\\{":
            return self.braces(closes)
        clauses, joints = self.clauses()
        if self.at != closes or any(joint in ("or", "and") for joint in joints):
            raise Unreadable("brackets")
        closing = self.next.text
        self.at += 1
        return Group(tuple(clauses), opened, closing)

    def braces(self, closes: int) -> Value:
        """A set: its elements, or a variable and what holds for it."""
        if self.at == closes:
            self.at += 1
            return Listing((), braces=True)
        if self.next.kind == "name":
            bar = next(
                (at for at in range(self.at + 1, min(closes, self.at + 5)) if self.tokens[at].text in ("|", ":")), None
            )
            if bar is not None:
                return self.builder(bar, closes)
        clauses, joints = self.clauses()
        if self.at != closes or any(joint == "or" for joint in joints):
            raise Unreadable("braces")
        self.at += 1
        return Listing(tuple(clauses), braces=True)

    def builder(self, bar: int, closes: int) -> Value:
        domain = self.tokens[self.at + 1 : bar]
        if domain and [token.text for token in domain] != ["in", "R"]:
            raise Unreadable("a set of other than real numbers")
        self.at = bar + 1
        clauses, joints = self.clauses()
        if self.at != closes:
            raise Unreadable("a set")
        self.at += 1
        value = assembled(clauses, joints)
        if not isinstance(value, Real):
            raise Unreadable("a set by other than inequalities")
        return value

    def matrix(self) -> Matrix:
        kind = self.next.text.split()[1]
        if kind not in ("matrix", "pmatrix", "bmatrix", "vmatrix", "Bmatrix", "array", "smallmatrix"):
            raise Unreadable(kind)
        self.at += 1
        rows: list[tuple[Node, ...]] = []
        row: list[Node] = []
        while not self.is_sign(f"end {kind}"):
            row.append(self.expression())
            if self.take("&"):
                continue
            rows.append(tuple(row))
            row = []
            if not self.take("\\") and not self.is_sign(f"end {kind}"):
                raise Unreadable("a matrix")
        self.at += 1
        if not rows or len({len(entries) for entries in rows}) != 1:
            raise Unreadable("rows of different lengths")
        value = Matrix(tuple(rows), "vmatrix" if kind == "vmatrix" else "matrix")
        if self.is_sign("^"):
            raise Unreadable("a power of a matrix")
        return value


def _chosen(point: Value) -> Value:
    """`C(10, 4)` is a binomial coefficient, where both are whole numbers."""
    nodes = [item.node for item in point.items if isinstance(item, Quantity)] if isinstance(point, Group) else []
    if len(nodes) == 2 and all(node[0] == "num" and node[1].denominator == 1 and node[1] >= 0 for node in nodes):
        return Quantity(("binom", nodes[0], nodes[1]))
    return point
