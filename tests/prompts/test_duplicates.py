"""Exact and near-duplicates: what is found, what stays, and how much work it may take."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from distill.prompts.duplicates import PER_ROW, Duplicate, NearDuplicates
from distill.prompts.pairs import capped
from prompts.planted import CLIPS, WALLET, perturbations

POEM = "Describe in your own words why the sea looks blue, and how a painter would mix that colour."


def added(texts: Sequence[str]) -> NearDuplicates:
    near = NearDuplicates()
    for text in texts:
        near.add(text)
    return near


def decided(texts: Sequence[str]) -> list[Duplicate]:
    return added(texts).decide(lambda rows: {row: texts[row] for row in rows})


@pytest.mark.parametrize("kind", perturbations.SAME | perturbations.HARDER)
@pytest.mark.parametrize("question", [CLIPS, WALLET])
def test_each_kind_of_changed_copy_is_found(kind: str, question: str) -> None:
    perturb = (perturbations.SAME | perturbations.HARDER)[kind]
    copies = [copy for seed in range(10) if (copy := perturb(question, random.Random(seed)))]
    assert [(each.row, each.of) for each in decided([POEM, question, *copies])] == [(n, 1) for n in range(2, 12)]


@pytest.mark.parametrize("kind", perturbations.OTHER)
@pytest.mark.parametrize("question", [CLIPS, WALLET])
def test_no_look_alike_is_taken_for_a_copy(kind: str, question: str) -> None:
    others = {other for seed in range(10) if (other := perturbations.OTHER[kind](question, random.Random(seed)))}
    assert others
    assert [each for each in decided([question, *sorted(others)]) if each.of == 0] == []


def test_without_numbers_minhash_finds_the_copy() -> None:
    slip = POEM.replace("painter", "paniter")
    assert [(each.row, each.of, each.exact) for each in decided([POEM, CLIPS, slip])] == [(2, 0, False)]


DEBTS = (
    "Earl has $90; Fred has $48; Greg has $36. Earl owes Fred $28. Fred owes Greg $32. Greg owes Earl $40. "
    "What will Greg and Earl have?"
)


def test_the_numbers_bring_copies_together_that_share_few_words() -> None:
    """The first text of a key is compared even when twenty others stand between."""
    others = [f"{word} 90 or 48 or 36 or 28 or 32 or 40, {word}?" for word in "abcdefghijklmnopqrst"]
    names = list(itertools.permutations(("Ann", "Bea", "Kim", "Max"), 3))
    copies = [DEBTS.replace("Earl", a).replace("Fred", b).replace("Greg", c) for a, b, c in names]
    found = sum((21, 0) in [(each.row, each.of) for each in decided([DEBTS, *others, copy])] for copy in copies)
    assert found >= 20, f"{found} of {len(copies)}"


def test_templates_with_other_numbers_are_not_even_compared() -> None:
    near = added([CLIPS.replace("48", str(n)) for n in range(500)])
    assert near.decide(lambda rows: {}) == []
    assert near.compared == 0


def test_a_copy_of_a_copy_has_to_be_like_the_one_that_stays() -> None:
    first, second, third = (POEM.replace("painter", word) for word in ("painter", "paniter", "panither"))
    assert [(each.row, each.of) for each in decided([second, third])] == [(1, 0)]
    assert [(each.row, each.of) for each in decided([first, second, third])] == [(1, 0)]


def test_a_row_has_so_many_pairs_at_most() -> None:
    pairs = np.array([*((7 << 32) + n for n in range(100)), (8 << 32) + 1, (8 << 32) + 7], np.uint64)
    assert list(capped(pairs, PER_ROW)) == [*pairs[:PER_ROW], *pairs[-2:]]


def test_the_pairs_of_a_row_are_capped_over_all_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.prompts.duplicates.PER_ROW", 3)
    texts = [f"Tell me how {a}{b}{a} met them in 1, 2 or 3 words, {TAIL}" for a in "abcdefghij" for b in "klmnopqrst"]
    near = added(texts)
    assert near.decide(lambda rows: {row: texts[row] for row in rows}) == []
    assert 0 < near.compared <= 3 * len(texts)


def test_the_earliest_stays_and_every_copy_names_it() -> None:
    anna = CLIPS.replace("Natalia", "Anna")
    texts = [WALLET, CLIPS, anna, anna.upper(), CLIPS, CLIPS.replace("Natalia", "Bea"), WALLET.lower()]
    found = decided(texts)
    assert [(each.row, each.of) for each in found] == [(2, 1), (3, 1), (4, 1), (5, 1), (6, 0)]
    assert [each.exact for each in found] == [False, False, True, False, True]
    assert all(0 < each.similarity <= 1 for each in found)


def test_blank_texts_repeat_nothing_and_signs_only_themselves() -> None:
    assert [(each.row, each.of) for each in decided(["", "", " \n", "😀", "🎉", "😀 ", "...", "..."])] == [
        (5, 3),
        (7, 6),
    ]
    assert decided([]) == []


def test_marks_emoji_and_a_megabyte_do_no_harm() -> None:
    big = "An apple a day keeps 7 doctors away. " * 27_000
    texts = ["\u0301\u0301", "😀 5 apples", big, "\u0301\u0301", "😀 5 apples!", big + " Now.", "a\ud800", "a\ud800"]
    assert [(each.row, each.of) for each in decided(texts)] == [(3, 0), (4, 1), (5, 2), (7, 6)]


def test_the_same_texts_give_the_same_result() -> None:
    rng = random.Random(5)
    texts = [CLIPS.replace("48", str(n % 30)) for n in range(200)] + [
        perturbations.case(WALLET, rng) for _ in range(20)
    ]
    assert decided(texts) == decided(texts)


def test_of_four_thousand_texts_under_one_key_each_is_compared_with_a_few() -> None:
    letters = list(itertools.product("abcdefgh", repeat=4))
    texts = [f"Tell me how {a}{b}{a} met {c}{d}{c} in 1, 2 or 3 words, {TAIL}" for a, b, c, d in letters]
    near = added(texts)
    assert near.decide(lambda rows: {row: texts[row] for row in rows}) == []
    assert len(texts) < near.compared <= PER_ROW * len(texts)


TAIL = "with a short example for each of them and without any of the usual phrases that people like so much"


def test_copies_of_one_text_are_all_found_however_many_there_are() -> None:
    texts = [CLIPS.replace("Natalia", f"N{'abcdefghij'[n % 10]}{'klmnopqrst'[n // 10 % 10]}o") for n in range(300)]
    assert [each.of for each in decided(texts)] == [0] * 299


def test_texts_are_asked_for_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.prompts.duplicates.BATCH", 7)
    asked: list[int] = []
    texts = [CLIPS.replace("Natalia", name) for name in perturbations.NAMES] * 3

    def fetch(rows: Sequence[int]) -> Mapping[int, str]:
        asked.append(len(rows))
        return {row: texts[row] for row in rows}

    found = added(texts).decide(fetch)
    assert [each.of for each in found] == [0] * (len(texts) - 1)
    assert max(asked) <= 14


def test_many_rows_grow_the_arrays() -> None:
    texts = [f"What is {n} + {n + 1} + {n * n}?" for n in range(3_000)]
    assert decided([*texts, texts[2_999], texts[0]]) == [
        Duplicate(3_000, 2_999, 1.0, True),
        Duplicate(3_001, 0, 1.0, True),
    ]
