"""Streamed text cut at its tags however it arrives, whole characters, and the three kinds of model to talk to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from http_teacher import Fault, HttpTeacher, Said
from hypothesis import given
from hypothesis import strategies as st

from distill.contract import Contract, parse_reply
from distill.engines.decoding import Row, generate, stream
from distill.engines.local import load_model
from distill.engines.streaming import Asked, ContextFullError, Detokenizer, Ending, Piece, Splitter
from distill.engines.streaming_local import LocalTalker
from distill.engines.streaming_openai import ServerTalker, read_stream
from distill.errors import EndpointError
from distill.records import Message, Sampling

R1 = Sampling(temperature=0.6, top_p=0.95)
QUESTION: list[Message] = [{"role": "user", "content": "What is 2 + 2?"}]


def split(pieces: list[str], *, opened: bool = False) -> tuple[str, str]:
    """Reasoning and answer of a text that arrives in these pieces."""
    splitter = Splitter(opened=opened)
    found = [piece for text in pieces for piece in splitter.feed(text)] + splitter.finish()
    assert all(piece.text for piece in found)
    order = [piece.part for piece in found]
    assert order == sorted(order, reverse=True), "reasoning comes before the answer"
    return tuple("".join(p.text for p in found if p.part == part) for part in ("reasoning", "answer"))  # type: ignore[return-value]


def collected(reply: Iterator[Piece | Ending]) -> tuple[str, str, Ending]:
    parts = {"reasoning": "", "answer": ""}
    *pieces, ending = list(reply)
    for piece in pieces:
        assert isinstance(piece, Piece)
        parts[piece.part] += piece.text
    assert isinstance(ending, Ending)
    return parts["reasoning"], parts["answer"], ending


# --- the splitter --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("<think>\nwell\n</think>\n\n4", False, "well", "4"),
        ("well\n</think>\n\n4", True, "well", "4"),
        ("<think>\nwell\n</think>\n\n4", True, "well", "4"),
        ("  \n<think>\nwell</think>4\n", False, "well", "4"),
        ("4", False, "", "4"),
        ("</think>\n\n4", True, "", "4"),
        ("\n</think>\n\n4", True, "", "4"),
        ("<think>never closed", False, "never closed", ""),
        ("a < b and </thin air", True, "a < b and </thin air", ""),
        ("<thin> is no tag", False, "", "<thin> is no tag"),
        ("say <think> later", False, "", "say <think> later"),
        ("a </think> b </think> c", True, "a", "b </think> c"),
        ("", True, "", ""),
        ("two\n\nparagraphs\n</think>\none\n\ntwo\n", True, "two\n\nparagraphs", "one\n\ntwo"),
    ],
)
def test_splits_at_the_tags_wherever_the_pieces_end(text: str, opened: bool, reasoning: str, answer: str) -> None:
    for size in (1, 2, 3, 5, 7, 100):
        pieces = [text[place : place + size] for place in range(0, len(text), size)]
        assert split(pieces, opened=opened) == (reasoning, answer), f"in pieces of {size}"


@given(st.lists(st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", " ", "\n", "a", "b c", "<"]), max_size=12))
def test_agrees_with_the_contract_on_whole_replies(parts: list[str]) -> None:
    """What parse_reply makes of the finished text, where it finds no fault in it. A reply that turns out to have been
    reasoning only at its closing tag has been shown by then."""
    text = "".join(parts)
    for prefix in ("", "<think>\n"):
        parsed = parse_reply(text, None, "tags", forced_prefix=prefix)
        if parsed.fault is None and (prefix or text.lstrip().startswith("<think>") or "</think>" not in text):
            assert split(parts, opened=bool(prefix)) == (parsed.reasoning or "", parsed.answer or "")
            assert split(list(text), opened=bool(prefix)) == (parsed.reasoning or "", parsed.answer or "")


def test_text_is_shown_as_soon_as_it_is_certain() -> None:
    splitter = Splitter(opened=True)
    assert splitter.feed("well, </th") == [Piece("reasoning", "well,")]
    assert splitter.feed("ink") == []
    assert splitter.feed(">\n\n") == []
    assert splitter.feed("4") == [Piece("answer", "4")]
    assert splitter.feed(" ") == [], "white space may be the end's"
    assert splitter.feed("!") == [Piece("answer", " !")]


# --- characters ----------------------------------------------------------------------------------------------------


def test_a_character_of_several_tokens_comes_whole() -> None:
    text = "a é 🙂 你\u200d!"
    shown = Detokenizer(lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    pieces = [shown.feed(byte) for byte in text.encode()]
    assert "".join(pieces) + shown.finish() == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert pieces[:3] == ["a", " ", ""], "the first byte of é alone is no text"


def test_bytes_of_a_character_that_never_ends_are_left_out() -> None:
    shown = Detokenizer(lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    assert "".join(shown.feed(byte) for byte in "ab🙂".encode()[:-1]) + shown.finish() == "ab"


def test_real_garbage_does_not_stop_the_stream() -> None:
    shown = Detokenizer(lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    assert "".join(shown.feed(byte) for byte in b"\xff\xff\xff\xff\xff\xff ok").endswith(" ok")


def test_a_tokenizer_that_drops_the_first_blank_keeps_the_others() -> None:
    """As Llama 2's does: it writes a word without its blank at the start of a text."""
    words = ["one", " two", " three", " four"]
    shown = Detokenizer(lambda ids: "".join(words[n] for n in ids).removeprefix(" "))
    assert "".join(shown.feed(n) for n in range(4)) == "one two three four"


