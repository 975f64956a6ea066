"""One number as people write it, with its unit: money, percent, thousands separators, powers of ten, fractions.

What is no plain number, such as `2\\sqrt{3}`, is read by math-verify and evaluated to 30 digits. A text that holds more
than one number, or anything else, is no quantity. Knows nothing about what a quantity is compared with.
"""

from __future__ import annotations

import decimal
import functools
import logging
import re
import unicodedata
from dataclasses import dataclass, replace
from decimal import Decimal

from distill.verify.plain import unquoted, without_latex
from distill.verify.units import unit_of

_CONTEXT = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
MOST_DIGITS = 1_000
"""Digits of one number, and the size of its exponent, that are read: nothing real has more."""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "×": "\\times ", "⋅": "\\cdot ", "·": "\\cdot ", "≈": "\\approx ", "π": "\\pi "}
)
_PLAIN = r"(?:\d{1,3}(?:(?:\{,\}|,)\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_SIGN = r"[+-]?\s*"
_POWER = r"\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*(?:\{\s*([+-]?\s*\d+)\s*\}|([+-]?\d+))"
_NUMBER = re.compile(
    rf"({_SIGN})(?:[€£¥]\s*)?({_SIGN})(?:10\s*(?:\^|\*\*)\s*(?:\{{\s*([+-]?\s*\d+)\s*\}}|([+-]?\d+))(?!\d)|"
    rf"({_PLAIN})(?:{_POWER}|[eE]([+-]?\d+)(?!\w))?)"
)
_AMONG_WORDS = re.compile(rf"(?<![\w.\\^{{/]){_NUMBER.pattern}(?![\w/])")
_DIGITS = re.compile(r"-?[0-9]{1,15}")
_FRAC = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?[\d.]+)\s*\}\s*\{\s*(-?[\d.]+)\s*\}|(\d)\s*(\d))")
_FRACTION = re.compile(
    rf"({_SIGN})(?:(\d+)\s+)?\(?\s*(-?\d+(?:\.\d+)?)\s*\)?\s*/\s*\(?\s*(-?\d+(?:\.\d+)?)\s*\)?(?![\d.^])"
)
_APPROX = re.compile(
    r"(?:\\(?:approx|sim(?:eq)?|cong)(?![A-Za-z])|~|(?i:about|approximately|approx\.?|around|roughly|nearly|exactly|ca\.|约))\s*"
)
_EQUATION = re.compile(r"(?:==?|\\approx|\\simeq|\\cong|\\doteq)(?![A-Za-z])")
_ROOT = re.compile(r"√\s*[({]?\s*(\d+(?:\.\d+)?)\s*[)}]?")
_DEGREE = re.compile(r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})|\s*\\degree")
_SEVERAL = re.compile(r"[,;](?!\d{3}(?!\d))|\b(?:and|or)\b|\d\s+[A-Za-z]\s*$")
"""Between two equals signs: `x = 3, y = 4` ends with a number, and is not one."""
_OF_UNKNOWNS = re.compile(r"(?:\d\s*|[+*/^-]\s*|\}\s*)[A-Za-z](?![A-Za-z])|(?<![A-Za-z])[A-Za-z]\s*[+*/^-]")
"""Such a left side makes an equation of it, whose right side is no value: `3x - 4y = 12`."""
_BRACKETED = re.compile(r"([({]+)\s*([^(){}]+?)\s*([)}]+)")
_RELATION = re.compile(
    r"[<>≤≥≠±∓]|!=|\\(?:n?leq?(?:slant)?|n?geq?(?:slant)?|lt|gt|neq?|pm|mp|in|to|cup|infty|ldots|dots|cdots)(?![A-Za-z])"
)

_SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES |= {"万": 10**4, "亿": 10**8}
_SCALE = re.compile(r"\s*(dozen|hundred|thousand|million|billion|trillion|万|亿)s?(?![A-Za-z])", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(?:\\?%|percent(?![A-Za-z])|per cent(?![A-Za-z]))", re.IGNORECASE)
_SYMBOL = (
    r"(?:(?:[fpnuµμmckMGT]|da)?(?:mol|bar|cal|Hz|Pa|eV|Wb|Bq|Gy|Sv|ohm|Ω|[mgsAKLlVWJNCFTHS])|[MhdFR]|cd|dm|dB|min|hr?s?|"
    r"sec|yrs?|rad|deg|°[CFK]?|℃|atm|torr|Torr|mmHg|ppm|ft|in|lbs?|oz|mi|mph|kmh|kph|rpm|amu|u|Å|"
    r"\\Omega|\\mu ?[mgsAFLCVJ]|\\AA)"
)
_WORD = r"[^\W\d_]{2,}"
_RAISED_TO = r"(?:\s?\^\s?(?:\{\s*-?\d\s*\}|-?\d)|[23](?!\d))?"
_UNIT_PART = rf"(?:{_SYMBOL}(?![A-Za-z])|{_WORD}){_RAISED_TO}\.?"
_JOIN = r"\s*(?:/|\\cdot|\*|\s|-|\bper\b)\s*"
_UNIT = re.compile(rf"\(?{_UNIT_PART}(?:{_JOIN}\(?{_UNIT_PART}\)?){{0,5}}\)?")
_GLUED = re.compile(rf"{_SYMBOL}(?![A-Za-z])")
_NEXT_UNIT = re.compile(r"\s?(?:[a-zA-Z]{3,12}|[ckm]m|kg)(?:(?:\s?/\s?|\sper\s)[a-z]{1,12})?(?![a-zA-Z])")
_CONNECTIVE = re.compile(
    r"(?i)\b(?:or|and|to|but|plus|minus|times|mod|if|for|where|dozen|pairs?|squared|cubed|"
    r"below|less|more|fewer|half|halves|quarters?|thirds?|not|is|tenths?|[a-z]+(?:dredth|sandth|lionth)s?)\b"
)
"""Words behind a number that make another of it, or none: no units."""
_CURRENCY = {"€": "euro", "£": "pound", "¥": "yen"}
_NAMES = {
    other: name
    for name, *others in map(
        str.split,
        (
            *("metre m meter", "kilometre km kilometer", "centimetre cm centimeter", "millimetre mm millimeter"),
            *(
                "second s sec",
                "minute min",
                "hour h hr hrs",
                "day d",
                "year yr yrs",
                "gram g",
                "kilogram kg",
                "milligram mg",
            ),
            *("litre l L liter", "joule J", "watt W", "newton N", "volt V", "ampere A amp", "kelvin K", "pascal Pa"),
            *("hertz Hz", "mole mol", "coulomb C", "degree ° deg", "inch in inches", "foot ft feet", "mile mi miles"),
            *(
                "pound lb lbs pounds",
                "dollar usd USD",
                "mile/hour mph",
                "kilometre/hour kph kmh",
                "Ω ohm \\Omega",
                "°C ℃",
            ),
        ),
    )
    for other in others
}
_EXPRESSION = re.compile(
    r"(?:\\(?:sqrt|[dt]?frac|pi|times|cdot|div|ln|log|exp|arc(?:sin|cos|tan)|sin|cos|tan|[dt]?binom)(?![A-Za-z])|sqrt|pi|e(?![A-Za-z])|"
    r"[\d.+\-*/^(){}\[\]!\s])+"
)
LONGEST_EXPRESSION = 200
"""Characters of an expression that is evaluated."""
DEEPEST = 4
"""Brackets within brackets of such an expression: the time that parsing takes grows exponentially with them."""
_TOO_LARGE = re.compile(
    r"\^[^^]{0,20}\^|\^[^^]{0,10}\d{5}|\d{4}\s*!|[^\d\s]\s*!|binom.*(?:\d{4}|[\^!])|(?:\\[a-z]{2,6}\s*){3}|"
    r"(?:/[^/]*){4}|[+-]\s*[+-]\s*[+-]|\d{100}"
)
"""Towers of powers and their like: no answer is one, and some take for ever."""
_NO_EXPRESSION = re.compile(r"\d\s+\d|\d\s*[eE]\s*[+-]?\d")
"""Two numbers side by side, and a power of ten that is too large to be read as a number."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """`value` has its scale word in it (`scale` is 10^6 for a million), its percent sign not. `place` is the value of
    one unit of the last digit, None for what was computed; `whole` says that it was written without fraction or
    exponent; `unit` is in a normal form, empty where there is none."""

    value: Decimal
    place: Decimal | None = None
    whole: bool = False
    percent: bool = False
    scale: Decimal = Decimal(1)
    unit: str = ""

    def hundredth(self) -> Quantity:
        """The same read as a share: 50% is 0.5."""
        place = None if self.place is None else self.place / 100
        return replace(self, value=self.value / 100, place=place, whole=False, percent=False)


@functools.lru_cache(maxsize=4_096)
def read(text: str) -> Quantity | None:
    """The quantity that all of `text` is, with an equation's left side or an "about" in front; None for any other."""
    if _DIGITS.fullmatch(text) is not None:  # most golds, and the answers to them
        return Quantity(Decimal(text), Decimal(1), whole=True)
    text = _tidied(text)
    with decimal.localcontext(_CONTEXT):
        return _read(text)


def value_behind(text: str) -> Quantity | None:
    """The quantity behind the last equals sign of a sentence, as far as its clause goes; None where there is none."""
    before, after = _split(_tidied(text))
    if not before or _RELATION.search(text) or _SEVERAL.search(before[before.find("=") + 1 :]):
        return None
    with decimal.localcontext(_CONTEXT):
        return _read(re.split(r"[,;]\s|[.!?](?:\s|$)", after, maxsplit=1)[0])


def numbers_in(text: str) -> list[Quantity] | None:
    """The plain numbers of a sentence, each with its scale word, percent sign or known unit; None where the sentence
    has other mathematics as well."""
    text, found = _tidied(text), []
    with decimal.localcontext(_CONTEXT):
        for match in _AMONG_WORDS.finditer(text):
            plain = _NUMBER.match(text, match.start())
            quantity = None if plain is None else _plain(plain)
            if quantity is not None:
                quantity, end = _scaled(quantity, text, match.end())
                percent, word = _PERCENT.match(text, end), _NEXT_UNIT.match(text, end)
                unit = "" if word is None or unit_of(re.findall(r"\w+|/", word[0])) is None else _unit(word[0])
                found.append(replace(quantity, percent=percent is not None, unit=unit))
    rest = _AMONG_WORDS.sub("", text).replace("\\%", "")
    return None if "\\" in rest or rest.count("=") > 1 or re.search(r"[\d)]\s*/\s*[\d(]", rest) else found


def _tidied(text: str) -> str:
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    text = text.translate(_SIGNS)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).replace("\u2044", "/").translate(_SIGNS)
    text = text.replace("\\!", "").replace("{,}", ",").replace("\\$", "USD ")
    if text.count("$") == 1:  # without its partner it is money, and no math mode
        text = text.replace("$", "USD ")
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = re.sub(r"°\s*(?=[CFK]\b)", "°", without_latex(_DEGREE.sub("° ", text)))
    return unquoted(text)


