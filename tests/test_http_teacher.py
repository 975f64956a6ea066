"""The scripted teacher answers as a real vLLM server did: same keys, same types, same error forms and statuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from http_teacher import Fault, HttpTeacher, Said, in_order
from recordings import USED, at, recorded, same_form
from vllm_server import KEY, Answer, ask

CONTEXT = 50


def said(question: str) -> Said:
    return Said("The capital of France is Paris.") if "France" in question else Said("word " * 20)


@pytest.fixture
def teacher() -> Iterator[HttpTeacher]:
    with HttpTeacher(said, context=CONTEXT) as running:
        yield running


def chat(teacher: HttpTeacher, question: str, **settings: Any) -> Answer:
    body = {"model": teacher.model, "messages": [{"role": "user", "content": question}], "max_tokens": 64}
    return ask(f"{teacher.url}/chat/completions", {**body, **settings})


def held_against(case: str, answer: Answer) -> None:
    real = recorded(case)
    assert answer.status == real.status
    assert same_form(answer.body, real.body) == []


@pytest.mark.parametrize(("case", "max_tokens"), [("chat_stop", 64), ("chat_length", 3)])
def test_replies_have_the_recorded_form(teacher: HttpTeacher, case: str, max_tokens: int) -> None:
    answer = chat(teacher, "What is the capital of France?", max_tokens=max_tokens)
    held_against(case, answer)
    for path in USED:
        assert type(at(answer.body, path)) is type(at(recorded(case).body, path)), path
    assert at(answer.body, USED[2]) == at(recorded(case).body, USED[2])


@pytest.mark.parametrize(("case", "max_tokens"), [("reasoning_stop", 64), ("reasoning_length", 2)])
def test_reasoning_replies_have_the_recorded_form(case: str, max_tokens: int) -> None:
    with HttpTeacher(lambda question: Said("Paris.", reasoning="The capital then")) as teacher:
        answer = chat(teacher, "?", max_tokens=max_tokens)
    held_against(case, answer)
    for path in USED:
        assert type(at(answer.body, path)) is type(at(recorded(case).body, path)), path


def test_errors_have_the_recorded_form_and_status(teacher: HttpTeacher) -> None:
    held_against("wrong_model", chat(teacher, "x", model="no-such-model"))
    held_against("too_long", chat(teacher, "word " * (CONTEXT + 1)))
    held_against("bad_parameter", chat(teacher, "x", temperature=-1))
    held_against("models", ask(f"{teacher.url}/models"))
    with HttpTeacher(key=KEY) as guarded:
        held_against("no_key", ask(f"{guarded.url}/models"))
        assert ask(f"{guarded.url}/models", key=KEY).status == 200


def test_a_scripted_status_has_the_form_of_a_recorded_error() -> None:
    with HttpTeacher(faults=in_order(Fault("status", 503))) as teacher:
        answer = chat(teacher, "x")
    assert answer.status == 503
    assert same_form({**answer.body["error"], "param": "x"}, recorded("bad_parameter").body["error"]) == []


def test_a_drifted_form_is_noticed() -> None:
    real = recorded("chat_stop").body
    assert same_form({"choices": [{"message": {"thoughts": "x"}}]}, real) == [
        "body.choices.0.message.thoughts is not in the recording"
    ]
    assert same_form({"usage": {"prompt_tokens": "37"}}, real) == ["body.usage.prompt_tokens is str, recorded int"]
