"""The connection to an OpenAI-compatible server: where requests go, how long they may take, what a failure means.

Sorts what can go wrong into: try again, this request never, no request ever; and for the first, whose fault it seems
to be. The key and the password in a URL stay in here: no message, log line or repr shows them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from distill.engines import AttemptError, RefusedError
from distill.engines.openai_replies import excerpt, fault_of, retry_after, server_message
from distill.errors import DistillError, EndpointError

if TYPE_CHECKING:
    import aiohttp
    import yarl

CONNECT_SECONDS = 30.0
IDLE_SECONDS = 4.0
"""How long an idle connection is kept: less than the 5 s after which vLLM closes one (VLLM_HTTP_TIMEOUT_KEEP_ALIVE),
which would break the next request on it."""
VANISHED = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""A machine that is gone is noticed after a minute: by keep-alive (seconds) while a reply is waited for, by the last
(milliseconds, RFC 5482) while something of ours is under way. Where a system has no such setting it has its own."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
JSON = {"Content-Type": "application/json"}

CHAT, COMPLETIONS, MODELS = "/chat/completions", "/completions", "/models"
METRICS, DETOKENIZE = "metrics", "detokenize"
"""Without a slash in front: at the server's root, where vLLM and SGLang have them, and not below /v1."""

KEY_STATUS = (401, 403)
PERMANENT_STATUS = {
    402: "the account behind the key has no credit left",
    404: "the server does not know the model, or there is no /chat/completions at this url",
    405: "there is no /chat/completions at this url",
}
PASSING_STATUS = (408, 409, 425, 429)
"""Together with 5xx: another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer; `retry_after` is that header."""

    status: int
    retry_after: str | None
    content: bytes


class Patience:
    """Seconds that a request may take altogether, and those without a byte; None is without limit."""

    def __init__(self, total: float | None, silence: float | None = None) -> None:
        self.total, self.silence = total, silence

    @functools.cached_property
    def limits(self) -> aiohttp.ClientTimeout:
        import aiohttp

        return aiohttp.ClientTimeout(self.total, sock_connect=CONNECT_SECONDS, sock_read=self.silence)


def shown(url: str) -> str:
    """The URL without what stands before an @ or behind a question mark: no login or key that it may hold."""
    scheme, slashes, rest = url.partition("://")
    return scheme + slashes + rest.rpartition("@")[2].partition("?")[0].partition("#")[0]


def words(content: bytes, key: str) -> str:
    """A server's own words about an error, cut to a length that can be shown, without the key should it quote that."""
    message = server_message(content)
    return excerpt(message.replace(key, "***") if key else message)


