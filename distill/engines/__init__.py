"""Engines turn requests into replies. They know one way to reach a model each, and nothing about ledgers or retries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from distill.errors import DistillError, EndpointError
from distill.records import Message, Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to draw: the messages, how to draw, at most how many tokens. `id` only serves to recognise it."""

    id: str
    messages: list[Message]
    sampling: Sampling
    max_tokens: int
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, as received. `reasoning` is the endpoint's separate reasoning field, None if it has none.

    Token counts are None where the endpoint does not tell; `honoured` is None where it does not tell what it did.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    endpoint: str
    reasoning: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    honoured: Sampling | None = None


class AttemptError(DistillError):
    """One attempt at one request failed; another may succeed. `retry_after` is the server's wish in seconds."""

    def __init__(self, what: str, *, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class RefusedError(DistillError):
    """The endpoint refuses this very request (too long, malformed); trying it again is pointless, others may pass."""


class Engine(Protocol):
    """Answers one request at a time to each of many callers at once."""

    name: str
    """Names the endpoint in traces: no address, no key."""

    async def start(self) -> None:
        """Makes ready. Raises EndpointError when the model cannot be reached at all."""

    async def complete(self, request: Request) -> Reply:
        """Raises AttemptError or RefusedError for this request, EndpointError when no request can succeed."""

    async def close(self) -> None:
        """Gives connections and memory back."""


__all__ = ["AttemptError", "EndpointError", "Engine", "RefusedError", "Reply", "Request"]
