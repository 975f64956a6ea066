"""Runs verifiers in worker processes that are killed when one item takes too long.

`map` gives results in the order of its items, `as_they_come` as soon as they are there. Knows nothing about what a
verifier does. Beside the function a verifier's module may have `prepare()`, called once per worker before any item's
clock runs; `ahead(items)`, called with each chunk, for what takes less time for many together; `ready(*item)`, called
before the clock of each item, for what only some of them need; and `seconds(*item)`, the limit of an item that may take
longer than others.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from distill.errors import RunError
from distill.verify import Outcome, abstaining

SECONDS_PER_ITEM = 10.0
"""math-verify's own limits are 5 s for parsing and 5 s for comparing."""
STARTUP_SECONDS = 120.0
"""How long a worker may take to import its verifier, and for what it does ahead; no item's clock runs meanwhile."""
MEMORY_BYTES = 2 * 2**30
"""Address space of a worker beyond what it has after start."""
FLUSH_SECONDS = 0.1
"""A worker tells its results no later than this: what it has told is not lost when it has to be killed."""
AHEAD = 2
"""Chunks that a worker is given before it has answered the first: it never waits for the next."""
MOST_STILLBORN = 3
"""Workers in a row that end before they are ready, before the pool gives up."""
MOST_HELD = 1_000
"""Results that `map` holds behind one that takes long, before it takes no further items."""

Item = tuple[Any, ...]
Tag = TypeVar("Tag")
"""What tells the caller to which item a result belongs."""
Result = TypeVar("Result")


