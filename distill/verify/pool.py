"""Runs verifiers in worker processes that are killed when one answer takes too long. Order in is order out.

Knows nothing about what a verifier does. A verifier's module may have a function `prepare()`, called once per worker
before any item's clock runs.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from distill.verify import Outcome, abstaining

SECONDS_PER_ITEM = 10.0
"""math-verify's own limits are 5 s for parsing and 5 s for comparing."""
STARTUP_SECONDS = 120.0
"""How long a worker may take to import its verifier; no item's clock runs meanwhile."""
MEMORY_BYTES = 2 * 2**30
"""Address space of a worker beyond what it has after start."""

Item = tuple[Any, ...]


class VerifierPool:
    """Maps `module:function` over argument tuples; a context manager. Workers start when first needed."""

    def __init__(self, function: str, *, workers: int | None = None, seconds: float = SECONDS_PER_ITEM) -> None:
        self.function, self.seconds = function, seconds
        self.size = workers or max(1, os.cpu_count() or 1)
        self._workers: list[_Worker] = []

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def map(self, items: Iterable[Item]) -> Iterator[Outcome]:
        """Outcomes in the order of the items. A hung item abstains with `verifier_timeout`, one that takes its
        worker down with `verifier_crash`; an exception inside the verifier counts as `verifier_error`."""
        source = enumerate(items)
        results: dict[int, Outcome] = {}
        given, exhausted = 0, False
        while True:
            while given in results:
                yield results.pop(given)
                given += 1
            if not exhausted and len(results) < 1_000:
                exhausted = not self._feed(source)
            busy = [worker for worker in self._workers if worker.index is not None]
            if not busy:
                if exhausted and given not in results:
                    return
                continue
            self._collect(busy, results)

    def _feed(self, source: Iterator[tuple[int, Item]]) -> bool:
        """Gives every idle worker an item; False when there are no more."""
        idle = [worker for worker in self._workers if worker.index is None]
        while True:
            if not idle and len(self._workers) >= self.size:
                return True
            following = next(source, None)
            if following is None:
                return False
            if not idle:
                idle.append(_Worker(self.function))
                self._workers.append(idle[-1])
            idle.pop().give(*following)

    def _collect(self, busy: Sequence[_Worker], results: dict[int, Outcome]) -> None:
        ready = wait([worker.connection for worker in busy], timeout=0.2)
        for worker in busy:
            index = worker.index
            assert index is not None
            if worker.connection in ready:
                try:
                    outcome = worker.take()
                except (EOFError, OSError):
                    outcome = abstaining("verifier_crash")
                    self._discard(worker)
                if outcome is not None:
                    results[index] = outcome
            elif time.monotonic() - worker.since > (self.seconds if worker.ready else STARTUP_SECONDS):
                results[index] = abstaining("verifier_timeout")
                self._discard(worker)

    def _discard(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.remove(worker)


class _Worker:
    """One process and the pipe to it; `index` is the item it works on, `since` when that began.

    The first message from the process is None and says that it is ready: an item given before starts only then.
    """

    def __init__(self, function: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, child = context.Pipe()
        self.process = context.Process(target=_work, args=(child, function), daemon=True)
        self.process.start()
        child.close()
        self.index: int | None = None
        self.since = 0.0
        self.ready = False

    def give(self, index: int, item: Item) -> None:
        self.index, self.since = index, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it died before: the next look at it says so
            self.connection.send(item)

    def take(self) -> Outcome | None:
        """The outcome of its item; None when it has only just become ready. Raises EOFError when the process died."""
        message = self.connection.recv()
        if message is None:
            self.ready, self.since = True, time.monotonic()
            return None
        assert isinstance(message, Outcome)
        self.index = None
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
