"""A scripted OpenAI-compatible server on loopback, in a thread, that misbehaves on request.

    with HttpTeacher(lambda question: Said("4")) as teacher:
        OpenAIEngine(url=teacher.url, model=teacher.model)

Its replies have the form of vLLM's own; test_http_teacher.py holds them against recordings of a real server.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import web

Kind = Literal["status", "drop", "hang_up", "malformed", "no_choices", "stall", "raw"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request.

    `status`: an error reply with `code`; `drop`: the connection breaks in mid-body; `hang_up`: before the first byte;
    `malformed`: a body that is no JSON; `no_choices`: an empty list of choices; `stall`: `seconds` without a byte, then
    the right answer; `raw`: status `code` with `body` as it stands.
    """

    kind: Kind
    code: int = 500
    retry_after: str | None = None
    seconds: float = 0.0
    body: Any = None
    message: str = "scripted fault"


@dataclass(frozen=True, slots=True)
class Said:
    """What the model says; words of `text` and `reasoning` count as tokens. More of them than max_tokens are cut."""

    text: str | None
    reasoning: str | None = None
    finish_reason: str = "stop"


@dataclass(slots=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        return str(self.body["messages"][-1]["content"])


Answer = Callable[[str], Said]
"""Question → what is said."""
Script = Callable[[int, Seen], Fault | None]
"""Number of the chat request, from 0 in order of arrival → what goes wrong with it, None for nothing."""


def in_order(*faults: Fault | None) -> Script:
    """These faults for the first requests, one each; the rest go well."""
    return lambda number, seen: faults[number] if number < len(faults) else None


class HttpTeacher:
    """The server; running inside its `with` block. `requests` and `most_in_flight` tell what it saw.

    `context` is how many words prompt and reply may have together, `latency` how many seconds each reply takes;
    of a streamed one, each half of an event takes `pause` seconds, and its reasoning comes in `reasoning_field`.
    """

    def __init__(
        self,
        answer: Answer = lambda question: Said(f"You asked: {question}"),
        *,
        faults: Script = lambda number, seen: None,
        model: str = "scripted",
        key: str | None = None,
        context: int = 4_096,
        latency: float = 0.0,
        lists_models: bool = True,
        reasoning_field: str = "reasoning",
        pause: float = 0.0,
    ) -> None:
        self.answer, self.faults, self.model, self.key = answer, faults, model, key
        self.context, self.latency, self.lists_models = context, latency, lists_models
        self.reasoning_field, self.pause = reasoning_field, pause
        self.hung_up = 0
        """How many streamed replies the client did not wait for."""
        self.requests: list[Seen] = []
        self.most_in_flight = 0
        self.url = ""
        self._in_flight = 0
        self._numbers: Iterator[int] = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="http-teacher", daemon=True)
        self._ready, self._ended = threading.Event(), asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the scripted teacher did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    @property
    def chats(self) -> list[Seen]:
        """The chat requests among `requests`."""
        return [seen for seen in self.requests if seen.path.endswith("/chat/completions")]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        application = web.Application(client_max_size=64 * 2**20)
        if self.lists_models:
            application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"
        self._ready.set()
        await self._ended.wait()
        await runner.cleanup()

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(Seen(request.path, dict(request.headers)))
        return self._unauthorized(request) or web.json_response(models_body(self.model))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.path, dict(request.headers), json.loads(await request.read()))
        self.requests.append(seen)
        fault = self.faults(next(self._numbers), seen)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            await asyncio.sleep(self.latency + (fault.seconds if fault else 0.0))
            if fault is not None and fault.kind != "stall":
                return await misbehave(fault, request)
            return self._unauthorized(request) or self._refused(seen) or await self._reply(seen, request)
        finally:
            self._in_flight -= 1

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if self.key is None or hmac.compare_digest(given, f"Bearer {self.key}"):
            return None
        return web.json_response({"error": "Unauthorized"}, status=401)

    def _refused(self, seen: Seen) -> web.Response | None:
        body = seen.body
        if body["model"] != self.model:
            what = f"The model `{body['model']}` does not exist."
            return web.json_response(error_body(404, what, "NotFoundError", "model"), status=404)
        if body.get("temperature", 0) < 0:
            what = f"temperature must be non-negative, got {body['temperature']}."
            return web.json_response(error_body(400, what, "BadRequestError", "temperature"), status=400)
        if prompt_words(body) > self.context:
            what = f"This model's maximum context length is {self.context} tokens."
            return web.json_response(error_body(400, what, "BadRequestError", "input_tokens"), status=400)
        return None

    async def _reply(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        said = cut(self.answer(seen.question), seen.body.get("max_tokens", self.context))
        if not seen.body.get("stream"):
            return web.json_response(chat_body(said, self.model, prompt_words(seen.body)))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for event in stream_events(said, self.model, self.reasoning_field):
                for part in (event[: len(event) // 2], event[len(event) // 2 :]):  # cut anywhere, also in a character
                    await response.write(part)
                    await asyncio.sleep(self.pause)
        except ConnectionResetError:
            self.hung_up += 1
        except asyncio.CancelledError:
            self.hung_up += 1
            raise
        return response


async def misbehave(fault: Fault, request: web.Request) -> web.StreamResponse:
    if fault.kind == "status":
        headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
        body = error_body(fault.code, fault.message, "ScriptedError", None)
        return web.json_response(body, status=fault.code, headers=headers)
    if fault.kind == "malformed":
        return web.Response(text='{"choices": [{"message": ', content_type="application/json")
    if fault.kind == "no_choices":
        return web.json_response({**chat_body(Said("lost"), "scripted", 1), "choices": []})
    if fault.kind == "raw":
        text = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
        return web.Response(text=text, status=fault.code)
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    if fault.kind == "drop":
        await response.prepare(request)
        await response.write(b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "half a')
        await asyncio.sleep(0.01)  # so that the first half is on its way before the end
    if request.transport is not None:
        request.transport.abort()
    return response


def prompt_words(body: dict[str, Any]) -> int:
    return sum(len(message["content"].split()) for message in body["messages"])


def cut(said: Said, max_tokens: int) -> Said:
    """`said` ended with `length` where it has more words than `max_tokens`, reasoning first."""
    reasoning, text = (said.reasoning or "").split(), (said.text or "").split()
    if len(reasoning) + len(text) <= max_tokens:
        return said
    shorter = " ".join(reasoning[:max_tokens]) if said.reasoning is not None else None
    left = text[: max(0, max_tokens - len(reasoning))]
    return Said(" ".join(left) if left else None, shorter, "length")


def models_body(model: str) -> dict[str, Any]:
    card = {"id": model, "object": "model", "created": 1_795_476_705, "owned_by": "tests", "max_model_len": 4_096}
    return {"object": "list", "data": [card]}


def chat_body(said: Said, model: str, prompt_tokens: int) -> dict[str, Any]:
    reasoned = len((said.reasoning or "").split())
    completion_tokens = reasoned + len((said.text or "").split())
    message = {"role": "assistant", "content": said.text, "reasoning": said.reasoning}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1_795_476_705,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish_reason}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
            "completion_tokens_details": {"reasoning_tokens": reasoned} if said.reasoning is not None else None,
        },
    }


def stream_events(said: Said, model: str, reasoning_field: str) -> Iterator[bytes]:
    """Server-sent events as vLLM sends them: the role, one word each, the ending, [DONE]."""

    def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "model": model, "choices": [choice]}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()

    yield event({"role": "assistant", "content": ""})
    for name, text in ((reasoning_field, said.reasoning), ("content", said.text)):
        yield from (event({name: word}) for word in re.findall(r"\s*\S+\s*$|\s*\S+", text or ""))
    yield event({}, said.finish_reason)
    yield b"data: [DONE]\n\n"


def error_body(code: int, message: str, kind: str, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