def _read(text: str) -> Quantity | None:
    if _RELATION.search(text):
        return None
    before, text = _split(text)
    if _SEVERAL.search(before) or _OF_UNKNOWNS.search(before.split("=")[0]):
        return None
    text = _APPROX.sub("", text, count=1) if _APPROX.match(text) else text
    bracketed = _BRACKETED.fullmatch(text)
    text = bracketed[2] if bracketed is not None and len(bracketed[1]) == len(bracketed[3]) else text
    dollars = "USD " in text[:6]
    text = text.replace("USD ", "", 1) if dollars else text
    found = _fraction(text) or _number(text) or _expression(text)
    return replace(found, unit=found.unit or "dollar") if found is not None and dollars else found


def _split(text: str) -> tuple[str, str]:
    """What stands before the last equals sign and behind it; all is behind where there is none."""
    ends = [match.span() for match in _EQUATION.finditer(text)]
    return (text[: ends[-1][0]], text[ends[-1][1] :].strip()) if ends else ("", text)


def _number(text: str) -> Quantity | None:
    match = _NUMBER.match(text)
    found = None if match is None else _plain(match)
    if match is None or found is None:
        return None
    symbol = next((name for sign, name in _CURRENCY.items() if sign in match[0]), "")
    return _with_rest(replace(found, unit=symbol), text[match.end() :])


def _fraction(text: str) -> Quantity | None:
    text = _FRAC.sub(lambda found: f" ({found[1] or found[3]})/({found[2] or found[4]}) ", text).strip()
    match = _FRACTION.match(text)
    if match is None or len(match[0]) > MOST_DIGITS:
        return None
    whole, top, bottom = Decimal(match[2] or 0), Decimal(match[3]), Decimal(match[4])
    if bottom == 0 or (match[2] and (top < 0 or bottom < 0 or "." in match[3])):
        return None
    value = (whole + top / bottom) * (-1 if match[1].strip() == "-" else 1)
    return _with_rest(Quantity(value), text[match.end() :])


