"""Engines turn requests into replies. They know one way to reach a model each, and nothing about ledgers or retries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from distill.errors import DistillError, EndpointError
from distill.records import Message, Sampling


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A reply that was cut, as token ids: of the rendered prompt, and of what was written so far."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to draw: the messages, how to draw, at most how many tokens. `id` only serves to recognise it.

    With `goes_on_from` the reply is continued after those tokens, `max_tokens` being those still to come, and
    `messages` is not looked at. `token_ids` asks for the reply's token ids, so that it can be continued. The reply is
    held to `response_format`, as OpenAI's API writes it, where the endpoint can do that.
    """

    id: str
    messages: list[Message]
    sampling: Sampling
    max_tokens: int
    seed: int | None = None
    token_ids: bool = False
    goes_on_from: TokenIds | None = None
    response_format: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, as received. `reasoning` is the endpoint's separate reasoning field, None if it has none.

    Token counts are None where the endpoint does not tell; `honoured` is None where it does not tell what it did.
    Of a continued reply all of it is here, text, counts and ids, not only what was added. `token_ids` is None where it
    was not asked for or the endpoint does not tell.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    endpoint: str
    reasoning: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    honoured: Sampling | None = None
    token_ids: TokenIds | None = None


Fault = Literal["request", "busy", "endpoint"]
"""Whose fault a failed attempt is, as far as one can tell: `request` (a reply that cannot be read: perhaps this one
alone), `busy` (the server asks for less: 429, 503), `endpoint` (no connection, no progress: nothing there answers)."""


class AttemptError(DistillError):
    """One attempt at one request failed; another may succeed. `retry_after` is the server's wish in seconds.

    `sent` is false when the request never reached the server, so that nothing of it can have been paid for.
    """

    def __init__(
        self, what: str, *, retry_after: float | None = None, fault: Fault = "request", sent: bool = True
    ) -> None:
        super().__init__(what)
        self.retry_after, self.fault, self.sent = retry_after, fault, sent


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

    async def probe(self) -> None:
        """One cheap look at whether it answers at all. Raises EndpointError or AttemptError when it does not."""

    async def progress(self) -> float | None:
        """A number that grows while tokens are produced, for whomever; None where the endpoint tells none. Raises
        AttemptError when it does not answer."""

    async def check_continuation(self) -> None:
        """Raises EndpointError when a cut reply could not be gone on with here by its token ids."""

    async def close(self) -> None:
        """Gives connections and memory back."""


__all__ = ["AttemptError", "EndpointError", "Engine", "Fault", "RefusedError", "Reply", "Request", "TokenIds"]
