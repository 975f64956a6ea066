"""One number as it is written: its value, the place of its last digit, its percent sign, scale and unit."""

from __future__ import annotations

import time
from decimal import Decimal
from fractions import Fraction

import pytest

from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.conversions import temperature
from distill.verify.numeric import check_numeric
from distill.verify.quantity import Quantity, numbers_in, read, value_behind
from distill.verify.units import unit_of


def found(text: str) -> Quantity:
    quantity = read(text)
    assert quantity is not None, text
    return quantity


@pytest.mark.parametrize(
    ("text", "value", "place", "whole"),
    [
        ("42", "42", "1", True),
        ("-42", "-42", "1", True),
        ("42.0", "42", "0.1", False),
        ("0.120", "0.12", "0.001", False),
        ("1,234,567", "1234567", "1", True),
        ("1e5", "100000", "1e5", False),
        ("1.60e-19", "1.6e-19", "1e-21", False),
        (r"-3.0 \times 10^8", "-3e8", "1e7", False),
        ("4.2 x 10^-3", "0.0042", "0.0001", False),
        ("3.5×10⁻²", "0.035", "0.001", False),
        (r"10^{5}", "100000", "100000", True),
        (r"10^{-3}", "0.001", "0.001", False),
        ("2.5 million", "2500000", "100000", False),
        ("3 million", "3000000", "1000000", True),
        ("5万", "50000", "10000", True),
        (r"12.5\%", "12.5", "0.1", False),
        ("-5%", "-5", "1", True),
        (r"\frac{84}{2}", "42", None, True),
        ("3/4", "0.75", None, False),
        ("2½", "2.5", None, False),
        (r"0.\overline{3}", "0." + "3" * 60, None, False),
        ("√12", "3.46410161513775458705489268301", None, False),
        (r"\pi-e", "0.423310825130748003102355911927", None, False),
        (r"\log 1000", "3", None, None),
        (r"2^{100}", str(2**100), None, True),
        ("7" * 70, "7" * 70, "1", True),
        ("7" * 70 + " million", "7" * 70 + "000000", "1e6", True),
    ],
)
def test_numbers(text: str, value: str, place: str | None, whole: bool | None) -> None:
    quantity = found(text)
    assert quantity.value == Decimal(value)
    assert quantity.place == (None if place is None else Decimal(place))
    assert whole is None or quantity.whole is whole


def test_percent_and_scale_stand_apart() -> None:
    assert (found("50%").percent, found("50 per cent").percent, found("50").percent) == (True, True, False)
    assert found(r"\$3 \text{ million}").scale == 10**6
    assert found("50%").hundredth() == Quantity(Decimal("0.5"), Decimal("0.01"))


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("5 m/s^2", "m / s ^ 2"),
        (r"5\,\mathrm{m\,s^{-2}}", "m s ^ -2"),
        ("5 K", "kelvin"),
        (r"5 \mu m", "um"),
        ("5μm", "um"),
        (r"5 k\Omega", "kohm"),
        ("5 Ω", "ohm"),
        ("5 J/(mol K)", "J / mol K"),
        ("5 W/m-K", "W / m K"),
        ("5 W/(m K)", "W / m K"),
        ("5 kW-h", "kWh"),
        ("5 s^{-1}", "s ^ -1"),
        (r"25\text{ °C}", "celsius"),
        ("25℃", "celsius"),
        ("25 degrees C", "celsius"),
        (r"90^\circ", "degree"),
        ("5 (m/s)", "m / s"),
        ("$5", "dollars"),
        ("USD 5", "dollars"),
        ("€5", "euros"),
        ("2\\pi m", "m"),
        ("5A", "ampere"),
        ("5 sec", "seconds"),
    ],
)
def test_units(text: str, unit: str) -> None:
    assert found(text).unit == unit_of(unit.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5 red apples", ("apple", "red")),
        ("5apples", ("apple",)),
        ("200 pounds from small animals", ()),
        ("5 books/shelf", ("book", "per", "shelf")),
        ("5 公里", ("公里",)),
        ("12 (twelve)", ()),
        ("5 (approximately)", ()),
    ],
)
def test_things_that_are_counted(text: str, words: tuple[str, ...]) -> None:
    unit = found(text).unit
    assert (unit.words if unit is not None else ()) == words


