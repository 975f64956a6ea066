"""Everything that is counted is counted again, from the text alone."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Hashable

from distill.problems import counting
from distill.problems.gym import Item
from distill.records import Prompt
from problems.material import assert_number_is_read, assert_one_split_each, take

LEGS = {
    0: "snake, snakes, sea slug, sea slugs, jellyfish, flatworm, flatworms, leech, leeches",
    2: "chicken, chickens, bird, birds, human, humans, duck, ducks",
    4: "dog, dogs, cat, cats, cow, cows, horse, horses, lion, lions, elephant, elephants, giraffe, giraffes, tiger, "
    "tigers, deer, sheep",
    6: "insect, insects, ant, ants, butterfly, butterflies, beetle, beetles, bee, bees, wasp, wasps, grasshopper, "
    "grasshoppers, cricket, crickets, cockroach, cockroaches, praying mantis, praying mantises, firefly, fireflies",
    8: "spider, spiders, scorpion, scorpions",
    10: "crab, crabs, lobster, lobsters, shrimp",
    14: "woodlouse, woodlice",
}
LEGS_OF = {name: legs for legs, names in LEGS.items() for name in names.split(", ")}


def kind_of(prompt: Prompt) -> str:
    words = {"letters": "the letter", "legs": "legs", "primes": "prime", "bits": "bina|base 2"}
    return next(kind for kind, word in words.items() if re.search(word, prompt.question))


def facts(prompt: Prompt) -> tuple[str, Hashable]:
    kind, text = kind_of(prompt), prompt.question
    if kind == "letters":
        (letter,) = re.findall(r'the letter "(.)"', text)
        quoted = [part for part in re.findall(r'"([^"]+)"', text) if part != letter]
        (told,) = quoted or [text.split("\n\n")[1]]
        return kind, (letter, told.lower())
    if kind == "legs":
        return kind, frozenset(
            (name, int(count)) for count, name in re.findall(r"(\d+) ((?:sea |praying )?[a-z]+)", text)
        )
    numbers = tuple(map(int, re.findall(r"\d+", text)))
    return kind, (max(numbers),) if kind == "bits" else numbers


def count(prompt: Prompt) -> int:
    kind, fact = facts(prompt)
    if kind == "letters":
        letter, text = fact  # type: ignore[misc]
        return len(re.findall(letter, text))
    if kind == "legs":
        assert all(str(number) + " " + name in prompt.question for name, number in fact)  # type: ignore[attr-defined]
        return sum(number * LEGS_OF[name] for name, number in fact)  # type: ignore[attr-defined]
    if kind == "bits":
        (number,) = fact  # type: ignore[misc]
        ones = 0
        while number:
            number &= number - 1
            ones += 1
        return ones
    start, *_, end = fact  # type: ignore[misc]
    return sum(1 for n in range(start, end + 1) if sum(n % k == 0 for k in range(1, n + 1)) == 2)


DRAWN = take("counting", "train", 0, 800)


def test_counted_again() -> None:
    kinds: Counter[str] = Counter()
    for prompt in DRAWN:
        assert prompt.answer == str(count(prompt)), prompt.question
        assert (prompt.kind, prompt.domain) == ("numeric", "math")
        kinds[kind_of(prompt)] += 1
    assert kinds.keys() == {"letters", "legs", "bits", "primes"}
    assert min(kinds.values()) > 120


def test_the_verifier_reads_every_gold() -> None:
    for prompt in DRAWN[:150]:
        assert prompt.answer is not None
        assert_number_is_read(prompt.answer)


def test_one_split_each() -> None:
    assert_one_split_each("counting", facts, (800, 200, 200))


def test_content_knows_no_wording() -> None:
    items = {
        counting._letters: {"target_letter": "t", "span": ["The", "tree"]},
        counting._legs: {"animals": {"dog": 2, "ant": 1, "bee": 3}},
        counting._bits: {"number": 77},
        counting._primes: {"start": 3, "end": 50},
    }
    for count_of, told in items.items():
        found = [count_of(random.Random(seed), Item("", told)) for seed in range(40)]
        assert len({count.question for count in found if count}) == 3
        assert len({count.content for count in found if count}) == 1
    orders = [
        counting._legs(random.Random(0), Item("", {"animals": told})) for told in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    ]
    assert len({count.content for count in orders if count}) == 1


def test_nothing_disputed_is_counted() -> None:
    for prompt in DRAWN:
        assert "starfish" not in prompt.question
        assert "Gutenberg" not in prompt.question
        if kind_of(prompt) == "letters":
            assert re.fullmatch("[a-z]", facts(prompt)[1][0])  # type: ignore[index]
            assert re.search("[Cc]apital|upper and lower", prompt.question), "whether T is a t is said"
        if kind_of(prompt) == "legs":
            assert not re.search(r"\b1 [a-z ]*(?:s|ies)\b(?<!praying mantis)", prompt.question), prompt.question


def test_all_animals_have_a_plural() -> None:
    assert counting._plural("butterfly") == "butterflies"
    assert counting._plural("dog") == "dogs"
