"""Runs verifiers in worker processes that are killed when one answer takes too long.

`map` gives outcomes in the order of its items, `as_they_come` as soon as they are there. Knows nothing about what a
verifier does. A verifier's module may have a function `prepare()`, called once per worker
before any item's clock runs.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from distill.verify import Outcome, abstaining

SECONDS_PER_ITEM = 10.0
"""math-verify's own limits are 5 s for parsing and 5 s for comparing."""
STARTUP_SECONDS = 120.0
"""How long a worker may take to import its verifier; no item's clock runs meanwhile."""
MEMORY_BYTES = 2 * 2**30
"""Address space of a worker beyond what it has after start."""

MOST_HELD = 1_000
"""Outcomes that `map` holds behind one that takes long, before it takes no further items."""

Item = tuple[Any, ...]
Tag = TypeVar("Tag")
"""What tells the caller to which item an outcome belongs."""


class VerifierPool:
    """Maps `module:function` over argument tuples; a context manager. Workers start when first needed."""

    def __init__(self, function: str, *, workers: int | None = None, seconds: float = SECONDS_PER_ITEM) -> None:
        self.function, self.seconds = function, seconds
        self.size = workers or max(1, os.cpu_count() or 1)
        self._workers: list[_Worker] = []
        self._stopped = False

    def __enter__(self) -> VerifierPool:
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

    def map(self, items: Iterable[Item]) -> Iterator[Outcome]:
        """Outcomes in the order of the items. A hung item abstains with `verifier_timeout`, one that takes its
        worker down with `verifier_crash`; an exception inside the verifier counts as `verifier_error`."""
        held: dict[int, Outcome] = {}

        def numbered() -> Iterator[tuple[int, Item] | None]:
            for number, item in enumerate(items):
                while len(held) >= MOST_HELD:
                    yield None
                yield number, item

        following = 0
        for number, outcome in self.as_they_come(numbered()):
            held[number] = outcome
            while following in held:
                yield held.pop(following)
                following += 1

    def as_they_come(self, items: Iterable[tuple[Tag, Item] | None]) -> Iterator[tuple[Tag, Outcome]]:
        """(tag, outcome) of every (tag, item), in the order in which they are ready; reasons as in `map`.

        An item None says that there is nothing at the moment: the source is asked again when a worker has become idle
        and after `nudge`, which it needs when none is busy. It must never wait itself.
        """
        source, exhausted = iter(items), False
        while not self._stopped:
            if not exhausted:
                exhausted = not self._feed(source)
            busy = [worker for worker in self._workers if worker.item is not None]
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
        """Gives every idle worker an item, as far as there are some; False when there will be no more."""
        idle = [worker for worker in self._workers if worker.item is None]
        while idle or len(self._workers) < self.size:
            try:
                following = next(source)
            except StopIteration:
                return False
            if following is None:
                return True
            if not idle:
                idle.append(_Worker(self.function))
                self._workers.append(idle[-1])
            idle.pop().give(*following)
        return True

    def _collect(self, busy: Sequence[_Worker]) -> list[tuple[Any, Outcome]]:
        """Waits until there is something to look at; with none at work only `nudge` ends that."""
        ready = wait([self._bell, *(worker.connection for worker in busy)], timeout=0.2 if busy else None)
        if self._bell in ready:
            self._bell.recv(4_096)
        found: list[tuple[Any, Outcome]] = []
        for worker in busy:
            assert worker.item is not None
            tag, _ = worker.item
            if worker.connection in ready:
                try:
                    outcome = worker.take()
                except (EOFError, OSError):
                    outcome = abstaining("verifier_crash")
                    self._discard(worker)
                if outcome is not None:
                    found.append((tag, outcome))
            elif time.monotonic() - worker.since > (self.seconds if worker.ready else STARTUP_SECONDS):
                self._discard(worker)
                found.append((tag, abstaining("verifier_timeout")))
        return found

    def _discard(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.remove(worker)


class _Worker:
    """One process and the pipe to it; `item` is what it works on, with its tag, `since` when that began.

    The first message from the process is None and says that it is ready: an item given before starts only then.
    """

    def __init__(self, function: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, child = context.Pipe()
        self.process = context.Process(target=_work, args=(child, function), daemon=True)
        self.process.start()
        child.close()
        self.item: tuple[Any, Item] | None = None
        self.since = 0.0
        self.ready = False

    def give(self, tag: object, item: Item) -> None:
        self.item, self.since = (tag, item), time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it died before: the next look at it says so
            self.connection.send(item)

    def take(self) -> Outcome | None:
        """The outcome of its item; None when it has only just become ready. Raises EOFError when the process died."""
        message = self.connection.recv()
        if message is None:
            self.ready, self.since = True, time.monotonic()
            return None
        assert isinstance(message, Outcome)
        self.item = None
        return message

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _work(connection: Connection, function: str) -> None:
    """A worker's life: import the verifier, then answer until the parent goes away."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    module, _, name = function.partition(":")
    home = importlib.import_module(module)
    verify, prepare = getattr(home, name), getattr(home, "prepare", None)
    if prepare is not None:
        prepare()
    _limit_memory()
    connection.send(None)
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            outcome = verify(*item)
        except (MemoryError, RecursionError):
            outcome = abstaining("verifier_limit")
        except Exception:  # noqa: BLE001  # any failure of a verifier is an abstention with its reason, never the end of the run
            outcome = abstaining("verifier_error")
        connection.send(outcome)


def _limit_memory() -> None:
    import resource

    sizes = Path("/proc/self/statm")
    if not sizes.is_file():
        return  # no Linux: the time limit still holds
    used = int(sizes.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
