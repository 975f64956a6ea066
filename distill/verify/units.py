"""Words in mathematical answers: units with their dimension and size, numbers, scales, and words that change a value.

Tables and small pure functions. Knows nothing about LaTeX or expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

Dimensions = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts: `dimensions` and `factor` to their base unit; for an unknown one its words alone."""

    dimensions: Dimensions = ()
    factor: Fraction = Fraction(1)
    words: tuple[str, ...] = ()


def _table(*rows: tuple[str, str, str]) -> dict[str, tuple[str, Fraction]]:
    return {name: (dimension, Fraction(size)) for dimension, size, names in rows for name in names.split()}


def split(words: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(words.split())


UNITS = _table(
    ("length", "1/1000", "mm millimeter millimeters millimetre millimetres"),
    ("length", "1/100", "cm centimeter centimeters centimetre centimetres"),
    ("length", "1/10000000000", "angstrom angstroms Å"),
    ("length", "1/10", "dm decimeter decimeters decimetre decimetres"),
    ("length", "1", "m meter meters metre metres"),
    ("length", "1000", "km kilometer kilometers kilometre kilometres"),
    ("length", "254/10000", "in inch inches"),
    ("length", "3048/10000", "ft foot feet"),
    ("length", "9144/10000", "yd yds yard yards"),
    ("length", "1609344/1000", "mi mile miles"),
    ("mass", "1/1000000", "mg milligram milligrams"),
    ("mass", "1/1000", "g gram grams"),
    ("mass", "1", "kg kgs kilo kilos kilogram kilograms"),
    ("mass", "45359237/100000000", "lb lbs pound pounds £ gbp"),
    ("mass", "45359237/1600000000", "oz ounce ounces"),
    ("mass", "1000", "tonne tonnes"),
    ("ton", "1", "ton tons"),
    ("time", "1/1000", "ms millisecond milliseconds"),
    ("time", "1", "s sec secs second seconds"),
    ("time", "60", "min mins minute minutes"),
    ("time", "3600", "h hr hrs hour hours"),
    ("time", "86400", "d day days"),
    ("time", "604800", "week weeks wk wks"),
    ("year", "1/12", "month months"),
    ("year", "1", "year years yr yrs"),
    ("volume", "1/1000", "ml mL milliliter milliliters millilitre millilitres cc"),
    ("volume", "1/100", "cl"),
    ("volume", "1", "l L liter liters litre litres"),
    ("gallon", "1", "gal gallon gallons"),
    ("gallon", "1/4", "qt quart quarts"),
    ("gallon", "1/8", "pint pints"),
    ("gallon", "1/16", "cup cups"),
    ("dollar", "1", "dollar dollars usd $ buck bucks"),
    ("dollar", "1/100", "cent cents penny pennies"),
    ("euro", "1", "euro euros eur €"),
    ("yen", "1", "yen ¥ yuan rmb"),
    ("rupee", "1", "rupee rupees ₹ Rs"),
    ("peso", "1", "peso pesos"),
    ("angle", "1", "degree degrees deg"),
    ("radian", "1", "radian radians rad"),
    ("celsius", "1", "celsius"),
    ("fahrenheit", "1", "fahrenheit"),
    ("kelvin", "1", "kelvin kelvins K"),
    ("percent", "1", "percent percentage pct %"),
    ("point", "1", "percentagepoint"),
    ("unit", "1", "unit units"),
    ("newton", "1", "N newton newtons"),
    ("joule", "1", "J joule joules"),
    ("joule", "1000", "kJ kilojoule kilojoules"),
    ("watt", "1", "W watt watts"),
    ("watt", "1000", "kW kilowatt kilowatts"),
    ("joule", "4184/1000", "cal calorie calories"),
    ("joule", "1.602176634e-19", "eV electronvolt electronvolts"),
    ("ohm", "1", "ohm ohms"),
    ("volt", "1", "V volt volts"),
    ("ampere", "1", "A ampere amperes amp amps"),
    ("hertz", "1", "Hz hertz"),
    ("pascal", "1", "Pa pascal pascals"),
    ("pascal", "101325", "atm atmosphere atmospheres"),
    ("pascal", "101325/760", "torr Torr mmHg"),
    ("pascal", "100000", "bar"),
    ("coulomb", "1", "C coulomb coulombs"),
    ("farad", "1", "F farad farads"),
    ("tesla", "1", "T tesla teslas"),
    ("henry", "1", "H henry henries"),
    ("decibel", "1", "dB decibel decibels"),
    ("molar", "1", "M molar"),
    ("dalton", "1", "u amu Da dalton daltons"),
    ("ppm", "1", "ppm"),
    ("mole", "1", "mol mole moles"),
    ("acre", "1", "acre acres"),
    ("bit", "1", "bit bits"),
    ("bit", "8", "byte bytes"),
)
"""Name → dimension and size in the dimension's base unit. A pound is one of mass or of money: nothing else tells."""
COMPOUND = {
    "mph": "miles per hour", "kph": "km per h", "kmph": "km per h", "mpg": "miles per gallon", "sqft": "sq ft",
    "kwh": "kW h", "rpm": "revolutions per minute",
}  # fmt: skip
_PREFIXES = {"T": 12, "G": 9, "M": 6, "k": 3, "d": -1, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
"""Of the SI, by their power of ten; `u` stands for the Greek letter."""
_PREFIXED = split("m g s A K mol Hz Pa J W N V C F T H L eV cal ohm")
GLUED = split("cm mm km kg mg ml mL lb oz ft eV dB")
"""Units of two letters that are units without white space before them as well, and no two variables: `15cm`."""
SHORT_UNITS = split("m s g h L l d N J W V A")
SYMBOLS = SHORT_UNITS | split("K C F T H M u")
"""Units of one letter: those that a formula's text has, and all that a measured number may have."""
SHORT_WORDS = split(
    "or and yes no not all any odd even none true false one two six ten the is of if it to are for per mod dne"
)
"""Short words that are no product of variables, wherever they stand."""
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = {word: number for number, word in enumerate(_ONES)}
NUMBER_WORDS |= {word: 10 * number for number, word in enumerate(_TENS, 2)}
FRACTIONS = {
    "half": 2,
    "halve": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
FRACTIONS |= {"hundredth": 100, "thousandth": 1_000, "millionth": 10**6, "billionth": 10**9}
FRACTIONS |= {f"{word}s": parts for word, parts in FRACTIONS.items()}
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SCALES |= {"wan": 10**4, "yi": 10**8}
SCALES |= {f"{word}s": size for word, size in SCALES.items()}
TURNING = split(
    "or and than more less fewer greater least most not never no nor neither over under above below between from "
    "except unless without if when where that plus minus squared cubed half double twice triple quarter third "
    "nothing none cannot unknown impossible undefined infinite infinitely divided multiplied mod modulo base either "
    "both but instead however versus vs to until negative positive larger smaller beyond exceeds up another "
    "other remainder"
)
"""Words beside a number after which it need not be the value that is meant."""
AMOUNTS = split(
    "total value amount area length perimeter volume maximum minimum cost score probability width height speed profit "
    "distance price weight number answer rest"
)
"""Of these a number may be said: `a total of 5`; where `the square root of 5` is not 5."""
FILLING = split(
    "approximately about roughly around exactly only just total a an the answer is are equals equal there it of "
    "final value result be will he she they we so thus therefore hence in all altogether get gets has have"
)
"""Words beside a number that say nothing about what it counts."""
COUNTED = split("year month week day hour minute second person ticket item unit mile gallon pound student child night")
"""Of these, written behind a stroke, there is a rate: `$7200/year`. Behind any other word it may be a division."""
_IRREGULAR = {"feet": "foot", "people": "person", "children": "child", "men": "man", "women": "woman", "inches": "inch"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def stem(word: str) -> str:
    """One form for singular and plural, lower case."""
    word = word.lower()
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "ches", "shes")) and len(word) > 4:
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def number_of(words: Sequence[str]) -> int | None:
    """`twenty five` → 25, `two hundred and six` → 206; None when the words are no number."""
    total, current, seen = 0, 0, False
    for word in words:
        lower = word.lower()
        if lower in NUMBER_WORDS:
            number = NUMBER_WORDS[lower]
            if seen and current % 100 and not (current % 10 == 0 and current % 100 >= 20 and number < 10):
                return None
            current, seen = current + number, True
        elif lower in SCALES and (seen or lower in ("hundred", "thousand", "million", "billion")):
            if SCALES[lower] in (12, 100):
                current = (current or 1) * SCALES[lower]
            else:
                total, current = total + (current or 1) * SCALES[lower], 0
            seen = True
        elif lower == "and" and seen:
            continue
        else:
            return None
    return total + current if seen else None


def _unit_named(name: str) -> tuple[str, Fraction] | None:
    """Dimension and size of one unit, by its name or symbol, with or without a prefix of the SI."""
    known = UNITS.get(name) or UNITS.get(name.lower())
    if known is None and name[:1] in _PREFIXES and name[1:] in _PREFIXED:
        dimension, size = UNITS[name[1:]]
        return dimension, size * Fraction(10) ** _PREFIXES[name[0]]
    return known


def unit_of(parts: Iterable[str]) -> Unit | None:
    """The unit that words and the signs `/`, `^`, `*` and digits make up; None where words are no known unit.

    `square`, `sq`, `cubic` stand before a unit; `per` and `/` divide by what follows.
    """
    dimensions: dict[str, int] = {}
    factor, sign, power, last = Fraction(1), 1, 1, None
    items = [piece for part in parts for piece in COMPOUND.get(part.lower(), part).split()]
    at = 0
    while at < len(items):
        item = items[at]
        at += 1
        lower = item.lower()
        if lower in ("per", "/", "an", "a", "each", "every") and item != "A":
            if lower in ("per", "/"):
                sign = -1
            continue
        if item in ("*", "of"):
            continue
        if lower in _POWERS:
            power = _POWERS[lower]
            continue
        if item == "^" or lower in ("squared", "cubed"):
            digits = items[at] if item == "^" and at < len(items) else {"squared": "2", "cubed": "3"}.get(lower, "")
            if last is None or not re.fullmatch(r"-?\d", digits):
                return None
            at += item == "^"
            name, size, direction = last
            more = direction * (int(digits) - 1)
            dimensions[name] = dimensions.get(name, 0) + more
            factor *= size**more
            continue
        known = _unit_named({"C": "celsius", "F": "fahrenheit"}.get(item, item) if "angle" in dimensions else item)
        if known is None:
            return None
        name, size = known
        last = (name, size, sign)
        if name in ("celsius", "fahrenheit") and dimensions.get("angle"):
            del dimensions["angle"]
        dimensions[name] = dimensions.get(name, 0) + sign * power
        factor *= size ** (sign * power)
        power = 1
    if power != 1:
        return None  # `60 miles square` is no length
    found = tuple(sorted((name, exponent) for name, exponent in dimensions.items() if exponent))
    if len(found) == 1 and found[0][0] == "length" and found[0][1] == 3:
        found, factor = (("volume", 1),), factor * 1000
    return Unit(found, factor) if found else None
