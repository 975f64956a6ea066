"""One number as people write it, with its unit, and what a tolerance needs to know of how it was written.

`verify.measures` reads it, as it does for mathematics. Here stands what that does not tell: the place of the last
digit, whether a whole number was written, and the numbers of a sentence. A text that holds more than one number, or
anything else, is no quantity. Knows nothing about what a quantity is compared with.
"""

from __future__ import annotations

import decimal
import functools
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from distill.verify.cursor import END
from distill.verify.latex import FUNCTIONS, tokens
from distill.verify.measures import Measures
from distill.verify.numbers import value_of
from distill.verify.plain import unquoted, without_latex
from distill.verify.tidy import Unreadable, tidy, with_money
from distill.verify.units import SCALES, Unit, unit_of
from distill.verify.values import Node

_CONTEXT = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
MOST_DIGITS = 1_000
"""Digits before the point, or zeros behind it, of a number that is read: nothing real has more."""
DEEPEST = 4
"""Brackets within brackets: what has more is a calculation and not its result."""
SHORTEST_WORD = 4
"""Letters of a word that is one behind a digit as well, and no product of variables."""
PRECISION = 30
"""Significant digits of a number that is no fraction."""
_DIGITS = re.compile(r"-?[0-9]{1,15}")
_APPROX = re.compile(
    r"(?:\\(?:approx|sim|cong)(?![A-Za-z])|(?i:about|approximately|approx\.?|around|roughly|nearly|exactly|ca\.|约))\s*"
)
_EQUATION = re.compile(r"(?:==?|\\(?:approx|simeq|cong|doteq)(?![A-Za-z]))")
_SEVERAL = re.compile(r"[,;](?!\d{3}(?!\d))|\b(?:and|or)\b|\d\s+[A-Za-z]\s*$")
"""Between two equals signs: `x = 3, y = 4` ends with a number, and is not one."""
_OF_UNKNOWNS = re.compile(r"(?:\d\s*|[+*/^-]\s*|\}\s*)[A-Za-z](?![A-Za-z])|(?<![A-Za-z])[A-Za-z]\s*[+*/^-]")
"""Such a left side makes an equation of it, whose right side is no value: `3x - 4y = 12`."""
_RELATION = re.compile(
    r"[<>]|!=|\\(?:n?leq?(?:slant)?|n?geq?(?:slant)?|lt|gt|neq?|pm|mp|in|to|cup|infty|ldots|dots|cdots)(?![A-Za-z])"
)
_BRACKETED = re.compile(r"\(([^()]*)\)")
_TIMES = re.compile(r"(?<=\d)\s*x\s*(?=10\s*(?:\^|\*\*))")
_MICRO = re.compile(r"(?:\\mu(?![A-Za-z])|μ)\s*(?=[smgAFLCVHJWNTP])")
_HYPHEN = re.compile(r"(?<![A-Za-z])([A-Za-z]+)-(?=[A-Za-z])")
_BEHIND = re.compile(r"\s(?:from|without|that|which|when|after|before|until|between|instead|except)\s[^\d=]*$")
"""What a number of things is said of, and changes nothing about it: `200 pounds from small animals`."""
_REMARK = re.compile(r"(?<=[\w}%]) \(([A-Za-z][A-Za-z /.,'-]{0,40})\)$")
_OHM = re.compile(r"\\Omega(?![A-Za-z])")
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_POWER = r"\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*[+-]?\s*\d+\s*\}|[+-]?\d+)|[eE][+-]?\d+"
_AMONG_WORDS = re.compile(rf"(?<![\w.\\^{{/])(?:[+-]|(?<=\d )- )?(?:{_NUMBER})(?:{_POWER})?(?![\w/])")
_SCALE = re.compile(rf"\s*(?:{'|'.join(SCALES)})(?![A-Za-z])", re.IGNORECASE)
_MARK = re.compile(r"\s*(?:\\?%|\\deg|percent(?![A-Za-z]))", re.IGNORECASE)
_WORD = re.compile(r"\s?(?:[a-zA-Z]{3,12}|[ckm]m|kg)(?:(?:\s?/\s?|\sper\s)[a-z]{1,12})?(?![a-zA-Z])")


