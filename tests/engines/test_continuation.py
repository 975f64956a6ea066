"""A reply in slices is the reply in one piece: ids, text, fields and counts, over HTTP and in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from http_teacher import Fault, HttpTeacher, Said, Seen, in_order

from distill.engines import AttemptError, EndpointError, Reply, Request, TokenIds
from distill.engines import local as local_module
from distill.engines.local import LocalEngine
from distill.engines.openai import OpenAIEngine
from distill.records import Sampling
from engines.asking import replies_to, with_engine

TINY_R1 = Path(__file__).resolve().parents[2] / "teachers" / "tiny-r1"
KEY = "sk-this-must-never-be-seen-1234567890"
EMOJI = "🧮"
LONG = f"First {EMOJI}{EMOJI} we  count,\n\n then <|ask|> 思考 {EMOJI}. And so it goes on to the end {EMOJI}"
"""White space of every kind, a control token's name, and characters that are two tokens each."""
SLICES = ((1,), (2, 1), (3, 5, 1), (4,), (7, 2), (64,))


def engine_of(teacher: HttpTeacher, **options: Any) -> OpenAIEngine:
    return OpenAIEngine(**{"url": teacher.url, "model": teacher.model, "timeout": 5.0, "continues": True, **options})


def asked(tokens: int, **settings: Any) -> Request:
    return Request("r", [{"role": "user", "content": f"Tell {EMOJI}"}], Sampling(), tokens, token_ids=True, **settings)


async def in_slices(engine: Any, request: Request, slices: tuple[int, ...], *, limit: int = 500) -> Reply:
    """The reply to `request`, drawn in slices of these lengths, over and over, until it stops."""
    reply: Reply | None = None
    for turn in range(limit):
        begun = reply.token_ids if reply is not None else None
        one = replace(request, goes_on_from=begun, max_tokens=slices[turn % len(slices)])
        reply = await engine.complete(one)
        assert reply.token_ids is not None
        assert len(reply.token_ids.output) == reply.completion_tokens
        if reply.finish_reason == "stop":
            return reply
    raise AssertionError("it never stopped")


def using(engine: OpenAIEngine, work: Callable[[OpenAIEngine], Any]) -> Any:
    async def everything() -> Any:
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(everything())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("parses", [False, True])
@pytest.mark.parametrize("reasoning", [None, LONG])
def test_slices_of_any_length_add_up_to_the_reply_in_one_piece(
    reasoning: str | None, parses: bool, stream: bool
) -> None:
    """Also where a slice ends within a character, in white space, before or behind the closing tag and the stop
    token, and where the server cuts the reasoning out of chats but not out of what goes on."""

    async def both(engine: OpenAIEngine) -> tuple[Reply, list[Reply]]:
        whole = await engine.complete(asked(500))
        return whole, [await in_slices(engine, asked(500), slices) for slices in SLICES]

    with HttpTeacher(lambda question: Said(LONG, reasoning), parses=parses) as teacher:
        whole, sliced = using(engine_of(teacher, stream=stream), both)
    assert whole.finish_reason == "stop"
    assert LONG in whole.text
    assert (whole.reasoning == LONG) == (reasoning is not None and parses)
    assert whole.token_ids is not None
    assert whole.token_ids.output[-1] == teacher.tokens.STOP
    for reply in sliced:
        assert replace(reply, reasoning_tokens=None) == replace(whole, reasoning_tokens=None)


