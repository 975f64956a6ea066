"""Each check and the reasons it gives."""

from __future__ import annotations

from dataclasses import replace

from checked_trace import PROMPT, TRACE

from distill.filter.checks import Duplicates
from distill.records import Prompt
from distill.specs import CHECKS


def test_the_first_of_equal_texts_of_one_prompt_passes() -> None:
    check = Duplicates()
    other = Prompt("3 + 1?", kind="math", answer="4")
    assert check(PROMPT, TRACE).outcome == "pass"
    assert check(PROMPT, TRACE).reason == "duplicate"
    assert check(PROMPT, replace(TRACE, key="l", sample=1, reasoning=" add\n")).reason == "duplicate", (
        "white space aside"
    )
    assert check(PROMPT, replace(TRACE, reasoning="add up")).outcome == "pass"
    assert check(PROMPT, replace(TRACE, answer="5")).outcome == "pass"
    assert check(other, TRACE).outcome == "pass", "of another prompt"
    assert Duplicates()(PROMPT, TRACE).outcome == "pass", "nothing is remembered between runs"


def test_reasoning_and_answer_are_told_apart() -> None:
    check = Duplicates()
    assert check(PROMPT, replace(TRACE, reasoning="a", answer="b c")).outcome == "pass"
    assert check(PROMPT, replace(TRACE, reasoning="a b", answer="c")).outcome == "pass"
    assert check(PROMPT, replace(TRACE, reasoning=None, answer=None, raw="add 4")).outcome == "pass"
    assert check(PROMPT, replace(TRACE, reasoning=None, answer=None, raw="add 5")).outcome == "pass"


def test_the_names_of_the_checks_are_those_a_recipe_may_use() -> None:
    assert set(CHECKS) == {"finished", "think_format", "math", "duplicate"}
