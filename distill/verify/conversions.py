"""One unit in others: its sizes in those of its dimension, what it is made of, the zeros of temperatures.

Knows nothing about how units are named.
"""

from __future__ import annotations

import functools
from fractions import Fraction

from distill.verify.units import UNITS, Unit

_DERIVED = {
    "newton": {"mass": 1, "length": 1, "time": -2}, "joule": {"mass": 1, "length": 2, "time": -2},
    "watt": {"mass": 1, "length": 2, "time": -3}, "pascal": {"mass": 1, "length": -1, "time": -2},
    "coulomb": {"ampere": 1, "time": 1}, "volt": {"mass": 1, "length": 2, "time": -3, "ampere": -1},
    "ohm": {"mass": 1, "length": 2, "time": -3, "ampere": -2}, "tesla": {"mass": 1, "time": -2, "ampere": -1},
    "farad": {"mass": -1, "length": -2, "time": 4, "ampere": 2}, "hertz": {"time": -1},
    "henry": {"mass": 1, "length": 2, "time": -2, "ampere": -2}, "molar": {"mole": 1, "volume": -1},
}  # fmt: skip
"""What the units of the SI that have a name of their own are made of."""
_SIZES = {name: frozenset(size for other, size in UNITS.values() if other == name) for name, _ in UNITS.values()}
_TEMPERATURES = {
    "kelvin": (Fraction(1), Fraction(0)),
    "celsius": (Fraction(1), Fraction("273.15")),
    "fahrenheit": (Fraction(5, 9), Fraction("459.67") * 5 / 9),
}


@functools.lru_cache(maxsize=1_024)
def ratios(unit: Unit) -> frozenset[Fraction]:
    """How much of one unit each other of its dimensions is: with 2 hours, 120 minutes may have been asked for."""
    sizes = {Fraction(1)}
    for dimension, power in unit.dimensions:
        sizes = {size * other**power for size in sizes for other in _SIZES[dimension]}
    return frozenset(size / unit.factor for size in sizes) - {Fraction(1)}


@functools.lru_cache(maxsize=1_024)
def reduced(unit: Unit) -> Unit:
    """The same in metres, kilograms, seconds and amperes as far as it is made of them: a joule is a newton metre."""
    dimensions, factor = dict[str, int](), unit.factor
    parts = [
        (name, power * by) for whole, by in unit.dimensions for name, power in _DERIVED.get(whole, {whole: 1}).items()
    ]
    for name, power in parts:
        if name == "volume":
            name, power, factor = "length", 3 * power, factor * Fraction(1, 1000) ** power
        dimensions[name] = dimensions.get(name, 0) + power
    return Unit(tuple(sorted((name, power) for name, power in dimensions.items() if power)), factor, unit.words)


def temperature(unit: Unit) -> tuple[Fraction, Fraction] | None:
    """How many kelvins a degree of it is, and how many its zero; None for no unit of temperature."""
    name, power = unit.dimensions[0] if len(unit.dimensions) == 1 else ("", 0)
    if power != 1 or name not in _TEMPERATURES:
        return None
    size, zero = _TEMPERATURES[name]
    return size * unit.factor, zero


def temperatures(size: Fraction, zero: Fraction, value: Fraction) -> tuple[Fraction, ...]:
    """A temperature in kelvins and in degrees Celsius and Fahrenheit."""
    kelvins = value * size + zero
    return tuple((kelvins - zero) / size for size, zero in _TEMPERATURES.values())
