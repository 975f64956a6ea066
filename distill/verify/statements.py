"""Whole answers: from tokens to a value, every token used or Unreadable.

Lists, tuples, intervals and their unions, relations and what they say about one variable, matrices, units, words,
times, ratios, numerals in a base. Knows nothing about comparing.
"""

from __future__ import annotations

import re
from fractions import Fraction

from distill.verify import spans
from distill.verify.evaluate import TooBigError, UndefinedError
from distill.verify.latex import Token, Unreadable, tidy, tokens
from distill.verify.numbers import equal
from distill.verify.reading import END, MONEY, OPENING, Expressions
from distill.verify.units import FILLING, SCALES, NUMBER_WORDS, TURNING, UNITS, Unit, number_of, stem, unit_of
from distill.verify.values import (
    ALL,
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
    symbols,
)

_RELATIONS = {"=": "=", "<": "<", ">": ">", "leq": "leq", "geq": "geq", "neq": "neq", "approx": "approx", "in": "in",
              "notin": "notin", "equiv": "equiv", "rightarrow": "rightarrow"}  # fmt: skip
_IS = frozenset(("is", "equals", "are"))
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:\\text\s*\{\s*)?([apAP])?\.?\s?(?(4)[mM]\.?)\s*\}?")
_NOON = {"noon": Clock(12, 0, 0, "pm"), "midnight": Clock(12, 0, 0, "am")}
_RATIO_WORDS = re.compile(r"(\d{1,6})\s*(?:\\text\s*\{)?\s*to\s*\}?\s*(\d{1,6})")
_INTEGERS = re.compile(
    r",?\s*\(?\s*(?:\\text\s*\{)?\s*,?\s*(?:where|with|for(?: any| all| every| some)?)?\s*(?:integers?\s*\}?\s*\$?([a-zA-Z])\$?"
    r"|\}?\s*\$?([a-zA-Z])\$?\s*(?:\\text\s*\{)?\s*(?:is|being)?\s*(?:an|any)\s+integer\s*\}?)\s*\)?\s*$"
)
_ELLIPSIS = Words("...")


def read(text: str, *, separate: bool = False) -> Value:
    """The value that a text says. Raises Unreadable."""
    text = tidy(text)
    clock = _CLOCK.fullmatch(text)
    if clock is not None and int(clock[1]) < 25 and int(clock[2]) < 60:
        half = {"a": "am", "p": "pm"}.get((clock[4] or "").lower(), "")
        return Clock(int(clock[1]), int(clock[2]), int(clock[3] or 0), half)
    ratio = _RATIO_WORDS.fullmatch(text)
    if ratio is not None:
        return Ratio((number(int(ratio[1])), number(int(ratio[2]))))
    text = _INTEGERS.sub(lambda found: f", {found[1] or found[2]} \\in \\mathbb{{Z}}", text)
    try:
        return Statements(tokens(text, separate=separate)).statement()
    except (TooBigError, UndefinedError, RecursionError, KeyError) as error:
        raise Unreadable(str(error)) from error


