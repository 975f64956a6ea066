"""What the scripted teacher says, its tokens, and the bodies that carry them, in the form of vLLM's own.

A word with the white space before it is a token; of a character beyond the basic plane each half is one, so that a
reply can be cut within it. Knows nothing about HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

CREATED = 1_795_476_705
CLOSE = "</think>"
_PIECE = re.compile(r"[\U00010000-\U0010ffff]|\s*[^\s\U00010000-\U0010ffff]+(?:\s*$)?|\s+")


@dataclass(frozen=True, slots=True)
class Said:
    """What the model says; words of `text` and `reasoning` count as tokens. More of them than max_tokens are cut."""

    text: str | None
    reasoning: str | None = None
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Cut:
    """What comes back of a reply: its parts, how it ended, and the ids where they were asked for."""

    said: Said
    prompt_tokens: int
    completion_tokens: int
    prompt_ids: list[int] | None = None
    ids: list[int] | None = None

    @property
    def usage(self) -> dict[str, Any]:
        counts = {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens + self.completion_tokens}
        return {**counts, "completion_tokens": self.completion_tokens}


class Tokens:
    """A table of tokens and their ids, growing with what is said. The first ids are control tokens."""

    ASK, TELL, STOP = 0, 1, 2

    def __init__(self) -> None:
        self.contents = [b"<|ask|>", b"<|tell|>", b"<|stop|>"]
        self.ids = {content: place for place, content in enumerate(self.contents)}

    def encode(self, text: str) -> list[int]:
        found: list[int] = []
        for piece in _PIECE.findall(text):
            content = piece.encode()
            halves = (content[:2], content[2:]) if len(piece) == 1 and len(content) == 4 else (content,)
            for half in halves:
                if half not in self.ids:
                    self.ids[half] = len(self.contents)
                    self.contents.append(half)
                found.append(self.ids[half])
        return found

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.contents[one] for one in ids).decode("utf-8", errors="replace")

    def prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """The ids of a rendered prompt."""
        asked = [[self.ASK, *self.encode(message["content"])] for message in messages]
        return [*(one for ids in asked for one in ids), self.TELL]

    def reply(self, said: Said) -> list[int]:
        """The ids of all that the model writes, the closing tag and the stop token included."""
        reasoned = [*self.encode(said.reasoning), *self.encode(CLOSE)] if said.reasoning is not None else []
        return [*reasoned, *self.encode(said.text or ""), self.STOP]

    def question(self, prompt: Sequence[int]) -> str:
        """The last message of a rendered prompt."""
        start = max(place for place, one in enumerate(prompt) if one == self.ASK)
        return self.decode(prompt[start + 1 :])

    def shown(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """The text that vLLM 0.32 gives for `ids` behind `before`: without the stop token, and without what is no
        whole character yet; with all the prompt's text in front where that ended within a character."""
        ids = ids[:-1] if ids and ids[-1] == self.STOP else ids
        kept = len(ids)
        while kept and self.decode([*before, *ids[:kept]]).endswith("\ufffd"):
            kept -= 1
        start, whole = self.decode(before), self.decode([*before, *ids[:kept]])
        return whole if start.endswith("\ufffd") and kept else whole.removeprefix(start)


def cut(said: Said, max_tokens: int) -> Said:
    """`said` ended with `length` where it has more words than `max_tokens`, reasoning first."""
    reasoning, text = (said.reasoning or "").split(), (said.text or "").split()
    if len(reasoning) + len(text) <= max_tokens:
        return said
    shorter = " ".join(reasoning[:max_tokens]) if said.reasoning is not None else None
    left = text[: max(0, max_tokens - len(reasoning))]
    return Said(" ".join(left) if left else None, shorter, "length")


def words(said: Said) -> int:
    return len((said.reasoning or "").split()) + len((said.text or "").split())


def models_body(model: str) -> dict[str, Any]:
    card = {"id": model, "object": "model", "created": CREATED, "owned_by": "tests", "max_model_len": 4_096}
    return {"object": "list", "data": [card]}


