"""What a person reads about a rejected trace."""

from __future__ import annotations

from dataclasses import replace

from checked_trace import PROMPT, TRACE

from distill.filter.evidence import evidence
from distill.filter_specs import AnswerSettings, LanguageSettings, LoopSettings, SecretSettings
from distill.records import Prompt


def test_each_kind_of_evidence() -> None:
    looping = replace(TRACE, answer="I see. " + "Let me check that again. " * 9)
    assert evidence(PROMPT, looping, LoopSettings()) == "answer: consecutive, 9 times: 'Let me check that again.'"
    english = Prompt("How many apples are left in the basket?")
    mixed = replace(
        TRACE, reasoning="We count what is left in the basket, 所以现在篮子里还剩下五个苹果 and that is it."
    )
    found = evidence(english, mixed, LanguageSettings())
    assert found is not None
    assert found.startswith("reasoning: ")
    assert found.endswith("foreign: '所以现在篮子里还剩下五个苹果'")
    address = "m.hoffmann@web.de"
    found = evidence(PROMPT, replace(TRACE, reasoning=f"{address} and {address}"), SecretSettings())
    assert found == "reasoning: e-mail address"


def test_nothing_to_show() -> None:
    for settings in (LoopSettings(), LanguageSettings(), SecretSettings(), AnswerSettings()):
        assert evidence(PROMPT, TRACE, settings) is None
    assert evidence(PROMPT, replace(TRACE, reasoning=None, answer=None), LoopSettings()) is None
