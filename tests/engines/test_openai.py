"""OpenAIEngine over real HTTP against a scripted server: what it sends, what it reads, what each failure means."""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from http_teacher import Fault, HttpTeacher, Said, chat_body, in_order
from recordings import recorded

from distill.engines import AttemptError, EndpointError, RefusedError, Reply, Request
from distill.engines.openai import EXCERPT, OpenAIEngine, model_names, read_reply, retry_after, server_message
from distill.records import Sampling

KEY = "sk-this-must-never-be-seen-1234567890"


def engine_of(teacher: HttpTeacher, **options: Any) -> OpenAIEngine:
    return OpenAIEngine(**{"url": teacher.url, "model": teacher.model, "timeout": 5.0, **options})


def request_for(question: str = "What is 2+2?", sampling: Sampling | None = None, **settings: Any) -> Request:
    messages = [{"role": "user", "content": question}]
    return Request("r", messages, sampling or Sampling(), **{"max_tokens": 16, **settings})


def using(engine: OpenAIEngine, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Runs `work` between start and close."""

    async def everything() -> Any:
        await engine.start()
        try:
            return await work()
        finally:
            await engine.close()

    return asyncio.run(everything())


def complete(engine: OpenAIEngine, request: Request | None = None) -> Reply:
    reply = using(engine, lambda: engine.complete(request or request_for()))
    assert isinstance(reply, Reply)
    return reply


def failure(*faults: Fault, **options: Any) -> Exception:
    """What `complete` raises when the server misbehaves so."""
    with HttpTeacher(faults=in_order(*faults)) as teacher, pytest.raises(Exception) as caught:  # noqa: PT011
        complete(engine_of(teacher, **options))
    return caught.value


# --- what is sent --------------------------------------------------------------------------------------------------


def test_only_settings_that_are_given_are_sent() -> None:
    with HttpTeacher() as teacher:
        complete(engine_of(teacher))
    (seen,) = teacher.chats
    assert seen.body == {
        "model": "scripted",
        "messages": [{"role": "user", "content": "What is 2+2?"}],
        "n": 1,
        "stream": False,
        "max_tokens": 16,
    }
    assert "Authorization" not in seen.headers


def test_every_setting_is_sent_and_the_seed_is_the_requests_own() -> None:
    sampling = Sampling(0.6, 0.95, 20, 0.05, 0.1, 0.2, 1.1, seed=99)
    with HttpTeacher() as teacher:
        complete(engine_of(teacher), request_for(sampling=sampling, seed=7))
        complete(engine_of(teacher), request_for(sampling=sampling, seed=None))
    first, second = (seen.body for seen in teacher.chats)
    sent = {name: first[name] for name in Sampling.__dataclass_fields__}
    assert sent == {
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "min_p": 0.05,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.1,
        "seed": 7,
    }
    assert "seed" not in second


FORM = {"type": "json_object"}
UNAVAILABLE = Fault("status", 400, message="This response_format type is unavailable now")
"""In the words of DeepSeek's API, where the form is a JSON schema."""


def test_the_form_of_a_reply_is_asked_for() -> None:
    with HttpTeacher() as teacher:
        complete(engine_of(teacher), request_for(response_format=FORM))
        complete(engine_of(teacher, stream=True), request_for(response_format=FORM))
    assert [seen.body["response_format"] for seen in teacher.chats] == [FORM, FORM]


def test_a_server_that_knows_no_form_is_asked_without_and_never_with_it_again() -> None:
    with HttpTeacher(faults=in_order(UNAVAILABLE)) as teacher:
        engine = engine_of(teacher)
        for _ in range(2):
            assert complete(engine, request_for(response_format=FORM)).text == "You asked: What is 2+2?"
    assert ["response_format" in seen.body for seen in teacher.chats] == [True, False, False]


@pytest.mark.parametrize(
    ("fault", "form"), [(Fault("status", 400, message="the prompt is too long"), FORM), (UNAVAILABLE, None)]
)
def test_any_other_refusal_stays_one(fault: Fault, form: dict[str, str] | None) -> None:
    with HttpTeacher(faults=in_order(fault)) as teacher:
        with pytest.raises(RefusedError):
            complete(engine_of(teacher), request_for(response_format=form))
        assert len(teacher.chats) == 1


def test_the_key_goes_into_the_header_and_nowhere_else() -> None:
    with HttpTeacher(key=KEY) as teacher:
        engine = engine_of(teacher, api_key=f" {KEY}\n")
        reply = complete(engine)
    assert {seen.headers["Authorization"] for seen in teacher.requests} == {f"Bearer {KEY}"}
    assert KEY not in repr(engine) + repr(reply) + str(teacher.chats[0].body)


def test_a_login_in_the_url_is_refused_and_never_shown() -> None:
    """It would stand in the run's recipe.yaml, for everyone who is given the run."""
    with HttpTeacher() as teacher:
        with pytest.raises(EndpointError, match="holds a login") as caught:
            complete(engine_of(teacher, url=teacher.url.replace("://", "://someone:p%40ss@")))
        assert not teacher.requests
    assert "127.0.0.1" in str(caught.value)
    assert "p%40ss" not in str(caught.value)
    assert "someone" not in str(caught.value)


def test_a_query_in_the_url_stays_behind_the_path() -> None:
    with HttpTeacher() as teacher:
        reply = complete(engine_of(teacher, url=f"{teacher.url}/?api-version=1"))
    assert reply.text == "You asked: What is 2+2?"


def test_no_more_connections_than_allowed() -> None:
    with HttpTeacher(latency=0.05) as teacher:
        engine = engine_of(teacher, connections=3)

        async def many() -> list[Reply]:
            return await asyncio.gather(*(engine.complete(request_for(f"{i}")) for i in range(12)))

        replies = using(engine, many)
    assert [reply.text for reply in replies] == [f"You asked: {i}" for i in range(12)]
    assert teacher.most_in_flight == 3


# --- what is read --------------------------------------------------------------------------------------------------


def test_a_reply_that_stopped() -> None:
    with HttpTeacher(lambda question: Said("It is 4.")) as teacher:
        reply = complete(engine_of(teacher, name="paid"))
    assert reply == Reply("It is 4.", "stop", "paid", prompt_tokens=3, completion_tokens=3)


def test_the_name_of_the_endpoint_holds_no_address() -> None:
    with HttpTeacher() as teacher:
        assert complete(engine_of(teacher)).endpoint == "openai"


def test_a_reply_that_was_cut() -> None:
    with HttpTeacher(lambda question: Said("one two three four")) as teacher:
        reply = complete(engine_of(teacher), request_for(max_tokens=2))
    assert (reply.text, reply.finish_reason, reply.completion_tokens) == ("one two", "length", 2)


def test_reasoning_in_its_own_field() -> None:
    with HttpTeacher(lambda question: Said("4", reasoning="2 and 2")) as teacher:
        reply = complete(engine_of(teacher))
    assert (reply.text, reply.reasoning, reply.reasoning_tokens) == ("4", "2 and 2", 3)


def test_content_may_be_null_while_reasoning_is_cut() -> None:
    with HttpTeacher(lambda question: Said(None, reasoning="so far so long")) as teacher:
        reply = complete(engine_of(teacher), request_for(max_tokens=2))
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", "so far", "length")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_both_names_of_the_reasoning_field_are_read(field: str) -> None:
    body = chat_body(Said("4"), "m", 1)
    body["choices"][0]["message"] = {"content": "4", field: "why"}
    assert read_reply(body, "e").reasoning == "why"


def test_an_empty_field_does_not_hide_the_full_one() -> None:
    body = chat_body(Said("4"), "m", 1)
    body["choices"][0]["message"] = {"content": "4", "reasoning": "", "reasoning_content": "why"}
    assert read_reply(body, "e").reasoning == "why"


def test_a_reply_without_usage_has_no_counts() -> None:
    body = {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}
    assert read_reply(body, "e") == Reply("4", "stop", "e")
    assert read_reply({**body, "usage": {"completion_tokens": "many"}}, "e").completion_tokens is None


def test_half_a_surrogate_pair_becomes_storable() -> None:
    raw = '{"choices": [{"message": {"content": "a\\ud83d", "reasoning": "\\ude00b"}, "finish_reason": "stop"}]}'
    with HttpTeacher(faults=in_order(Fault("raw", code=200, body=raw))) as teacher:
        reply = complete(engine_of(teacher))
    assert (reply.text, reply.reasoning) == ("a\ufffd", "\ufffdb")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("chat_stop", Reply("The capital of France is Paris.", "stop", "e", None, 37, 8)),
        ("chat_length", Reply("The story of a fox is a classic", "length", "e", None, 46, 8)),
        ("reasoning_stop", Reply(" France is Paris.", "stop", "e", "The capital", 38, 8)),
        ("reasoning_length", Reply("", "length", "e", "The capital", 38, 2)),
    ],
)
def test_recorded_replies_of_a_real_server(case: str, expected: Reply) -> None:
    assert read_reply(recorded(case).body, "e") == expected


