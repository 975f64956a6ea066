"""Gathers the requests of many callers into batches for a model in this process, on a worker thread of its own.

Requests are sorted by prompt length, so that rows of one batch end at about the same time. Knows nothing about any
model: an engine that builds on it loads one, tells how a request becomes token ids, and answers a batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass

from distill.engines import EndpointError, RefusedError, Reply, Request, TokenIds
from distill.records import Sampling, storable

SORT_WINDOW = 8
"""Batches' worth of requests taken in at a time and sorted by length."""
GATHER_SECONDS = 0.02
"""How long a batch that is not full waits for further requests."""


@dataclass(slots=True)
class Waiting:
    """A request that somebody awaits, as token ids."""

    request: Request
    ids: list[int]
    max_tokens: int
    """What was asked for, or what the model's context leaves."""
    done: asyncio.Future[Reply]
    loop: asyncio.AbstractEventLoop
    written: int = 0
    """How many ids at the end are of the reply already, which goes on behind them."""

    def resolve(self, reply: Reply) -> None:
        self._settle(lambda: self.done.set_result(reply))

    def reject(self, error: BaseException) -> None:
        self._settle(lambda: self.done.set_exception(error))

    def cancel(self) -> None:
        """Does nothing to one that has its reply."""
        self.loop.call_soon_threadsafe(self.done.cancel)

    def _settle(self, how: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(lambda: None if self.done.done() else how())


class BatchEngine(ABC):
    """The part of an Engine that is the same for every program that runs a model here; `batch` is in rows."""

    def __init__(self, name: str, batch: int) -> None:
        self.name, self.batch = name, batch
        self.capacity = batch * SORT_WINDOW
        self.context = 0
        """Tokens for prompt and reply together; known once the model is loaded."""
        self.stops: Collection[int] = ()
        """Ids of the tokens that end a reply."""
        self.close_id: int | None = None
        """Id of the closing think tag, None where it is several tokens."""
        self.closing = False
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None

    @abstractmethod
    def load(self) -> None:
        """Loads the model and sets `context`, `stops` and `close_id`.

        Raises EndpointError when there is none or it cannot chat.
        """

    @abstractmethod
    def encode(self, request: Request) -> list[int]:
        """The prompt's token ids as this model's own template and tokenizer give them."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """The text of a reply's tokens, control tokens left out."""

    @abstractmethod
    def answer(self, batch: list[Waiting]) -> None:
        """Resolves each as it is done; stops early once `closing` is set. Runs on the worker thread."""

    @abstractmethod
    def unload(self) -> None:
        """Gives the model's memory back."""

    @property
    def takes(self) -> int:
        """How many requests `answer` is given at a time."""
        return self.batch

    async def start(self) -> None:
        """Loads the model. Raises EndpointError when there is none or it cannot chat."""
        await asyncio.to_thread(self.load)
        self._worker = threading.Thread(target=self._serve, name=f"engine-{self.name}", daemon=True)
        self._worker.start()

    async def probe(self) -> None:
        return  # it runs here: there is nothing to look at

    async def progress(self) -> float | None:
        return None

    async def check_continuation(self) -> None:
        return  # it has the ids of every reply

    async def complete(self, request: Request) -> Reply:
        refuse_penalties(request.sampling)
        begun = request.goes_on_from
        ids = [*begun.prompt, *begun.output] if begun is not None else self.encode(request)
        room = self.context - len(ids)
        if room < 1:
            raise RefusedError(f"a prompt of {len(ids)} tokens leaves no room in the model's {self.context}")
        loop = asyncio.get_running_loop()
        written = len(begun.output) if begun is not None else 0
        waiting = Waiting(request, ids, min(request.max_tokens, room), loop.create_future(), loop, written)
        self._queue.put(waiting)
        return await waiting.done

    async def close(self) -> None:
        """Stops after the current step; whoever still waits is cancelled."""
        self.closing = True
        self._queue.put(None)
        if self._worker is not None:
            await asyncio.to_thread(self._worker.join)
        self.unload()

    def _reply(self, waiting: Waiting, ids: list[int]) -> Reply:
        """The reply of new token ids, which end with a stop token unless the limit cut them. One that went on is told
        whole, and its text decoded whole: a character may lie across the cut."""
        before = len(waiting.ids) - waiting.written
        asked, ids = waiting.request, [*waiting.ids[before:], *ids]
        stopped = ids[-1] in self.stops
        told = TokenIds(tuple(waiting.ids[:before]), tuple(ids))
        return Reply(
            storable(self.decode(ids[:-1] if stopped else ids)),
            "stop" if stopped else "length",
            self.name,
            prompt_tokens=before,
            completion_tokens=len(ids),
            reasoning_tokens=ids.index(self.close_id) if self.close_id is not None and self.close_id in ids else None,
            honoured=asked.sampling,
            token_ids=told if asked.token_ids or asked.goes_on_from is not None else None,
        )

    def _serve(self) -> None:
        """The worker thread: gathers requests, sorts them, runs the shortest batch, again and again."""
        pool: list[Waiting] = []
        while self._gather(pool):
            pool.sort(key=lambda waiting: len(waiting.ids))
            batch, pool = pool[: self.takes], pool[self.takes :]
            try:
                self.answer(batch)
            except Exception as error:  # noqa: BLE001  # whatever the model raised belongs to those who wait for this batch
                for waiting in batch:
                    waiting.reject(
                        EndpointError("the model failed while generating", given=f"{type(error).__name__}: {error}")
                    )
            for waiting in batch:
                waiting.cancel()
        with contextlib.suppress(queue.Empty):
            while True:  # close() puts its None behind all who came before it
                left = self._queue.get_nowait()
                pool += [left] if left is not None else []
        for waiting in pool:
            waiting.cancel()

    def _gather(self, pool: list[Waiting]) -> bool:
        """Adds what waits to the pool, blocking while there is nothing to do. False once the engine closes."""
        while not self.closing:
            try:
                while len(pool) < self.capacity:
                    waiting = self._queue.get(timeout=GATHER_SECONDS if pool else None)
                    if waiting is None:
                        return False
                    pool.append(waiting)
            except queue.Empty:
                pass
            pool[:] = [waiting for waiting in pool if not waiting.done.cancelled()]
            if pool:
                return True
        return False


def refuse_penalties(sampling: Sampling) -> None:
    """Engines in this process have temperature, top-p, top-k and min-p; a setting they would ignore is refused."""
    for name in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
        if getattr(sampling, name) is not None:
            raise EndpointError(
                f"the local engine has no {name}", todo="drop the setting, or use a server: generate.engine: openai"
            )
