"""Short texts: the ways of writing the same one, and how near another may come without passing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.records import Prompt
from distill.verify import PASS, abstaining, failing
from distill.verify.exact import check_exact, verify

RIGHT = [
    # (gold, answer)
    ("Paris", "Paris"),
    ("Paris", "paris."),
    ("Paris", "**Paris**"),
    ("Paris", "*Paris*"),
    ("Paris", '"Paris"'),
    ("Paris", "“Paris.”"),
    ("Paris", "`Paris`"),
    ("Paris", r"\boxed{Paris}"),
    ("Paris", r"\boxed{\text{Paris}}"),
    ("Paris", r"\boxed{\textbf{\text{Paris}}}"),
    ("Paris", r"It is \(\boxed{\mathrm{PARIS}}\)."),
    ("Paris", "The answer is Paris."),
    ("Paris", "The answer is **Paris**, because the Seine flows there."),
    ("Paris", "**Final Answer:** Paris"),
    ("Paris", "Answer:\n\nParis\n"),
    ("Paris", "Answer: Paris\nIt lies on the Seine."),
    ("Paris", "First London.\n\n#### Paris"),
    ("Paris", "Paris\n\nI hope this helps! Let me know if you have any questions."),
    ("New York", r"\boxed{New~York}"),
    ("New York", "new \n york"),
    ("don't", "don’t"),
    ("Straße", "STRASSE"),
    ("ﬁve", "five"),
    ("Ⅳ", "IV"),
    ("café", "cafe\u0301"),
    ("1,234", r"\boxed{1{,}234}"),
    ("snake_case_name", r"\boxed{snake\_case\_name}"),
    ("O'Neill", r"\boxed{\text{O'Neill}}"),
    ("东京", "答案是东京。"),
    ("True", r"\boxed{\text{True}}"),
    ("H2O", "The correct answer is: H2O"),
    ("a - b", "a – b"),
]

WRONG = [
    ("Paris", r"\boxed{London}"),
    ("Paris", r"\boxed{Paris, France}"),
    ("Paris", r"\boxed{Pari}"),
    ("Paris", r"\boxed{Paris or London}"),
    ("Great Wall", r"\boxed{The Great Wall}"),
    ("Paris", "London"),
    ("Paris", "The answer is London."),
    ("Paris", "The answer is Parisian."),
    ("True", r"\boxed{\text{False}}"),
    ("true", r"\boxed{untrue}"),
    ("ab", r"\boxed{a b}"),
    ("x_1", r"\boxed{x1}"),
    ("New York", r"\boxed{NewYork}"),
    ("5", r"\boxed{5.0}"),
    ("resume", r"\boxed{résumé}"),
    ("東京", r"\boxed{东京}"),
]

ABSTAINED = [
    ("Paris", "The answer is not Paris.", "ambiguous_answer"),
    ("Paris", "The capital is Paris.", "ambiguous_answer"),
    ("Paris", "The answer is the city of Paris", "ambiguous_answer"),
    ("Paris", "It was founded long ago.\nSo the city in question must be Paris.", "ambiguous_answer"),
    ("...", "...", "unparseable_gold"),
    ("", "Paris", "no_gold"),
    (None, "Paris", "no_gold"),
]


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right(gold: str, answer: str) -> None:
    assert check_exact(answer, gold) == PASS


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong(gold: str, answer: str) -> None:
    assert check_exact(answer, gold) == failing("wrong_answer")


@pytest.mark.parametrize(("gold", "answer", "reason"), ABSTAINED)
def test_abstains(gold: str, answer: str, reason: str) -> None:
    assert check_exact(answer, gold) == abstaining(reason)


@pytest.mark.parametrize("answer", [None, "  ", "I thought about it.\nAnd then no more came to my mind."])
def test_no_answer(answer: str | None) -> None:
    assert check_exact(answer, "Paris") == failing("no_answer")


def test_of_a_prompt() -> None:
    prompt = Prompt("Capital of France?", kind="exact", answer="Paris")
    assert verify(prompt, "paris") == PASS
    assert verify(prompt, "Lyon") == failing("wrong_answer")


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_a_box_passes_only_for_the_same_letters(gold: str, answer: str) -> None:
    assert check_exact(f"\\boxed{{\\text{{{gold}}}}}", gold) == PASS
    letters = "".join(sign for sign in answer if sign.isalnum())
    if letters.casefold() != gold.casefold() and letters == answer and letters.isascii() and gold.isascii():
        assert check_exact(f"\\boxed{{{answer}}}", gold) == failing("wrong_answer")