def chat_body(said: Said, model: str, prompt_tokens: int, found: Cut | None = None) -> dict[str, Any]:
    found = found or Cut(said, prompt_tokens, words(said))
    message = {"role": "assistant", "content": said.text, "reasoning": said.reasoning}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish_reason}
    reasoned = len((said.reasoning or "").split())
    details = {"reasoning_tokens": reasoned} if said.reasoning is not None else None
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{**choice, "token_ids": found.ids}],
        "usage": {**found.usage, "completion_tokens_details": details},
        "prompt_token_ids": found.prompt_ids,
    }


def completion_body(found: Cut, model: str) -> dict[str, Any]:
    choice = {"index": 0, "text": found.said.text or "", "logprobs": None, "finish_reason": found.said.finish_reason}
    return {
        "id": "cmpl-scripted",
        "object": "text_completion",
        "created": CREATED,
        "model": model,
        "choices": [{**choice, "token_ids": found.ids, "prompt_token_ids": found.prompt_ids}],
        "usage": found.usage,
    }


def chat_events(found: Cut, model: str, tokens: Tokens, reasoning_field: str, usage: bool) -> Iterator[bytes]:
    """Server-sent events as vLLM sends them: the role, one word each, the ending, the usage if asked for, [DONE]."""
    head = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": CREATED, "model": model}

    def event(delta: dict[str, Any], ids: list[int] | None, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, "token_ids": ids}
        return sse({**head, "choices": [choice]})

    first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    yield sse({**head, "choices": [first], "prompt_token_ids": found.prompt_ids})
    if found.ids is None:
        for name, text in ((reasoning_field, found.said.reasoning), ("content", found.said.text)):
            yield from (event({name: word}, None) for word in re.findall(r"\s*\S+\s*$|\s*\S+", text or ""))
        yield event({}, None, found.said.finish_reason)
    else:
        yield from _events_of_ids(found, tokens, reasoning_field, event)
    yield from _end({**head, "choices": [], "usage": found.usage}, usage)


def _events_of_ids(found: Cut, tokens: Tokens, reasoning_field: str, event: Any) -> Iterator[bytes]:
    """One token each, with its text once that is whole characters; the stop token comes with the ending."""
    assert found.ids is not None
    ends, inside, told = found.said.finish_reason == "stop", found.said.reasoning is not None, ""
    body = found.ids[:-1] if ends else found.ids
    for place, one in enumerate(body):
        if inside and tokens.contents[one] == CLOSE.encode():
            inside, told = False, tokens.decode(body[: place + 1])
            yield event({}, [one])
            continue
        text = tokens.decode(body[: place + 1])
        fresh = "" if text.endswith("\ufffd") else text.removeprefix(told)
        told = told if text.endswith("\ufffd") else text
        yield event({reasoning_field if inside else "content": fresh}, [one])
    yield event({"content": ""}, found.ids[-1:] if ends else [], found.said.finish_reason)


def completion_events(found: Cut, model: str, tokens: Tokens, usage: bool) -> Iterator[bytes]:
    head = {"id": "cmpl-scripted", "object": "text_completion", "created": CREATED, "model": model}
    before, ids, told = found.prompt_ids or [], found.ids or [], ""
    for place, one in enumerate(ids):
        text = tokens.shown(before, ids[: place + 1])
        last = place == len(ids) - 1
        choice = {"index": 0, "text": text.removeprefix(told), "logprobs": None, "token_ids": [one]}
        choice |= {"finish_reason": found.said.finish_reason if last else None}
        yield sse({**head, "choices": [{**choice, "prompt_token_ids": None if place else before}]})
        told = text
    yield from _end({**head, "choices": [], "usage": found.usage}, usage)


def _end(last: dict[str, Any], usage: bool) -> Iterator[bytes]:
    if usage:
        yield sse(last)
    yield b"data: [DONE]\n\n"


def sse(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


def error_body(code: int, message: str, kind: str, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
