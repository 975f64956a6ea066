"""The HTTP side of a provider's batch API in OpenAI's form: files, batches, and the lines of their results.

Field names and states are those of openai-python 2 (types/batch.py, file_object.py); providers that follow the form
leave out optional ones. Knows nothing about who waits for what, or what was asked before.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distill.engines import AttemptError, RefusedError, Reply
from distill.engines.openai_replies import excerpt, read_reply, retry_after, server_message
from distill.engines.openai_server import CONNECT_SECONDS, KEY_STATUS, LOOPBACK, PASSING_STATUS, shown, words
from distill.errors import DistillError, EndpointError

if TYPE_CHECKING:
    import aiohttp

ENDPOINT = "/v1/chat/completions"
WINDOW = "24h"
MARK = "distill_batch"
"""Under this key of its metadata a batch carries our own id of it."""
ENDED = ("completed", "expired", "cancelled", "failed")
"""The states that a batch does not leave; the others are validating, in_progress, finalizing, cancelling."""
TOO_MUCH = ("token_limit_exceeded", "enqueued token limit", "batch_limit_exceeded")
"""How providers say that less may wait there at once, in a code or a message."""
PAGE = 100
"""Batches per page of GET /batches, OpenAI's largest."""
CLOCK_SECONDS = 86_400.0
"""The provider's clock may differ from ours by so much."""


class GoneError(DistillError):
    """The provider knows no such batch or file (404)."""


class TooMuchError(AttemptError):
    """The provider wants smaller batches, or fewer at once."""


@dataclass(frozen=True, slots=True)
class LineFault:
    """One of a failed batch's errors: `line` counts from 1 in its input file, None where it concerns them all."""

    code: str
    message: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the provider tells of it; `uuid` is what we had put into its metadata."""

    id: str
    status: str
    input_file: str | None
    uuid: str | None
    files: tuple[str, ...]
    """Ids of its output and its error file, as far as it has them."""
    completed: int
    failed: int
    created_at: float | None
    faults: tuple[LineFault, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a result file: whose it is, and the reply, or what went wrong."""

    custom_id: str
    outcome: Reply | AttemptError | RefusedError