class Statements(Expressions):
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
            found = _RELATIONS.get(token.text)
        elif self._is_equals():
            found = "="
        if found is not None:
            self.at += 1
        return found

    def _is_equals(self) -> bool:
        """Whether the next word says `=`: `is` before a number, no comment such as `is the smallest one`."""
        following = self.peek(1)
        worded = following.kind == "word" and following.text.lower() not in NUMBER_WORDS
        return self.next.kind == "word" and self.next.text.lower() in _IS and not worded and following is not END

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
        return self.next.kind in ("op", "cmd") and self.next.text in _RELATIONS

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
            return ALL if token.text == "R" else NamedSet(token.text)
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
            several = self.at in self.several
            if several and self._ends_after(self.partner[self.at]):
                return self.brackets()
            if token.text in ("\\{", "<<"):
                return self.brackets()
        if token.kind == "word":
            return self.wording()
        return self.measured(())

    def _ends_after(self, at: int) -> bool:
        """Whether a bracket that closes there is a whole operand, no factor of anything."""
        following = self.tokens[at + 1] if at + 1 < len(self.tokens) else END
        return following.kind in ("end", "word") or following.text in (
            *_RELATIONS, ",", ";", ")", "]", "\\}", ">>", "cup", "cap", "setminus", ".", "|",
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
            bar = next((at for at in range(self.at + 1, min(closes, self.at + 5)) if self.tokens[at].text in ("|", ":")), None)
            if bar is not None:
                return self.builder(bar, closes)
        clauses, joints = self.clauses()
        if self.at != closes or any(joint in ("or",) for joint in joints):
            raise Unreadable("braces")
        self.at += 1
        return Listing(tuple(clauses), braces=True)

    def builder(self, bar: int, closes: int) -> Value:
        domain = self.tokens[self.at + 1 : bar]
        if domain and [token.text for token in domain] not in (["in", "R"],):
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

    def matrix(self) -> Value:
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

    # --- words and units ----------------------------------------------------------------------------------------------

    def wording(self) -> Value:
        """Words alone are an answer; a number among them is one where no word turns its meaning."""
        words: list[str] = []
        while self.next.kind == "word" and self.next.text.lower() not in ("or", *_IS):
            if self.next.text.lower() == "and" and not (words and words[-1].lower() in ("hundred", "thousand")):
                break
            words.append(self.next.text)
            self.at += 1
        self.take(":")
        token = self.next
        if token.kind == "word" and token.text.lower() in _IS and self.peek(1).kind in ("num", "op", "cmd", "name"):
            self.at += 1
        elif token.kind == "word" and token.text.lower() in _IS:
            while self.next.kind == "word":
                words.append(self.next.text)
                self.at += 1
        if self._ends_words():
            return self.spelled(words)
        turning = [word for word in words if word.lower() in TURNING]
        negative = bool(words) and words[-1].lower() in ("negative", "minus") and len(turning) == 1
        if turning and not negative:
            raise Unreadable("words that turn the meaning")
        if len(words) > 24:
            raise Unreadable("a sentence")
        value = self.measured(tuple(words))
        if negative and isinstance(value, Quantity):
            return Quantity(("neg", value.node), value.unit, value.scale)
        return value

    def _ends_words(self) -> bool:
        token = self.next
        return token is END or token.text in (",", ";", ")", "]", "\\}", ".", *_RELATIONS) or (
            token.kind == "word"
        )

    def spelled(self, words: list[str]) -> Value:
        for length in range(len(words), 0, -1):
            found = number_of(words[:length])
            if found is not None:
                return Quantity(number(found), self._unit(words[length:], ()))
        lowered = [word.lower() for word in words]
        if lowered and lowered[0] in ("negative", "minus") and (found := number_of(words[1:])) is not None:
            return Quantity(number(-found))
        if len(words) == 1 and lowered[0] in _NOON:
            return _NOON[lowered[0]]
        while lowered and lowered[0] in ("the", "a", "an", "it", "they", "answer"):
            lowered.pop(0)
        return Words(" ".join(lowered))

    def measured(self, before: tuple[str, ...]) -> Value:
        """An expression with its unit; a second one after it where both make one amount: `5 feet 6 inches`."""
        self.currency = None
        node = self.expression()
        if self.is_sign(":"):
            return self.ratio(node)
        currency = self.currency
        scale, parts = self.tail()
        if node[0] in ("deg", "pct") and not parts:
            unit = unit_of(["degree" if node[0] == "deg" else "percent"])
            return Quantity(node[1], unit, scale, loose=self.loose)
        if currency is not None and (not parts or parts[0].lower() in ("per", "/", "a", "an", "each")):
            parts = [{"dollar": "$"}.get(currency, currency), *parts]
        first = Quantity(node, self._unit(parts, before), scale, loose=self.loose)
        if self.next.kind == "num" and first.unit is not None and first.unit.dimensions:
            return _added(first, self.measured(before))
        return first

    def ratio(self, node: Node) -> Value:
        items = [node]
        while self.take(":"):
            items.append(self.expression())
        return Ratio(tuple(items))

    def tail(self) -> tuple[int, list[str]]:
        """Scale words after a number, and the words and signs of its unit."""
        scale, parts = 1, []
        while True:
            token = self.next
            lower = token.text.lower()
            if token.kind == "word":
                if lower in ("or", "and") or self._is_equals():
                    break
                if lower == "mod":
                    break
                if lower in SCALES and not parts:
                    scale *= SCALES[lower]
                else:
                    parts.append(token.text)
            elif token.kind == "name" and parts and parts[-1] in ("/", "per", "*"):
                parts.append(token.text)
            elif token.text in ("/", "^", "*") and parts and self.peek(1).kind in ("word", "num", "name", "op"):
                if self.peek(1).kind == "op" and (self.peek(1).text, self.peek(2).kind, self.peek(3).text) != ("{", "num", "}"):
                    break
                parts.append(token.text)
                if self.peek(1).kind == "op":
                    self.at += 1
                    parts.append(self.peek(1).text)
                    self.at += 2
                elif token.text == "^":
                    self.at += 1
                    parts.append(self.next.text)
            elif token.text == "/" and self.peek(1).kind == "word":
                parts.append("/")
            elif token.text in MONEY and token.kind == "op" and not parts:
                parts.append({"dollar": "$"}.get(token.text, token.text))
            elif token.text == "%" and token.kind == "op":
                parts.append("%")
            else:
                break
            self.at += 1
        return scale, parts

    def _unit(self, parts: list[str], before: tuple[str, ...]) -> Unit | None:
        known = unit_of(parts) if parts else None
        if known is not None:
            return known
        words = [word for word in (*before, *parts)]
        if any(word.lower() in TURNING for word in parts) or any(not re.fullmatch(r"[A-Za-z]+", word) for word in parts):
            raise Unreadable("words that turn the meaning")
        told = tuple(sorted({stem(word) for word in words if word.lower() not in FILLING}))
        measures = [word for word in parts if word.lower() in UNITS and len(word) > 2]
        if len(measures) == 1:  # `5 hours later`
            return unit_of(measures)
        return Unit(words=told) if told else None


def _added(first: Quantity, second: Value) -> Quantity:
    """One amount of two units of the same dimension, the larger first."""
    if not isinstance(second, Quantity) or first.unit is None or second.unit is None:
        raise Unreadable("two numbers")
    if first.unit.dimensions != second.unit.dimensions or first.unit.factor <= second.unit.factor:
        raise Unreadable("two amounts")
    share: Fraction = second.unit.factor / first.unit.factor
    node: Node = ("add", (first.node, ("mul", (second.node, number(share)))))
    return Quantity(node, first.unit, first.scale)


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


def assembled(clauses: list[Value], joints: list[str]) -> Value:
    """One value of the clauses of a statement."""
    if len(clauses) == 1:
        return clauses[0]
    if all(isinstance(clause, Real) for clause in clauses):
        return spans.joined([clause for clause in clauses if isinstance(clause, Real)], joints)
    if isinstance(clauses[0], Quantity) and "or" not in joints:
        try:
            total = clauses[0]
            for clause in clauses[1:]:
                total = _added(total, clause)
            return total
        except Unreadable:
            pass
    return Listing(tuple(clauses))


__all__ = ["Statements", "Token", "read"]