# --- failures of one attempt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504, 529])
def test_statuses_that_pass(code: int) -> None:
    error = failure(Fault("status", code, message="come back"))
    assert isinstance(error, AttemptError)
    assert str(error) == f"the server answers {code}: come back"
    assert error.retry_after is None


def test_the_servers_wish_is_passed_on_in_seconds() -> None:
    error = failure(Fault("status", 429, retry_after="7"))
    assert isinstance(error, AttemptError)
    assert error.retry_after == 7.0


def test_the_servers_wish_may_be_a_date() -> None:
    header = email.utils.formatdate(time.time() + 90, usegmt=True)
    error = failure(Fault("status", 503, retry_after=header))
    assert isinstance(error, AttemptError)
    assert 80 < (error.retry_after or 0) <= 90


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("1.5", 1.5), ("-3", 0.0), ("soon", None), ("inf", None), ("nan", None)]
)
def test_odd_wishes(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@pytest.mark.parametrize("kind", ["drop", "hang_up"])
def test_a_broken_connection(kind: Any) -> None:
    error = failure(Fault(kind))
    assert isinstance(error, AttemptError)
    assert "the connection failed" in str(error)
    assert "127.0.0.1" not in str(error)


def test_the_attempt_after_a_broken_connection_gets_its_reply() -> None:
    with HttpTeacher(faults=in_order(Fault("drop"), Fault("hang_up"), None)) as teacher:
        engine = engine_of(teacher)

        async def thrice() -> Reply:
            for _ in range(2):
                with pytest.raises(AttemptError):
                    await engine.complete(request_for())
            return await engine.complete(request_for())

        assert using(engine, thrice).text == "You asked: What is 2+2?"
    assert len(teacher.chats) == 3


def test_a_server_that_stalls() -> None:
    error = failure(Fault("stall", seconds=3), timeout=0.2)
    assert isinstance(error, AttemptError)
    assert str(error) == "no reply within 0.2 s"


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault("malformed"), "is not JSON"),
        (Fault("no_choices"), "no choices"),
        (Fault("raw", code=200, body="[" * 100_000), "is not JSON"),
        (Fault("raw", code=200, body=[]), "no choices"),
        (Fault("raw", code=200, body={"choices": [{"finish_reason": "stop"}]}), "broke the reply off"),
        (Fault("raw", code=200, body={"choices": [{"message": {"content": "x"}}]}), "broke the reply off"),
        (Fault("raw", code=200, body={"choices": [{"message": {}, "finish_reason": "abort"}]}), "broke the reply off"),
        (
            Fault("raw", code=200, body={"choices": [{"message": {"content": 4}, "finish_reason": "stop"}]}),
            "content is int",
        ),
        (Fault("raw", code=200, body={"error": {"message": "busy", "code": 503}}), "503: busy"),
        (Fault("raw", code=200, body={"error": "out of order"}), "out of order"),
    ],
)
def test_replies_that_cannot_be_read(fault: Fault, what: str) -> None:
    error = failure(fault)
    assert isinstance(error, AttemptError)
    assert what in str(error)


