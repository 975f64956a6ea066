"""Problems of an evaluation set in prompts and in long texts: what is a hit, and what only looks like one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest

from distill.problems import arithmetic
from distill.prompts.contamination import Contamination, Hit
from distill.prompts.words import words
from prompts.planted import CLIPS, WALLET, perturbations

SHORT = "Compute $3^5 - 7$."
POEM = "Describe in your own words why the sea looks blue, and how a painter would mix that colour."
TEMPLATE = "You are given a list of integers and have to return another list as the statement below asks you to do."
LONG = " ".join(f"Then {chr(97 + n % 26) * 3} makes {n} of {chr(97 + n % 7) * 4} out of it." for n in range(3_000))


@pytest.fixture(scope="module")
def contamination() -> Contamination:
    return Contamination([("aime", SHORT), ("gsm8k", POEM), ("gsm8k", CLIPS), ("gsm8k", WALLET), ("empty", " ")])


@pytest.mark.parametrize("kind", perturbations.SAME | perturbations.HARDER)
@pytest.mark.parametrize(("place", "question"), [(1, CLIPS), (2, WALLET)])
def test_each_kind_of_changed_copy_is_a_hit(contamination: Contamination, kind: str, place: int, question: str) -> None:
    perturb = (perturbations.SAME | perturbations.HARDER)[kind]
    copies = [copy for seed in range(10) if (copy := perturb(question, random.Random(seed)))]
    hits = [contamination.hit(copy) for copy in copies]
    assert [(hit.benchmark, hit.problem) for hit in hits if hit] == [("gsm8k", place)] * 10


def test_a_hit_names_problem_share_and_an_example(contamination: Contamination) -> None:
    assert contamination.hit("Q: " + POEM) == Hit("gsm8k", 0, 1.0, "describe in your own words why the sea")
    assert contamination.hit(SHORT) == Hit("aime", 0, 1.0, "compute 3 ^ 5 - 7")


@pytest.mark.parametrize(
    "question", [CLIPS, WALLET, POEM, CLIPS.replace("Natalia", "Anna"), WALLET.replace("Betty", "Mary Lu")]
)
def test_a_problem_inside_a_long_text_is_a_hit(contamination: Contamination, question: str) -> None:
    assert contamination.hit(LONG) is None
    hit = contamination.hit(f"{LONG}\n{question}\n{LONG}")
    assert hit is not None
    assert hit.benchmark == "gsm8k"
    assert contamination.hit(f"{LONG} {question} {LONG}".upper()) is not None


def test_a_long_part_of_a_problem_is_a_hit_and_a_short_one_is_none(contamination: Contamination) -> None:
    assert contamination.hit(WALLET[: len(WALLET) // 2]) == Hit(
        "gsm8k", 2, 1.0, "betty is saving money for a new wallet"
    )
    assert contamination.hit("Natalia sold clips to 48 of her friends") is None


@pytest.mark.parametrize(
    "text",
    [
        CLIPS.replace("48", "60").replace("half", "twice"),
        "How many clips did Anna sell? Please reason step by step, and put your final answer within \\boxed{}.",
        "How many clips did Natalia sell altogether in April and May?",
        "Compute $3^5 - 8$.",
        "Tom has 48 pens and gives half of them to his friends in Rome. How many pens does Tom have in the end?",
        POEM.replace("sea", "sky").replace("blue", "red").replace("painter", "baker").replace("words", "terms"),
        "First we compute 3^5 - 7, which the rest of this long proof needs twice.",
        "",
        "😀",
        "\u0301",
    ],
)
def test_what_only_looks_like_a_problem_is_no_hit(contamination: Contamination, text: str) -> None:
    assert contamination.hit(text) is None


def test_names_of_more_words_are_found_in_a_long_text() -> None:
    debts = (
        "Earl has $90; Fred has $48; Greg has $36. Earl owes Fred $28. Fred owes Greg $32. Greg owes Earl $40. "
        "When all debts are paid, how much will Greg and Earl have together in dollars?"
    )
    other = debts.replace("Earl", "Yuki Lu").replace("Fred", "Mary Ann").replace("Greg", "Bo Vance")
    assert Contamination([("gsm8k", debts)]).hit(f"{LONG} {other} {LONG}") is not None


def test_chance_meetings_of_numbers_do_not_hide_a_copy() -> None:
    pens = "Tom has 2 pens and Ann has 3 pens. How many pens do Tom and Ann have?"
    cups = "Tom buys 4 cups and Ann takes 5 cups. How many cups do Tom and Ann own?"
    contamination = Contamination([("a", pens), ("a", cups)])
    renamed = cups.replace("Tom", "Bea").replace("Ann", "Kim")
    for chance in ("we add 4 to it and then 5 here. ", "we add 2 pens to it and then 3 here. "):
        assert contamination.hit(chance * 200) is None
        assert contamination.hit(chance * 200 + renamed) == Hit("a", 1, 0.765, "bea buys 4 cups and kim takes 5")


def test_a_template_of_many_problems_is_no_hit_and_its_problems_are() -> None:
    kept = "even odd prime small big first last square negative zero repeated sorted"
    tasks = [f"{TEMPLATE} Keep all the {word}." for word in kept.split()]
    contamination = Contamination(("code", task) for task in tasks)
    assert contamination.hit(f"{TEMPLATE} Turn it round.") is None
    assert [hit.problem for task in tasks if (hit := contamination.hit(task))] == list(range(len(tasks)))


def test_problems_with_other_numbers_share_their_wording_and_are_no_hits() -> None:
    def questions(split: arithmetic.Split, count: int) -> Iterable[str]:
        return (problem.question for problem in itertools.islice(arithmetic.problems(split, 1), count))

    contamination = Contamination(("arithmetic", question) for question in questions("test", 300))
    assert [hit for question in questions("train", 1_000) if (hit := contamination.hit(question))] == []
    assert all(contamination.hit(question) for question in questions("test", 300))


def test_the_share_of_numbers_decides_on_copies_with_one_number_changed() -> None:
    other = WALLET.replace("15/3", "15/4")
    assert Contamination([("a", WALLET)]).hit(other)
    assert Contamination([("a", WALLET)], numbers_share=1.0).hit(other) is None


def test_the_work_is_bounded_where_many_problems_share_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.prompts import contamination as module

    calls = 0

    def counted(*args: object, **options: object) -> float:
        nonlocal calls
        calls += 1
        return 0.0

    monkeypatch.setattr(module, "similarity", counted)
    contamination = Contamination(
        ("a", f"{a}{b} has 2 pens and {n} cups in her box") for n in range(50) for a in "abcde" for b in "klmno"
    )
    assert contamination.hit(" ".join(f"{n}th has 2 pens and {n} cups of tea," for n in range(50)) * 20) is None
    assert 0 < calls <= module.PER_TEXT


def test_a_hit_does_not_depend_on_the_texts_read_with_it() -> None:
    problems = [("a", WALLET), ("a", CLIPS), ("b", POEM), ("b", SHORT)]
    half = WALLET[: len(WALLET) // 2]
    texts = [
        LONG,
        WALLET,
        "",
        half,
        f"{LONG} {CLIPS} {LONG}",
        "a b",
        POEM,
        SHORT,
        WALLET[len(half) :],
        half,
        "Q: " + POEM,
    ]
    alone = [Contamination(problems).hit(text) for text in texts]
    assert sum(hit is not None for hit in alone) > 5
    assert Contamination(problems).hits(texts) == alone
    assert Contamination(problems).hits(texts[::-1]) == alone[::-1]
    assert Contamination([]).hits(texts) == [None] * len(texts)


SONG = "every sailor sings the old song about a quiet harbour again tonight"
"""Twelve words without a number: five 8-grams, of which three are enough."""


def test_just_enough_of_a_short_problem_is_a_hit_wherever_it_stands_among_texts() -> None:
    contamination = Contamination([("a", SONG)])
    enough = SONG.removesuffix(" again tonight") + " tomorrow"
    less = SONG.removesuffix(" harbour again tonight") + " bay tomorrow"
    hit = Hit("a", 0, 0.6, "every sailor sings the old song about a")
    assert contamination.hits([LONG, enough, less, enough, "a"]) == [None, hit, None, hit, None]


def test_instructions_around_a_problem_without_8_grams_do_not_hide_it() -> None:
    around = f"Please solve the following problem: {SHORT} Show all of your work."
    assert Contamination([("aime", SHORT)]).hit(around) is not None


def test_nothing_to_find_finds_nothing() -> None:
    assert Contamination([]).hit(CLIPS) is None
    assert Contamination([("a", ""), ("a", "😀")]).hit("😀") is None
    assert len(words(LONG)) > 20_000
