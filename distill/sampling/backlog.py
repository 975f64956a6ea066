"""Traces of earlier starts that have no verdict yet: found again by what was asked, read again a few at a time.

The ledger is read in a thread, so that sampling goes on meanwhile; what was read is handed to the event loop. Knows
nothing about what makes a trace right.
"""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from distill.errors import RunError
from distill.records import Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 256
"""Traces that wait for their verdict at a time: new ones, of prompts that are being asked, come between them."""


class Places:
    """Hash of what is asked → the place of its prompt, with 8 bytes that are kept for it: 24 bytes each, no text."""

    def __init__(self) -> None:
        self._asked, self._wants = array("Q"), bytearray()
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.int64]] | None = None

    def add(self, asked: str, wants: bytes) -> None:
        self._asked.append(int(asked[:16], 16))
        self._wants += wants

    def wants(self, row: int) -> bytes:
        return bytes(self._wants[8 * row : 8 * row + 8])

    def find(self, asked: str) -> int | None:
        """By the first 8 bytes of a hash: for 800,000 prompts they are unique but for one chance in 50 million, and a
        trace that is found by mistake is told by its key."""
        if self._sorted is None:
            values = np.frombuffer(self._asked, np.uint64)
            order = np.argsort(values, kind="stable")
            self._sorted = values[order], order
        values, order = self._sorted
        wanted = int(asked[:16], 16)
        place = int(np.searchsorted(values, np.uint64(wanted)))
        return int(order[place]) if place < len(values) and values[place] == wanted else None


class Backlog:
    """Has traces judged beside sampling. `give(row, trace, done)` is called in the event loop's thread and has to see
    to it that `done` is called there once; `look_up` after the last, or when `failure` has been set."""

    def __init__(
        self,
        reread: Callable[[], Iterable[Trace]],
        give: Callable[[int, Trace, Callable[[], None]], None],
        look_up: Callable[[], None],
    ) -> None:
        self._reread, self._give, self._look_up = reread, give, look_up
        self._rows: dict[bytes, int] = {}
        self._room = threading.Semaphore(AT_ONCE)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None

    def add(self, key: str, row: int) -> None:
        self._rows[bytes.fromhex(key)[:16]] = row

    def start(self) -> None:
        """Starts to read if there is anything; to be called in the event loop's thread. Raises `failure`."""
        if self.failure is not None:
            raise self.failure
        if self._rows and self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._read, args=(loop,), name="backlog", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._room.release()
        if self._thread is not None:
            self._thread.join()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            left = len(self._rows)
            for trace in self._reread():
                row = self._rows.pop(bytes.fromhex(trace.key)[:16], None)
                if self._closed.is_set():
                    return
                if row is None:
                    continue
                self._room.acquire()
                loop.call_soon_threadsafe(self._take, row, trace)
                left -= 1
                if not left:
                    return
            raise RunError(
                f"{left} traces of this run have vanished from its ledger while it was being read",
                todo="let nothing else write to the run, and start the same command again",
            )
        except BaseException as failure:  # noqa: BLE001  # nobody would see it in a thread: whoever asks next raises it
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._fail, failure)

    def _take(self, row: int, trace: Trace) -> None:
        try:
            self._give(row, trace, self._room.release)
        except BaseException as failure:  # noqa: BLE001  # as above: the event loop would only log it
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        self.failure = self.failure or failure
        self._look_up()