# --- a model folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "deepseek_v3"])
def test_streams_the_tokens_that_the_engine_generates(model_folder: Callable[[str], Path], architecture: str) -> None:
    loaded = load_model(str(model_folder(architecture)))
    for seed in (1, 2):
        row = Row([719, 5, 6, 7], 40, R1, seed)
        ((_, generated),) = generate(loaded.model, [row], loaded.stops, 721)
        assert list(stream(loaded.model, row, loaded.stops)) == generated
    ended = Row([719, 5, 6, 7], 40, Sampling(temperature=0.0), None)
    first = next(stream(loaded.model, ended, loaded.stops))
    assert list(stream(loaded.model, ended, [first])) == [first], "a stop token is the last"


def test_a_folder_talks_under_its_contract(model_folder: Callable[[str], Path]) -> None:
    talker = LocalTalker(str(model_folder("qwen2")), Contract("deepseek-r1", "<think>\n"), 4_096)
    asked = Asked(R1, 30, 3)
    reasoning, answer, ending = collected(talker.reply(QUESTION, asked))
    assert reasoning, "the forced prefix is an open tag"
    assert collected(talker.reply(QUESTION, asked)) == (reasoning, answer, ending), "a seed gives the same again"
    assert ending in (Ending("length", 30), Ending("stop", ending.tokens))
    assert "<｜end▁of▁sentence｜>" not in reasoning + answer


def test_the_end_of_the_context_is_told_apart_from_a_limit(model_folder: Callable[[str], Path]) -> None:
    folder = str(model_folder("qwen2"))
    talker = LocalTalker(folder, Contract("deepseek-r1", "<think>\n"), 40)
    endings = {collected(talker.reply(QUESTION, Asked(R1, None, seed)))[2].reason for seed in range(6)}
    assert "context" in endings
    assert "length" not in endings
    with pytest.raises(ContextFullError, match="fills the context of 40"):
        next(talker.reply([{"role": "user", "content": "word " * 50}], Asked(R1, None, 1)))


# --- a server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_server_with_a_reasoning_field(field: str) -> None:
    said = Said("\n\nvier — 你好", reasoning="ich zähle: zwei, vier\n")
    with HttpTeacher(lambda question: said, reasoning_field=field) as teacher:
        talker = ServerTalker(teacher.url, teacher.model)
        found = collected(talker.reply(QUESTION, Asked(R1, None, 7)))
        talker.close()
    assert found == ("ich zähle: zwei, vier", "vier — 你好", Ending("stop", 7))
    body = teacher.chats[0].body
    assert (body["stream"], body["temperature"], body["top_p"], body["seed"]) == (True, 0.6, 0.95, 7)
    assert "max_tokens" not in body


