"""The stream that all generators use: one split, no content twice, an end that says so."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from distill.errors import InputError
from distill.problems import supply
from distill.problems.supply import Draft, Split, drafted, split_of
from distill.records import Prompt

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def draft_of(rng: random.Random, most: int = 10**6) -> Draft | None:
    number = rng.randrange(most)
    wording = rng.choice(("Say", "Tell"))
    return Draft(f"number {number}", lambda: Prompt(f"{wording} {number}", answer=str(number))) if number % 3 else None


def test_a_content_belongs_to_one_split_in_any_wording() -> None:
    owners: dict[str, Split] = {}
    for split in SPLITS:
        for seed in range(3):
            for prompt in itertools.islice(drafted("n", split, seed, lambda rng: draft_of(rng, 30_000)), 400):
                assert owners.setdefault(str(prompt.answer), split) == split == split_of(f"number {prompt.answer}")
    assert Counter(owners.values()).keys() == set(SPLITS)


def test_names_splits_and_seeds_draw_differently_and_the_same_ones_alike() -> None:
    def first(name: str, split: Split, seed: int) -> list[str]:
        return [prompt.question for prompt in itertools.islice(drafted(name, split, seed, draft_of), 20)]

    assert first("n", "train", 0) == first("n", "train", 0)
    assert len({tuple(first(*key)) for key in (("n", "train", 0), ("n", "train", 1), ("m", "train", 0))}) == 3


def test_the_end_names_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "MOST_DRAWS_IN_VAIN", 2_000)
    there = {n for n in range(100) if n % 3 and split_of(f"number {n}") == "train"}
    found = []
    with pytest.raises(
        InputError, match=rf"hardly more than {len(there)} different problems of 'n' \(train\)"
    ) as caught:
        found.extend(itertools.islice(drafted("n", "train", 0, lambda rng: draft_of(rng, 100)), 1_000))
    assert "lower the limit" in str(caught.value)
    with pytest.raises(InputError, match="no problem of 'n' could be drawn"):
        next(drafted("n", "train", 0, lambda rng: None))


def test_only_a_draft_that_is_wanted_is_written_out() -> None:
    written = []

    def draw(rng: random.Random) -> Draft:
        number = rng.randrange(10**6)

        def prompt() -> Prompt:
            written.append(number)
            return Prompt(str(number))

        return Draft(str(number), prompt)

    assert len(list(itertools.islice(drafted("n", "test", 0, draw), 30))) == len(written) == 30


def test_every_prompt_of_a_stream_comes_once_although_contents_repeat() -> None:
    stream = drafted("n", "train", 0, lambda rng: draft_of(rng, 300))
    questions = [prompt.answer for prompt in itertools.islice(stream, 150)]
    assert len(set(questions)) == 150
