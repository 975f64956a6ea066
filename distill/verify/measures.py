"""Numbers with their units, and words: what can stand on one side of a relation beside lists and sets.

Knows nothing about relations or comparing.
"""

from __future__ import annotations

import re
from fractions import Fraction

from distill.verify.cursor import END
from distill.verify.reading import MONEY, Expressions
from distill.verify.tidy import Unreadable
from distill.verify.units import (
    AMOUNTS,
    COUNTED,
    FILLING,
    FRACTIONS,
    NUMBER_WORDS,
    SCALES,
    SYMBOLS,
    TURNING,
    UNITS,
    Unit,
    number_of,
    split,
    stem,
    unit_of,
)
from distill.verify.values import Clock, Node, Quantity, Ratio, Value, Words, number, symbols

_ANOTHER = split("per each every square cube cubic ago before off debt")
"""Words beside a unit that make another quantity of it: a rate, an area, a point in time."""
RELATIONS = frozenset(("=", "<", ">", "leq", "geq", "neq", "approx", "in", "notin", "equiv", "rightarrow"))
IS = frozenset(("is", "equals", "are"))
_NOON = {"noon": Clock(12, 0, 0, "pm"), "midnight": Clock(12, 0, 0, "am")}
MOST_WORDS = 24
"""Words before a number, beyond which it is a sentence and no answer."""


