"""Two answers compared by their letters alone: the same text, decoration aside, or two numbers in digits.

Most answers are judged here, before any mathematics is read. Knows nothing about where an answer states its result.
"""

from __future__ import annotations

import re
from fractions import Fraction

_THOUSANDS = re.compile(r"-?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_TRAILING_ZEROS = re.compile(r"(-?\d+)\.0+")
_DECORATION = ("\\$", "$", "\\!", "\\,", "\\left", "\\right")
_WIDE = ("\\;", "\\ ", "~")
_SPACE = re.compile(r"(?<!\d) | (?!\d)")
"""White space that means nothing; between two digits it does: `1 1/2` is not `11/2`."""
_NUMBER = re.compile(r"\s*\\?\$?\s*(-?(?:[0-9]{1,3}(?:,[0-9]{3}){1,9}|[0-9]{1,30})(?:\.([0-9]{1,30}))?)\s*\$?\.?\s*")
_FRACTION = re.compile(
    r"\s*\$?(-?)\\[dt]?frac\{([0-9]{1,30})\}\{([0-9]{1,30})\}\$?\s*|\s*(-?)([0-9]{1,30})/([0-9]{1,30})\s*"
)


def literal(text: str) -> str:
    """A form in which equal answers written the same way are equal texts: no spaces, dollars or thousands commas."""
    text = undecorated(text)
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1]
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "").replace(" ", "")
    whole = _TRAILING_ZEROS.fullmatch(text)
    return whole.group(1) if whole else text


def undecorated(text: str) -> str:
    """`text` without dollar signs, LaTeX's spacing, and spaces other than between digits; commas left in."""
    for decoration in _DECORATION:
        text = text.replace(decoration, "")
    for wide in _WIDE:
        text = text.replace(wide, " ")
    return _SPACE.sub("", " ".join(text.split()))


def same_digits(gold: str, answer: str) -> bool | None:
    """For two numbers in digits, most of all answers: whether they are the same; None for anything else."""
    first, second = _plain(gold), _plain(answer)
    if first is None or second is None:
        return None
    if first[0] == second[0]:
        return True
    return None if first[1] or second[1] else False  # decimals may be rounded


def _plain(text: str) -> tuple[Fraction, bool] | None:
    number = _NUMBER.fullmatch(text)
    if number is not None:
        return Fraction(number[1].replace(",", "")), number[2] is not None
    fraction = _FRACTION.fullmatch(text)
    if fraction is None:
        return None
    sign, above, below = fraction.groups()[:3] if fraction[2] else fraction.groups()[3:]
    return (Fraction(int(sign + above), int(below)), False) if int(below) else None
