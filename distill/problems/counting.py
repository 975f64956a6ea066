"""Counting with one exact answer: letters, legs, ones of a binary number, primes; items of reasoning-gym.

The wording is ours, since some of reasoning-gym's leaves open what is counted (whether `T` is a `t`) or has no plural.
Knows nothing about models, files or recipes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from distill.problems import gym
from distill.problems.supply import Draft, Split, drafted
from distill.records import Prompt

LARGEST_PRIME = 400
"""Intervals of primes end here: more is no counting by hand."""
LARGEST_BINARY = 2**20

_DISPUTED = {"starfish"}
"""Has arms, not legs."""
_PLURALS = {
    "sheep": "sheep", "deer": "deer", "jellyfish": "jellyfish", "shrimp": "shrimp", "butterfly": "butterflies",
    "firefly": "fireflies", "woodlouse": "woodlice", "praying mantis": "praying mantises", "leech": "leeches",
    "cockroach": "cockroaches",
}  # fmt: skip

_LETTERS = (
    'How many times does the letter "{letter}" occur in the following text, upper and lower case alike?\n\n{text}',
    'Count the letter "{letter}", no matter whether it is a capital, in this text: "{text}"',
    '"{text}"\n\nHow often is the letter "{letter}" found in the text above? Capitals count as well.',
)
_LEGS = (
    "How many legs do {animals} have in total?",
    "On a table of a museum stand models of {animals}. How many legs is that altogether?",
    "A list names {animals}, none of which lost a leg. Count all their legs.",
)
_BITS = (
    "How many 1 bits are there in the binary representation of {number}?",
    "Write {number} in base 2. How many of its digits are 1?",
    "Count the ones in the binary form of the number {number}.",
)
_PRIMES = (
    "How many prime numbers are there from {start} to {end}, both included?",
    "Count the primes p with {start} ≤ p ≤ {end}.",
    "How many of the whole numbers {start}, ..., {end} are prime?",
)


@dataclass(frozen=True, slots=True)
class _Count:
    """`content` is what is counted, in a form that no wording changes."""

    content: str
    question: str


def problems(split: Split, seed: int) -> Iterator[Prompt]:
    """Raises MissingError without reasoning-gym, InputError when there are hardly any left."""
    kinds: list[tuple[Callable[[random.Random], gym.Item], Callable[[random.Random, gym.Item], _Count | None]]] = [
        (gym.task("letter_counting"), _letters),
        (gym.task("leg_counting", max_animals=7), _legs),
        (gym.task("count_bits", max_n=LARGEST_BINARY), _bits),
        (gym.task("count_primes", max_n=LARGEST_PRIME), _primes),
    ]

    def draw(rng: random.Random) -> Draft | None:
        item_of, count_of = rng.choice(kinds)
        item = item_of(rng)
        count = count_of(rng, item)
        if count is None:
            return None
        question, answer = count.question, item.answer
        return Draft(count.content, lambda: Prompt(question, kind="numeric", answer=answer, domain="math"))

    return drafted("counting", split, seed, draw)


def _letters(rng: random.Random, item: gym.Item) -> _Count | None:
    letter, text = item.values["target_letter"], " ".join(item.values["span"])
    if not (letter.isascii() and letter.isalpha()) or "Gutenberg" in text:  # digits; the publisher's notice
        return None
    question = rng.choice(_LETTERS).format(letter=letter, text=text)
    return _Count(f"letters {letter} {text.lower()}", question)


def _legs(rng: random.Random, item: gym.Item) -> _Count | None:
    animals = item.values["animals"]
    if _DISPUTED & set(animals):
        return None
    named = [f"{count} {animal if count == 1 else _plural(animal)}" for animal, count in animals.items()]
    question = rng.choice(_LEGS).format(animals=f"{', '.join(named[:-1])} and {named[-1]}")
    return _Count("legs " + " ".join(f"{animal}:{count}" for animal, count in sorted(animals.items())), question)


def _plural(animal: str) -> str:
    return _PLURALS.get(animal, f"{animal}s")


def _bits(rng: random.Random, item: gym.Item) -> _Count:
    number = item.values["number"]
    return _Count(f"bits {number}", rng.choice(_BITS).format(number=number))


def _primes(rng: random.Random, item: gym.Item) -> _Count | None:
    start, end = item.values["start"], item.values["end"]
    if start == end:
        return None
    return _Count(f"primes {start} {end}", rng.choice(_PRIMES).format(start=start, end=end))
