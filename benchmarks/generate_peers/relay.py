"""Passes bytes between a client and a server, and notes when the first chat completion was asked for and when the last
byte of one came back: the same clock for every client of a server that keeps none."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass

ASKS = b"POST /v1/chat/completions "


@dataclass(slots=True)
class Noted:
    """Times of time.monotonic()."""

    requests: int = 0
    first: float = 0.0
    last: float = 0.0

    @property
    def seconds(self) -> float:
        return self.last - self.first


class Relay:
    """Listens on 127.0.0.1 in a thread of its own while the block lasts; `noted` may be replaced between two jobs."""

    def __init__(self, port: int) -> None:
        self.noted, self.port, self._to = Noted(), 0, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1_024), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        asking = False

        async def forth() -> None:
            nonlocal asking
            while data := await client.read(2**16):
                if data.startswith((b"POST ", b"GET ")):
                    asking = data.startswith(ASKS)
                    if asking:
                        self.noted.requests += 1
                        self.noted.first = self.noted.first or time.monotonic()
                to_server.write(data)
            to_server.close()

        async def back() -> None:
            while data := await server.read(2**16):
                to_client.write(data)
                if asking:
                    self.noted.last = time.monotonic()
            to_client.close()

        await asyncio.gather(forth(), back(), return_exceptions=True)
