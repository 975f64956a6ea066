"""Talks with an OpenAI-compatible server: one POST to /chat/completions whose reply comes as server-sent events.

Reads the reasoning from a field of its own (`reasoning`, formerly `reasoning_content`) or from tags in the text.
Errors mean what they mean in openai.py. Knows nothing about terminals.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from typing import Any, Literal, TypeVar

from distill.contract import CLOSE, OPEN
from distill.engines import AttemptError, RefusedError, Request
from distill.engines.openai import OpenAIEngine
from distill.engines.openai_replies import CONTENT, REASONING, finish_of, text_in, token_count
from distill.engines.openai_requests import request_body
from distill.engines.openai_server import CHAT, whole
from distill.engines.openai_stream import DONE, choices_of, chunk_of, events
from distill.engines.streaming import Asked, ContextFullError, Ending, Piece, Splitter, failures_told
from distill.errors import EndpointError
from distill.records import Message

T = TypeVar("T")
CONTEXT_WORDS = ("context length", "context window", "maximum context")
"""How servers say that a conversation is too long: vLLM, SGLang, llama.cpp and OpenAI."""
WORDS = {
    "generate.url": "the URL",
    "generate.served_model": "--model",
    "the environment variable that generate.api_key_env names (OPENAI_API_KEY if unset)": "OPENAI_API_KEY",
    "the variable that generate.api_key_env names": "OPENAI_API_KEY",
}
"""What openai.py calls a recipe's setting → what it is called where there is no recipe."""


class ServerTalker:
    """The Talker of the model of this name at a server; `url` ends where `/chat/completions` is to be added.

    Raises EndpointError when the server does not answer or does not know the model.
    """

    def __init__(self, url: str, model: str, api_key: str | None = None, timeout: float = 600.0) -> None:
        self._loop = _LoopThread()
        self._engine = _StreamingEngine(
            url=url, model=model, api_key=api_key, timeout=None, connections=1, stream=True, stall=timeout
        )
        try:
            with _own_words():
                self._loop.run(self._engine.start())
        except BaseException:
            self.close()
            raise

    def reply(self, messages: list[Message], asked: Asked) -> Generator[Piece | Ending, None, None]:
        parts: queue.SimpleQueue[Piece | Ending | None] = queue.SimpleQueue()
        telling = self._loop.start(_tell(self._engine.stream(messages, asked), parts))
        try:
            while (part := parts.get()) is not None:
                yield part
            with _own_words(), failures_told(self._engine.model):
                telling.result()  # raises what broke
        finally:
            telling.cancel()  # hangs up, so that the server does not go on writing for nobody

    def close(self) -> None:
        self._loop.run(self._engine.close())
        self._loop.close()


async def _tell(stream: AsyncIterator[Piece | Ending], parts: queue.SimpleQueue[Piece | Ending | None]) -> None:
    """Passes a stream on; None behind its last part, however it ended."""
    try:
        async for part in stream:
            parts.put(part)
    finally:
        parts.put(None)


class _LoopThread:
    """An event loop in a thread of its own: Ctrl-C strikes the main thread, at any instruction, and finds none of the
    loop's work half done there."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="connection", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = self.start(work)
        try:
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _StreamingEngine(OpenAIEngine):
    """The engine's connection, checks and errors, with a reply that comes in pieces."""

    async def stream(self, messages: list[Message], asked: Asked) -> AsyncIterator[Piece | Ending]:
        body = _body(messages, asked, self.model)
        try:
            async with self._server.response("POST", CHAT, self._patience, body) as response:
                if response.status != 200:
                    raise self._server.failure(response.status, await whole(response))
                async for part in read_stream(events(response.content.iter_any()), asked):
                    yield part
        except RefusedError as error:
            if any(words in error.what for words in CONTEXT_WORDS):
                raise ContextFullError(error.what) from None
            raise EndpointError(error.what, todo="change the question or the options") from None
        except AttemptError as error:
            gone = "see whether the server still runs, or ask again later"
            todo = gone if error.fault == "endpoint" else "ask again; the server's log may tell why"
            raise EndpointError(error.what, todo=todo) from None


def _body(messages: list[Message], asked: Asked, model: str) -> dict[str, Any]:
    request = Request("chat", messages, asked.sampling, asked.max_tokens or 0, asked.seed)
    body = request_body(request, model, stream=True)
    if asked.max_tokens is None:
        del body["max_tokens"]  # vLLM and SGLang then give what the context leaves
    return body


async def read_stream(data: AsyncIterator[str], asked: Asked) -> AsyncIterator[Piece | Ending]:
    """Pieces and the ending of a streamed completion. Raises AttemptError for an error event, an early end and a form
    no completion has, RefusedError for an ending that is neither the model's own nor the limit."""
    splitter, reason, tokens, inside = Splitter(opened=False), None, None, False
    async for one in data:
        if one == DONE:
            break
        chunk = chunk_of(one)
        tokens = token_count(chunk.get("usage"), "completion_tokens") or tokens
        for choice in choices_of(chunk):
            text, inside = _tagged(choice.get("delta") or {}, inside)
            for piece in splitter.feed(text):
                yield piece
            reason = choice.get("finish_reason") or reason
    for piece in splitter.finish():
        yield piece
    cut: Literal["length", "context"] = "length" if asked.max_tokens is not None else "context"
    yield Ending(cut if finish_of(reason) == "length" else "stop", tokens)


def _tagged(delta: dict[str, Any], inside: bool) -> tuple[str, bool]:
    """The text of a delta with a reasoning field turned into tags, and whether it ends inside the reasoning."""
    reasoning, content = text_in(delta, *REASONING) or "", text_in(delta, *CONTENT) or ""
    opening = OPEN if reasoning and not inside else ""
    closing = CLOSE if content and (inside or reasoning) else ""
    return f"{opening}{reasoning}{closing}{content}", bool(inside or reasoning) and not content


@contextlib.contextmanager
def _own_words() -> Iterator[None]:
    """Errors of the connection name options of the command line here, not settings of a recipe."""
    try:
        yield
    except EndpointError as error:
        todo = error.todo
        for setting, option in WORDS.items():
            todo = todo.replace(setting, option) if todo else todo
        raise EndpointError(error.what, given=error.given, todo=todo) from None
