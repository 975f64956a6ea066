"""The list of golds that most samples disagree with: who is on it, and who only looks like it."""

from __future__ import annotations

import json

import pytest

from distill.filter.suspects import may_be_suspect, suspect
from distill.records import Prompt
from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.majority import MajoritySettings

PROMPT = Prompt("What is 2 + 2?", id="p1", kind="math", answer="5")
WRONG = failing("wrong_answer")


def boxes(*answers: str) -> list[str | None]:
    return [f"\\boxed{{{answer}}}" for answer in answers]


def judged(*answers: str) -> list[Outcome]:
    return [PASS if answer == "5" else WRONG for answer in answers]


def test_a_gold_that_most_samples_disagree_with_is_suspect() -> None:
    said = ("4", "4", "5", "4")
    found = suspect(PROMPT, boxes(*said), judged(*said))
    assert found is not None
    assert json.loads(json.dumps(found.row())) == {
        "prompt_id": "p1",
        "kind": "math",
        "question": "What is 2 + 2?",
        "gold": "5",
        "answer": "4",
        "agreeing": 3,
        "passed": 1,
        "samples": 4,
    }


@pytest.mark.parametrize(
    "said", [("4", "4", "5", "5"), ("5", "5", "5", "4"), ("4", "3", "2", "4"), ("4", "4"), ("5", "5", "5"), ()]
)
def test_samples_that_do_not_agree_or_agree_with_the_gold_say_nothing(said: tuple[str, ...]) -> None:
    assert suspect(PROMPT, boxes(*said), judged(*said)) is None


def test_other_forms_of_an_answer_agree_where_they_can_be_compared() -> None:
    said = ("1/2", "0.5", "2/4")
    assert suspect(PROMPT, boxes(*said), [WRONG] * 3) is None
    found = suspect(PROMPT, boxes(*said), [WRONG] * 3, lambda one, other: True)
    assert found is not None
    assert found.agreeing == 3


def test_abstentions_say_nothing_against_a_gold() -> None:
    said = boxes("4", "4", "4", "4")
    assert suspect(PROMPT, said, [abstaining("unparseable_gold")] * 4) is None
    assert suspect(PROMPT, said, [failing("no_answer")] * 4) is None
    assert suspect(PROMPT, said, [WRONG, WRONG, WRONG, abstaining("verifier_timeout")]) is not None


def test_a_verifier_that_contradicts_itself_is_no_bad_gold() -> None:
    assert suspect(PROMPT, boxes("4", "4", "4", "4"), [WRONG, WRONG, WRONG, PASS]) is None


def test_without_a_gold_there_is_none_to_suspect() -> None:
    assert suspect(Prompt("What is it?", kind="math"), boxes("4", "4", "4"), [WRONG] * 3) is None


def test_the_thresholds_can_be_set() -> None:
    said = boxes("4", "4", "4", "3", "2")
    assert suspect(PROMPT, said, [WRONG] * 5) is not None
    assert suspect(PROMPT, said, [WRONG] * 5, settings=MajoritySettings(share=0.75)) is None
    assert suspect(PROMPT, said, [WRONG] * 5, settings=MajoritySettings(votes=4)) is None
    assert not may_be_suspect(PROMPT, [WRONG, WRONG, PASS, PASS])
    assert not may_be_suspect(PROMPT, [WRONG, WRONG])
    assert may_be_suspect(PROMPT, [WRONG, WRONG, WRONG, PASS])
