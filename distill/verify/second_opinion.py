"""math-verify, asked about what `verify.statements` could not read or found different.

It computes whatever it is given and drops what it does not understand, so that only harmless texts go to it, and its
verdict alone is believed only where nothing of the texts is missing from what it read.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

LONGEST = 400
"""Characters of a text that is shown to it: its parser takes seconds for thousands."""
_HARMFUL = re.compile(
    r"\^[^\^]{0,40}\^|\*\*|!|\d{40}|\^\s*\{?\s*-?\d{4}|\\(?:sum|prod|int|lim|binom|gcd|lcm|det|frac\s*\{\s*d)|"
    r"(?:[{(\[][^{}()\[\]]{0,200}){12}|[\ud800-\udfff]"
)
"""Towers of powers, factorials, long numbers, sums: what takes it for ever, or never comes back."""
_COMMAND = re.compile(r"\\[A-Za-z]+\*?|\\.")
_DIGITS = re.compile(r"\d+")
_WORDS = re.compile(r"\\(?:text|mathrm|mbox|operatorname)|[A-Za-z]{3,}")


@dataclass(frozen=True, slots=True)
class Opinion:
    """`whole`: both texts were read as mathematics with every number in them."""

    equal: bool
    whole: bool


def harmless(text: str) -> bool:
    return len(text) <= LONGEST and text.count("\\") < 80 and _HARMFUL.search(text) is None


def ask(gold: str, answer: str) -> Opinion | None:
    """What math-verify says; None where a text is not shown to it or it reads nothing."""
    if not harmless(gold) or not harmless(answer):
        return None
    import math_verify

    golds, answers = _parsed(gold), _parsed(answer)
    if not golds or not answers:
        return None
    equal = bool(math_verify.verify(golds, answers, timeout_seconds=None))
    return Opinion(equal, _is_whole(gold, golds) and _is_whole(answer, answers))


def _parsed(text: str) -> list[Any]:
    import math_verify

    # Time limits are the pool's: math-verify's rest on an alarm, which does not interrupt a long multiplication.
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns at every call without a limit
    try:
        found: list[Any] = math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    except RecursionError:
        return []
    return found


def _is_whole(text: str, parsed: list[Any]) -> bool:
    """Whether the expression read has every number that the text has, and the text no words."""
    import sympy  # type: ignore[import-untyped]  # it ships no types

    if isinstance(parsed[0], str) or _WORDS.search(_COMMAND.sub(" ", text)) or "\\text" in text:
        return False
    read = sympy.srepr(parsed[0])
    shown = set(_DIGITS.findall(read))
    return all(str(int(digits)) in shown for digits in _DIGITS.findall(text.replace(",", "")))