# --- requests that are refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 413, 422])
def test_refusals_carry_the_servers_words(code: int) -> None:
    error = failure(Fault("status", code, message="too\nlong " * 200))
    assert isinstance(error, RefusedError)
    assert str(error).startswith(f"the server answers {code}: too long too long")
    assert len(str(error)) < EXCERPT + 40


def test_a_prompt_longer_than_the_context_is_refused_and_others_pass() -> None:
    with HttpTeacher(context=10) as teacher:
        engine = engine_of(teacher)

        async def both() -> Reply:
            with pytest.raises(RefusedError, match="maximum context length"):
                await engine.complete(request_for("word " * 11))
            return await engine.complete(request_for("short"))

        assert using(engine, both).text == "You asked: short"


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls"])
def test_other_endings_are_refusals(reason: str) -> None:
    with HttpTeacher(lambda question: Said("x", finish_reason=reason)) as teacher, pytest.raises(RefusedError) as error:
        complete(engine_of(teacher))
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("too_long", "This model's maximum context length is 2048 tokens."),
        ("bad_parameter", "temperature must be non-negative, got -1.0."),
        ("bad_type", "1 validation error:"),
        ("wrong_model", "The model `no-such-model` does not exist."),
        ("no_key", "Unauthorized"),
    ],
)
def test_words_of_a_real_server(case: str, words: str) -> None:
    assert server_message(json.dumps(recorded(case).body).encode()).startswith(words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>\n  Bad  gateway</html>", "<html> Bad gateway</html>"),
        (b"", ""),
        (b'{"detail": [{"msg": "no"}]}', '[{"msg": "no"}]'),
        (b'{"message": "no"}', "no"),
        (b'{"odd": 1}', '{"odd": 1}'),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_words_of_other_servers(content: bytes, words: str) -> None:
    assert server_message(content) == words


# --- no request can succeed ----------------------------------------------------------------------------------------


def test_an_endpoint_that_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = OpenAIEngine(url=f"http://127.0.0.1:{port}/v1", model="m", api_key="secret")
    with pytest.raises(EndpointError) as caught:
        asyncio.run(engine.start())
    text = str(caught.value)
    assert "does not answer" in text
    assert "Connect" in text
    assert f"http://127.0.0.1:{port}/v1" in text
    assert "secret" not in text
    assert caught.value.todo


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://host/v1", "http://", "http://host:99999/v1", "http://u:p/w?x#@host/v1"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(EndpointError, match="no URL") as caught:
        asyncio.run(OpenAIEngine(url=url, model="m").start())
    assert "u:p" not in str(caught.value)


def test_a_model_the_server_does_not_have() -> None:
    with HttpTeacher(model="deepseek-r1") as teacher, pytest.raises(EndpointError) as caught:
        complete(engine_of(teacher, model="deepsek-r1"))
    text = str(caught.value)
    assert "no model 'deepsek-r1'; did you mean 'deepseek-r1'?" in text
    assert "which has: deepseek-r1" in text
    assert teacher.chats == []


def test_a_server_without_a_list_of_models_is_asked_all_the_same() -> None:
    with HttpTeacher(lists_models=False) as teacher:
        assert complete(engine_of(teacher)).finish_reason == "stop"
        with pytest.raises(EndpointError, match="does not know the model"):
            complete(engine_of(teacher, model="other"))


def test_something_else_instead_of_a_list_of_models() -> None:
    assert model_names(b"<html>hello</html>") is None
    assert model_names(b'{"data": {}}') is None
    assert model_names(b'[{"id": "a"}]') == ["a"]
    assert model_names(b'{"object": "list", "data": [{"id": "a"}, {"id": 1}, "b"]}') == ["a"]


@pytest.mark.parametrize("key", [None, "sk-wrong-key"])
def test_a_key_that_is_missing_or_wrong(key: str | None) -> None:
    with HttpTeacher(key=KEY) as teacher, pytest.raises(EndpointError) as caught:
        complete(engine_of(teacher, api_key=key))
    text = str(caught.value)
    assert ("refuses the key" if key else "wants a key") in text
    assert "generate.api_key_env" in text
    assert key is None or key not in text


@pytest.mark.parametrize(
    ("code", "what"), [(401, "key"), (402, "credit"), (403, "key"), (404, "does not know"), (302, "other than")]
)
def test_statuses_after_which_nothing_can_succeed(code: int, what: str) -> None:
    error = failure(Fault("status", code))
    assert isinstance(error, EndpointError)
    assert what in str(error)


def test_a_key_with_a_line_break_inside_is_refused_without_showing_it() -> None:
    with pytest.raises(EndpointError, match="no key has") as caught:
        asyncio.run(OpenAIEngine(url="http://127.0.0.1:1/v1", model="m", api_key=f"{KEY}\n{KEY}").start())
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("code", [400, 401, 500])
def test_a_server_that_quotes_the_key_does_not_give_it_away(code: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error = failure(Fault("status", code, message=f"{'x' * (EXCERPT - 20)} bad key {KEY}"), api_key=KEY)
    told = f"{error!r} {error} {error.__cause__!r} {caplog.text}"
    assert KEY not in told
    assert KEY[:10] not in told


# --- life cycle ----------------------------------------------------------------------------------------------------


def test_it_can_be_closed_twice_and_started_again() -> None:
    with HttpTeacher() as teacher:
        engine = engine_of(teacher)

        async def twice() -> None:
            await engine.close()
            for _ in range(2):
                await engine.start()
                await engine.complete(request_for())
                await engine.close()
                await engine.close()

        asyncio.run(twice())
    assert len(teacher.chats) == 2


def test_importing_it_does_not_import_aiohttp() -> None:
    code = "import sys, distill.engines.openai; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with HttpTeacher() as teacher:
        assert complete(engine_of(teacher)).finish_reason == "stop"
