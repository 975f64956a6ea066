"""Asks any OpenAI-compatible server over HTTP, one POST to /chat/completions per sample.

Sorts what can go wrong into: try again, this request never, no request ever. Knows nothing about retries, ledgers or
think tags. The key and the password in a URL stay in here: no message, log line or repr shows them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import json
import math
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

from distill.engines import AttemptError, RefusedError, Reply, Request
from distill.errors import DistillError, EndpointError, UsageError, near
from distill.records import storable

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS = 30.0
EXCERPT = 300
"""Characters of a server's own message that go into ours."""
SHOWN_MODELS = 10
LOOPBACK = ("localhost", "127.0.0.1", "::1")

KEY_STATUS = (401, 403)
NO_LIST_STATUS = (404, 405, 429, 501)
"""Answers to GET /models that say nothing about whether the server can chat."""
PERMANENT_STATUS = {
    402: "the account behind the key has no credit left",
    404: "the server does not know the model, or there is no /chat/completions at this url",
    405: "there is no /chat/completions at this url",
}
PASSING_STATUS = (408, 409, 425, 429)
"""Together with 5xx: another attempt may succeed."""
PASSING_FINISH = ("abort", "error")
"""How vLLM and SGLang end a reply when the server, not the model, stopped it."""

CONTENT = ("content",)
REASONING = ("reasoning", "reasoning_content")
"""Where a message holds the answer and the separate reasoning; the second name is the older one."""
FINISH: Mapping[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


class OpenAIEngine:
    """The Engine of an OpenAI-compatible server; `url` ends where `/chat/completions` is to be added.

    `timeout` is in seconds without any byte from the server, `connections` how many may be open at once.
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        name: str = "openai",
        api_key: str | None = None,
        timeout: float = 600.0,
        connections: int = 64,
    ) -> None:
        self.name, self.model = name, model
        self._url, self._key = url.rstrip("/"), (api_key or "").strip()
        self._timeout, self._connections = timeout, connections
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"OpenAIEngine(name={self.name!r}, model={self.model!r})"

    async def start(self) -> None:
        """Opens the connection pool and looks for the model. Raises EndpointError when no request could succeed;
        a server without /models passes."""
        await self.close()
        self._session = self._open(self._checked_url().hostname)
        try:
            await self._look_for_model()
        except BaseException:
            await self.close()
            raise

    async def complete(self, request: Request) -> Reply:
        """One sample. Raises AttemptError, RefusedError or EndpointError, whichever the answer means."""
        try:
            answer = await self._ask("POST", "/chat/completions", request_body(request, self.model))
        except Unreachable as error:
            raise AttemptError(error.what) from None
        if answer.status != 200:
            raise self._failure(answer.status, answer)
        body = _parsed(answer.content)
        if isinstance(body, dict) and body.get("error") and not body.get("choices"):
            code = body["error"].get("code") if isinstance(body["error"], dict) else None
            raise self._failure(code if isinstance(code, int) else 500, answer)  # a gateway that answers 200 to all
        return read_reply(body, self.name)

    async def probe(self) -> None:
        """Raises EndpointError when GET /models finds no server, or not this model."""
        await self._look_for_model()

    async def progress(self) -> float | None:
        return None

    async def close(self) -> None:
        """Closes all connections; may be called at any time, also twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _checked_url(self) -> SplitResult:
        try:
            parts = urlsplit(self._url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if valid and parts.username is not None:
            what, todo = "the url holds a login", "put a key into the variable that generate.api_key_env names"
            raise EndpointError(what, given=self._shown, todo=todo)
        if not valid or not self._key.isprintable():
            what = "the API key holds characters that no key has" if valid else "this is no URL of a server"
            todo = "check the variable that generate.api_key_env names" if valid else "write it as http://HOST:PORT/v1"
            raise EndpointError(what, given=self._shown, todo=todo)
        return parts

    def _open(self, host: str | None) -> aiohttp.ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self._timeout),
            connector=aiohttp.TCPConnector(limit=self._connections),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            trust_env=host not in LOOPBACK,  # a proxy of the environment never leads back to this machine
        )

    async def _look_for_model(self) -> None:
        try:
            answer = await self._ask("GET", "/models")
        except Unreachable as error:
            raise EndpointError(
                f"the endpoint does not answer: {error.what}",
                given=self._shown,
                todo="start the server, or correct generate.url",
            ) from None
        if answer.status in NO_LIST_STATUS:
            return
        if answer.status != 200:
            failure = self._failure(answer.status, answer)
            if isinstance(failure, EndpointError):
                raise failure
            raise EndpointError(
                failure.what, given=self._shown, todo="wait until the server has started, or correct generate.url"
            )
        self._require_model(model_names(answer.content))

    def _require_model(self, known: list[str] | None) -> None:
        if known is None:
            raise EndpointError(
                "the server does not speak the OpenAI protocol: its /models is no list of models",
                given=self._shown,
                todo="correct generate.url; with vLLM it ends in /v1",
            )
        if known and self.model not in known:
            shown = ", ".join(known[:SHOWN_MODELS]) + (", …" if len(known) > SHOWN_MODELS else "")
            raise EndpointError(
                f"the server has no model '{self.model}'{near(self.model, known)}",
                given=f"{self._shown}, which has: {shown}",
                todo="set generate.served_model to one of them",
            )

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """One request and its whole answer, whatever the status. Raises Unreachable when there is none."""
        async with self._response(method, path, body) as response:
            return await _whole(response)

    @contextlib.asynccontextmanager
    async def _response(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request's response, to be read inside. Raises Unreachable when there is none, or it breaks off."""
        import aiohttp

        if self._session is None:
            raise RuntimeError("the engine is not started")
        address = urlsplit(self._url)
        place = address._replace(path=address.path.rstrip("/") + path, fragment="").geturl()
        try:
            async with self._session.request(method, place, json=body, allow_redirects=False) as response:
                yield response
        except DistillError:  # of who reads it; an EndpointError is an OSError too
            raise
        except aiohttp.ConnectionTimeoutError:
            raise Unreachable(f"no connection within {CONNECT_SECONDS:g} s") from None
        except TimeoutError:
            raise Unreachable(f"no byte from the server within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:  # the text of these may hold the address: only the kind is told
            raise Unreachable(f"the connection failed ({_kind(error)})") from None

    def _failure(self, status: int, answer: Answer) -> DistillError:
        """What an answer other than 200 means."""
        message = excerpt(self._redacted(server_message(answer.content)))
        told = f"the server answers {status}: {message}"
        if status in PASSING_STATUS or status >= 500:
            return AttemptError(told, retry_after=retry_after(answer.retry_after))
        if status in KEY_STATUS:
            what = "the server refuses the key" if self._key else "the server wants a key"
            todo = "put the key in the environment variable that generate.api_key_env names (OPENAI_API_KEY if unset)"
            return EndpointError(f"{what} ({status})", given=f"{self._shown}: {message}", todo=todo)
        if status in PERMANENT_STATUS or status < 400:
            what = PERMANENT_STATUS.get(status, "the server answers with something other than a completion")
            todo = f"check generate.url (with vLLM it ends in /v1) and the model's name '{self.model}'"
            return EndpointError(f"{what} ({status})", given=f"{self._shown}: {message}", todo=todo)
        return RefusedError(told)

    @property
    def _shown(self) -> str:
        """The URL without what stands before an @ or behind a question mark."""
        scheme, slashes, rest = self._url.partition("://")
        return scheme + slashes + rest.rpartition("@")[2].partition("?")[0].partition("#")[0]

    def _redacted(self, text: str) -> str:
        """`text`, should the server quote the key, without it."""
        return text.replace(self._key, "***") if self._key else text


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer; `retry_after` is that header."""

    status: int
    retry_after: str | None
    content: bytes


class Unreachable(DistillError):
    """No answer at all; `what` says why, without an address."""


async def _whole(response: aiohttp.ClientResponse) -> Answer:
    return Answer(response.status, response.headers.get("Retry-After"), await response.read())


def is_url(where: str) -> bool:
    """Whether this names a server, and not a file or a spec."""
    return where.startswith(("http://", "https://"))


def required_model(url: str, model: str | None) -> str:
    """The model's name at a server, which no URL tells. Raises UsageError without it."""
    if model is None:
        given = url.rpartition("@")[2]  # a login stays unsaid
        raise UsageError("a URL needs --model NAME, the model's name at that server", given=given)
    return model


def request_body(request: Request, model: str) -> dict[str, Any]:
    """The JSON of a chat completion. Settings that are None are left out, so that the server's own defaults hold;
    top_k, min_p and repetition_penalty stand beside the others, as vLLM and SGLang take them."""
    settings = dataclasses.asdict(request.sampling) | {"seed": request.seed}
    return {
        "model": model,
        "messages": request.messages,
        "n": 1,
        "stream": False,
        "max_tokens": request.max_tokens,
        **{name: value for name, value in settings.items() if value is not None},
    }


def read_reply(body: Any, endpoint: str) -> Reply:
    """The reply in a completion's JSON. Raises AttemptError for a form no completion has, RefusedError for an ending
    other than the model's own or the token limit."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise AttemptError("the server's reply holds no choices")
    message, reason = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        raise AttemptError(f"the server broke the reply off (finish_reason {reason})")
    finish = finish_of(reason)
    text, reasoning = text_in(message, *CONTENT), text_in(message, *REASONING)
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("completion_tokens_details")
    counted = token_count(details, "reasoning_tokens")
    return Reply(
        text=text or "",
        finish_reason=finish,
        endpoint=endpoint,
        reasoning=reasoning,
        prompt_tokens=token_count(usage, "prompt_tokens"),
        completion_tokens=token_count(usage, "completion_tokens"),
        # vLLM 0.32 counts from a <think> that the model wrote itself: 0 when the prompt already opened it, as R1's does
        reasoning_tokens=None if counted == 0 and reasoning else counted,
    )


def finish_of(reason: Any) -> Literal["stop", "length"]:
    """How a reply ended. Raises AttemptError when the server broke it off, RefusedError for another ending than the
    model's own or the token limit."""
    if reason is None or reason in PASSING_FINISH:
        raise AttemptError(f"the server broke the reply off (finish_reason {reason})")
    if reason not in FINISH:
        raise RefusedError(f"the server ended the reply with finish_reason '{excerpt(storable(str(reason)))}'")
    return FINISH[reason]


def text_in(message: dict[str, Any], *fields: str) -> str | None:
    """The first of these fields that holds text; the others may be missing, null or empty."""
    values = [message.get(field) for field in fields]
    for field, value in zip(fields, values, strict=True):
        if value is not None and not isinstance(value, str):
            raise AttemptError(f"the reply's {field} is {type(value).__name__}, not text")
    found = next((value for value in values if value), None)
    return storable(found) if found is not None else None


def token_count(counts: Any, field: str) -> int | None:
    """A field of a usage object, None where it holds no count."""
    value = counts.get(field) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise AttemptError(f"the server's reply of {len(content)} bytes is not JSON") from None


def model_names(content: bytes) -> list[str] | None:
    """Names in the answer to GET /models; None when it is no such list."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    entries = body.get("data") if isinstance(body, dict) else body
    if not isinstance(entries, list):
        return None
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def server_message(content: bytes) -> str:
    """A server's own words about an error, on one line: OpenAI's `error.message`, else what comes nearest."""
    text = content.decode("utf-8", errors="replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body.get("message")))
        found = error.get("message") if isinstance(error, dict) else error
        text = found if isinstance(found, str) else json.dumps(found if found is not None else body)
    return " ".join(storable(text).split())


def excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _kind(error: BaseException) -> str:
    """The class of an error and the system's words for it, such as `ClientConnectorError, Connection refused`."""
    number = getattr(error, "errno", None)
    return type(error).__name__ + (f", {os.strerror(number)}" if isinstance(number, int) and number > 0 else "")
