"""Questions with four choices about facts that can be computed: exactly one choice is right, the others provably not.

The right choice stands at every letter equally often. Knows nothing about models, files or recipes.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from distill.problems.supply import Draft, Split, drafted
from distill.records import Prompt

LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Question:
    """`asked` is the question without its wording. It is the content, with the choices, in any order, where only they
    make it a question (`among`): 30% of 120 stays one problem, whatever else stands beside the right number."""

    asked: str
    wordings: tuple[str, ...]
    right: str
    wrong: tuple[str, ...]
    domain: str = "math"
    among: bool = False

    @property
    def content(self) -> str:
        return f"{self.asked}: {' | '.join(sorted((self.right, *self.wrong)))}" if self.among else self.asked


def problems(split: Split, seed: int) -> Iterator[Prompt]:
    """Raises InputError when there are hardly any left."""

    def draw(rng: random.Random) -> Draft | None:
        question = FAMILIES[rng.choice(list(FAMILIES))](rng)
        choices = [question.right, *question.wrong]
        if len(choices) != len(LETTERS) or len(set(choices)) != len(choices):
            return None
        rng.shuffle(choices)
        text, letter = rng.choice(question.wordings), LETTERS[choices.index(question.right)]
        return Draft(
            question.content,
            lambda: Prompt(text, kind="choice", answer=letter, choices=tuple(choices), domain=question.domain),
        )

    return drafted("multiple-choice", split, seed, draw)


# --- numbers --------------------------------------------------------------------------------------------------------


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, math.isqrt(number) + 1))


def _prime(rng: random.Random) -> Question:
    """Distractors are products of primes from 3 on, so no last digit gives them away but 5."""
    bound = rng.choice((100, 300, 1000))
    right = rng.choice([number for number in range(11, bound) if _is_prime(number)])
    wrong = rng.sample([n for n in range(21, bound) if n % 2 and n % 5 and not _is_prime(n)], 3)
    wordings = ("Which of these numbers is prime?", "Exactly one of these numbers is a prime number. Which one?")
    return Question("prime", wordings, str(right), tuple(map(str, wrong)), among=True)


def _divisible(rng: random.Random) -> Question:
    factor = rng.choice((3, 4, 6, 7, 8, 9, 11, 12, 13))
    start = rng.randint(20, 900)
    right = start - start % factor
    near = [n for n in range(max(10, right - 40), right + 40) if n % factor and (factor % 2 or n % 2 == 0)]
    wordings = (f"Which number is divisible by {factor}?", f"Which of these is a multiple of {factor}?")
    return Question(f"divisible {factor}", wordings, str(right), tuple(map(str, rng.sample(near, 3))), among=True)


def _gcd(rng: random.Random) -> Question:
    common = rng.randint(2, 24)
    a, b = sorted(common * factor for factor in rng.sample(range(2, 15), 2))
    right = math.gcd(a, b)
    near = {*(d for d in range(1, a + 1) if a % d == 0), right * 2, right + 1, right + 2, abs(a - b)} - {right, 0}
    wordings = (
        f"What is the greatest common divisor of {a} and {b}?",
        f"Which is the largest whole number that divides both {a} and {b}?",
    )
    return Question(f"gcd {a} {b}", wordings, str(right), _some(rng, near))


def _binary(rng: random.Random) -> Question:
    number = rng.randint(9, 500)
    near = {number + shift for shift in (-4, -3, -2, -1, 1, 2, 3, 4, 8)}
    wordings = (f"What is {number} in binary?", f"How is the number {number} written in base 2?")
    return Question(f"binary {number}", wordings, f"{number:b}", tuple(f"{n:b}" for n in rng.sample(sorted(near), 3)))


def _roman(rng: random.Random) -> Question:
    number = rng.randint(14, 399)
    swapped = {number + shift for shift in (-10, -5, -2, -1, 1, 2, 5, 10)}
    wordings = (f"Which number does the Roman numeral {roman(number)} stand for?", f"What is {roman(number)}?")
    return Question(f"roman {number}", wordings, str(number), _some(rng, swapped))


def roman(number: int) -> str:
    text = ""
    for value, sign in zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
        strict=True,
    ):
        text += sign * (number // value)
        number %= value
    return text


def _fraction(rng: random.Random) -> Question:
    """Largest or smallest of four different fractions in lowest terms."""
    top = rng.choice((9, 12, 20))
    values: set[Fraction] = set()
    while len(values) < len(LETTERS):
        below = rng.randint(3, top)
        values.add(Fraction(rng.randint(1, below - 1), below))
    ordered = sorted(values)
    word = rng.choice(("largest", "smallest"))
    right = ordered.pop() if word == "largest" else ordered.pop(0)
    wordings = (f"Which fraction is the {word}?", f"Find the {word} of these four fractions.")
    return Question(f"{word} fraction", wordings, str(right), tuple(map(str, ordered)), among=True)


def _percent(rng: random.Random) -> Question:
    percent, base = rng.choice((5, 10, 15, 20, 25, 30, 40, 60, 75, 80)), 20 * rng.randint(2, 40)
    right = percent * base // 100
    near = {right + base // 20, abs(right - base // 20), base - right, right * 2, right + 10, percent} - {right, 0}
    wordings = (f"How much is {percent}% of {base}?", f"{percent} percent of {base} is")
    return Question(f"percent {percent} {base}", wordings, str(right), _some(rng, near))


def _some(rng: random.Random, numbers: set[int]) -> tuple[str, ...]:
    """Three of these numbers, drawn from them in order: a set has none that every Python shares."""
    return tuple(map(str, rng.sample(sorted(numbers), 3)))


# --- sequences ------------------------------------------------------------------------------------------------------


def _sequence(rng: random.Random) -> Question:
    """The rule is told, so that no other continuation can be defended."""
    start, step = rng.randint(1, 30), rng.randint(2, 12)
    rule, terms = rng.choice(
        (
            (f"each term is {step} more than the one before", [start + step * n for n in range(5)]),
            (f"each term is {step} less than the one before", [start + step * (8 - n) for n in range(5)]),
            ("each term is twice the one before", [start * 2**n for n in range(5)]),
            ("each term is three times the one before", [start * 3**n for n in range(5)]),
            ("each term is the sum of the two before", _sums(start, step)),
            ("the differences grow by 1 from term to term", [start + n * step + n * (n - 1) // 2 for n in range(5)]),
        )
    )
    right, last = terms[-1], terms[-2]
    near = {right + shift for shift in (-step, -2, -1, 1, 2, step)} | {2 * last - terms[-3], last + 1}
    listed = ", ".join(map(str, terms[:-1]))
    wordings = (
        f"In the sequence {listed}, ..., {rule}. Which term comes next?",
        f"What is the next number of {listed}, if {rule}?",
    )
    return Question(f"sequence {listed} {rule}", wordings, str(right), _some(rng, near - {right}))


def _sums(first: int, second: int) -> list[int]:
    terms = [first, second]
    while len(terms) < 5:
        terms.append(terms[-1] + terms[-2])
    return terms


# --- shapes ---------------------------------------------------------------------------------------------------------

ANGLES: Mapping[str, tuple[int, int]] = {"acute": (1, 89), "obtuse": (91, 179), "reflex": (181, 359)}
"""Type → smallest and largest whole number of degrees."""


def _angle(rng: random.Random) -> Question:
    kind = rng.choice(list(ANGLES))
    right = rng.randint(*ANGLES[kind])
    others = [degrees for name, (low, high) in ANGLES.items() if name != kind for degrees in range(low, high + 1)]
    wrong = rng.sample([*others, 90, 180], 3)
    article = "a" if kind == "reflex" else "an"
    wordings = (f"Which of these is {article} {kind} angle?", f"Which angle is {kind}?")
    return Question(f"angle {kind}", wordings, f"{right}°", tuple(f"{degrees}°" for degrees in wrong), among=True)


def _triangle(rng: random.Random) -> Question:
    """Which three lengths make a triangle at all."""

    def sides(closes: bool) -> str:
        while True:
            a, b, c = sorted(rng.randint(2, 20) for _ in range(3))
            if (a + b > c) == closes:
                return f"{a} cm, {b} cm, {c} cm"

    wordings = (
        "Which three lengths can be the sides of a triangle?",
        "From which of these can a triangle with a positive area be built?",
    )
    return Question("triangle", wordings, sides(True), tuple(sides(False) for _ in range(3)), among=True)


def _right_triangle(rng: random.Random) -> Question:
    m, n = rng.choice([(m, n) for m in range(2, 8) for n in range(1, m)])
    scale = rng.randint(1, 3)
    a, b, c = sorted((scale * (m * m - n * n), scale * 2 * m * n, scale * (m * m + n * n)))
    near = [(a + i, b + j, c + k) for i, j, k in itertools.product((-1, 0, 1), repeat=3)]
    wrong = [sides for sides in near if sides[0] ** 2 + sides[1] ** 2 != sides[2] ** 2 and sum(sides) > 2 * sides[2]]
    wordings = ("Which side lengths belong to a right triangle?", "Which of these triangles has a right angle?")
    written = ["{}, {}, {}".format(*sides) for sides in rng.sample(wrong, 3)]
    return Question("right triangle", wordings, f"{a}, {b}, {c}", tuple(written), among=True)


# --- the calendar ---------------------------------------------------------------------------------------------------


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _leap_year(rng: random.Random) -> Question:
    """One distractor is a full century that is no leap year, when the dice say so: the rule that is often forgotten."""
    years = range(1801, 2200)
    right = rng.choice([year for year in years if _is_leap(year)])
    wrong = rng.sample([year for year in years if not _is_leap(year) and (year % 2 == 0 or rng.random() < 0.3)], 3)
    century = rng.choice((1700, 1800, 1900, 2100))
    if rng.random() < 0.5 and century not in wrong:
        wrong[0] = century
    wordings = (
        "Which year is a leap year in the Gregorian calendar?",
        "In which of these years does February have 29 days (Gregorian calendar)?",
    )
    return Question("leap year", wordings, str(right), tuple(map(str, wrong)), "stem", among=True)


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _weekday(rng: random.Random) -> Question:
    start, days = rng.randrange(7), rng.randint(8, 400)
    right = _DAYS[(start + days) % 7]
    wrong = rng.sample([day for day in _DAYS if day != right], 3)
    wordings = (
        f"Today is {_DAYS[start]}. Which day of the week is it in {days} days?",
        f"Which day of the week comes {days} days after a {_DAYS[start]}?",
    )
    return Question(f"weekday {start} {days}", wordings, right, tuple(wrong), "logic")


# --- logic ----------------------------------------------------------------------------------------------------------

_NAMES = ("Ada", "Bela", "Carl", "Dina", "Emil", "Fay", "Gus", "Hana", "Ira", "Jon", "Kim", "Lou")
_ORDERS = (("taller", "tallest", "shortest"), ("older", "oldest", "youngest"), ("faster", "fastest", "slowest"))


def _order(rng: random.Random) -> Question:
    """A chain of comparisons, told in a shuffled order: one name is asked for by its place."""
    people = rng.sample(_NAMES, 4)  # from first to last
    more, first, last = rng.choice(_ORDERS)
    facts = [f"{a} is {more} than {b}." for a, b in itertools.pairwise(people)]
    rng.shuffle(facts)
    place, asked = rng.choice(((0, f"the {first}"), (1, f"the second {first}"), (3, f"the {last}")))
    wordings = (f"{' '.join(facts)} Who is {asked} of the four?", f"{' '.join(facts)} Which of them is {asked}?")
    wrong = tuple(name for name in people if name != people[place])
    return Question(f"order {' '.join(people)} {place}", wordings, people[place], wrong, "logic")


def _probability(rng: random.Random) -> Question:
    red, blue, green = (rng.randint(1, 9) for _ in range(3))
    right, total = Fraction(red, red + blue + green), red + blue + green
    near = {Fraction(blue, total), Fraction(green, total), 1 - right, Fraction(red, blue + green), Fraction(1, 3)}
    near |= {Fraction(red + 1, total), Fraction(1, total), Fraction(1, 4), Fraction(1, 2), Fraction(2, 3)}
    near -= {right}
    wordings = (
        f"A bag holds {red} red, {blue} blue and {green} green balls. One is drawn at random, all being equally "
        "likely. What is the probability that it is red?",
        f"Of {total} equally likely lots {red} are red, {blue} blue and {green} green. How likely is a red one?",
    )
    return Question(f"probability {red} {blue} {green}", wordings, str(right), _some_of(rng, sorted(near)))


def _some_of(rng: random.Random, values: Sequence[Fraction]) -> tuple[str, ...]:
    return tuple(map(str, rng.sample([value for value in values if value < 1], 3)))


FAMILIES: Mapping[str, Callable[[random.Random], Question]] = {
    "prime": _prime,
    "divisible": _divisible,
    "gcd": _gcd,
    "binary": _binary,
    "roman": _roman,
    "fraction": _fraction,
    "percent": _percent,
    "sequence": _sequence,
    "angle": _angle,
    "triangle": _triangle,
    "right triangle": _right_triangle,
    "leap year": _leap_year,
    "weekday": _weekday,
    "order": _order,
    "probability": _probability,
}
"""Each draws a question; one whose choices are not all different is thrown away."""
