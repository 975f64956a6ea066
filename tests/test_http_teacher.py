"""The scripted teacher answers as a real vLLM server did: same keys, same types, same error forms and statuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from http_teacher import Fault, HttpTeacher, Said, in_order
from recordings import USED, at, recorded, same_form, same_stream, without_numbers
from vllm_server import BEGUN, CASES, IDS, KEY, STREAM, Answer, ask

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


FRANCE = "What is the capital of France?"


def test_a_chat_with_token_ids_has_the_recorded_form(teacher: HttpTeacher) -> None:
    answer = chat(teacher, FRANCE, **IDS)
    held_against("chat_ids", answer)
    choice = answer.body["choices"][0]
    assert choice["token_ids"][-1] == teacher.tokens.STOP, "the token that ended it is among the ids, not in the text"
    assert recorded("chat_ids").body["choices"][0]["token_ids"][-1] == 2, "as with the real server"
    assert answer.body["usage"]["completion_tokens"] == len(choice["token_ids"])


def completion(teacher: HttpTeacher, **settings: Any) -> Answer:
    """What goes on behind the first tokens of the reply."""
    begun = chat(teacher, FRANCE, **{**IDS, "max_tokens": len(BEGUN)}).body
    prompt = [*begun["prompt_token_ids"], *begun["choices"][0]["token_ids"]]
    body = {"model": teacher.model, "prompt": prompt, "max_tokens": 64, **IDS, **settings}
    return ask(f"{teacher.url}/completions", body)


@pytest.mark.parametrize(("case", "max_tokens"), [("completion_stop", 64), ("completion_length", 2)])
def test_completions_have_the_recorded_form(teacher: HttpTeacher, case: str, max_tokens: int) -> None:
    answer, real = completion(teacher, max_tokens=max_tokens), recorded(case)
    held_against(case, answer)
    ours, theirs = answer.body["choices"][0], real.body["choices"][0]
    assert (ours["text"], ours["finish_reason"]) == (theirs["text"], theirs["finish_reason"])
    assert len(ours["token_ids"]) == len(theirs["text"].split()) + (ours["finish_reason"] == "stop")


def test_errors_of_completions_have_the_recorded_form_and_status(teacher: HttpTeacher) -> None:
    held_against("completion_wrong_model", completion(teacher, model="no-such-model"))
    held_against("completion_too_long", completion(teacher, prompt=[1] * (CONTEXT + 1)))
    held_against("completion_bad_parameter", completion(teacher, temperature=-1))
    held_against("completion_bad_id", completion(teacher, prompt=[10_000_000]))


def test_tokens_become_text_as_with_the_real_server(teacher: HttpTeacher) -> None:
    ids = chat(teacher, FRANCE, **IDS).body
    tokens = [*ids["prompt_token_ids"][-1:], *ids["choices"][0]["token_ids"][:3]]
    answer = ask(CASES["detokenize"].url(teacher.url), {"model": teacher.model, "tokens": tokens})
    held_against("detokenize", answer)
    assert answer.body == {"prompt": "<|tell|>The capital of"}, "control tokens included"
    assert recorded("detokenize").body["prompt"].startswith("<|im_start|>")


@pytest.mark.parametrize("case", ["chat_stream", "chat_stream_ids", "completion_stream", "reasoning_stream"])
def test_streams_have_the_recorded_form(case: str) -> None:
    told = Said(" France is Paris.", "The capital") if case == "reasoning_stream" else said(FRANCE)
    with HttpTeacher(lambda question: told) as teacher:
        settings = {**STREAM, **(IDS if case != "chat_stream" else {})}
        answer = completion(teacher, **settings) if case == "completion_stream" else chat(teacher, FRANCE, **settings)
    real = recorded(case)
    assert answer.status == real.status
    assert same_stream(answer.body, real.body) == []
    assert len(answer.body) == pytest.approx(len(real.body), abs=1), "an event for each token"
    assert [event["choices"] for event in answer.body[-2:-1]] == [[]], "the usage comes last"


def test_a_stream_without_usage_ends_without_it(teacher: HttpTeacher) -> None:
    assert all("usage" not in event for event in chat(teacher, FRANCE, stream=True).body[:-1])


def test_metrics_have_the_recorded_form(teacher: HttpTeacher) -> None:
    teacher.model = "smollm2"
    answer = ask(CASES["metrics"].url(teacher.url))
    assert answer.status == recorded("metrics").status
    ours, theirs = (without_numbers(body) for body in (answer.body, recorded("metrics").body))
    assert set(ours) <= set(theirs)
    assert any(not line.startswith("#") for line in ours)


def test_a_drifted_stream_is_noticed() -> None:
    real = recorded("chat_stream").body
    assert same_stream(real, real) == []
    assert same_stream([{"choices": [{"delta": {"thoughts": "x"}}]}, "[DONE]"], real) == [
        "event 0.choices.0.delta.thoughts is not in the recording"
    ]
    assert same_stream(real[:-1], real)[0].startswith("the stream ends with")
    assert same_stream([{**real[-2], "usage": {"prompt_tokens": "37"}}, "[DONE]"], real) == [
        "event 0.usage.prompt_tokens is str, recorded int"
    ]


def test_a_drifted_form_is_noticed() -> None:
    real = recorded("chat_stop").body
    assert same_form({"choices": [{"message": {"thoughts": "x"}}]}, real) == [
        "body.choices.0.message.thoughts is not in the recording"
    ]
    assert same_form({"usage": {"prompt_tokens": "37"}}, real) == ["body.usage.prompt_tokens is str, recorded int"]