class Provider:
    """One account at one provider. `url` ends where `/batches` is to be added; `timeout` is in seconds without a byte.

    Every call raises AttemptError where another may succeed (`sent` tells whether the provider can have acted on it),
    RefusedError where it refuses what was sent, GoneError for 404, EndpointError where no call can succeed.
    """

    def __init__(self, *, url: str, api_key: str | None, timeout: float) -> None:
        self._url, self._key, self._timeout = url.rstrip("/"), (api_key or "").strip(), timeout
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"Provider(url={self.shown!r})"

    @property
    def shown(self) -> str:
        return shown(self._url)

    async def open(self) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self._timeout),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            trust_env=urlsplit(self._url).hostname not in LOOPBACK,
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def upload(self, name: str, content: bytes) -> str:
        """The id of a new file of purpose `batch`."""
        import aiohttp

        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", io.BytesIO(content), filename=name, content_type="application/jsonl")
        return _text(await self._json("POST", "/files", data=form), "id")

    async def create(self, input_file: str, uuid: str) -> Batch:
        body = {
            "input_file_id": input_file,
            "endpoint": ENDPOINT,
            "completion_window": WINDOW,
            "metadata": {MARK: uuid},
        }
        return read_batch(await self._json("POST", "/batches", json=body))

    async def batch(self, provider_id: str) -> Batch:
        return read_batch(await self._json("GET", f"/batches/{provider_id}"))

    async def find(self, uuid: str, input_file: str, planned: float) -> Batch | None:
        """The batch with this id of ours, or with this input file where a provider keeps no metadata, among all that
        the account has from `planned` (a Unix time) on."""
        after: str | None = None
        while True:
            page = await self._json("GET", f"/batches?limit={PAGE}" + (f"&after={after}" if after else ""))
            entries = page.get("data")
            if not isinstance(entries, list):
                raise AttemptError("the provider's list of batches is no list")
            batches = [read_batch(entry) for entry in entries]
            for batch in batches:
                if batch.uuid == uuid or batch.input_file == input_file:
                    return batch
            older = [b for b in batches if b.created_at is not None and b.created_at < planned - CLOCK_SECONDS]
            if not batches or older or not page.get("has_more") or batches[-1].id == after:
                return None
            after = batches[-1].id

    async def lines(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """The lines of a file, one after another. Raises AttemptError when it breaks off, also inside a line."""
        rest = bytearray()
        async with self._response("GET", f"/files/{file_id}/content", allow_redirects=True) as response:
            async for chunk in response.content.iter_any():
                rest += chunk
                if b"\n" in chunk:
                    *whole, last = bytes(rest).split(b"\n")
                    rest = bytearray(last)
                    for line in whole:
                        yield line
        if rest:
            yield bytes(rest)

    async def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        async with self._response(method, path, **content) as response:
            try:
                body = json.loads(await response.read())
            except (ValueError, RecursionError):
                body = None
        if not isinstance(body, dict):
            raise AttemptError(f"the provider's answer to {method} {path.partition('?')[0]} is no JSON object")
        return body

    @contextlib.asynccontextmanager
    async def _response(
        self, method: str, path: str, *, allow_redirects: bool = False, **content: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with status 200 or 201. Only a file's content may lie elsewhere; aiohttp takes the key from a
        redirected request to another host."""
        import aiohttp

        if self._session is None:
            raise RuntimeError("the engine is not started")
        address = urlsplit(self._url)
        way, _, query = path.partition("?")
        query = "&".join(part for part in (address.query, query) if part)
        place = address._replace(path=address.path.rstrip("/") + way, query=query, fragment="").geturl()
        try:
            async with self._session.request(method, place, allow_redirects=allow_redirects, **content) as response:
                if response.status not in (200, 201):
                    raise self._failure(response.status, response.headers.get("Retry-After"), await response.read())
                yield response
        except DistillError:
            raise
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise AttemptError(f"no connection ({type(error).__name__})", fault="endpoint", sent=False) from None
        except TimeoutError:
            raise AttemptError(f"no byte from the provider within {self._timeout:g} s", fault="endpoint") from None
        except (aiohttp.ClientError, OSError) as error:  # the text of these may hold the address: only the kind is told
            raise AttemptError(f"the connection failed ({type(error).__name__})", fault="endpoint") from None

    def _failure(self, status: int, wait: str | None, content: bytes) -> DistillError:
        """What an answer other than 200 means; after 429 and 4xx nothing was done there."""
        message = words(content, self._key)
        told = f"the provider answers {status}: {message}"
        if status == 413 or (400 <= status < 500 and _is_too_much(content.decode("utf-8", errors="replace"))):
            return TooMuchError(told, retry_after=retry_after(wait), fault="busy", sent=False)
        if status == 429:
            return AttemptError(told, retry_after=retry_after(wait), fault="busy", sent=False)
        if status in PASSING_STATUS or status >= 500:
            return AttemptError(told, retry_after=retry_after(wait), fault="endpoint")
        if status == 404:
            return GoneError(told)
        if status in KEY_STATUS:
            what = "the provider refuses the key" if self._key else "the provider wants a key"
            todo = "put the key in the environment variable that generate.api_key_env names (OPENAI_API_KEY if unset)"
            return EndpointError(f"{what} ({status})", given=f"{self.shown}: {message}", todo=todo)
        if status in (402, 405) or status < 400:
            todo = "check the account's credit and generate.url; the provider has to have OpenAI's batch API"
            return EndpointError(told, given=self.shown, todo=todo)
        return RefusedError(told)


def read_batch(body: Any) -> Batch:
    """Raises AttemptError for a form that no batch has."""
    errors = body.get("errors") if isinstance(body, dict) else None
    faults = errors.get("data") if isinstance(errors, dict) else None
    counts, marks = (body.get(name) if isinstance(body, dict) else None for name in ("request_counts", "metadata"))
    counts, marks = (value if isinstance(value, dict) else {} for value in (counts, marks))
    created = body.get("created_at") if isinstance(body, dict) else None
    files = [body.get(name) for name in ("output_file_id", "error_file_id")] if isinstance(body, dict) else []
    return Batch(
        id=_text(body, "id"),
        status=_text(body, "status").lower(),
        input_file=body.get("input_file_id"),
        uuid=marks.get(MARK),
        files=tuple(one for one in files if isinstance(one, str) and one),
        completed=_count(counts.get("completed")),
        failed=_count(counts.get("failed")),
        created_at=float(created) if isinstance(created, int | float) else None,
        faults=tuple(_line_fault(fault) for fault in faults or () if isinstance(fault, dict)),
    )


def read_line(line: bytes, endpoint: str) -> Line:
    """One line of an output or error file. Raises ValueError for what is none.

    A failed request has a response with another status than 200 whose body tells the error (OpenAI), or no response
    and an error of `code` and `message` (OpenAI: batch_expired, batch_cancelled, request_timeout), or a status without
    a body and an error that is a server's whole answer or a text (vLLM 0.32, entrypoints/launchers/run_batch.py).
    """
    try:
        content = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    custom_id = content.get("custom_id") if isinstance(content, dict) else None
    if not isinstance(custom_id, str):
        raise ValueError("no custom_id")
    response, error = content.get("response"), content.get("error")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    try:
        if status == 200 and not error:
            return Line(custom_id, read_reply(body, endpoint))
    except (AttemptError, RefusedError) as failure:
        return Line(custom_id, failure)
    told = error or body
    told = {"message": told} if isinstance(told, str) else told
    message = excerpt(server_message(json.dumps(told).encode())) if told else "it gives no reason"
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (*PASSING_STATUS, *KEY_STATUS)
    kind = RefusedError if refused else AttemptError
    return Line(custom_id, kind(f"the provider answers {status or 'without a status'}: {message}"))


def _line_fault(fault: dict[str, Any]) -> LineFault:
    line = fault.get("line")
    counted = line if isinstance(line, int) and line > 0 else None
    return LineFault(str(fault.get("code") or ""), excerpt(str(fault.get("message") or "it gives no reason")), counted)


def is_too_much(fault: LineFault) -> bool:
    """Whether a batch failed for its size alone."""
    return _is_too_much(f"{fault.code} {fault.message}")


def _is_too_much(told: str) -> bool:
    return any(sign in told.lower() for sign in TOO_MUCH)


def _text(body: Any, field: str) -> str:
    value = body.get(field) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise AttemptError(f"the provider's answer has no {field}")
    return value


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
