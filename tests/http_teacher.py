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
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Self

from aiohttp import web
from teacher_faults import Fault, Script, Seen, in_order, misbehave, send_events, send_late
from teacher_words import (
    CLOSE,
    Cut,
    Said,
    Tokens,
    chat_body,
    chat_events,
    completion_body,
    completion_events,
    cut,
    error_body,
    models_body,
    words,
)

__all__ = ["Fault", "HttpTeacher", "Said", "Seen", "chat_body", "error_body", "in_order"]

RATE = 50
"""Tokens a second that the metrics count while a reply takes its time."""


Answer = Callable[[str], Said]
"""Question → what is said."""


class HttpTeacher:
    """The server; running inside its `with` block. `requests` and `most_in_flight` tell what it saw.

    `context` is how many words prompt and reply may have together, `latency` how many seconds each reply takes, or the
    least and the most; of a streamed one, each half of an event takes `pause` seconds, and its reasoning comes in
    `reasoning_field`. `parses`: it cuts the reasoning out of a chat's reply, as vLLM with a reasoning parser; without
    one the tags stand in the text. `continues`: it takes token ids, tells them and turns them into text. `metrics`: it
    has a page of them. All of these may be changed while it runs.
    """

    def __init__(
        self,
        answer: Answer = lambda question: Said(f"You asked: {question}"),
        *,
        faults: Script = lambda number, seen: None,
        model: str = "scripted",
        key: str | None = None,
        context: int = 4_096,
        latency: float | tuple[float, float] = 0.0,
        lists_models: bool = True,
        reasoning_field: str = "reasoning",
        pause: float = 0.0,
        parses: bool = True,
        continues: bool = True,
        metrics: bool = True,
    ) -> None:
        self.answer, self.faults, self.model, self.key = answer, faults, model, key
        self.context, self.latency, self.lists_models = context, latency, lists_models
        self.reasoning_field, self.pause = reasoning_field, pause
        self.parses, self.continues, self.metrics = parses, continues, metrics
        self.tokens = Tokens()
        self.hung_up = 0
        """How many streamed replies the client did not wait for."""
        self.requests: list[Seen] = []
        self.most_in_flight = 0
        self.url = ""
        self._begun: dict[int, float] = {}
        """Request for a reply that is being answered → when it came; one that stalls is not in here."""
        self._generated = 0.0
        self._in_flight = 0
        self._numbers: Iterator[int] = itertools.count()
        self._random = random.Random(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="http-teacher", daemon=True)
        self._ready, self._ended, self._thawed = threading.Event(), asyncio.Event(), asyncio.Event()

    def __enter__(self) -> Self:
        self._thawed.set()
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the scripted teacher did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._thawed.set)
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    @property
    def chats(self) -> list[Seen]:
        """The chat requests among `requests`."""
        return [seen for seen in self.requests if seen.path.endswith("/chat/completions")]

    @property
    def completions(self) -> list[Seen]:
        """Those that went on with a reply."""
        return [seen for seen in self.requests if seen.path == "/v1/completions"]

    def die(self) -> None:
        """Closes the socket and every connection at once, as a killed server's are."""
        self._do(self._die())

    def come_back(self) -> None:
        """Listens at the same port again."""
        self._do(self._listen(int(self.url.rpartition(":")[2].partition("/")[0])))

    def freeze(self) -> None:
        """Takes connections and requests, and answers none, as a stopped process does."""
        self._loop.call_soon_threadsafe(self._thawed.clear)

    def thaw(self) -> None:
        self._loop.call_soon_threadsafe(self._thawed.set)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        application = web.Application(client_max_size=64 * 2**20)
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_post("/v1/chat/completions", self._asked)
        application.router.add_post("/v1/completions", self._asked)
        application.router.add_post("/detokenize", self._detokenize)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await self._listen(0)
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        self._ready.set()
        await self._ended.wait()
        await self._runner.cleanup()

    async def _listen(self, port: int) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", port, backlog=1_024, reuse_address=True)
        await self._site.start()

    async def _die(self) -> None:
        await self._site.stop()
        for connection in list(self._runner.server.connections if self._runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)

    # --- what it is asked -------------------------------------------------------------------------------------------

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(seen_of(request))
        await self._thawed.wait()
        if not self.lists_models:
            return not_found()
        return self._unauthorized(request) or web.json_response(models_body(self.model))

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(seen_of(request))
        await self._thawed.wait()
        if not self.metrics:
            return not_found()
        now = time.monotonic()
        count = self._generated + sum(RATE * (now - begun) for begun in self._begun.values())
        name, labels = "vllm:generation_tokens_total", f'{{engine="0",model_name="{self.model}"}}'
        lines = [f"# HELP {name} Number of generation tokens processed.", f"# TYPE {name} counter"]
        return web.Response(text="\n".join([*lines, f"{name}{labels} {count}", ""]))

    async def _detokenize(self, request: web.Request) -> web.StreamResponse:
        seen = seen_of(request, json.loads(await request.read()))
        self.requests.append(seen)
        await self._thawed.wait()
        if not self.continues:
            return not_found()
        return self._unauthorized(request) or web.json_response({"prompt": self.tokens.decode(seen.body["tokens"])})

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        seen = seen_of(request, json.loads(await request.read()))
        self.requests.append(seen)
        number = next(self._numbers)
        fault = self.faults(number, seen)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        if self._thawed.is_set() and not (fault and fault.kind == "stall"):
            self._begun[number] = time.monotonic()
        try:
            await self._thawed.wait()
            await asyncio.sleep(
                self._random.uniform(*self.latency) if isinstance(self.latency, tuple) else self.latency
            )
            streams = bool(seen.body.get("stream"))
            if fault is not None and not (fault.kind == "blank" or (streams and fault.kind in ("drop", "stall"))):
                await asyncio.sleep(fault.seconds)
                if fault.kind != "stall":
                    return await misbehave(fault, request)
            return self._unauthorized(request) or self._refused(seen) or await self._reply(seen, request, fault)
        finally:
            self._in_flight -= 1
            if number in self._begun:
                self._generated += RATE * (time.monotonic() - self._begun.pop(number))

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
        if "prompt" in body and not self.continues:
            return not_found()
        if body.get("temperature", 0) < 0:
            what = f"temperature must be non-negative, got {body['temperature']}."
            return web.json_response(error_body(400, what, "BadRequestError", "temperature"), status=400)
        if max(body.get("prompt", [0])) >= len(self.tokens.contents):
            what = f"Token id {max(body['prompt'])} is out of vocabulary"
            return web.json_response(error_body(400, what, "BadRequestError", None), status=400)
        if prompt_words(body) > self.context:
            what = f"This model's maximum context length is {self.context} tokens."
            return web.json_response(error_body(400, what, "BadRequestError", "input_tokens"), status=400)
        return None

    async def _reply(self, seen: Seen, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        body = seen.body
        goes_on = "prompt" in body
        found = self._continued(body) if goes_on else self._begin(body)
        if not body.get("stream"):
            told = completion_body(found, self.model) if goes_on else chat_body(found.said, self.model, 0, found)
            return await send_late(request, told, fault.seconds) if fault and fault.kind == "blank" else json_of(told)
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        if goes_on:
            events = completion_events(found, self.model, self.tokens, usage)
        else:
            events = chat_events(found, self.model, self.tokens, self.reasoning_field, usage)
        try:
            return await send_events(request, events, fault, self.pause)
        except ConnectionResetError:
            self.hung_up += 1
            return web.Response()
        except asyncio.CancelledError:
            self.hung_up += 1
            raise

    def _begin(self, body: dict[str, Any]) -> Cut:
        """A chat's reply, in words, or in tokens where their ids are asked for."""
        said = self.answer(str(body["messages"][-1]["content"]))
        limit = body.get("max_tokens", self.context)
        if not (body.get("return_token_ids") and self.continues):
            said = cut(said, limit)
            found = Cut(said, prompt_words(body), words(said))
            text = said.text or ""
            if said.reasoning is not None and not self.parses:
                open_end = said.finish_reason == "length" and not text
                said = Said(said.reasoning + ("" if open_end else CLOSE + text), None, said.finish_reason)
            return Cut(said, found.prompt_tokens, found.completion_tokens)
        prompt, ids = self.tokens.prompt(body["messages"]), self.tokens.reply(said)
        reason = said.finish_reason if len(ids) <= limit else "length"
        text = self.tokens.shown(prompt, ids[:limit])
        if said.reasoning is not None and self.parses:
            reasoning, _, content = text.partition(CLOSE)
            said = Said(content or None, reasoning, reason)
        else:
            said = Said(text, None, reason)
        return Cut(said, len(prompt), len(ids[:limit]), prompt, ids[:limit])

    def _continued(self, body: dict[str, Any]) -> Cut:
        """What follows the tokens so far of the reply to a rendered prompt. Raises HTTP 400 where it never began so."""
        prompt = list(body["prompt"])
        start = prompt.index(Tokens.TELL) + 1
        said = self.answer(self.tokens.question(prompt[: start - 1]))
        whole, limit = self.tokens.reply(said), body["max_tokens"]
        if whole[: len(prompt) - start] != prompt[start:]:
            raise web.HTTPBadRequest(text=json.dumps(error_body(400, "not my words", "BadRequestError", "prompt")))
        ids = whole[len(prompt) - start :]
        reason = said.finish_reason if len(ids) <= limit else "length"
        text = self.tokens.shown(prompt, ids[:limit])
        return Cut(Said(text, None, reason), len(prompt), len(ids[:limit]), prompt, ids[:limit])


def seen_of(request: web.Request, body: dict[str, Any] | None = None) -> Seen:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return Seen(request.path, dict(request.headers), body or {}, peer[1] if peer else 0)


def json_of(body: dict[str, Any]) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), content_type="application/json")


def not_found() -> web.Response:
    return web.json_response({"detail": "Not Found"}, status=404)


def prompt_words(body: dict[str, Any]) -> int:
    return len(body["prompt"]) if "prompt" in body else sum(len(m["content"].split()) for m in body["messages"])
