"""Replies that come token by token: the same reply, its limits, and what breaks on the way."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from http_teacher import Fault, HttpTeacher, Said, in_order
from recordings import recorded

from distill.engines import AttemptError, EndpointError, RefusedError, Reply
from distill.engines.openai_replies import read_completion, read_reply
from distill.engines.openai_stream import events, gathered
from engines.test_openai import KEY, complete, engine_of, request_for, using


async def over(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def whole(lines: list[Any]) -> Any:
    """What these events add up to."""
    return asyncio.run(gathered(over([line if isinstance(line, str) else json.dumps(line) for line in lines])))


@pytest.mark.parametrize("case", ["chat_stream_ids", "completion_stream", "reasoning_stream"])
def test_a_real_servers_stream_reads_like_its_whole_reply(case: str) -> None:
    pairs = {
        "chat_stream_ids": "chat_ids",
        "completion_stream": "completion_stop",
        "reasoning_stream": "reasoning_stop",
    }
    read = read_completion if case == "completion_stream" else read_reply
    streamed, direct = read(whole(recorded(case).body), "e"), read(recorded(pairs[case]).body, "e")
    assert (streamed.text, streamed.reasoning, streamed.finish_reason) == (direct.text, direct.reasoning, "stop")
    assert (streamed.prompt_tokens, streamed.completion_tokens) == (direct.prompt_tokens, direct.completion_tokens)
    if case != "reasoning_stream":
        assert streamed == direct
    assert streamed.token_ids is not None
    assert len(streamed.token_ids.output) == streamed.completion_tokens


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_streamed_reply_is_the_reply(field: str) -> None:
    with HttpTeacher(lambda question: Said("It is 4. 思考🧮", "2 and 2"), reasoning_field=field) as teacher:
        streamed, direct = complete(engine_of(teacher, stream=True)), complete(engine_of(teacher))
    assert (streamed.text, streamed.reasoning) == ("It is 4. 思考🧮", "2 and 2")
    assert (streamed.prompt_tokens, streamed.completion_tokens, streamed.finish_reason) == (3, 7, "stop")
    assert (direct.text, direct.reasoning, direct.completion_tokens) == (streamed.text, streamed.reasoning, 7)
    sent, plain = (seen.body for seen in teacher.chats)
    assert (sent.pop("stream"), sent.pop("stream_options")) == (True, {"include_usage": True})
    assert (plain.pop("stream"), sent) == (False, plain)


def test_a_server_that_does_not_stream_is_read_all_the_same() -> None:
    body = {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}
    with HttpTeacher(faults=in_order(Fault("raw", 200, body=body))) as teacher:
        assert complete(engine_of(teacher, stream=True)) == Reply("4", "stop", "openai")


def failure(fault: Fault, **options: Any) -> Exception:
    with (
        HttpTeacher(lambda question: Said("one two three"), faults=in_order(fault)) as teacher,
        pytest.raises(Exception) as caught,  # noqa: PT011
    ):
        complete(engine_of(teacher, stream=True, **options))
    return caught.value


def test_a_stream_that_breaks_in_the_middle() -> None:
    error = failure(Fault("drop"))
    assert isinstance(error, AttemptError)
    assert "the connection failed" in str(error)
    assert (error.fault, error.sent) == ("endpoint", True)


def test_a_pause_between_two_bytes_is_limited_and_the_whole_is_not() -> None:
    """Six events in two halves each, 50 ms apart: longer than `stall` altogether."""
    with HttpTeacher(lambda question: Said("one two three"), pause=0.05) as teacher:
        begun = time.monotonic()
        assert complete(engine_of(teacher, stream=True, stall=0.3)).text == "one two three"
        assert time.monotonic() - begun > 0.5
    error = failure(Fault("stall", seconds=5), stall=0.2)
    assert isinstance(error, AttemptError)
    assert str(error) == "no byte from the server within 0.2 s"
    assert (error.fault, error.sent) == ("endpoint", True)


def test_the_whole_is_limited_too() -> None:
    with (
        HttpTeacher(lambda question: Said("word " * 200), pause=0.05) as teacher,
        pytest.raises(AttemptError, match=r"no reply within 0\.3 s"),
    ):
        complete(engine_of(teacher, stream=True, stall=5.0, timeout=0.3))


def test_comments_are_bytes_and_no_events() -> None:
    """A server under load sends them while it thinks: it is not stalled."""
    with HttpTeacher(faults=in_order(Fault("blank", seconds=0.8))) as teacher:
        assert complete(engine_of(teacher, stream=True, stall=0.4)).text == "You asked: What is 2+2?"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"error": {"message": "busy", "code": 429}}, 429, "busy"),
        ({"error": {"message": "odd", "code": 500}}, 500, "request"),
    ],
)
def test_an_error_instead_of_a_stream(body: Any, status: int, kind: str) -> None:
    error = failure(Fault("raw", status, body=body))
    assert isinstance(error, AttemptError)
    assert error.fault == kind


START = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}


@pytest.mark.parametrize(
    ("lines", "what", "fault"),
    [
        (
            [START, {"error": {"message": "out of memory", "code": 500}}],
            "broke the reply off: out of memory",
            "request",
        ),
        ([START, {"error": {"message": "too many", "code": 503}}], "broke the reply off: too many", "busy"),
        ([START, {"error": "gone"}], "broke the reply off: gone", "request"),
        ([START, "{not json"], "no JSON object", "request"),
        ([START, "[1]"], "no JSON object", "request"),
        ([START, {"choices": ["x"]}], "no part of a completion", "request"),
        ([START, {"choices": [{"delta": "x"}]}], "no part of a completion", "request"),
        ([START, {"choices": 5}], "no part of a completion", "request"),
        ([START, {"choices": [{"delta": {"content": 5}}]}], "content is int, not text", "request"),
        ([{"choices": [{"delta": {}, "token_ids": ["a"]}]}], "token_ids are no token ids", "request"),
        ([START, "[DONE]"], "ended before the reply did", "endpoint"),
        ([START], "ended before the reply did", "endpoint"),
        ([], "ended before the reply did", "endpoint"),
    ],
)
def test_streams_that_are_no_reply(lines: list[Any], what: str, fault: str) -> None:
    with pytest.raises(AttemptError, match=what) as caught:
        whole(lines)
    assert caught.value.fault == fault


@pytest.mark.parametrize(("reason", "fault"), [("abort", "request"), ("insufficient_system_resource", "busy")])
def test_endings_by_the_server(reason: str, fault: str) -> None:
    body = whole([START, {"choices": [{"delta": {}, "finish_reason": reason}]}])
    with pytest.raises(AttemptError, match="broke the reply off") as caught:
        read_reply(body, "e")
    assert caught.value.fault == fault
    with pytest.raises(RefusedError, match="content_filter"):
        read_reply(whole([{"choices": [{"delta": {}, "finish_reason": "content_filter"}]}]), "e")


def test_events_are_read_however_the_bytes_are_cut() -> None:
    stream = ': note\r\ndata: {"a": "思"}\r\n\r\nevent: x\ndata:[DONE]\n\ndata: last'.encode()

    async def read(size: int) -> list[str]:
        chunks = [stream[place : place + size] for place in range(0, len(stream), size)]
        return [one async for one in events(over(chunks))]

    for size in range(1, len(stream) + 1):
        assert asyncio.run(read(size)) == ['{"a": "思"}', "[DONE]", "last"]


def test_what_is_kept_is_the_text_and_not_the_events() -> None:
    """5,000 events of 200 bytes: 1 MB passes by, 25 KB of text and 40 KB of ids stay."""

    async def many() -> AsyncIterator[str]:
        event = json.dumps({"choices": [{"delta": {"content": "word "}, "token_ids": [100_000]}], "padding": "x" * 150})
        for _ in range(5_000):
            yield event
        yield json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})

    tracemalloc.start()
    body = asyncio.run(gathered(many()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(body["choices"][0]["message"]["content"]) == 25_000
    assert peak < 500_000, "the list of ids at the end included"


def test_a_stream_leaves_its_connection_to_the_next() -> None:
    with HttpTeacher() as teacher:
        engine = engine_of(teacher, stream=True)

        async def many() -> None:
            for _ in range(5):
                await engine.complete(request_for())

        using(engine, many)
    assert len({seen.port for seen in teacher.requests}) == 1


def test_the_key_stays_out_of_what_a_stream_says() -> None:
    error = failure(Fault("raw", 500, body=f"no {KEY}"), api_key=KEY)
    assert KEY not in f"{error!r} {error}"
    with HttpTeacher(key=KEY) as teacher, pytest.raises(EndpointError) as caught:
        complete(engine_of(teacher, stream=True, api_key="sk-another-key"))
    assert "sk-another-key" not in str(caught.value)
