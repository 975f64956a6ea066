"""A reply as it arrives: its text cut into reasoning and answer, its tokens into whole characters.

What a conversation asks of a backend stands here too. Knows nothing about models, servers or terminals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from distill.contract import CLOSE, OPEN
from distill.errors import DistillError, EndpointError
from distill.records import Message, Sampling

Part = Literal["reasoning", "answer"]

REPLACEMENT = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet."""
MOST_BYTES = 4
"""Tokens after which a character cannot be incomplete any more: UTF-8 has at most four bytes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a reply and the part it belongs to."""

    part: Part
    text: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a reply ended: by the model, at the limit that was asked for, or because the context is full."""

    reason: Literal["stop", "length", "context"]
    tokens: int | None = None
    """New tokens, None where the backend does not count."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How the next reply is drawn; `max_tokens` None means as many as the context leaves."""

    sampling: Sampling
    max_tokens: int | None
    seed: int | None


class ContextFullError(DistillError):
    """The conversation alone fills the model's context."""


class Talker(Protocol):
    """A model to talk to."""

    def reply(self, messages: list[Message], asked: Asked) -> Generator[Piece | Ending, None, None]:
        """Pieces as they arrive, then exactly one Ending. Closing the generator stops the model.

        Raises ContextFullError before the first piece when there is no room for a reply, EndpointError for what broke.
        """

    def close(self) -> None:
        """Gives memory and connections back."""


class Splitter:
    """Cuts streamed text at the think tags, wherever the pieces it comes in begin and end.

    As `contract.parse_reply` does with a whole reply: an opening tag counts at the very start only, the first closing
    tag ends the reasoning, white space around either part is no part of it. `opened`: the prompt already holds the
    opening tag. A closing tag behind text that was taken for an answer cannot take it back; it is passed on.
    """

    def __init__(self, *, opened: bool) -> None:
        self._part: Part = "reasoning" if opened else "answer"
        self._head = True
        """Whether nothing but white space came so far, so that an opening tag may follow."""
        self._begun = False
        """Whether the present part has text, so that white space is part of it."""
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        """What can be told for certain after this text."""
        self._held += text
        return list(self._cut(final=False))

    def finish(self) -> list[Piece]:
        """The rest, when nothing more comes: what looked like the beginning of a tag was none."""
        return list(self._cut(final=True))

    def _cut(self, *, final: bool) -> Iterator[Piece]:
        if self._head:
            waiting = self._held.lstrip()
            if not final and OPEN.startswith(waiting):  # also while nothing came at all
                return
            self._head = False
            if waiting.startswith(OPEN):
                self._part, self._held = "reasoning", waiting.removeprefix(OPEN)
        if self._part == "reasoning" and CLOSE in self._held:
            before, _, self._held = self._held.partition(CLOSE)
            yield from self._piece(before.rstrip())
            self._part, self._begun = "answer", False
        ready = len(self._held.rstrip()) if final else _certain(self._held, CLOSE if self._part == "reasoning" else "")
        text, self._held = self._held[:ready], "" if final else self._held[ready:]
        yield from self._piece(text)

    def _piece(self, text: str) -> Iterator[Piece]:
        text = text if self._begun else text.lstrip()
        if text:
            self._begun = True
            yield Piece(self._part, text)


def _certain(text: str, tag: str) -> int:
    """How many characters at the start are neither trailing white space nor the beginning of `tag`."""
    start = next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)
    return len(text[: len(text) - start].rstrip())


class Detokenizer:
    """The text of a growing list of tokens, released only in whole characters.

    `decode` turns token ids into text. A token is decoded behind its predecessors, since many tokenizers write a word
    differently at the start of a text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = 0
        """From here on tokens are decoded together."""
        self._told = 0
        """Tokens before this one have been released."""

    def feed(self, token: int) -> str:
        """The text that this token completes; empty while a character lacks bytes."""
        self._ids.append(token)
        return self._release(final=False)

    def finish(self) -> str:
        """What is left, without the bytes of a character that never was completed."""
        return self._release(final=True)

    def _release(self, *, final: bool) -> str:
        before = self._decode(self._ids[self._start : self._told])
        text = self._decode(self._ids[self._start :])
        if final:
            text = text.rstrip(REPLACEMENT)
        elif text.endswith(REPLACEMENT) and len(self._ids) - self._told <= MOST_BYTES:
            return ""
        self._start, self._told = self._told, len(self._ids)
        return text[len(before) :]


def opens_reasoning(prompt: str) -> bool:
    """Whether a rendered prompt ends with an open think tag, so that the reply begins inside the reasoning."""
    return prompt.rstrip().endswith(OPEN)


def reply_limit(prompt_tokens: int, context: int, asked: Asked) -> int:
    """Tokens that a reply may have. Raises ContextFullError when the prompt leaves room for none."""
    room = context - prompt_tokens
    if room < 1:
        raise ContextFullError(f"the conversation of {prompt_tokens} tokens fills the context of {context}")
    return min(asked.max_tokens or room, room)


def cut_reason(limit: int, asked: Asked) -> Literal["length", "context"]:
    """Why a reply of `limit` tokens was cut: the limit that was asked for, or the end of the context."""
    return "length" if limit == asked.max_tokens else "context"


@contextlib.contextmanager
def failures_told(model: str) -> Iterator[None]:
    """Whatever a library raises inside, while a model answers, is an EndpointError: memory, a kernel, a template."""
    try:
        yield
    except DistillError:
        raise
    except Exception as error:  # whatever it is, it belongs to this answer alone
        raise EndpointError(
            f"{model} failed while answering",
            given=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            todo="ask something shorter, or try the model on another machine (`distill doctor`)",
        ) from error
