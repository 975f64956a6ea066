"""Whole answers: from tokens to a value, every token used or Unreadable.

Lists, tuples, intervals and their unions, relations and what they say about one variable, matrices, units, words,
times, ratios, numerals in a base. Knows nothing about comparing.
"""

from __future__ import annotations

import re

from distill.verify import spans
from distill.verify.cursor import END, OPENING
from distill.verify.evaluate import TooBigError, UndefinedError
from distill.verify.latex import Unreadable, tidy, tokens
from distill.verify.measures import RELATIONS, Measures
from distill.verify.relations import assembled, related, times
from distill.verify.values import (
    ALL,
    POSITIVE,
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

_CLOCK = re.compile(
    r"(\d{1,2})(?:[:.](\d{2})(?::(\d{2}))?)? ?(?:\\(?:text|mathrm) ?\{ ?)?"
    r"(?:([apAP])\.? ?[mM]\.?|(noon|midnight))? ?\}?"
)
_ARTICLE = re.compile(r"^((?:\\text ?\{)? ?)(?:an?|the|An?|The) (?=[A-Za-z]{3})")
_BASE_SAID = re.compile(
    r"([0-9A-F]{1,40}) ?(?:\\(?:text|mathrm) ?\{)? ?\(? ?(?:in )?base[ -](\d{1,2}|[a-z]{3,8}) ?\)? ?\}? ?\)?"
)
_EXCEPT = re.compile(
    r"(?:\\text ?\{)? ?(?:all )?real(?:s| numbers) (?:except|other than|but)(?: for)? ?\}? ?"
    r"((?:[a-z] ?= ?)?[^{}]{1,80}?)\}?"
)
_HOURS = re.compile(r"(\d{1,3}) ?h(?:rs?)? ?(\d{1,2}) ?m(?:in)?")
_RATIO_WORDS = re.compile(r"(\d{1,6})\s*(?:\\text\s*\{)?\s*to\s*\}?\s*(\d{1,6})")
_INTEGERS = re.compile(
    r",? ?\(? ?(?:\\text ?\{)? ?,? ?(?:where|with|for(?: any| all| every| some)?)? ?(?:integers? ?\}? ?\$?([a-zA-Z])\$?"
    r"|\}? ?\$?([a-zA-Z])\$? ?(?:\\text ?\{)? ?(?:is |being )?(?:an|any) integer ?\}?) ?\)?$"
)
_ELLIPSIS = Words("...")


def read(text: str, *, separate: bool = False, units: bool = True) -> Value:
    """The value that a text says; `separate` and `units` as in `latex.tokens`. Raises Unreadable."""
    text = tidy(text)
    clock = _CLOCK.fullmatch(text)
    if clock is not None and int(clock[1]) < 25 and int(clock[2] or 0) < 60:
        half = {"a": "am", "p": "pm", "n": "pm", "m": "am"}.get((clock[4] or clock[5] or "")[:1].lower(), "")
        if half or (clock[2] and ":" in text):
            return Clock(int(clock[1]), int(clock[2] or 0), int(clock[3] or 0), half)
    based = _BASE_SAID.fullmatch(text)
    if based is not None:
        text = f"{based[1]}_{{{based[2]}}}"
    hours = _HOURS.fullmatch(text)
    if hours is not None:
        text = f"{hours[1]} hours {hours[2]} minutes"
    text = _ARTICLE.sub(r"\1", text)
    ratio = _RATIO_WORDS.fullmatch(text)
    if ratio is not None:
        return Ratio((number(int(ratio[1])), number(int(ratio[2]))))
    if text.startswith("]") or text.endswith("["):  # as intervals are written in France
        text = f"({text[1:]}" if text.startswith("]") else text
        text = f"{text[:-1]})" if text.endswith("[") else text
    excepted = _EXCEPT.fullmatch(text)
    if excepted is not None:
        points = spans.as_real(_as_set(read(excepted[1], separate=True)))
        if points is None:
            raise Unreadable("all numbers except something")
        return Real(spans.complement(points.spans))
    text = _INTEGERS.sub(lambda found: f", {found[1] or found[2]} \\in \\mathbb{{Z}}", text)
    try:
        return Statements(tokens(text, separate=separate, units=units)).statement()
    except (TooBigError, UndefinedError, RecursionError, KeyError, ValueError) as error:
        raise Unreadable(str(error)) from error


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


def _as_set(value: Value) -> Value:
    """`x = 2`, `2` or `2, 3` as the set of these numbers."""
    if isinstance(value, Relation) and value.operator == "=":
        value = value.right
    return Listing(value.items if isinstance(value, Listing) else (value,), braces=True)