def test_a_server_whose_text_has_tags_and_one_that_cuts() -> None:
    with HttpTeacher(lambda question: Said("<think>\nwell well\n</think>\n\nfour it is")) as teacher:
        talker = ServerTalker(teacher.url, teacher.model)
        assert collected(talker.reply(QUESTION, Asked(R1, 100, None)))[:2] == ("well well", "four it is")
        assert collected(talker.reply(QUESTION, Asked(R1, 4, None)))[2] == Ending("length", 4)
        talker.close()


def test_a_url_with_a_query_keeps_it_behind_the_path() -> None:
    with HttpTeacher(lambda question: Said("4")) as teacher:
        talker = ServerTalker(f"{teacher.url}/?api-version=1", teacher.model)
        assert collected(talker.reply(QUESTION, Asked(R1, None, None)))[1] == "4"
        talker.close()


def test_leaving_early_ends_the_request() -> None:
    with HttpTeacher(lambda question: Said("word " * 500), pause=0.01) as teacher:
        talker = ServerTalker(teacher.url, teacher.model)
        reply = talker.reply(QUESTION, Asked(R1, None, None))
        assert next(reply) == Piece("answer", "word")
        reply.close()
        deadline = time.monotonic() + 5
        while not teacher.hung_up and time.monotonic() < deadline:
            time.sleep(0.02)
        assert teacher.hung_up == 1
        assert collected(talker.reply(QUESTION, Asked(R1, 3, None)))[1] == "word word word", "and the next one works"
        talker.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("status", 400, message="no such option"), "400: no such option"),
        (Fault("status", 503, message="busy"), "503: busy"),
        (Fault("status", 401), "wants a key"),
        (Fault("hang_up"), "the connection failed"),
        (Fault("raw", 200, body="data: nonsense\n\n"), "no JSON object"),
        (Fault("raw", 200, body='data: {"error": {"message": "out of memory"}}\n\n'), "out of memory"),
        (Fault("raw", 200, body='data: {"choices": [{"delta": {"content": "hal"}}]}\n\n'), "broke the reply off"),
        (
            Fault("raw", 200, body='data: {"choices": [{"delta": {}, "finish_reason": "abort"}]}\n\n'),
            "broke the reply off",
        ),
        (Fault("raw", 200, body='data: {"choices": [{"finish_reason": "content_filter"}]}\n\n'), "'content_filter'"),
        (Fault("raw", 200, body='data: {"choices": [1]}\n\n'), "no part of a completion"),
        (Fault("raw", 200, body='data: {"choices": [{"delta": [1]}]}\n\n'), "no part of a completion"),
        (Fault("raw", 200, body='data: {"choices": [{"delta": {"content": 4}}]}\n\n'), "content is int, not text"),
        (Fault("raw", 200, body='data: {"choices": 4}\n\n'), "no part of a completion"),
    ],
)
def test_what_goes_wrong_at_a_server_is_told(fault: Fault, words: str) -> None:
    with HttpTeacher(faults=lambda number, seen: fault) as teacher:
        talker = ServerTalker(teacher.url, teacher.model)
        with pytest.raises(EndpointError, match=words) as raised:
            list(talker.reply(QUESTION, Asked(R1, None, None)))
        talker.close()
    assert raised.value.todo
    assert "generate." not in str(raised.value), "there is no recipe here"


def test_a_conversation_too_long_for_a_server() -> None:
    with HttpTeacher(context=3) as teacher:
        talker = ServerTalker(teacher.url, teacher.model)
        with pytest.raises(ContextFullError):
            list(talker.reply(QUESTION, Asked(R1, None, None)))
        talker.close()


def test_an_unknown_model_is_told_before_the_first_question() -> None:
    with HttpTeacher() as teacher, pytest.raises(EndpointError, match="no model 'other'") as raised:
        ServerTalker(teacher.url, "other")
    assert "--model" in str(raised.value)


def test_an_event_without_a_last_line_break_counts() -> None:
    async def events() -> AsyncIterator[str]:
        yield '{"choices": [{"delta": {"content": "4"}, "finish_reason": "length"}], "usage": {"completion_tokens": 1}}'

    async def read() -> list[Piece | Ending]:
        return [part async for part in read_stream(events(), Asked(R1, None, None))]

    assert asyncio.run(read()) == [Piece("answer", "4"), Ending("context", 1)]
