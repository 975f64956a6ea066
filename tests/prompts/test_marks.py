"""The marks on hand-written questions, on choices and tests that cannot be used, and on GSM8K, which has none."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time
from typing import get_args

import pytest

from distill.prompts.marks import UNVERIFIABLE, Mark, bad_tests, question_marks
from distill.records import CodeTest, Kind, Prompt
from prompts import marked_questions as questions

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_train_1000.jsonl"


def marks(question: str, answer: str | None = "5", kind: Kind = "math") -> tuple[Mark, ...]:
    return question_marks(Prompt(question, kind=kind, answer=answer))


def test_every_mark_is_in_the_order_once() -> None:
    assert sorted((*UNVERIFIABLE, "guessable")) == sorted(get_args(Mark))


@pytest.mark.parametrize("question", questions.PROOF)
def test_proofs_are_marked(question: str) -> None:
    assert "proof" in marks(question)


@pytest.mark.parametrize("answer", questions.PROOF_ANSWERS)
def test_an_answer_that_says_proof_is_marked(answer: str) -> None:
    assert "proof" in marks("Let $x$ be real.", answer)


@pytest.mark.parametrize("question", questions.NO_PROOF)
def test_what_only_looks_like_a_proof_is_not_marked(question: str) -> None:
    assert "proof" not in marks(question)


@pytest.mark.parametrize("question", questions.MANY_PARTS)
def test_questions_of_several_parts_are_marked(question: str) -> None:
    assert "multi_part" in marks(question)


@pytest.mark.parametrize("question", questions.ONE_PART)
def test_labels_and_sentences_that_are_no_parts_are_not_marked(question: str) -> None:
    assert "multi_part" not in marks(question)


@pytest.mark.parametrize("question", questions.FIGURE)
@pytest.mark.parametrize("kind", ["math", "code", "open"])
def test_questions_that_point_at_a_figure_are_marked(question: str, kind: Kind) -> None:
    assert "figure" in marks(question, kind=kind)


@pytest.mark.parametrize("question", questions.NO_FIGURE)
def test_figures_of_speech_and_of_code_are_not_marked(question: str) -> None:
    assert "figure" not in marks(question)


@pytest.mark.parametrize(("question", "answer"), questions.GUESSABLE)
def test_one_of_two_is_guessable(question: str, answer: str) -> None:
    assert marks(question, answer, "exact") == ("guessable",)


@pytest.mark.parametrize(("question", "answer"), questions.NOT_GUESSABLE)
def test_other_answers_are_not_guessable(question: str, answer: str) -> None:
    assert "guessable" not in marks(question, answer)


@pytest.mark.parametrize(
    "answer", [None, "", "  ", "notfound", "Not found", "N/A", "nan", "null", "?", "—", "-", "No answer"]
)
def test_no_gold(answer: str | None) -> None:
    for kind in ("math", "numeric", "choice", "exact"):
        assert marks("What is it?", answer, kind) == ("no_gold",)
    assert marks("Tell a story.", answer, "open") == ()


@pytest.mark.parametrize("answer", ["0", "none", "unknown", "-1", "Nancy", "NaCl", "A", "\\text{not found in nature}"])
def test_answers_that_look_like_none(answer: str) -> None:
    assert "no_gold" not in marks("What is it?", answer)


GOOD_CHOICES = [
    ("B", ("4", "5", "6")),
    ("(B)", ("4", "5", "6")),
    ("C.", ("4", "5", "6")),
    ("5", ("4", "5", "6")),
    ("a  dog", ("a cat", "a dog", "a cow")),
    ("A", ("A", "B", "C", "D")),  # the letter and the text name the same choice
    ("J", tuple("0123456789")),
    ("1", ("2", "1", "3")),  # a text, no number of a choice
]
BAD_CHOICES = [
    ("D", ("4", "5", "6")),
    ("7", ("4", "5", "6")),
    ("b", ("4", "5", "6")),  # a letter only as it is shown, but see the texts of lower case
    ("A", ("B", "A", "C")),  # the letter names one choice, the text another
    ("5", ("5", "5", "6")),
    ("A or B", ("4", "5", "6")),
    ("AB", ("4", "5", "6")),
    ("A", ("4",)),
    ("A", ()),
    ("5", ("55", "4", "6")),
]


@pytest.mark.parametrize(("answer", "choices"), GOOD_CHOICES)
def test_an_answer_that_names_one_choice(answer: str, choices: tuple[str, ...]) -> None:
    assert question_marks(Prompt("Which?", kind="choice", answer=answer, choices=choices)) == ()


@pytest.mark.parametrize(("answer", "choices"), BAD_CHOICES)
def test_an_answer_that_names_no_choice_or_two(answer: str, choices: tuple[str, ...]) -> None:
    assert question_marks(Prompt("Which?", kind="choice", answer=answer, choices=choices)) == ("bad_choice",)
    assert question_marks(Prompt("Which?", kind="choice", answer=answer)) == ("bad_choice",)


def test_two_choices_are_guessable_and_parts_and_proofs_of_a_choice_are_not_marked() -> None:
    assert question_marks(Prompt("Which?", kind="choice", answer="A", choices=("4", "5"))) == ("guessable",)
    question = "Prove that it holds. (a) What is needed? (b) What is not? Which choice names both?"
    assert question_marks(Prompt(question, kind="choice", answer="A", choices=("x", "y", "z"))) == ()


def test_tests_of_code() -> None:
    good = (CodeTest("1\n", "2\n"), CodeTest("1", "2"), CodeTest("", "3"))
    calls = (CodeTest("[1]", "2", "double"), CodeTest("[]", "0", "double"))
    code = "Read two numbers. (a) What is their sum? (b) Prove that it is right."
    assert question_marks(Prompt(code, kind="code", tests=good)) == ()
    assert question_marks(Prompt(code, kind="code", tests=calls)) == ()
    assert question_marks(Prompt(code, kind="code")) == ("no_tests",)
    assert question_marks(Prompt(code, kind="code", tests=())) == ("no_tests",)
    for bad in [
        (CodeTest("1", ""), CodeTest("2", " \n")),
        (CodeTest("1", "2"), CodeTest("1\n", "3")),
        (CodeTest("[1]", "2", "double"), CodeTest("[1]", "2")),
        (CodeTest("[1]", "2", "double"), CodeTest("[2]", "2", "half")),
        (CodeTest("[1]", "2", "two words"),),
        (CodeTest("[1]", "2", ""),),
        (CodeTest("[1]", "2", "double"), CodeTest("[2]", "", "double")),
    ]:
        assert bad_tests(bad)
        assert question_marks(Prompt(code, kind="code", tests=bad)) == ("bad_tests",)


def test_several_marks_come_in_their_order() -> None:
    question = "As shown in the figure, (a) what is $x$? (b) Is it true or false?"
    assert marks(question, "") == ("no_gold", "multi_part", "figure", "guessable")


@pytest.mark.skipif(not GSM8K.is_file(), reason="no ../shared/data")
def test_gsm8k_has_no_marks() -> None:
    rows = [json.loads(line) for line in GSM8K.read_text().splitlines()]
    prompts = [Prompt(row["question"], kind="math", answer=row["answer"].partition("#### ")[2]) for row in rows]
    assert len(prompts) == 1_000
    assert [(prompt.question, found) for prompt in prompts if (found := question_marks(prompt))] == []


@pytest.mark.parametrize(
    "question",
    ["(a" * 20_000, "show " * 10_000, "as shown " * 5_000, "? how" * 10_000, "如图" * 10_000 + "证",
     "how many a, and " * 3_000,
     "1. " * 10_000, "a or b, " * 5_000, "in the " * 10_000 + "figure", "solve " * 10_000 + "(a) x (b) y",
     "triangle " * 5_000 + "shown", "![" * 10_000, '"' * 20_001 + "how? what?"],
    ids=lambda question: question[:12],
)  # fmt: skip
def test_no_question_takes_long(question: str) -> None:
    """In seconds of the processor, which other work does not lengthen; backtracking would take minutes."""
    started = process_time()
    marks(question)
    assert process_time() - started < 2.0