@dataclass(frozen=True, slots=True)
class Quantity:
    """`value` has its scale word in it (`scale` is 10^6 for a million), its percent sign not. `place` is the value of
    one unit of the last digit, None for what was computed; `whole` says that it is one without a fraction or exponent
    being written."""

    value: Decimal
    place: Decimal | None = None
    whole: bool = False
    percent: bool = False
    scale: Decimal = Decimal(1)
    unit: Unit | None = None

    def hundredth(self) -> Quantity:
        """The same read as a share: 50% is 0.5."""
        place = None if self.place is None else self.place / 100
        return replace(self, value=self.value / 100, place=place, whole=False, percent=False)


class _Reader(Measures):
    """Reads a text that is one number with its unit. Raises Unreadable for any other."""

    def only(self) -> Quantity:
        found = self.quantity()
        if self.next is not END or found.loose:
            raise Unreadable("more than a number, or two ways to read it")
        node, unit = found.node, found.unit
        marked = node[1] if node[0] == "neg" else node
        percent = marked[0] == "pct"
        if percent:
            node = marked[1] if marked is node else ("neg", marked[1])
        elif unit is not None and unit.dimensions[:1] == (("percent", 1),):
            percent, unit = True, None
        return _written(node, Decimal(found.scale), percent, unit)

    def expression(self) -> Node:
        if self.depth > DEEPEST:
            raise Unreadable("a calculation")
        return super().expression()

    def tail(self) -> tuple[int, list[str]]:
        glued = self.next.kind == "word" and not self.next.spaced
        scale, parts = super().tail()
        if parts and parts[0].lower() in ("pair", "pairs"):
            raise Unreadable("two of each")
        if parts and unit_of(parts) is None:
            short = glued and scale == 1 and len(parts[0]) < SHORTEST_WORD
            if short or parts[0][:-1] in FUNCTIONS:
                raise Unreadable("a product")  # `2xy`, `2sinx`
        return scale, parts


@functools.lru_cache(maxsize=4_096)
def read(text: str) -> Quantity | None:
    """The quantity that all of `text` is, with an equation's left side or an "about" in front; None for any other."""
    return _amount(text) if text.isdecimal() else _read(_tidied(text))


def value_behind(text: str) -> Quantity | None:
    """The quantity behind the last equals sign of a sentence, as far as its clause goes; None where there is none."""
    text = _tidied(text)
    before, after = _split(text)
    if not before or _RELATION.search(text) or _SEVERAL.search(before[before.find("=") + 1 :]):
        return None
    return _read(re.split(r"[,;]\s|[.!?](?:\s|$)", after, maxsplit=1)[0])


def numbers_in(text: str) -> list[Quantity] | None:
    """The plain numbers of a sentence, each with its scale word, percent sign or known unit; None where the sentence
    has other mathematics as well."""
    text, found = _tidied(text), []
    for match in _AMONG_WORDS.finditer(text):
        scale = _SCALE.match(text, match.end())
        end = match.end() if scale is None else scale.end()
        behind = _MARK.match(text, end) or _WORD.match(text, end)
        if behind is not None and (behind.re is _MARK or unit_of(re.findall(r"\w+|/", behind[0])) is not None):
            end = behind.end()
        quantity = _amount(text[match.start() : end])
        if quantity is not None:
            found.append(quantity)
    rest = re.sub(r"\\(?:[%$]|deg)", "", _AMONG_WORDS.sub("", text))
    return None if "\\" in rest or rest.count("=") > 1 or re.search(r"[\d)]\s*/\s*[\d(]", rest) else found


@functools.lru_cache(maxsize=64)
def _tidied(text: str) -> str:
    """Empty for what is no text at all."""
    try:
        text = unquoted(without_latex(tidy(with_money(text))))
    except Unreadable:
        return ""
    text = _TIMES.sub(r"\\times ", text) if "x" in text else text
    return _OHM.sub("ohm", _MICRO.sub("u", text)) if "\\" in text or not text.isascii() else text


def _read(text: str) -> Quantity | None:
    if _RELATION.search(text):
        return None
    before, text = _split(text)
    if before and (_SEVERAL.search(before) or _OF_UNKNOWNS.search(before.split("=")[0])):
        return None
    text = _APPROX.sub("", text, count=1) if _APPROX.match(text) else text
    bracketed = _BRACKETED.fullmatch(text)
    return _amount(_without_remark(text if bracketed is None else bracketed[1]))


