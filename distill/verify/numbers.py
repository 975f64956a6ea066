"""Are two expressions the same number, or the same function of their variables?

Exact where both are fractions; else at high precision and again at a higher one, for variables at several points. Knows
nothing about text, units or lists.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from distill.verify.evaluate import UNBASED, TooBigError, UndefinedError, evaluate, inexact
from distill.verify.values import Node, symbols

DIGITS, MORE_DIGITS = 50, 300
"""Decimal digits of the first look and of the one that confirms it."""
NEAR = 3
"""Significant digits from which a decimal gold may be meant as a rounded value."""
ROUNDED = 6
"""Significant digits from which an answer's decimal may be meant as the exact value; math-verify rounds to as many."""
_SIDES = ((1, 3), (1, 3), (1, 3), (-3, -1), (-3, -1), (0, 1))
"""Ranges of the points: above one, where every real function of school is defined, below zero, and between."""


def equal(a: Node, b: Node) -> bool | None:
    """None where it cannot be told, or depends on which values a variable may take."""
    if a == b:
        return True
    names = symbols(a) | symbols(b)
    try:
        verdict = _same_function(a, b, names) if names else _same_constant(a, b, _LOG)
    except TooBigError:
        return None
    except UndefinedError:
        return None
    if verdict is False and ("log" in _functions(a) | _functions(b)) and not names:
        for scale in (Fraction(1), None):  # natural or common: the text does not say
            if _same_constant(a, b, scale) is not False:
                return None
    return verdict


_LOG = Fraction(7919, 6151)
"""A logarithm without a base is this times a natural one: any number that is neither 1 nor 1/ln 10."""


def _functions(node: Node) -> frozenset[str]:
    found = set()
    waiting: list[Any] = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, tuple):
            if current and current[0] == "fn":
                found.add(current[1])
            waiting.extend(part for part in current if isinstance(part, tuple))
    return frozenset(found)


def _same_constant(a: Node, b: Node, log: Fraction | None) -> bool:
    from mpmath import mp  # type: ignore[import-untyped]  # it ships no types

    with mp.workdps(DIGITS):
        env = {UNBASED: _log_scale(log)}
        left, right = evaluate(a, env), evaluate(b, env)
        if (
            isinstance(left, float)
            or isinstance(right, float)
            or (isinstance(left, Fraction) and isinstance(right, Fraction))
        ):
            return bool(left == right)
        if not _close(left, right, DIGITS):
            return False
    with mp.workdps(MORE_DIGITS):
        env = {UNBASED: _log_scale(log)}
        return _close(evaluate(a, env), evaluate(b, env), MORE_DIGITS)


def _log_scale(log: Fraction | None) -> Any:
    from mpmath import mp

    return 1 / mp.log(10) if log is None else inexact(log)


