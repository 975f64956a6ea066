"""Asks any OpenAI-compatible server over HTTP, one POST to /chat/completions per sample.

A cut reply is continued by its token ids, with POST /completions, as vLLM can. Knows nothing about retries, ledgers or
what a reply means; of think tags it knows where the server's own parser would cut a continued reply.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from distill.contract import served
from distill.engines import AttemptError, EndpointError, RefusedError, Reply, Request, TokenIds
from distill.engines.openai_decoder import NO_SUCH_PLACE, Decoder, cannot_continue
from distill.engines.openai_replies import (
    EXCERPT,
    generated_tokens,
    model_names,
    parsed,
    read_completion,
    read_reply,
    retry_after,
    server_message,
)
from distill.engines.openai_requests import completion_body, request_body
from distill.engines.openai_server import (
    CHAT,
    COMPLETIONS,
    METRICS,
    MODELS,
    Answer,
    Patience,
    Server,
    whole,
)
from distill.engines.openai_stream import EVENTS, events, gathered
from distill.errors import UsageError, near
from distill.records import Sampling, storable

START_SECONDS = 30.0
LOOK_SECONDS = 10.0
"""For a probe or a look at the metrics: a server under load answers either within a second or two, one that is
stopped takes connections in and never answers."""
SHOWN_MODELS = 10
NO_LIST_STATUS = (404, 405, 429, 501)
"""Answers to GET /models that say nothing about whether the server can chat."""
UNKNOWN_FIELD = (400, 422)
OWN_FIELDS = ("return_token_ids", "skip_special_tokens")
"""What a server that goes on with replies is sent beyond OpenAI's own fields; a strict gateway refuses them."""
FORMAT_WORDS = ("response_format", "json_schema", "structured output", "grammar")
"""One of them is in the words of a server that refuses a request because of the form that it asks for: DeepSeek's API
says that this response_format type is unavailable."""
Read = Callable[[Any, str, Sampling | None], Reply]


