"""Server-sent events of an OpenAI-compatible server, and the completion that they add up to.

Only pieces of text are kept, no events. Knows nothing about connections.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import AsyncIterator
from typing import Any

from distill.engines import AttemptError
from distill.engines.openai_replies import CONTENT, REASONING, excerpt, fault_of
from distill.records import storable

DONE = "[DONE]"
EVENTS = "text/event-stream"


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The data of server-sent events (WHATWG HTML, 9.2), however the bytes are cut; comments and other fields are
    left out. A line break may be \\n or \\r\\n, and one event here is one line."""
    held = b""
    async for chunk in chunks:
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield _data(line)
    if held.startswith(b"data:"):
        yield _data(held)


def _data(line: bytes) -> str:
    return line.removeprefix(b"data:").strip().decode("utf-8", errors="replace")


def chunk_of(data: str) -> dict[str, Any]:
    """One event's JSON object. Raises AttemptError for anything else, and for an event that is an error."""
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        chunk = None
    if not isinstance(chunk, dict):
        raise AttemptError(f"the server's stream holds something that is no JSON object: {data[:80]!r}")
    if chunk.get("error"):
        error = chunk["error"]
        said, code = (error.get("message"), error.get("code")) if isinstance(error, dict) else (error, None)
        fault = fault_of(code) if isinstance(code, int) else "request"
        raise AttemptError(f"the server broke the reply off: {excerpt(storable(str(said)))}", fault=fault)
    return chunk


def choices_of(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices of an event, those of chats with a `delta`. Raises AttemptError where they have another form."""
    found = chunk.get("choices") or []
    if not isinstance(found, list) or not all(
        isinstance(choice, dict) and isinstance(choice.get("delta") or {}, dict) for choice in found
    ):
        raise AttemptError("the server's stream holds something that is no part of a completion")
    return found


async def gathered(data: AsyncIterator[str]) -> dict[str, Any]:
    """What a server would have answered without streaming, for a chat and for a completion alike.

    Raises AttemptError for an error event and for a stream that ends before the reply does.
    """
    texts = {"text": io.StringIO(), "content": io.StringIO(), "reasoning": io.StringIO()}
    ids: array[int] | None = None
    whole: dict[str, Any] = {"usage": None, "prompt_token_ids": None}
    reason = None
    async for one in data:
        if one == DONE:
            break
        chunk = chunk_of(one)
        for key in whole:
            whole[key] = chunk.get(key) or whole[key]
        for choice in choices_of(chunk)[:1]:
            _add(texts, choice)
            whole["prompt_token_ids"] = choice.get("prompt_token_ids") or whole["prompt_token_ids"]
            ids = _more(ids, choice.get("token_ids"))
            reason = choice.get("finish_reason") or reason
    if reason is None:
        raise AttemptError("the server's stream ended before the reply did", fault="endpoint")
    text, *message = (texts[name].getvalue() for name in ("text", "content", "reasoning"))
    choice = {"message": dict(zip(("content", "reasoning"), message, strict=True)), "text": text}
    choice |= {"finish_reason": reason, "token_ids": None if ids is None else ids.tolist()}
    return {**whole, "choices": [{**choice, "prompt_token_ids": whole["prompt_token_ids"]}]}


def _more(ids: array[int] | None, more: Any) -> array[int] | None:
    """The ids so far and these, eight bytes each: a thousand replies of 32,768 tokens may be on their way."""
    if not isinstance(more, list):
        return ids
    try:
        found = ids if ids is not None else array("q")
        found.extend(array("q", more))
    except (TypeError, OverflowError):
        raise AttemptError("the reply's token_ids are no token ids") from None
    return found


def _add(texts: dict[str, io.StringIO], choice: dict[str, Any]) -> None:
    delta = choice.get("delta") or {}
    reasoning = next((delta[name] for name in REASONING if delta.get(name)), None)
    for name, value in (("text", choice.get("text")), ("content", delta.get(CONTENT[0])), ("reasoning", reasoning)):
        if value is not None and not isinstance(value, str):
            raise AttemptError(f"the reply's {name} is {type(value).__name__}, not text")
        if value:
            texts[name].write(value)
