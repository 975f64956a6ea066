"""What holds of every check: it fails on no text, changes no trace, says the same twice, and takes linear time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from checked_trace import PROMPT, TRACE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill import filter_specs as specs
from distill.filter import checks
from distill.filter.language import prepare
from distill.filter.length import length
from distill.filter.scores import score_column
from distill.records import Prompt, Trace
from distill.verify import Outcome

OF_ONE = ("language", "loop", "paragraphs", "code_in_reasoning", "answer_present", "refusal", "secrets")
CHECKS: dict[str, Callable[[Prompt, Trace], Outcome]] = {
    **{name: partial(checks.check, name, settings=specs.FilterSettings()) for name in OF_ONE},
    "length": lambda prompt, trace: length(prompt, trace, specs.LengthSettings(max_tokens=9), len(trace.raw)),
    "score_column": lambda prompt, trace: score_column(prompt, trace, specs.ScoreSettings(max=1), None),
}
REASONS = {
    "language": {"", "mixed_language", "wrong_language", "too_little_prose"},
    "loop": {"", "loop"},
    "paragraphs": {"", "long_paragraph"},
    "code_in_reasoning": {"", "code_block"},
    "answer_present": {"", "no_answer", "placeholder", "repeats_question", "nothing_to_read"},
    "refusal": {"", "refusal", "identity"},
    "secrets": {"", "secret", "personal_data"},
    "length": {"", "too_long"},
    "score_column": {"no_score"},
}
PARTS = (
    *(
        "a",
        "a ",
        "A",
        "0",
        "4",
        "4 ",
        "4111 ",
        "1.",
        "\n",
        " ",
        "\n\n",
        ". ",
        "甲",
        "甲 ",
        "。",
        "я",
        "я ",
        "ก",
        "é",
        "\ud800",
        "\0",
    ),
    *(
        "$",
        "$a",
        "\\(",
        "\\[",
        "\\begin{a}",
        "\\boxed{",
        "{",
        "}",
        "`",
        "```",
        "```\n",
        "```\na\n",
        "<a",
        "“",
        '"',
        "「a",
        "|",
    ),
    *(
        "sk-",
        "sk-a",
        "eyJ",
        "eyJaaaaaaaaaaaa.",
        "a.",
        "://",
        "a://b:c",
        "@",
        "a@",
        "a@a.",
        "-----BEGIN ",
        "AB12",
        "AB12 3456 ",
    ),
    *("phone ", "phone 1", "ssn ", "iban ", "card ", "aws_key=", "hf_", "AKIA", "xoxb-"),
    *(
        "I'm sorry, ",
        "I am ",
        "as an ai ",
        "抱歉",
        "我是",
        "作为",
        "def a():\n",
        "class a:\n",
        "print(",
        "while (",
        "public class ",
    ),
    *(
        "the next one is this and ",
        "Das ist nicht gut und wir wissen es jetzt. ",
        "Wir haben fünf grüne Birnen gegessen heute ",
    ),
)
TEXT = st.text() | st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=60).map("".join) | st.none()


@pytest.mark.parametrize("name", CHECKS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reasoning=TEXT, answer=TEXT, question=st.text(min_size=1).filter(str.strip) | st.just("Who are you?"))
def test_any_text(name: str, reasoning: str | None, answer: str | None, question: str) -> None:
    trace = replace(TRACE, reasoning=reasoning, answer=answer, raw=(reasoning or "") + (answer or ""))
    prompt = Prompt(question, kind="math")
    before = repr(trace), repr(prompt)
    found = CHECKS[name](prompt, trace)
    assert found.reason in REASONS[name]
    assert (found.outcome == "pass") == (found.reason == "")
    assert CHECKS[name](prompt, trace) == found
    assert (repr(trace), repr(prompt)) == before


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ("length", "score_column")])
def test_a_long_text_of_anything_takes_little_time(name: str) -> None:
    """The bound is ten times what the slowest takes, and far below what quadratic time would."""
    prepare()
    for part in PARTS:
        text = (part * (30_000 // len(part)))[:30_000]
        begun = time.process_time()
        CHECKS[name](PROMPT, replace(TRACE, reasoning=text, answer=text))
        assert time.process_time() - begun < 1.5, part


def test_the_trace_of_the_other_tests_passes() -> None:
    assert {name: CHECKS[name](PROMPT, TRACE).reason for name in CHECKS if name != "length"} == {
        **dict.fromkeys(CHECKS.keys() - {"length"}, ""),
        "language": "too_little_prose",
        "score_column": "no_score",
    }