class OpenAIEngine:
    """The Engine of an OpenAI-compatible server; `url` ends where `/chat/completions` is to be added.

    `timeout` is in seconds for a whole reply, `stall` in seconds between two bytes of a streamed one, `connections` how
    many may be open at once. `ignores` names sampling settings that the server takes and does not follow. `continues`
    says that cut replies of this server are gone on with: all its replies then show control tokens (SHOW_ALL).
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        name: str = "openai",
        api_key: str | None = None,
        timeout: float | None = 600.0,
        connections: int = 64,
        stream: bool = False,
        stall: float = 180.0,
        ignores: tuple[str, ...] = (),
        continues: bool = False,
    ) -> None:
        self.name, self.model = name, model
        self._server = Server(url, model, api_key, connections)
        self._patience = Patience(timeout, stall if stream else None)
        self._stream, self._ignores, self._continues = stream, ignores, continues
        self._parses: bool | None = None
        """Whether the server cuts the reasoning out of a chat's reply; None before it was seen."""
        self._asking = asyncio.Lock()
        self._tells_progress = True
        self._takes_format = True
        self._decoder = Decoder(self._server)

    def __repr__(self) -> str:
        return f"OpenAIEngine(name={self.name!r}, model={self.model!r})"

    async def start(self) -> None:
        """Opens the connection pool and looks for the model. Raises EndpointError when no request could succeed;
        a server without /models passes."""
        await self.close()
        self._server.open()
        self._parses, self._asking, self._tells_progress = None, asyncio.Lock(), True
        try:
            await self._look_for_model(START_SECONDS)
        except AttemptError as error:
            await self.close()
            if error.fault == "endpoint":
                what, todo = f"the endpoint does not answer: {error.what}", "start the server, or correct generate.url"
            else:
                what, todo = error.what, "wait until the server has started, or correct generate.url"
            raise EndpointError(what, given=self._server.shown, todo=todo) from None
        except BaseException:
            await self.close()
            raise

    async def complete(self, request: Request) -> Reply:
        """One sample. Raises AttemptError, RefusedError or EndpointError, whichever the answer means."""
        if request.goes_on_from is not None:
            return await self._go_on(request, request.goes_on_from)
        body = request_body(request, self.model, show_all=self._continues, stream=self._stream)
        reply = await self._chatted(body, self._honoured(request.sampling))
        if not self._parses and (reply.reasoning or reply.text):
            self._parses = bool(reply.reasoning)
        return reply

    async def probe(self) -> None:
        """Raises AttemptError when GET /models is not answered, EndpointError when there is another model."""
        await self._look_for_model(LOOK_SECONDS)

    async def progress(self) -> float | None:
        """Tokens generated by the server since it started, for whomever: its Prometheus metrics, where it has some."""
        if not self._tells_progress:
            return None
        answer = await self._server.ask("GET", METRICS, Patience(LOOK_SECONDS))
        self._tells_progress = answer.status not in NO_SUCH_PLACE
        return generated_tokens(answer.content) if answer.status == 200 else None

    async def close(self) -> None:
        """Closes all connections; may be called at any time, also twice."""
        await self._server.close()

    async def _chatted(self, body: dict[str, Any], honoured: Sampling | None) -> Reply:
        """The reply to a chat. A server that refuses the form asked for is asked without, and from then on."""
        if not self._takes_format:
            body.pop("response_format", None)
        try:
            return await self._drawn(CHAT, body, read_reply, honoured)
        except RefusedError as error:
            if "response_format" not in body or not any(word in error.what for word in FORMAT_WORDS):
                raise
        self._takes_format = False
        del body["response_format"]
        return await self._drawn(CHAT, body, read_reply, honoured)

    async def _drawn(self, place: str, body: dict[str, Any], read: Read, honoured: Sampling | None) -> Reply:
        """The reply to one POST, as `read` reads it."""
        if not self._stream:
            answer = await self._server.ask("POST", place, self._patience, body)
            return read(self._completed(place, answer), self.name, honoured)
        import aiohttp

        async with self._server.response("POST", place, self._patience, body) as response:
            if response.status != 200 or response.content_type != EVENTS:
                return read(self._completed(place, await whole(response)), self.name, honoured)
            found = await gathered(events(response.content.iter_any()))
            # its end is due at once, and then the connection serves again; some gateways just close it
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                await asyncio.wait_for(response.content.read(), 1)
        return read(found, self.name, honoured)

    def _completed(self, place: str, answer: Answer) -> Any:
        """The JSON of an answer that is a completion. Raises what any other means."""
        if answer.status != 200:
            raise self._failure(place, answer.status, answer)
        found = parsed(answer.content)
        if isinstance(found, dict) and found.get("error") and not found.get("choices"):
            code = found["error"].get("code") if isinstance(found["error"], dict) else None
            raise self._failure(place, code if isinstance(code, int) else 500, answer)  # a gateway with 200 for all
        return found

    def _failure(self, place: str, status: int, answer: Answer) -> Exception:
        if place == COMPLETIONS and status in NO_SUCH_PLACE:
            return cannot_continue(
                self._server.shown, f"POST /completions gives {status}: {self._server.words(answer)}"
            )
        if status in UNKNOWN_FIELD and self._continues:
            words = self._server.words(answer)
            if any(name in words for name in OWN_FIELDS):
                return cannot_continue(self._server.shown, f"it refuses what that needs ({status}): {words}")
        return self._server.failure(status, answer)

    def _honoured(self, sampling: Sampling) -> Sampling | None:
        return replace(sampling, **dict.fromkeys(self._ignores)) if self._ignores else None

    async def _look_for_model(self, seconds: float) -> None:
        answer = await self._server.ask("GET", MODELS, Patience(seconds))
        if answer.status in NO_LIST_STATUS:
            return
        if answer.status != 200:
            raise self._server.failure(answer.status, answer)
        self._require_model(model_names(answer.content))

    def _require_model(self, known: list[str] | None) -> None:
        if known is None:
            raise EndpointError(
                "the server does not speak the OpenAI protocol: its /models is no list of models",
                given=self._server.shown,
                todo="correct generate.url; with vLLM it ends in /v1",
            )
        if known and self.model not in known:
            shown = ", ".join(known[:SHOWN_MODELS]) + (", …" if len(known) > SHOWN_MODELS else "")
            raise EndpointError(
                f"the server has no model '{self.model}'{near(self.model, known)}",
                given=f"{self._server.shown}, which has: {shown}",
                todo="set generate.served_model to one of them",
            )

    # --- going on with a cut reply ---------------------------------------------------------------------------------

    async def _go_on(self, request: Request, start: TokenIds) -> Reply:
        """The whole reply that begins with the tokens of `start`.

        Its text so far is asked for first, so that nothing can be lost once tokens were paid for. A reply that was cut
        within a character is another matter: vLLM 0.32 then gives prompt and reply as the text of what was added
        (tokenizers' DecodeStream, primed with bytes that are no character yet), so all of it is decoded anew.
        """
        before, split = await self._decoder.text(start.prompt, start.output)
        parses = await self._server_parses()
        body = completion_body(request, start, self.model, stream=self._stream)
        added = await self._drawn(COMPLETIONS, body, read_completion, self._honoured(request.sampling))
        if added.token_ids is None:
            raise cannot_continue(self._server.shown, "its completions tell no token ids")
        output = start.output + added.token_ids.output
        text = before + added.text
        if split:
            text, _ = await self._decoder.text(start.prompt, output[:-1] if added.finish_reason == "stop" else output)
        parts = served(text, parser=parses)
        return replace(
            added,
            text=storable(parts.content or ""),
            reasoning=storable(parts.reasoning or "") or None,
            prompt_tokens=len(start.prompt),
            completion_tokens=len(output),
            token_ids=TokenIds(start.prompt, output),
        )

    async def check_continuation(self) -> None:
        """Raises EndpointError when a cut reply of this server could not be gone on with; costs four tokens."""
        reply = await self._greeted()
        if reply.token_ids is None:
            raise cannot_continue(self._server.shown, "its chats tell no token ids")
        await self._decoder.decoded(reply.token_ids.output)

    async def _server_parses(self) -> bool:
        """Whether a chat's reasoning comes in a field of its own, as with vLLM's --reasoning-parser; a completion's
        never does. Asked where no chat has shown it yet."""
        async with self._asking:
            if self._parses is None:
                await self._greeted()
            return bool(self._parses)

    async def _greeted(self) -> Reply:
        messages = [{"role": "user", "content": "Hi"}]
        return await self.complete(Request("greeting", messages, Sampling(temperature=0.0), 4, token_ids=True))


def is_url(where: str) -> bool:
    """Whether this names a server, and not a file or a spec."""
    return where.startswith(("http://", "https://"))


def required_model(url: str, model: str | None) -> str:
    """The model's name at a server, which no URL tells. Raises UsageError without it."""
    if model is None:
        given = url.rpartition("@")[2]  # a login stays unsaid
        raise UsageError("a URL needs --model NAME, the model's name at that server", given=given)
    return model


__all__ = [
    "EXCERPT",
    "OpenAIEngine",
    "cannot_continue",
    "is_url",
    "model_names",
    "read_reply",
    "request_body",
    "required_model",
    "retry_after",
    "server_message",
]
