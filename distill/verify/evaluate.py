"""The value of an expression: an exact fraction where it is one, else a number of a hundred digits and more.

Powers and factorials are bounded before they are computed, so that no expression of a few characters takes for ever.
Knows nothing about text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from distill.verify.values import Node

MOST_BITS = 24_000
"""Of an exact number: enough for 1/2006!, and its arithmetic takes a tenth of a millisecond."""
MOST_EXPONENT = 2**40
"""Binary exponent of a rounded number; beyond it the digits of the exponent itself eat the precision."""


class TooBigError(ArithmeticError):
    """The value is beyond what is computed."""


class UndefinedError(ArithmeticError):
    """Division by zero, a logarithm of zero, infinity inside an expression."""


def evaluate(node: Node, env: Mapping[str, Any]) -> Any:
    """A Fraction, an mpmath number at mpmath's current precision, or ±inf as a float for a bare infinity.

    `env` gives each symbol its value. Raises TooBigError, UndefinedError, or KeyError for a symbol without a value.
    """
    kind = node[0]
    if kind == "num":
        return node[1]
    if kind == "sym":
        return env[node[1]]
    if kind == "inf":
        return math.inf
    if kind == "const":
        return _constant(node[1])
    if kind == "neg":
        return -evaluate(node[1], env)
    if kind in ("add", "mul"):
        return _folded(kind, node[1], env)
    if kind == "call":
        return _opaque(node[1], [evaluate(part, env) for part in node[2]], env)
    if kind == "fn":
        return _function(node[1], _finite(evaluate(node[2], env)), env)
    parts = [_finite(evaluate(part, env)) for part in node[1:]]
    return _checked(_OPERATIONS[kind](*parts))


def _folded(kind: str, nodes: tuple[Node, ...], env: Mapping[str, Any]) -> Any:
    total = _finite(evaluate(nodes[0], env))
    for part in nodes[1:]:
        following = _finite(evaluate(part, env))
        if isinstance(total, Fraction) != isinstance(following, Fraction):
            total, following = inexact(total), inexact(following)
        total = _checked(total + following if kind == "add" else total * following)
    return total


def inexact(value: Any) -> Any:
    """An mpmath number of any value."""
    import mpmath  # type: ignore[import-untyped]  # it ships no types

    return mpmath.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        raise UndefinedError("infinity")
    return value


def _checked(value: Any) -> Any:
    if isinstance(value, Fraction):
        if value.numerator.bit_length() > MOST_BITS or value.denominator.bit_length() > MOST_BITS:
            raise TooBigError
        return value
    import mpmath

    if not mpmath.isfinite(value):
        raise UndefinedError("not finite")
    if abs(mpmath.mag(value)) > MOST_EXPONENT and value != 0:
        raise TooBigError
    return value


def _constant(name: str) -> Any:
    from mpmath import mp

    return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}[name]


def _divided(a: Any, b: Any) -> Any:
    if b == 0:
        raise UndefinedError("division by zero")
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a / b
    return inexact(a) / inexact(b)


def _power(a: Any, b: Any) -> Any:
    from mpmath import mp

    if isinstance(b, Fraction) and b.denominator == 1:
        return _whole_power(a, b.numerator)
    if a == 0:
        if isinstance(b, Fraction) and b > 0:
            return Fraction(0)
        raise UndefinedError("a power of zero")
    if isinstance(a, Fraction) and isinstance(b, Fraction) and a > 0:
        root = _exact_root(a, b.denominator)
        if root is not None:
            return _whole_power(root, b.numerator)
    base, exponent = inexact(a), inexact(b)
    if abs(exponent) * (abs(mp.mag(base)) + 1) > MOST_EXPONENT:
        raise TooBigError
    return mp.power(base, exponent)


def _whole_power(a: Any, exponent: int) -> Any:
    if a == 0 and exponent <= 0:
        raise UndefinedError("zero to the power of zero")
    if isinstance(a, Fraction):
        bits = max(a.numerator.bit_length(), a.denominator.bit_length())
        if abs(a) != 1 and a != 0 and (bits - 1) * abs(exponent) > MOST_BITS:
            raise TooBigError
        return a**exponent if abs(a) != 1 else Fraction(1 if a == 1 or exponent % 2 == 0 else -1)
    from mpmath import mp

    if abs(exponent) * (abs(mp.mag(a)) + 1) > MOST_EXPONENT:
        raise TooBigError
    return mp.power(a, exponent)


def _exact_root(a: Fraction, degree: int) -> Fraction | None:
    """The positive root of a positive fraction where it is a fraction itself."""
    if degree > 64:
        return None
    parts = [_whole_root(part, degree) for part in (a.numerator, a.denominator)]
    return None if None in parts else Fraction(*parts)  # type: ignore[arg-type]  # neither is None


def _whole_root(a: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(a)
        return root if root * root == a else None
    from mpmath import mp

    with mp.workprec(a.bit_length() + 20):
        root = int(mp.nint(mp.root(a, degree)))
    return root if root**degree == a else None


def _root(degree: Any, a: Any) -> Any:
    """The real root of a negative number where the degree is odd, as schools take it."""
    if isinstance(degree, Fraction) and degree == 0:
        raise UndefinedError("root of degree zero")
    odd = isinstance(degree, Fraction) and degree.denominator == 1 and degree.numerator % 2 == 1
    if odd and not _is_complex(a) and a < 0:
        return -_root(degree, -a)
    return _power(a, _divided(Fraction(1), degree))


def _is_complex(value: Any) -> bool:
    return not isinstance(value, Fraction | float) and hasattr(value, "imag") and value.imag != 0


def _factorial(a: Any) -> Any:
    from mpmath import mp

    if isinstance(a, Fraction) and a.denominator == 1:
        if a < 0:
            raise UndefinedError("factorial of a negative number")
        if a > 2_200:
            raise TooBigError
        return Fraction(math.factorial(a.numerator))
    if abs(inexact(a)) > 10_000:
        raise TooBigError
    return mp.factorial(inexact(a))


def _binomial(n: Any, k: Any) -> Any:
    from mpmath import mp

    if (
        isinstance(k, Fraction)
        and k.denominator == 1
        and k > 400
        and (not isinstance(n, Fraction) or n < 0 or n > 2_200)
    ):
        raise TooBigError
    if isinstance(k, Fraction) and k.denominator == 1 and 0 <= k <= 400:
        product: Any = Fraction(1)
        for step in range(k.numerator):
            factor = n - step
            if isinstance(product, Fraction) != isinstance(factor, Fraction):
                product, factor = inexact(product), inexact(factor)
            product = _checked(product * factor / (step + 1))
        return product
    if isinstance(n, Fraction) and isinstance(k, Fraction):  # noqa: SIM102
        if n.denominator == k.denominator == 1 and 0 <= k <= n:
            return _binomial(n, n - k) if n - k <= 400 else _too_big()
    if abs(inexact(n)) > 10_000 or abs(inexact(k)) > 10_000:
        raise TooBigError
    return mp.binomial(inexact(n), inexact(k))


def _too_big() -> Any:
    raise TooBigError


def _log(base: Any, a: Any) -> Any:
    from mpmath import mp

    if a == 0 or base in (0, 1):
        raise UndefinedError("logarithm")
    if a == 1:
        return Fraction(0)
    if isinstance(a, Fraction) and isinstance(base, Fraction) and base > 1:
        with mp.workdps(30):
            nearest = int(mp.nint(mp.log(inexact(a)) / mp.log(inexact(base)))) if a > 0 else 0
        if abs(nearest) < 4_000 and a > 0 and _whole_power(base, nearest) == a:
            return Fraction(nearest)
    return mp.log(inexact(a)) / mp.log(inexact(base))


def _degrees(a: Any) -> Any:
    from mpmath import mp

    return inexact(a) * mp.pi / 180


_OPERATIONS: Mapping[str, Any] = {
    "div": _divided,
    "pow": _power,
    "root": _root,
    "fact": _factorial,
    "binom": _binomial,
    "log": _log,
    "deg": _degrees,
    "abs": abs,
    "pct": lambda a: _divided(a, Fraction(100)),
}
UNBASED = "\\log"
"""The name under which `env` holds what a logarithm without a base is of a natural one."""


def _function(name: str, a: Any, env: Mapping[str, Any]) -> Any:
    from mpmath import mp

    if name in ("floor", "ceil"):
        if _is_complex(a):
            raise UndefinedError(name)
        if not isinstance(a, Fraction) and mp.mag(a) > 1_000:
            raise TooBigError
        exact = a if isinstance(a, Fraction) else mp.floor(a) if name == "floor" else mp.ceil(a)
        if isinstance(exact, Fraction):
            return Fraction(math.floor(exact) if name == "floor" else math.ceil(exact))
        return Fraction(int(exact.real))
    if name in ("ln", "log", "lg"):
        if a == 0:
            raise UndefinedError("logarithm of zero")
        if a == 1:
            return Fraction(0)
        found = mp.log(inexact(a))
        return found * env[UNBASED] if name == "log" else found / mp.log(10) if name == "lg" else found
    number = inexact(a)
    if mp.mag(number) > 10_000 or (name in ("exp", "sinh", "cosh", "tanh", "coth") and mp.mag(number) > 30):
        raise TooBigError
    try:
        return _checked(
            getattr(mp, {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot"}.get(name, name))(
                number
            )
        )
    except (ZeroDivisionError, ValueError) as error:
        raise UndefinedError(name) from error


def _opaque(name: str, values: list[Any], env: Mapping[str, Any]) -> Any:
    """A made-up function of that name: equal arguments give equal values, others do not."""
    from mpmath import mp

    total = inexact(env[name])
    for place, value in enumerate(values, 1):
        total = mp.sin(total + place) * 3 + _finite(inexact(value)) / 7
    return total
