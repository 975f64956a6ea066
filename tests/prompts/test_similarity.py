"""What may differ between two copies of one problem, and what makes it another problem."""

from __future__ import annotations

import pytest

from distill.prompts.similarity import Read, capitals, core, similarity
from distill.prompts.words import words

CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell in April and May?"
)


def alike(one: str, other: str) -> float:
    return similarity(Read.of(one), Read.of(other))


@pytest.mark.parametrize(
    "other",
    [
        CLIPS.replace("Natalia", "Anna"),
        CLIPS.replace("Natalia", "Mary Ann"),
        CLIPS.replace("Natalia", "Tom").replace(" her", " his").replace(" she", " he"),
        CLIPS.replace("Natalia", "Anna").lower(),
        CLIPS.replace("friends", "freinds"),
        CLIPS.replace("to 48", "to the 48"),
        CLIPS.replace("friends", "fri- ends"),
        "Question: " + CLIPS + "\nPlease reason step by step, and put your final answer within \\boxed{}.",
        "Solve the following math problem step by step. " + CLIPS + " Show your work.",
    ],
)
def test_the_same_problem(other: str) -> None:
    assert alike(CLIPS, other) > 0.8
    assert alike(other, CLIPS) > 0.8


@pytest.mark.parametrize(
    "other",
    [
        CLIPS.replace("48", "49"),
        CLIPS.replace("half", "twice"),
        CLIPS.replace("in April and May?", "in May?"),
        CLIPS.replace("as many clips in May. How", "as few clips in May. How"),
        CLIPS.replace("sold", "bought"),
        CLIPS.replace("How many", "How much less than 48 is"),
        CLIPS.replace("Natalia", "Anna", 1),
        CLIPS + " Explain why.",
        CLIPS[: len(CLIPS) // 2],
        "",
    ],
)
def test_another_problem(other: str) -> None:
    assert alike(CLIPS, other) == alike(other, CLIPS) == 0.0


def test_without_numbers_another_name_is_another_problem() -> None:
    assert alike("Write a poem on the life of Marie Curie.", "Write a poem on the life of Albert Camus.") == 0.0


def test_a_name_for_two_people_is_another_problem() -> None:
    two = "Tom has 3 pens and Ann has 4 pens. How many pens do Tom and Ann have?"
    assert alike(two, two.replace("Ann", "Bea").replace("Tom", "Kim"))
    assert alike(two, two.replace("Ann", "Tom")) == 0.0
    assert alike(two, two.replace("Ann", "Kim").replace("Tom", "Kim")) == 0.0


def test_in_long_texts_one_word_in_a_hundred_may_differ_but_not_in_the_question() -> None:
    story = (
        " ".join(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(150))
        + " so what is asked of us in the end"
    )
    assert alike(story, story.replace("wordba", "other")) > 0.99
    assert (
        alike(story, story.replace("wordba", "other").replace("wordca", "others").replace("wordda", "elsewhere")) == 0.0
    )
    assert alike(story, story.replace("asked", "wanted")) == 0.0
    assert alike(story.replace("wordba", "more"), story.replace("wordba", "less")) == 0.0
    assert alike("2 and 3 " + story, "2 and 3 " + story.replace("wordba", "other")) == 0.0


def test_digits_apart_are_other_numbers() -> None:
    one, other = "Tom has 1 2 pens and 3 cups in his bag today", "Tom has 12 pens and 3 cups in his bag today"
    assert alike(one, other) == similarity(Read.of(one), Read.of(other), inside=True) == 0.0


def test_inside_a_longer_text_what_stands_around_does_not_count() -> None:
    piece = "So the story: 7 " + CLIPS.replace("Natalia", "Anna") + " First 48 over"
    assert similarity(Read.of(CLIPS), Read.of(piece), inside=True) > 0.8
    assert similarity(Read.of(CLIPS), Read.of(piece)) == 0.0
    assert similarity(Read.of(CLIPS), Read.of(piece.replace("48 of", "49 of")), inside=True) == 0.0


def test_instructions_at_either_end_are_no_part_of_a_problem() -> None:
    assert core(words("Problem: What is 2+2? Let's think step by step. Answer:")) == ["what", "is", "2", "+", "2"]
    assert core(words("Answer:")) == ["answer"]
    assert core([]) == []


def test_a_text_all_in_capitals_has_no_names() -> None:
    assert capitals("TOM met Ann") == {"ann"}


def test_a_megabyte_is_compared_in_linear_time() -> None:
    one = "a b c d e f " * 80_000
    assert alike(one, one + "g") == 0.0
    assert alike(one, "z " + one[2:]) > 0.99
    assert alike(one, "z z " + one[2:] + "y") == 0.0
