"""Numbers as they are written: decimals, mixed, repeating, with an exponent. Knows nothing about expressions."""

from __future__ import annotations

from fractions import Fraction

from distill.verify.cursor import Cursor
from distill.verify.tidy import Unreadable
from distill.verify.values import Node, number


class Numerals(Cursor):
    """Reads a number from the tokens."""

    def numeral(self, *, mixed: bool = True) -> Node:
        """A number; with a fraction after it a mixed one; with an overline after its point a repeating one."""
        text = self.next.text
        self.at += 1
        if "e" in text or "E" in text:
            return _scientific(text)
        whole, _, places = text.partition(".")
        if self.next.kind == "name" and self.next.text.startswith("overline:"):
            raise Unreadable("a line over letters")
        mark = self.peek(1) if self.is_sign(".") else self.next
        if mark.kind == "cmd" and mark.text in ("overline", "bar", "dot", "ldots"):
            return self.repeating(whole, places, "." in text or self.is_sign("."))
        value = Fraction(int(whole + places or "0"), 10 ** len(places))
        node = number(value, len(places) if "." in text else None)
        part = self.fraction_part() if mixed and "." not in text else None
        return ("add", (node, part)) if part is not None else node

    def fraction_part(self) -> Node | None:
        r"""The `1/2` of `3 1/2`, or the `\frac{1}{2}` of `3\frac{1}{2}`: whole numbers, the upper one smaller."""
        if self.next.kind == "num" and self.peek(1).text == "/" and self.peek(2).kind == "num":
            above, below, used = self.next.text, self.peek(2).text, 3
        elif self.is_sign("frac"):
            texts = [token.text for token in self.tokens[self.at + 1 : self.at + 7]]
            if len(texts) >= 6 and [texts[0], texts[2], texts[3], texts[5]] == ["{", "}", "{", "}"]:
                above, below, used = texts[1], texts[4], 7
            elif texts and texts[0].isdigit() and len(texts[0]) == 2:
                above, below, used = texts[0][0], texts[0][1], 2
            else:
                return None
        else:
            return None
        if not (above.isdigit() and below.isdigit() and 0 < int(above) < int(below)):
            return None
        self.at += used
        return number(Fraction(int(above), int(below)))

    def repeating(self, whole: str, places: str, has_point: bool) -> Node:
        self.take(".")
        if self.next.text not in ("overline", "bar", "dot") or not has_point:
            raise Unreadable("digits that go on somehow")
        self.at += 1
        if self.take("{"):
            period = self.next.text
            self.at += 1
            self.expect("}")
        else:
            period = self.next.text
            self.at += 1
        if not period.isdigit():
            raise Unreadable("a line over no digits")
        value = Fraction(int(whole + places or "0"), 10 ** len(places))
        value += Fraction(int(period), 10 ** len(places) * (10 ** len(period) - 1))
        return number(value)


def _scientific(text: str) -> Node:
    digits, _, power = text.lower().partition("e")
    whole, _, places = digits.partition(".")
    return (
        "mul",
        (
            number(Fraction(int(whole + places or "0"), 10 ** len(places)), len(places)),
            ("pow", number(10), number(int(power))),
        ),
    )
