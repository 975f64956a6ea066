"""math-verify, asked about what `verify.statements` could not read or found different.

It computes whatever it is given and drops what it does not understand, so that only harmless texts go to it, and its
verdict alone is believed only where nothing of the texts is missing from what it read.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

LONGEST, DEEPEST, MOST_RELATIONS = 300, 8, 6
"""Characters, braces inside braces and relation signs of a text that is shown to it: more take its parser seconds."""
_HARMFUL = re.compile(
    r"\^[^\^]{0,40}\^|\*\*|!|\d{40}|\^[\s{(+-]{0,9}\d{4}|\\(?:sum|prod|int|lim|binom|choose|gcd|lcm|det|frac\s*\{\s*d)|"
    r"[^\x09\x0a\x20-\x7e]"
)
"""Towers of powers, factorials, long numbers, sums: what takes it for ever, or never comes back."""
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne)")
_ODD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]\d|\d\s+\d|[=<>|'~;]|\.\.|\\(?:[lc]?dots|le|ge|ne|approx|equiv|to|pm|mp)")
"""A digit after a letter, or two numbers side by side: it multiplies them. Of relations it keeps one side, of primes
and dots nothing."""
_COMMAND = re.compile(r"\\[A-Za-z]+\*?|\\.")
_DIGITS = re.compile(r"\d+")
_LONG_WORD = re.compile(r"[A-Za-z]{4,}")
MOST_WORDS = 2
"""Words of a text that is shown to it: it makes a product of their letters, and takes seconds to compare that."""
_WORDS = re.compile(r"\\(?:text|mathrm|mbox|operatorname)|[A-Za-z]{3,}")


@dataclass(frozen=True, slots=True)
class Opinion:
    """`whole`: both texts were read as mathematics with every number in them."""

    equal: bool
    whole: bool


def harmless(text: str) -> bool:
    if len(text) > LONGEST or text.count("\\") > 60 or len(_RELATION.findall(text)) > MOST_RELATIONS:
        return False
    if len(_LONG_WORD.findall(_COMMAND.sub(" ", text))) > MOST_WORDS:
        return False
    return _HARMFUL.search(text) is None and _depth(text) <= DEEPEST


def _depth(text: str) -> int:
    deepest = depth = 0
    for sign in text:
        depth += (sign in "{([") - (sign in "})]")
        deepest = max(deepest, abs(depth))
    return max(deepest, text.count("|") * 2 - 3, text.count("\\sqrt"))


def ask(gold: str, answer: str) -> Opinion | None:
    """What math-verify says; None where a text is not shown to it or it reads nothing."""
    if not harmless(gold) or not harmless(answer):
        return None
    import math_verify

    try:
        golds, answers = _parsed(gold), _parsed(answer)
        if not golds or not answers or isinstance(golds[0], str) or isinstance(answers[0], str):
            return None
        equal = bool(math_verify.verify(golds, answers, timeout_seconds=None))
        return Opinion(equal, _is_whole(gold, golds) and _is_whole(answer, answers))
    except (ArithmeticError, RecursionError, TypeError, ValueError):  # of sympy, about what it was given
        return None


def _parsed(text: str) -> list[Any]:
    import math_verify

    # Time limits are the pool's: math-verify's rest on an alarm, which does not interrupt a long multiplication.
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns at every call without a limit
    found: list[Any] = math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    return found


def _is_whole(text: str, parsed: list[Any]) -> bool:
    """Whether the expression read has every number that the text has, and the text no words."""
    import sympy  # type: ignore[import-untyped]  # it ships no types

    if _ODD.search(text) or _WORDS.search(_COMMAND.sub(" ", text)) or "\\text" in text:
        return False
    read = sympy.srepr(parsed[0])
    shown = set(_DIGITS.findall(read))
    return all(str(int(digits)) in shown for digits in _DIGITS.findall(text.replace(",", "")))
