"""What the teacher service shows of itself over HTTP: a page for people, JSON, metrics for Prometheus.

The page needs no script and nothing from elsewhere, and whatever a server wrote is text in it. Knows nothing about how
replicas are run or asked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import UsageError
from distill.records import storable
from distill.serve.metrics import merged
from distill.serve.state import ServiceState, State, own_metrics

if TYPE_CHECKING:
    from aiohttp import web
    from jinja2 import Template

REFRESH_SECONDS = 5
LOOPBACK = ("127.0.0.1", "localhost", "::1")
NOTHING = "\u2013"
SIGNS: dict[State, str] = {
    "starting": "…", "ready": "✓", "draining": "↓", "stuck": "!", "waiting": "‖", "failed": "✕", "stopped": "○",
}  # fmt: skip
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format: https://prometheus.io/docs/instrumenting/exposition_formats/"""

_OBEYED = dict.fromkeys((*range(32), *range(127, 160), *range(8234, 8239), *range(8294, 8298)), "�")
_VISIBLE = {code: sign for code, sign in _OBEYED.items() if chr(code) not in "\n\t"}
"""Control characters and those that turn the writing direction."""


class Pages:
    """`state` and `texts` (replica → page of its metrics) are asked anew for every request; `now` is in seconds since
    the epoch."""

    def __init__(
        self,
        state: Callable[[], ServiceState],
        texts: Callable[[], Mapping[str, str]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._state, self._texts, self._now = state, texts, now

    def metrics(self) -> str:
        """All replicas' metrics and the service's own as one page."""
        return merged(self._texts(), own_metrics(self._state()))

    def html(self, *, refresh: bool = True) -> str:
        """The page for people; with `refresh` it loads itself again every 5 s."""
        state, now = self._state(), self._now()
        return self._template.render(
            state=state,
            totals=state.totals,
            now=now,
            refresh=refresh,
            seconds=REFRESH_SECONDS,
            signs=SIGNS,
            nothing=NOTHING,
            number=number,
            share=share,
            ago=lambda since: span(now - since),
            iso=lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
        )

    @cached_property
    def _template(self) -> Template:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_harmless,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("page.html.j2")

    def application(self, host: str = LOOPBACK[0]) -> web.Application:
        """`/`, `/state` and `/metrics`. Where `host` is the loopback, only for requests that name it: a page of the
        web cannot read this one by a name of its own that leads here."""
        from aiohttp import web

        @web.middleware
        async def guarded(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if host in LOOPBACK and _host_name(request.host) not in LOOPBACK:
                return web.Response(status=421, text="this page answers to 127.0.0.1 and localhost only\n")
            return await handler(request)

        application = web.Application(middlewares=[guarded])
        application.add_routes(
            [web.get("/", self._page), web.get("/state", self._json), web.get("/metrics", self._prometheus)]
        )
        return application

    async def _page(self, request: web.Request) -> web.Response:
        from aiohttp import web

        text = self.html(refresh=request.query.get("refresh") != "off")
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=HEADERS)

    async def _json(self, request: web.Request) -> web.Response:
        from aiohttp import web

        text = json.dumps(self._state().to_json(), indent=2, allow_nan=False) + "\n"
        return web.Response(text=text, content_type="application/json", headers=HEADERS)

    async def _prometheus(self, request: web.Request) -> web.Response:
        from aiohttp import web

        texts, own = dict(self._texts()), own_metrics(self._state())
        text = await asyncio.to_thread(merged, texts, own)  # many replicas take a while
        return web.Response(body=text.encode(), headers={**HEADERS, "Content-Type": METRICS_TYPE})


@asynccontextmanager
async def serving(pages: Pages, host: str = LOOPBACK[0], port: int = 0) -> AsyncIterator[str]:
    """Answers while the block runs; yields the address. Port 0: any that is free. Raises UsageError for one that is
    taken or a host that is not this machine's."""
    from aiohttp import web

    runner = web.AppRunner(pages.application(host), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UsageError(
                f"the page of the service cannot be shown: {error.strerror or error}",
                given=f"{host}:{port}",
                todo="choose another port, or 0 for any that is free",
            ) from error
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _host_name(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def _harmless(value: Any) -> Any:
    """Every value on its way into the page."""
    return storable(value).translate(_VISIBLE) if type(value) is str else value


def number(value: float | None) -> str:
    """With thin spaces between thousands; one digit behind the point below 10 where it is no whole number."""
    if value is None:
        return NOTHING
    digits = 1 if value < 10 and value != int(value) else 0
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"


def span(seconds: float) -> str:
    """48 s, 5 min, 2 h 05 min, 3 d 4 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"