class Server:
    """The server at `url`, which ends where `/chat/completions` is to be added; `connections` how many may be open."""

    def __init__(self, url: str, model: str, api_key: str | None, connections: int) -> None:
        self.url, self.model = url.rstrip("/"), model
        self._key, self._connections = (api_key or "").strip(), connections
        self._session: aiohttp.ClientSession | None = None
        self._places: dict[str, yarl.URL] = {}

    def __repr__(self) -> str:
        return f"Server({self.shown!r})"

    @property
    def shown(self) -> str:
        return shown(self.url)

    def open(self) -> None:
        """Makes the pool of connections. Raises EndpointError for a URL or a key that cannot be one."""
        import aiohttp

        parts = self._checked_url()
        self._places = _places(parts)
        remote = parts.hostname not in LOOPBACK  # a proxy of the environment never leads back to this machine
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections, keepalive_timeout=IDLE_SECONDS, socket_factory=_watched_socket
            ),
            headers={**JSON, **({"Authorization": f"Bearer {self._key}"} if self._key else {})},
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy_for(self._places[CHAT]) if remote else None,
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, method: str, place: str, patience: Patience, body: dict[str, Any] | None = None) -> Answer:
        """One request and its whole answer, whatever the status. Raises AttemptError when there is none."""
        import aiohttp

        try:
            async with self._request(method, place, patience, body) as response:
                return await whole(response)
        except (aiohttp.ClientError, OSError) as error:
            raise _unanswered(error, patience) from None

    @contextlib.asynccontextmanager
    async def response(
        self, method: str, place: str, patience: Patience, body: dict[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request's response, to be read inside. Raises AttemptError when there is none, or it breaks off."""
        import aiohttp

        try:
            async with self._request(method, place, patience, body) as response:
                yield response
        except DistillError:  # of who reads it; an EndpointError is an OSError too
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise _unanswered(error, patience) from None

    def _request(
        self, method: str, place: str, patience: Patience, body: dict[str, Any] | None
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("the engine is not started")
        data = _encoded(body) if body is not None else None
        return self._session.request(
            method, self._places[place], data=data, allow_redirects=False, timeout=patience.limits
        )

    def failure(self, status: int, answer: Answer) -> DistillError:
        """What an answer other than 200 means."""
        message = self.words(answer)
        told = f"the server answers {status}: {message}"
        if status in PASSING_STATUS or status >= 500:
            return AttemptError(told, retry_after=retry_after(answer.retry_after), fault=fault_of(status))
        if status in KEY_STATUS:
            what = "the server refuses the key" if self._key else "the server wants a key"
            todo = "put the key in the environment variable that generate.api_key_env names (OPENAI_API_KEY if unset)"
            return EndpointError(f"{what} ({status})", given=f"{self.shown}: {message}", todo=todo)
        if status in PERMANENT_STATUS or status < 400:
            what = PERMANENT_STATUS.get(status, "the server answers with something other than a completion")
            todo = f"check generate.url (with vLLM it ends in /v1) and the model's name '{self.model}'"
            return EndpointError(f"{what} ({status})", given=f"{self.shown}: {message}", todo=todo)
        return RefusedError(told)

    def words(self, answer: Answer) -> str:
        """The server's own words, cut to a length that can be shown, and without the key should it quote that."""
        return words(answer.content, self._key)

    def _checked_url(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if valid and parts.username is not None:
            what, todo = "the url holds a login", "put a key into the variable that generate.api_key_env names"
            raise EndpointError(what, given=self.shown, todo=todo)
        if not valid or not self._key.isprintable():
            what = "the API key holds characters that no key has" if valid else "this is no URL of a server"
            todo = "check the variable that generate.api_key_env names" if valid else "write it as http://HOST:PORT/v1"
            raise EndpointError(what, given=self.shown, todo=todo)
        return parts


async def whole(response: aiohttp.ClientResponse) -> Answer:
    wish = response.headers.get("Retry-After") if response.status != 200 else None
    return Answer(response.status, wish, await response.read())


def _encoded(body: dict[str, Any]) -> bytes:
    import orjson

    try:
        return orjson.dumps(body)
    except TypeError:  # half a surrogate pair, as a terminal may give: no UTF-8, but JSON has a way to write it
        return json.dumps(body).encode()


def _places(parts: SplitResult) -> dict[str, yarl.URL]:
    """The addresses of what is asked for, a query staying behind the path."""
    import yarl

    below = parts.path.rstrip("/")
    root = below.removesuffix("/v1")
    paths = {place: below + place for place in (CHAT, COMPLETIONS, MODELS)}
    paths |= {place: f"{root}/{place}" for place in (METRICS, DETOKENIZE)}
    return {place: yarl.URL(parts._replace(path=path, fragment="").geturl()) for place, path in paths.items()}


def _proxy_for(url: yarl.URL) -> yarl.URL | None:
    """The environment's proxy for this address, with its login if it has one. With `trust_env` aiohttp would look it
    up, and read ~/.netrc, at every request."""
    from urllib.request import getproxies, proxy_bypass

    import yarl

    found = getproxies().get(url.scheme)
    return yarl.URL(found) if found and not proxy_bypass(url.host or "") else None


def _watched_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in VANISHED.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def _unanswered(error: BaseException, patience: Patience) -> AttemptError:
    """What it means that no answer came. The text of such errors may hold the address: only their kind is told."""
    import aiohttp

    sent = not isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        what = f"no connection within {CONNECT_SECONDS:g} s"
    elif isinstance(error, aiohttp.SocketTimeoutError):
        what = f"no byte from the server within {patience.silence or 0:g} s"
    elif isinstance(error, TimeoutError):
        what = f"no reply within {patience.total or 0:g} s"
    else:
        what = f"the connection failed ({_kind(error)})"
    return AttemptError(what, fault="endpoint", sent=sent)


def _kind(error: BaseException) -> str:
    """The class of an error and the system's words for it, such as `ClientConnectorError, Connection refused`."""
    number = getattr(error, "errno", None)
    return type(error).__name__ + (f", {os.strerror(number)}" if isinstance(number, int) and number > 0 else "")