@pytest.mark.parametrize(
    "text",
    [
        "", "five", "5 6", "1.2.3", "1.000.000", "3,5", "2x", "2xy", "2sinx", "2 sinx", "2(x)", "2 (x+y)", "2 (sin x)",
        "5 (thousands)", "5 pairs", "5 thousandths", "3 halves", "5 or 6", "5 less than that", "5 m 3 s", "3:45",
        "x > 5", "5 ± 1", r"\infty", r"\frac{1}{0}", "1e400000", "1e-2000", "1e2000", r"\sqrt{-2}", r"50\% \cdot 3",
        r"\sin 30^\circ", "1/2\\pi", r"\ln 2/5", r"9^{9^{9}}", "2000000!", r"\binom{10^9}{10^8}", "\ud800 5",
        "1" * 3_000, "(((((5)))))",
    ],
)  # fmt: skip
def test_what_is_no_quantity(text: str) -> None:
    started = time.process_time()
    assert read(text) is None
    assert time.process_time() - started < 0.5


def test_the_numbers_of_a_sentence() -> None:
    def values(text: str) -> list[tuple[Decimal, bool]] | None:
        numbers = numbers_in(text)
        return None if numbers is None else [(number.value, number.percent) for number in numbers]

    assert values("He had 20 apples, 1,200 pears and 3 million plums, 5% of them bad.") == [
        (Decimal(20), False), (Decimal(1200), False), (Decimal(3_000_000), False), (Decimal(5), True),
    ]  # fmt: skip
    assert values("It gained 400 - 200 = 200 pounds — 15 of them fat.") == [
        (Decimal(400), False), (Decimal(-200), False), (Decimal(200), False), (Decimal(15), False),
    ]  # fmt: skip
    assert values("It is 25°C or 90° at 1.5e3 m.") == [
        (Decimal(25), False),
        (Decimal(90), False),
        (Decimal(1500), False),
    ]
    assert values(r"It is \frac{3}{4} of 8") is None
    assert values("None at all") == []
    hours = numbers_in("It takes 1.5 hours of work and 20 clips.")
    assert hours is not None
    assert [number.unit for number in hours] == [unit_of(["hours"]), None]


def test_the_value_behind_an_equals_sign() -> None:
    behind = value_behind("So the bear gained 2 + 2 = 4 pounds from small animals, which is little.")
    assert behind is not None
    assert (behind.value, behind.unit) == (Decimal(4), unit_of(["pounds"]))
    assert value_behind("It gained 4 pounds") is None
    assert value_behind("x = 3, y = 4") is None
    assert value_behind("x \\leq y = 4") is None


@pytest.mark.parametrize(
    ("gold", "answer", "outcome"),
    [
        ("30 cm^2", "30 square centimeters", PASS),
        ("5 J", "5 N·m", PASS),
        ("5 M", "5 mol/L", PASS),
        ("5 V/m", "5 N/C", PASS),
        ("5 mol/L", "5 mol/m^3", abstaining("different_unit")),
        ("5 people", "5 persons", PASS),
        ("25 °C", r"25 \text{ degrees Celsius}", PASS),
        ("1500 μm", r"1500\,\mu\text{m}", PASS),
        ("5 mA", "5 A", abstaining("different_unit")),
        ("300 mK", "0.3", abstaining("different_unit")),
        ("273.45", "300 mK", failing("wrong_answer")),
        ("-272.85", "300 mK", abstaining("different_unit")),
        ("42", r"\frac{84}{2}", PASS),
        (r"\frac{84}{2}", "42.1", abstaining("coarse_gold")),
        ("10", "5 pairs", abstaining("ambiguous_answer")),
        ("5", "5万", abstaining("ambiguous_answer")),
        ("50000", "5万", PASS),
        ("7" * 70, "7" * 69 + "8", failing("wrong_answer")),
        (r"\log_2 8", "3", PASS),
        ("2", r"\log 100", PASS),
    ],
)
def test_verdicts(gold: str, answer: str, outcome: Outcome) -> None:
    assert check_numeric(rf"\boxed{{{answer}}}", gold) == outcome


def test_only_a_bare_unit_of_temperature_has_a_zero() -> None:
    degree, squared = unit_of(["celsius"]), unit_of(["K", "^", "2"])
    assert degree is not None
    assert squared is not None
    assert temperature(degree) == (1, Fraction("273.15"))
    assert temperature(squared) is None
