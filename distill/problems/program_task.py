"""One programming task, and what tasks read: lists of numbers, texts, a number, grids.

`expected` computes what a right program prints, from its definition; `solution` is a program that finds the same on
another way, so that each checks the other. Knows nothing about prompts.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

MOST_TESTS = 12


@dataclass(frozen=True, slots=True)
class Task:
    """`content` names the task and its parameters, without wording; `inputs` and what is printed lack a final newline.

    `inputs` gives at least 8 different ones, the border cases first.
    """

    content: str
    statement: str
    reads: str
    prints: str
    inputs: Callable[[random.Random], Sequence[str]]
    expected: Callable[[str], str]
    solution: str


Family = Callable[[random.Random], Task]
"""Draws the parameters of a task."""


def joined(values: Iterable[object], otherwise: str = "none") -> str:
    """Separated by single spaces; `otherwise` where there are no values."""
    return " ".join(map(str, values)) or otherwise


# --- lists of numbers -----------------------------------------------------------------------------------------------


def on_numbers(
    content: str,
    statement: str,
    prints: str,
    expected: Callable[[list[int]], str],
    body: str,
    *,
    most: int = 99,
) -> Task:
    """A task on one line of whole numbers between -most and most; the solution's body has them as `numbers`."""

    def inputs(rng: random.Random) -> list[str]:
        def some(count: int, low: int, high: int) -> list[int]:
            return [rng.randint(low, high) for _ in range(count)]

        rows = [
            [rng.randint(1, most)],
            [-rng.randint(1, most)],
            [rng.randint(1, 9)] * rng.randint(4, 7),
            sorted(some(9, -most, most)),
            sorted(some(8, -most, most), reverse=True),
            [0, *some(6, -5, 5), 0],
            *(some(rng.randint(8, 14), -9, 9) for _ in range(2)),
            *(some(rng.randint(10, 20), -most // 2, most) for _ in range(3)),
            some(30, -most, most),
        ]
        return [joined(row) for row in rows]

    return Task(
        content,
        statement,
        f"One line with 1 to 30 whole numbers between -{most} and {most}, separated by single spaces.",
        prints,
        inputs,
        lambda text: expected([int(word) for word in text.split()]),
        f"numbers = [int(word) for word in input().split()]\n{body}",
    )


# --- texts ----------------------------------------------------------------------------------------------------------

_WORDS = (
    "level", "noon", "the", "Quick", "river", "stone", "Anna", "listen", "silent", "enlist", "garden", "danger",
    "ranged", "a", "I", "to", "of", "moon", "Kayak", "apple", "grape", "banana", "aaabbb", "committee", "balloon",
    "success", "queue", "Python", "zebra", "window", "yellow", "little", "letters", "rotor", "civic", "radar",
    "books", "evil", "vile", "live", "night", "thing", "jump", "over", "lazy", "dog", "fox", "pack", "my", "box",
    "with", "five", "dozen", "jugs", "eerie", "queueing", "mississippi", "redder", "Reviver", "eye", "pop",
)  # fmt: skip


def on_words(content: str, statement: str, prints: str, expected: Callable[[str], str], body: str) -> Task:
    """A task on one line of words; the solution's body has it as `text`."""

    def inputs(rng: random.Random) -> list[str]:
        def some(count: int) -> str:
            return " ".join(rng.choice(_WORDS) for _ in range(count))

        letter = rng.choice(string.ascii_lowercase)
        return [
            letter,
            letter.upper() + letter * rng.randint(3, 6),
            rng.choice(_WORDS),
            "level Noon a civic Xx rotator Redder Eve",
            "listen silent enlist tinsel night thing dog",
            "the quick brown fox jumps over the lazy dog",
            *(some(rng.randint(3, 6)) for _ in range(3)),
            *(some(rng.randint(8, 14)) for _ in range(3)),
        ]

    reads = "One line of words made of the letters a-z and A-Z, separated by single spaces; at most 200 characters."
    return Task(content, statement, reads, prints, inputs, expected, f"text = input()\n{body}")


def on_letters(
    content: str, statement: str, prints: str, expected: Callable[[str], str], body: str, *, part: str = ""
) -> Task:
    """A task on one string of a, b and c, with runs, and with `part` in many; the solution's body has it as `text`."""
    alphabet = "abc"

    def inputs(rng: random.Random) -> list[str]:
        def some(count: int) -> str:
            text = ""
            while len(text) < count:
                text += rng.choice((rng.choice(alphabet) * rng.choice((1, 1, 2, 3)), part, part + part[1:]))
            return text

        return [
            alphabet[0],
            alphabet[-1] * 5,
            alphabet * 3,
            alphabet[::-1] * 2,
            *map(some, (4, 6, 9, 14, 20, 30, 40, 50)),
        ]

    signs = ", ".join(alphabet)
    reads = f"One line with a string of 1 to 60 of the characters {signs}."
    return Task(content, statement, reads, prints, inputs, expected, f"text = input()\n{body}")


# --- a number, a grid -----------------------------------------------------------------------------------------------


def on_number(
    content: str, statement: str, prints: str, expected: Callable[[int], str], body: str, *, most: int = 5000
) -> Task:
    """A task on one whole number from 1 to most; the solution's body has it as `n`."""

    def inputs(rng: random.Random) -> list[str]:
        numbers = [1, 2, 12, 60, most, *(rng.randint(1, 10 + most // 100) for _ in range(3))]
        return [str(number) for number in (*numbers, *(rng.randint(1, most) for _ in range(8)))]

    reads = f"One line with a whole number n from 1 to {most}."
    return Task(
        content, statement, reads, prints, inputs, lambda text: expected(int(text)), f"n = int(input())\n{body}"
    )


def on_grid(content: str, statement: str, prints: str, expected: Callable[[list[list[int]]], str], body: str) -> Task:
    """A task on a grid of whole numbers from 0 to 99; the solution's body has its rows as `grid`."""

    def inputs(rng: random.Random) -> list[str]:
        sizes = [(1, 1), (1, 5), (4, 1), (2, 2), (3, 3), (2, 5), (4, 3), (4, 4), (5, 6), (6, 5)]
        highs = [99, 99, 99, 9, 9, 20, 9, 99, 99, 20]
        return [
            f"{height} {width}\n" + "\n".join(joined(rng.randint(0, high) for _ in range(width)) for _ in range(height))
            for (height, width), high in zip(sizes, highs, strict=True)
        ]

    def parsed(text: str) -> list[list[int]]:
        return [[int(word) for word in line.split()] for line in text.split("\n")[1:]]

    reads = (
        "The first line holds the number of rows and the number of columns of a grid, each from 1 to 6. Then come the "
        "rows, one a line: whole numbers from 0 to 99, separated by single spaces."
    )
    head = (
        "height, width = map(int, input().split())\ngrid = [list(map(int, input().split())) for _ in range(height)]\n"
    )
    return Task(content, statement, reads, prints, inputs, lambda text: expected(parsed(text)), head + body)


def grid_text(rows: Iterable[Iterable[int]]) -> str:
    return "\n".join(joined(row) for row in rows)