def _plain(match: re.Match[str]) -> Quantity | None:
    """The number that `_NUMBER` found."""
    sign, second, power, power_bare, digits, exponent, exponent_bare, short = match.groups()
    raised = next((part for part in (power, power_bare, exponent, exponent_bare, short) if part is not None), None)
    digits = "1" if digits is None else digits.replace("{,}", "").replace(",", "").replace(" ", "")
    if len(digits) > MOST_DIGITS or (raised is not None and len(raised) > 6):
        return None
    number = Decimal(digits)
    place = Decimal(1).scaleb(int(number.as_tuple().exponent))
    if raised is not None:
        shift = int(raised.replace(" ", ""))
        if abs(shift) > MOST_DIGITS:
            return None
        number, place = number.scaleb(shift), place.scaleb(shift)
    exact = power is not None or power_bare is not None or (raised is None and "." not in digits.rstrip("."))
    if "-" in sign + second:
        number = -number
    return Quantity(number, place, whole=number == number.to_integral_value() and exact)


def _scaled(found: Quantity, text: str, at: int) -> tuple[Quantity, int]:
    """`found` with the scale word that stands at a place of `text`, and where that ends."""
    scale = _SCALE.match(text, at)
    if scale is None:
        return found, at
    factor = Decimal(_SCALES[scale[1].lower()])
    place = None if found.place is None else found.place * factor
    return replace(found, value=found.value * factor, place=place, scale=factor), scale.end()


def _with_rest(found: Quantity, rest: str) -> Quantity | None:
    """`found` with the scale word, percent sign and unit that `rest` is; None where it is anything else."""
    found, end = _scaled(found, rest, 0)
    rest = rest[end:]
    percent = _PERCENT.match(rest)
    if percent is not None:
        found, rest = replace(found, percent=True), rest[percent.end() :]
    glued = rest[:1].strip() != ""
    unit = rest.strip()
    if not unit:
        return found
    if _UNIT.fullmatch(unit) is None or _CONNECTIVE.search(unit):
        return None
    if glued and _GLUED.match(unit) is None:
        return None  # `2xy` is a product
    return replace(found, unit=_unit(unit))


def _unit(text: str) -> str:
    """A normal form of a unit: names for symbols, no plural, a slash for "per"."""
    text = re.sub(r"\s*(?:\bper\b|/)\s*", "/", re.sub(r"\s*\^\s*", "^", text.strip("() ").rstrip(".")))
    text = re.sub(r"[{}()^]", "", re.sub(r"\s*(?:\\cdot|\*|-(?!\d))\s*", " ", text))
    text = re.sub(r" (\w+?)-1(?!\d)", r"/\1", re.sub(r" (\w+?)-([2-9])", r"/\1\2", text))
    parts = []
    for part in re.split(r"([/ ])", text):
        name, power = re.fullmatch(r"(.*?)(-?\d?)", part).groups()  # type: ignore[union-attr]  # it matches any text
        name = _NAMES.get(name, name)
        if len(name) > 3 and name.isalpha():
            name = name.lower()
            name = _NAMES.get(name, name)
            single = name.removesuffix("s") if not name.endswith("ss") else name
            name = _NAMES.get(single, single)
        parts.append(name + power)
    return "".join(parts).strip()


def _expression(text: str) -> Quantity | None:
    """What math-verify makes of an expression of numbers alone, evaluated; None for any other text."""
    unit = ""
    ending = re.search(rf"\s({_UNIT.pattern})$", text)
    if ending is not None and not _CONNECTIVE.search(ending[1]) and _EXPRESSION.fullmatch(text[: ending.start()]):
        text, unit = text[: ending.start()], _unit(ending[1])
    if _EXPRESSION.fullmatch(text) is None or _NO_EXPRESSION.search(text) or not re.search(r"\d|pi|e", text):
        return None
    if len(text) > LONGEST_EXPRESSION or _TOO_LARGE.search(text) or _depth(text) > DEEPEST:
        return None
    found = _evaluated(text)
    return None if found is None else replace(found, unit=unit)


def _depth(text: str) -> int:
    depth = deepest = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _evaluated(text: str) -> Quantity | None:
    import math_verify
    import sympy  # type: ignore[import-untyped]  # it ships no types

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns at every call without a limit
    try:
        found = math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None)
        if not found or not isinstance(found[0], sympy.Expr) or found[0].free_symbols:
            return None
        value = sympy.N(found[0], 30)
        if not (value.is_Float or value.is_Rational):
            return None
        if value and not 10**-MOST_DIGITS < abs(value) < 10**MOST_DIGITS:
            return None
        whole = bool(found[0].is_integer)
        return Quantity(Decimal(int(found[0].doit()) if whole else str(value)), whole=whole)
    except (ArithmeticError, ValueError, TypeError, AttributeError, NotImplementedError):
        return None  # what sympy raises for expressions without a value is not its documented part
