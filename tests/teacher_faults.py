"""What goes wrong with a request to the scripted teacher, and how that is sent."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from teacher_words import Said, chat_body, error_body

Kind = Literal["status", "drop", "hang_up", "malformed", "no_choices", "stall", "raw", "blank"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request.

    `status`: an error reply with `code`; `drop`: the connection breaks in mid-body (of a stream: after half of its
    events); `hang_up`: before the first byte; `malformed`: a body that is no JSON; `no_choices`: an empty list of
    choices; `stall`: `seconds` without a byte, then the right answer (of a stream: after half of it); `raw`: status
    `code` with `body` as it stands; `blank`: the right answer after `seconds` of blank lines, of a stream comments.
    """

    kind: Kind
    code: int = 500
    retry_after: str | None = None
    seconds: float = 0.0
    body: Any = None
    message: str = "scripted fault"


@dataclass(slots=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    """Of the client, so that connections can be told apart."""

    @property
    def question(self) -> str:
        return str(self.body["messages"][-1]["content"])


Script = Callable[[int, Seen], Fault | None]
"""Number of the request for a reply, from 0 in order of arrival → what goes wrong with it, None for nothing."""


def in_order(*faults: Fault | None) -> Script:
    """These faults for the first requests, one each; the rest go well."""
    return lambda number, seen: faults[number] if number < len(faults) else None


async def misbehave(fault: Fault, request: web.Request) -> web.StreamResponse:
    """The answer to a request that gets none of its own."""
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
    return hang_up(request, response)


def hang_up(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response


async def send_late(request: web.Request, body: dict[str, Any], seconds: float) -> web.StreamResponse:
    """The body as JSON behind blank lines that come while nothing else does."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await _wait(response, seconds, b"\n")
    await response.write(json.dumps(body).encode())
    return response


async def send_events(
    request: web.Request, events: Iterable[bytes], fault: Fault | None, pause: float
) -> web.StreamResponse:
    """The events, each cut in two anywhere, also within a character, with `pause` seconds behind each half."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if fault is not None and fault.kind == "blank":
        await _wait(response, fault.seconds, b": keep-alive\n\n")
    told = list(events) if fault is not None else events
    for place, event in enumerate(told):
        if fault is not None and isinstance(told, list) and place == len(told) // 2:
            if fault.kind == "drop":
                return hang_up(request, response)
            if fault.kind == "stall":
                await asyncio.sleep(fault.seconds)
        for part in (event[: len(event) // 2], event[len(event) // 2 :]):
            await response.write(part)
            await asyncio.sleep(pause)
    return response


async def _wait(response: web.StreamResponse, seconds: float, blank: bytes) -> None:
    """`seconds` of something every tenth of them that holds nothing."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await response.write(blank)
        await asyncio.sleep(seconds / 10)