class Measures(Expressions):
    """Reads a number with its unit, or words."""

    def is_equals(self) -> bool:
        """Whether the next word says `=`: `is` before a number, no comment such as `is the smallest one`."""
        following = self.peek(1)
        worded = following.kind == "word" and following.text.lower() not in NUMBER_WORDS
        return self.next.kind == "word" and self.next.text.lower() in IS and not worded and following is not END

    def wording(self) -> Value:
        """Words alone are an answer; a number among them is one where no word turns its meaning."""
        words: list[str] = []
        while self.next.kind == "word" and self.next.text.lower() not in ("or", *IS):
            if self.next.text.lower() == "and" and not (words and words[-1].lower() in ("hundred", "thousand")):
                break
            words.append(self.next.text)
            self.at += 1
        self.take(":")
        token = self.next
        if token.kind == "word" and token.text.lower() in IS and self.peek(1).kind in ("num", "op", "cmd", "name"):
            self.at += 1
        elif token.kind == "word" and token.text.lower() in IS:
            while self.next.kind == "word":
                words.append(self.next.text)
                self.at += 1
        if self._ends_words():
            return self.spelled(words)
        turning = [word for word in words if word.lower() in TURNING]
        negative = bool(words) and words[-1].lower() in ("negative", "minus") and len(turning) == 1
        if turning and not negative:
            raise Unreadable("words that turn the meaning")
        if words and words[-1].lower() == "of" and (len(words) < 2 or words[-2].lower() not in AMOUNTS):
            raise Unreadable("something of a number")
        if len(words) > MOST_WORDS:
            raise Unreadable("a sentence")
        value = self.measured(tuple(words))
        if negative and isinstance(value, Quantity):
            return Quantity(("neg", value.node), value.unit, value.scale)
        return value

    def _ends_words(self) -> bool:
        token = self.next
        return token is END or token.text in (",", ";", ")", "]", "\\}", ".", *RELATIONS) or (token.kind == "word")

    def spelled(self, words: list[str]) -> Value:
        above = number_of(words[:-1]) if words and words[-1].lower() in FRACTIONS else None
        if above is not None:
            return Quantity(number(Fraction(above, FRACTIONS[words[-1].lower()])))
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
        first = self.quantity(before)
        if self.is_sign(":") and first.unit is None:
            return self.ratio(first.node)
        if self.next.kind == "num" and first.unit is not None and first.unit.dimensions:
            return added(first, self.measured(before))
        return first

    def quantity(self, before: tuple[str, ...] = ()) -> Quantity:
        """An expression with the scale word and the unit behind it."""
        self.currency = None
        node = self.expression()
        currency = self.currency
        if self.is_sign("/") and self.tokens[self.at - 1].kind == "name" and self.tokens[self.at - 1].text in SYMBOLS:
            raise Unreadable("a unit, half of it a variable")  # `5 J/mol`
        scale, parts = self.tail()
        marked = node[1] if node[0] == "neg" else node
        if marked[0] in ("deg", "pct") and not parts:
            unit = unit_of(["degree" if marked[0] == "deg" else "percent"])
            return Quantity(marked[1] if marked is node else ("neg", marked[1]), unit, scale, loose=self.loose)
        if currency is not None and (not parts or parts[0].lower() in ("per", "/", "a", "an", "each")):
            parts = [{"dollar": "$"}.get(currency, currency), *parts]
        first = Quantity(node, self._unit(parts, before), scale, loose=self.loose)
        if first.unit is not None and first.unit.words and symbols(node):
            raise Unreadable("words after a variable")
        return first

    def ratio(self, node: Node) -> Value:
        items = [node]
        while self.take(":"):
            items.append(self.expression())
        return Ratio(tuple(items))

    def tail(self) -> tuple[int, list[str]]:
        """Scale words after a number, and the words and signs of its unit."""
        scale, closes = 1, -1
        parts: list[str] = []
        while True:
            token = self.next
            lower = token.text.lower()
            if token.kind == "word":
                if lower in ("or", "and") or self.is_equals():
                    break
                if lower == "mod":
                    break
                if lower in SCALES and not parts:
                    scale *= SCALES[lower]
                else:
                    parts.append(token.text)
            elif token.kind == "name" and parts and parts[-1] in ("/", "per", "*"):
                parts.append(token.text)
            elif token.text in ("^", "**") and parts and (power := self.unit_power()):
                parts += ["^", power]
                continue
            elif (
                token.text in ("/", "*")
                and parts
                and (self.peek(1).kind in ("word", "name") or self.peek(1).text == "(")
            ):
                parts.append(token.text)
            elif token.text == "/" and self.peek(1).kind == "word":
                parts.append("/")
            elif token.text == "(" and parts[-1:] == ["/"]:
                closes = self.partner[self.at]
            elif self.at == closes:
                pass
            elif token.text in MONEY and token.kind == "op" and not parts:
                parts.append({"dollar": "$"}.get(token.text, token.text))
            elif token.text == "%" and token.kind == "op":
                parts.append("%")
            else:
                break
            self.at += 1
        return scale, parts

    def unit_power(self) -> str:
        """The digit, with its sign, after the ^ that is next; goes past it. Empty where something else stands there."""
        following = [self.peek(ahead).text for ahead in range(1, 5)]
        braced = following[0] == "{"
        digits = following[1:] if braced else following
        negative = digits[0] == "-"
        digit = digits[negative]
        if not re.fullmatch(r"[1-9]", digit) or (braced and digits[negative + 1 : negative + 2] not in (["}"], [])):
            return ""
        self.at += 2 + negative + 2 * braced
        return "-" * negative + digit

    def _unit(self, parts: list[str], before: tuple[str, ...]) -> Unit | None:
        known = unit_of(parts) if parts else None
        if known is not None:
            return known
        if len(parts) > 1 and parts[0].lower() in ("more", "fewer", "less") and parts[1].lower() != "than":
            parts = parts[1:]  # `3 more apples`
        if parts and parts[0].lower() in FRACTIONS and parts[1:2] in ([], ["of"]):
            raise Unreadable("parts of one")  # `5 thousandths`
        if parts[:1] == ["/"] and stem(parts[1]) not in COUNTED:
            raise Unreadable("a division")
        words = [*before, *("per" if word == "/" else word for word in parts)]
        if any(word.lower() in TURNING for word in parts) or any(
            not re.fullmatch(r"[^\W\d_]+|/", word) for word in parts
        ):
            raise Unreadable("words that turn the meaning")
        told = tuple(sorted({stem(word) for word in words if word.lower() not in FILLING}))
        measures = [word for word in parts if word.lower() in UNITS and len(word) > 2]
        if len(measures) == 1 and _ANOTHER.isdisjoint(told):  # `5 hours later`
            return unit_of(measures)
        return Unit(words=told) if told else None


def added(first: Quantity, second: Value) -> Quantity:
    """One amount of two units of the same dimension, the larger first."""
    if not isinstance(second, Quantity) or first.unit is None or second.unit is None:
        raise Unreadable("two numbers")
    if first.unit.dimensions != second.unit.dimensions or first.unit.factor <= second.unit.factor:
        raise Unreadable("two amounts")
    share: Fraction = second.unit.factor / first.unit.factor
    node: Node = ("add", (first.node, ("mul", (second.node, number(share)))))
    return Quantity(node, first.unit, first.scale)