def _split(text: str) -> tuple[str, str]:
    """What stands before the last equals sign and behind it; all is behind where there is none."""
    ends = [match.span() for match in _EQUATION.finditer(text)]
    return (text[: ends[-1][0]], text[ends[-1][1] :].strip()) if ends else ("", text)


def _without_remark(text: str) -> str:
    """`5 (approximately)` is `5`; a unit in brackets is one, and a scale word there is left."""
    text = _BEHIND.sub("", text)
    remark = _REMARK.search(text)
    if remark is None:
        return text
    words = re.findall(r"[a-z]+|/", remark[1].lower())
    if unit_of(re.findall(r"\w+|/", remark[1])) is not None:
        return f"{text[: remark.start()]} {remark[1]}"
    said = len(words[0]) >= 3 and not any(word in SCALES or word in FUNCTIONS for word in words)
    return text[: remark.start()] if said else text


def _amount(text: str) -> Quantity | None:
    if _DIGITS.fullmatch(text) is not None:  # most of all
        return Quantity(Decimal(text), Decimal(1), whole=True)
    try:
        with decimal.localcontext(_CONTEXT):
            return _Reader(tokens(_HYPHEN.sub(_without_hyphen, text), measured=True)).only()
    except (ValueError, ArithmeticError, RecursionError):  # Unreadable, and what has no value
        return None


def _without_hyphen(found: re.Match[str]) -> str:
    """Between two units, as in `kW-h`; behind a constant it is a minus sign."""
    return found[0] if found[1] in ("e", "pi") else f"{found[1]} "


def _written(node: Node, scale: Decimal, percent: bool, unit: Unit | None) -> Quantity:
    """Raises Unreadable for what is no real number, and for a unit inside of an expression."""
    if not _is_plain(node):
        raise Unreadable("a variable, or a unit in an expression")
    exact: Any = node[1] if node[0] == "num" else value_of(node, log=None)
    if exact is None or isinstance(exact, float) or exact.imag != 0:
        raise Unreadable("no real number")
    value = _decimal(exact * int(scale)) if isinstance(exact, Fraction) else _decimal(exact) * scale
    if value and not -MOST_DIGITS < value.adjusted() < MOST_DIGITS:
        raise Unreadable("too large or too small")
    place = _place(node)
    whole = isinstance(exact, Fraction) and exact.denominator == 1
    if place is not None:
        whole = whole and _is_whole(node)
        place *= scale
    return Quantity(value, place, whole, percent, scale, unit)


def _is_plain(node: Node) -> bool:
    """Whether it has no variables in it, and no degrees or percent."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current[0] in ("sym", "call", "deg", "pct"):
            return False
        waiting += current[1] if current[0] in ("add", "mul") else [part for part in current if isinstance(part, tuple)]
    return True


def _decimal(exact: Any) -> Decimal:
    if isinstance(exact, Fraction):
        return Decimal(exact.numerator) / exact.denominator if exact.denominator > 1 else Decimal(exact.numerator)
    from mpmath import mp  # type: ignore[import-untyped]  # it ships no types

    return Decimal(mp.nstr(exact.real, PRECISION))


def _place(node: Node) -> Decimal | None:
    """The value of one unit of the last digit of a decimal, with or without a power of ten; None for any other."""
    kind = node[0]
    if kind == "neg":
        return _place(node[1])
    if kind == "num":
        place = Decimal(1).scaleb(-(node[2] or 0))
        return place if node[1].denominator == 1 or (node[2] and node[1] * 10 ** node[2] % 1 == 0) else None
    if kind == "mul" and len(node[1]) == 2 and node[1][0][0] == "num" and node[1][1][0] == "pow":
        first, second = map(_place, node[1])
        return None if first is None or second is None else first * second
    if kind == "pow" and node[1][:2] == ("num", 10):
        raised, sign = (node[2][1], -1) if node[2][0] == "neg" else (node[2], 1)
        return (
            Decimal(1).scaleb(sign * raised[1].numerator) if raised[0] == "num" and raised[1].denominator == 1 else None
        )
    return None


def _is_whole(node: Node) -> bool:
    """Of a number that is whole: whether it is written as one, in digits alone or as a power of ten."""
    inner = node[1] if node[0] == "neg" else node
    return inner[0] == "pow" or (inner[0] == "num" and inner[2] is None)