def test_what_is_cut_for_good_is_the_beginning_of_the_whole(  # as one request with that many tokens would have it
) -> None:
    async def cut_at(engine: OpenAIEngine) -> None:
        count = len(teacher.tokens.reply(Said(LONG)))
        for tokens in range(2, count):
            direct = await engine.complete(asked(tokens))
            first = await engine.complete(asked(tokens // 2))
            second = await engine.complete(asked(tokens - tokens // 2, goes_on_from=first.token_ids))
            assert second == direct, tokens

    with HttpTeacher(lambda question: Said(LONG)) as teacher:
        using(engine_of(teacher), cut_at)


@pytest.mark.parametrize("parses", [False, True])
def test_an_engine_that_has_seen_no_chat_finds_out_once_whether_the_server_parses(parses: bool) -> None:
    said = Said("4", "so 2 and 2")

    async def begin(engine: OpenAIEngine) -> Reply:
        return await engine.complete(asked(2))

    async def go_on(engine: OpenAIEngine) -> list[Reply]:
        return await asyncio.gather(*(engine.complete(asked(50, goes_on_from=begun)) for _ in range(5)))

    with HttpTeacher(lambda question: said, parses=parses, latency=0.01) as teacher:
        begun = using(engine_of(teacher), begin).token_ids
        replies = using(engine_of(teacher), go_on)
    assert len(teacher.chats) == 2, "the first slice, and one short question"
    assert teacher.chats[1].body["max_tokens"] <= 4
    wanted = ("4", "so 2 and 2") if parses else ("so 2 and 2</think>4", None)
    assert {(reply.text, reply.reasoning) for reply in replies} == {wanted}


def test_what_is_sent_and_in_which_order() -> None:
    """The text so far is asked for before tokens are paid for: what has come then needs nothing more of the server."""
    sampling = Sampling(temperature=0.5, seed=3)

    async def twice(engine: OpenAIEngine) -> Reply:
        first = await engine.complete(replace(asked(3), sampling=sampling, seed=7))
        second = replace(asked(20), sampling=sampling, seed=8, goes_on_from=first.token_ids, messages=[])
        return await engine.complete(second)

    with HttpTeacher(lambda question: Said("one two three four"), key=KEY) as teacher:
        reply = using(engine_of(teacher, api_key=KEY), twice)
    assert (reply.text, reply.completion_tokens) == ("one two three four", 5)
    assert [seen.path for seen in teacher.requests] == [
        "/v1/models", "/v1/chat/completions", "/detokenize", "/detokenize", "/v1/completions"
    ]  # fmt: skip
    assert {seen.headers["Authorization"] for seen in teacher.requests} == {f"Bearer {KEY}"}
    chat, completion = teacher.chats[0].body, teacher.completions[0].body
    assert chat["return_token_ids"] is True
    assert chat["skip_special_tokens"] is False
    assert reply.token_ids is not None
    assert completion == {
        "model": "scripted",
        "prompt": [*reply.token_ids.prompt, *reply.token_ids.output[:3]],
        "n": 1,
        "stream": False,
        "max_tokens": 20,
        "temperature": 0.5,
        "seed": 8,
        "skip_special_tokens": False,
        "return_token_ids": True,
    }
    assert not any(KEY in str(seen.body) for seen in teacher.requests)


def test_ids_are_neither_asked_for_nor_told_where_nobody_wants_them() -> None:
    with HttpTeacher() as teacher:
        reply = using(
            engine_of(teacher, continues=False), lambda engine: engine.complete(replace(asked(9), token_ids=False))
        )
    assert reply.token_ids is None
    assert not {"return_token_ids", "skip_special_tokens"} & teacher.chats[0].body.keys()


NO_IDS: dict[str, Any] = {"text": "x", "finish_reason": "stop"}
BEGUN = TokenIds((0, 1), (3,))


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_cannot_go_on_says_which_setting_took_it_for_one(stream: bool) -> None:
    def gone(engine: OpenAIEngine) -> Any:
        return engine.complete(asked(9, goes_on_from=BEGUN))

    with HttpTeacher(continues=False) as teacher:
        with pytest.raises(EndpointError, match="cannot go on with a cut reply") as caught:
            using(engine_of(teacher, stream=stream), gone)
        assert "continuation: none" in str(caught.value.todo)
        assert teacher.completions == []


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault("status", 404), "POST /completions gives 404"),
        (Fault("status", 405), "POST /completions gives 405"),
        (Fault("raw", 200, body={"choices": [{"text": "x", "finish_reason": "stop"}]}), "no token ids"),
        (
            Fault("raw", 200, body={"choices": [{"text": "x", "finish_reason": "stop", "token_ids": "x"}]}),
            "no token ids",
        ),
    ],
)
def test_completions_that_are_missing_or_tell_no_ids(fault: Fault, why: str) -> None:
    def only_completions(number: int, seen: Seen) -> Fault | None:
        return fault if seen.path == "/v1/completions" else None

    async def go_on(engine: OpenAIEngine) -> Reply:
        first = await engine.complete(asked(2))
        return await engine.complete(asked(9, goes_on_from=first.token_ids))

    with HttpTeacher(faults=only_completions) as teacher, pytest.raises(EndpointError, match=why) as caught:
        using(engine_of(teacher), go_on)
    assert "teacher_overrides.continuation=none" in str(caught.value.todo)


def test_a_chat_that_tells_no_ids_is_a_reply_all_the_same() -> None:
    body = {"choices": [{"message": {"content": "4"}, "finish_reason": "length"}], "prompt_token_ids": None}
    with HttpTeacher(faults=in_order(Fault("raw", 200, body=body))) as teacher:
        reply = using(engine_of(teacher), lambda engine: engine.complete(asked(1)))
    assert (reply.text, reply.token_ids) == ("4", None)


@pytest.mark.parametrize("kind", ["drop", "hang_up", "malformed", "no_choices"])
def test_a_failed_continuation_is_an_attempt_and_the_next_succeeds(kind: Any) -> None:
    async def go_on(engine: OpenAIEngine) -> Reply:
        first = await engine.complete(asked(2))
        second = asked(50, goes_on_from=first.token_ids)
        with pytest.raises(AttemptError):
            await engine.complete(second)
        return await engine.complete(second)

    with HttpTeacher(lambda question: Said(LONG), faults=in_order(None, Fault(kind))) as teacher:
        assert using(engine_of(teacher), go_on).text == LONG


# --- in this process -----------------------------------------------------------------------------------------------


QUESTIONS = ("Tom has 12 apples and buys 7 more. How many apples does he have?", "What is 35 + 48?", "思考 🧮")


def test_slices_of_the_embedded_teacher_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy, in float32: in bfloat16 a prefill rounds otherwise than one token at a time."""
    monkeypatch.setattr(local_module, "compute_dtype", lambda device: "float32")

    def request(question: str, **settings: Any) -> Request:
        messages = [{"role": "user", "content": question}]
        return Request(question, messages, Sampling(temperature=0.0), 96, token_ids=True, **settings)

    async def both(engine: LocalEngine) -> list[tuple[Reply, Reply]]:
        whole = await asyncio.gather(*(engine.complete(request(question)) for question in QUESTIONS))
        lengths = ((16,), (7, 48, 1), (40,))
        sliced = await asyncio.gather(
            *(_limited(engine, request(question), cut) for question, cut in zip(QUESTIONS, lengths, strict=True))
        )
        return list(zip(whole, sliced, strict=True))

    pairs = with_engine(LocalEngine(str(TINY_R1), batch=4), both)
    for whole, sliced in pairs:
        assert sliced == whole
    assert any(whole.finish_reason == "stop" and whole.reasoning_tokens for whole, _ in pairs)


async def _limited(engine: LocalEngine, request: Request, slices: tuple[int, ...]) -> Reply:
    """The reply in slices, up to the request's own limit."""
    reply: Reply | None = None
    turn = 0
    while reply is None or (reply.finish_reason == "length" and (reply.completion_tokens or 0) < request.max_tokens):
        left = request.max_tokens - (reply.completion_tokens or 0 if reply is not None else 0)
        begun = reply.token_ids if reply is not None else None
        one = replace(request, goes_on_from=begun, max_tokens=min(left, slices[turn % len(slices)]))
        reply, turn = await engine.complete(one), turn + 1
    return reply


def test_a_reply_in_this_process_tells_its_ids_only_when_asked(model_folder: Callable[[str], Path]) -> None:
    request = Request("q", [{"role": "user", "content": "q"}], Sampling(temperature=0.0), 3)
    quiet, telling = replies_to(LocalEngine(str(model_folder("llama"))), [request, replace(request, token_ids=True)])
    assert quiet.token_ids is None
    assert telling.token_ids is not None
    assert (len(telling.token_ids.prompt), len(telling.token_ids.output)) == (quiet.prompt_tokens, 3)


def test_a_reply_that_fills_the_context_cannot_go_on(model_folder: Callable[[str], Path]) -> None:
    full = TokenIds(tuple(range(100)), tuple(range(156)))
    request = Request("q", [], Sampling(temperature=0.0), 3, goes_on_from=full)
    with pytest.raises(Exception, match="leaves no room in the model's 256"):
        replies_to(LocalEngine(str(model_folder("llama"))), [request])