def _close(a: Any, b: Any, digits: int) -> bool:
    """Relative to the larger, or both as good as zero; the last sixth of the digits is left to rounding."""
    from mpmath import mp

    a, b = inexact(a), inexact(b)
    most = mp.mpf(10) ** -(digits * 5 // 6)
    larger = max(abs(a), abs(b))
    return bool(abs(a - b) <= most * larger or larger <= most)


@lru_cache(maxsize=4_096)
def _point(name: str, number: int) -> Fraction:
    low, high = _SIDES[number]
    drawn = random.Random(f"{name} {number}")
    return Fraction(drawn.randrange(997 * low + 1, 997 * high), 997)


def _points(names: frozenset[str]) -> Iterator[Mapping[str, Fraction]]:
    for number in range(len(_SIDES)):
        yield {name: _point(name, number) for name in names}


def _same_function(a: Node, b: Node, names: frozenset[str]) -> bool | None:
    real_same = other_same = real_different = other_different = 0
    half_real = False
    for env in _points(names):
        found = _same_at(a, b, env)
        if found is None:
            continue
        same, real = found[:2]
        half_real |= found[2]
        real_same += same and real
        other_same += same and not real
        real_different += real and not same
        other_different += not real and not same
    if not real_different:
        if half_real:
            return None  # ln |x| and ln x
        enough = real_same >= 2 or (not other_different and real_same + other_same >= 2)
        return _same_closely(a, b, names) if enough else None
    if real_same:
        return None  # |x| and x
    if _same_at_whole_numbers(a, b, names):
        return None  # (-1)^n and cos(n π)
    return False


def _same_closely(a: Node, b: Node, names: frozenset[str]) -> bool | None:
    """At more digits, at the first point where both are defined and the same."""
    for env in _points(names):
        try:
            same, real, _ = _compared(a, b, env, MORE_DIGITS)
        except UndefinedError:
            continue
        except TooBigError:  # too big to be exact: what was seen before has to do
            return True
        if same or real:
            return same
    return None


def _same_at_whole_numbers(a: Node, b: Node, names: frozenset[str]) -> bool:
    ordered = sorted(names)
    for start in (2, 3, 7):
        found = _same_at(a, b, {name: Fraction(start + 2 * place) for place, name in enumerate(ordered)})
        if found is None or not found[0]:
            return False
    return True


def _same_at(a: Node, b: Node, env: Mapping[str, Any]) -> tuple[bool, bool, bool] | None:
    """`_compared` at DIGITS digits; None where one of the two is not defined."""
    try:
        return _compared(a, b, env, DIGITS)
    except UndefinedError:
        return None
    except TooBigError:
        from mpmath import mp

        with mp.workdps(DIGITS):
            rounded = {name: inexact(value) for name, value in env.items()}
        try:
            return _compared(a, b, rounded, DIGITS)
        except UndefinedError:
            return None


def _compared(a: Node, b: Node, env: Mapping[str, Any], digits: int) -> tuple[bool, bool, bool]:
    """Whether both are the same, both are real, and just one of them is."""
    from mpmath import mp

    with mp.workdps(digits):
        full = {**env, UNBASED: inexact(_LOG)}
        left, right = evaluate(a, full), evaluate(b, full)
        if isinstance(left, float) or isinstance(right, float):
            return bool(left == right), True, False
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return left == right, True, False
        left, right = inexact(left), inexact(right)
        reals = [abs(value.imag) <= abs(value) * mp.mpf(10) ** -30 for value in (left, right)]
        return _close(left, right, digits), all(reals), any(reals) and not all(reals)


def proportional(a: Node, b: Node, *, positive: bool) -> bool | None:
    """Whether a is a constant other than zero times b: the same equation when both are set to zero. With `positive`
    the constant has to be above zero."""
    from mpmath import mp

    names = symbols(a) | symbols(b)
    if not names or symbols(a) != symbols(b):
        return False
    ratios = []
    try:
        with mp.workdps(DIGITS):
            for env in _points(names):
                full = {**env, UNBASED: inexact(_LOG)}
                left, right = evaluate(a, full), evaluate(b, full)
                if left == 0 or right == 0:
                    continue
                ratios.append(inexact(left) / inexact(right))
    except (TooBigError, UndefinedError):
        return None
    if len(ratios) < 2:
        return None
    if not all(_close(ratio, ratios[0], DIGITS) for ratio in ratios):
        return False
    return bool(abs(ratios[0].imag) < 1e-9 and ratios[0].real > 0) if positive else True


def value_of(node: Node, *, strict: bool = False, log: Fraction | None = _LOG) -> Any:
    """The number that a constant expression is, at DIGITS digits; None for one that has variables or no value, and
    unless `strict` for one too big to compute. `log` is what `_same_constant` takes: None for common logarithms."""
    from mpmath import mp

    if symbols(node):
        return None
    try:
        with mp.workdps(DIGITS):
            return evaluate(node, {UNBASED: _log_scale(log)})
    except TooBigError:
        return math.inf if strict else None
    except UndefinedError:
        return None


def could_be_rounded(gold: Node, answer: Node) -> bool:
    """Whether one of two different numbers may be the other one rounded: then no verdict is safe."""
    return _rounds_to(answer, gold, NEAR) or _rounds_to(gold, answer, ROUNDED)


def _rounds_to(exact: Node, decimal: Node, digits: int) -> bool:
    negative = decimal[0] == "neg"
    literal = decimal[1] if negative else decimal
    if literal[0] != "num" or not literal[2]:
        return False
    places, shown = literal[2], abs(literal[1])
    if len(str(shown.numerator * 10**places // shown.denominator)) < digits:
        return False
    exact_value = value_of(exact)
    if exact_value is None or isinstance(exact_value, float):
        return False
    from mpmath import mp

    with mp.workdps(DIGITS):
        difference = abs(inexact(exact_value) - inexact(-shown if negative else shown))
        return bool(difference <= mp.mpf(10) ** -places * mp.mpf("0.500001"))