class WorkerPool(Generic[Result]):
    """Maps `module:function` over argument tuples; a context manager. Workers start when first needed.

    `failed(reason)` stands for the result of an item that has none: `verifier_timeout` when it took too long,
    `verifier_crash` when its worker died, `verifier_limit` for too much memory or too deep a recursion,
    `verifier_error` for any other exception. RunError is raised when no worker gets as far as its first item. Items
    are given to a worker `chunk` at a time; each has a clock of its own. `setup` is what the module's `prepare` is
    called with.
    """

    def __init__(
        self,
        function: str,
        failed: Callable[[str], Result],
        *,
        workers: int | None = None,
        seconds: float = SECONDS_PER_ITEM,
        chunk: int = 1,
        setup: Item = (),
    ) -> None:
        self.function, self.failed, self.seconds, self.chunk, self.setup = function, failed, seconds, chunk, setup
        self.size = workers or max(1, os.cpu_count() or 1)
        self.killed = 0
        """Workers that had to be killed, or died, so far."""
        self._stillborn = 0
        self._workers: list[_Worker] = []
        self._stopped = False

    def __enter__(self) -> WorkerPool[Result]:
        self._bell, self._button = socket.socketpair()
        for end in (self._bell, self._button):
            end.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self._bell.close()
        self._button.close()

    def start(self, workers: int) -> None:
        """Starts so many now, up to the pool's size: they import what they need while the first items are prepared."""
        while len(self._workers) < min(workers, self.size):
            self._workers.append(_Worker(self.function, self.seconds, self.setup))

    def map(self, items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items."""
        held: dict[int, Result] = {}

        def numbered() -> Iterator[tuple[int, Item] | None]:
            for number, item in enumerate(items):
                while len(held) >= MOST_HELD:
                    yield None
                yield number, item

        following = 0
        for number, result in self.as_they_come(numbered()):
            held[number] = result
            while following in held:
                yield held.pop(following)
                following += 1

    def as_they_come(self, items: Iterable[tuple[Tag, Item] | None]) -> Iterator[tuple[Tag, Result]]:
        """(tag, result) of every (tag, item), in the order in which they are ready.

        An item None says that there is nothing at the moment: the source is asked again when a worker has become idle
        and after `nudge`, which it needs when none is busy. It must never wait itself.
        """
        source, exhausted = iter(items), False
        while not self._stopped:
            if not exhausted:
                exhausted = not self._feed(source)
            busy = [worker for worker in self._workers if worker.pending]
            if exhausted and not busy:
                return
            yield from self._collect(busy)

    def nudge(self) -> None:
        """Has the source of `as_they_come` asked again at once; from any thread."""
        with contextlib.suppress(BlockingIOError):  # so many unheard that one more tells nothing new
            self._button.send(b"!")

    def stop(self) -> None:
        """Ends `as_they_come` now, whatever is still being judged; from any thread."""
        self._stopped = True
        self.nudge()

    def _feed(self, source: Iterator[tuple[Tag, Item] | None]) -> bool:
        """Gives items to workers that have room, the idlest first; False when there will be no more."""
        while True:
            worker = min(self._workers, key=lambda one: len(one.pending), default=None)
            if (worker is None or worker.pending) and len(self._workers) < self.size:
                worker = None
            elif worker is None or len(worker.pending) > (AHEAD - 1) * self.chunk - (self.chunk == 1):
                return True
            chunk: list[tuple[Any, Item]] = []
            while len(chunk) < self.chunk:
                try:
                    following = next(source)
                except StopIteration:
                    self._give(worker, chunk)
                    return False
                if following is None:
                    self._give(worker, chunk)
                    return True
                chunk.append(following)
            self._give(worker, chunk)

    def _give(self, worker: _Worker | None, chunk: Sequence[tuple[Any, Item]], *, ahead: bool = True) -> None:
        if not chunk:
            return
        if worker is None:
            worker = _Worker(self.function, self.seconds, self.setup)
            self._workers.append(worker)
        worker.give(chunk, ahead=ahead)

    def _collect(self, busy: Sequence[_Worker]) -> list[tuple[Any, Result]]:
        """Waits until there is something to look at; with none at work only `nudge` ends that."""
        ready = wait([self._bell, *(worker.connection for worker in busy)], timeout=0.2 if busy else None)
        if self._bell in ready:
            self._bell.recv(4_096)
        found: list[tuple[Any, Result]] = []
        for worker in busy:
            if worker.connection in ready:
                try:
                    found += self._taken(worker)
                except (EOFError, OSError):
                    found += self._lost(worker, "verifier_crash")
            elif worker.overdue:
                found += self._lost(worker, "verifier_timeout")
        return found

    def _taken(self, worker: _Worker) -> list[tuple[Any, Result]]:
        return [(tag, self.failed(told.reason) if isinstance(told, _Failed) else told) for tag, told in worker.take()]

    def _lost(self, worker: _Worker, reason: str) -> list[tuple[Any, Result]]:
        """Ends a worker: what it had told counts, the item it was at has failed, the others go to a new one."""
        worker.kill()
        self.killed += 1
        found: list[tuple[Any, Result]] = []
        with contextlib.suppress(EOFError, OSError):
            while worker.pending and worker.connection.poll():
                found += self._taken(worker)
        worker.connection.close()
        self._workers.remove(worker)
        left = list(worker.pending)
        self._stillborn = 0 if worker.ready else self._stillborn + 1
        if not worker.ready:  # no item's fault, and the next worker would fare alike
            if self._stillborn >= MOST_STILLBORN:
                raise RunError(
                    f"{self.function} cannot be loaded: {self._stillborn} worker processes ended before an item",
                    todo="what they said stands above; mend that and start the same command again",
                )
            return found + [(tag, self.failed(reason)) for tag, _ in left]
        if not worker.clock.ahead and worker.at < len(left):
            found.append((left.pop(worker.at)[0], self.failed(reason)))
        self._give(None, left, ahead=not worker.clock.ahead)  # one by one, the item that is to blame shows
        return found


class VerifierPool(WorkerPool[Outcome]):
    """A pool whose items have an Outcome: one that fails abstains with the reason."""

    def __init__(
        self,
        function: str,
        *,
        workers: int | None = None,
        seconds: float = SECONDS_PER_ITEM,
        chunk: int = 1,
        setup: Item = (),
    ) -> None:
        super().__init__(function, abstaining, workers=workers, seconds=seconds, chunk=chunk, setup=setup)

    def __enter__(self) -> VerifierPool:
        super().__enter__()
        return self


class _Failed:
    """In place of a result: why there is none."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Clock(ctypes.Structure):
    """What a worker lets its parent see while it is busy: items begun since its start, and until when the present one
    may take, by the clock that all processes share; 0 between items. `ahead` is 1 while it looks at a whole chunk."""

    _fields_ = (("begun", ctypes.c_int64), ("until", ctypes.c_double), ("ahead", ctypes.c_int64))


class _Worker:
    """One process and the pipe to it; `pending` are the items it was given and has not answered, in their order.

    The first message from the process says that it is ready: no item's clock runs before.
    """

    def __init__(self, function: str, seconds: float, setup: Item) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, child = context.Pipe()
        self.clock: _Clock = context.RawValue(_Clock)
        arguments = (child, function, seconds, setup, self.clock, str(Path.cwd()))
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        child.close()
        self.pending: deque[tuple[Any, Item]] = deque()
        self.answered = 0
        self.ready = False
        self.since = time.monotonic()

    def give(self, chunk: Sequence[tuple[Any, Item]], *, ahead: bool = True) -> None:
        """Without `ahead` the worker looks at no more than an item at a time."""
        self.pending += chunk
        with contextlib.suppress(BrokenPipeError):  # it died before: the next look at it says so
            self.connection.send(([item for _, item in chunk], ahead))

    def take(self) -> list[tuple[Any, Any]]:
        """What it has told, with the tags. Raises EOFError when the process died."""
        message = self.connection.recv()
        if message is None:
            self.ready = True
            return []
        self.answered += len(message)
        return [(self.pending.popleft()[0], told) for told in message]

    @property
    def overdue(self) -> bool:
        if not self.ready:
            return time.monotonic() - self.since > STARTUP_SECONDS
        until = self.clock.until
        return bool(until) and time.monotonic() > until

    @property
    def at(self) -> int:
        """Which of the pending items it is, or was, at."""
        return max(0, int(self.clock.begun) - self.answered - 1)

    def kill(self) -> None:
        """The pipe stays: what was told before can still be read."""
        self.process.kill()
        self.process.join()


def _work(connection: Connection, function: str, seconds: float, setup: Item, clock: _Clock, folder: str) -> None:
    """A worker's life: import the verifier, then answer until the parent goes away."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    if folder not in sys.path:
        sys.path.append(folder)  # a user's own verifier lies where the command was started
    module, _, name = function.partition(":")
    home = importlib.import_module(module)
    verify, limit, ready = getattr(home, name), getattr(home, "seconds", None), getattr(home, "ready", None)
    ahead = getattr(home, "ahead", None)
    if hasattr(home, "prepare"):
        home.prepare(*setup)
    _limit_memory()
    connection.send(None)
    while True:
        try:
            items, together = connection.recv()
        except EOFError:
            return
        if ahead is not None and together:
            clock.ahead, clock.until = 1, time.monotonic() + STARTUP_SECONDS
            with contextlib.suppress(Exception):  # the function, under each item's own clock, does without
                ahead(items)
            clock.ahead, clock.until = 0, 0.0
        told: list[Any] = []
        flushed = time.monotonic()
        for item in items:
            began = time.monotonic()
            if told and began - flushed > FLUSH_SECONDS:
                connection.send(told)
                told, flushed = [], began
            clock.begun += 1
            if ready is not None:
                clock.until = began + STARTUP_SECONDS
                ready(*item)
            clock.until = time.monotonic() + (limit(*item) if limit is not None else seconds)
            told.append(_result(verify, item))
            clock.until = 0.0
        connection.send(told)


def _result(verify: Callable[..., Any], item: Item) -> Any:
    try:
        return verify(*item)
    except (MemoryError, RecursionError):
        return _Failed("verifier_limit")
    except Exception:  # noqa: BLE001  # any failure of a verifier is an abstention with its reason, never the end of the run
        return _Failed("verifier_error")


def _limit_memory() -> None:
    import resource

    sizes = Path("/proc/self/statm")
    if not sizes.is_file():
        return  # no Linux: the time limit still holds
    used = int(sizes.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
