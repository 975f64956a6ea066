"""Keeps requests in flight until every wanted sample is in the ledger: retries, interruption, progress.

Tasks are pulled only when there is room, so memory does not grow with their number. Knows nothing about prompts,
verification or what a reply means.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from distill.engines import AttemptError, Engine, RefusedError
from distill.errors import DistillError, EndpointError, Interrupted
from distill.ledger import Ledger
from distill.progress import say
from distill.sampling.requests import Subject, Task, answered, failed

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 60.0
"""Seconds before the second attempt, doubling each time with jitter, never longer than the latter."""
LONGEST_RETRY_AFTER = 600.0
"""A server's Retry-After is obeyed up to this many seconds."""
GRACE_SECONDS = 30.0
"""After the first Ctrl-C: how long requests in flight may still finish."""
FAILURES_IN_A_ROW = 50
"""So many samples given up on, with none answered in between, and the endpoint counts as broken."""
FAILURES_AT_THE_END = 5
"""The same where a job ends with them: a server that died near the end must not pass for a few odd prompts."""


@dataclass(slots=True)
class Progress:
    """Running totals of one sampling job; `total` counts the samples wanted when it began."""

    total: int
    already: int = 0
    answered: int = 0
    cut: int = 0
    failed: int = 0
    retries: int = 0
    completion_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """What was said of the samples that failed, and how often."""
    started: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        return self.already + self.answered + self.failed

    @property
    def tokens_per_second(self) -> float:
        return self.completion_tokens / max(1e-9, time.monotonic() - self.started)


class Watcher(Protocol):
    """Whoever shows progress; called often, has to be quick."""

    def __call__(self, progress: Progress) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard to try: requests in flight and attempts per sample."""

    in_flight: int
    max_attempts: int


def sample(
    tasks: Iterator[Task],
    subject: Subject,
    engine: Engine,
    ledger: Ledger,
    limits: Limits,
    progress: Progress,
    watch: Watcher = lambda progress: None,
) -> Progress:
    """Draws every task's sample and appends it, or the failure after the last attempt, to the ledger.

    Raises Interrupted after Ctrl-C or SIGTERM once what was in flight is saved, EndpointError when no request can
    succeed, DiskFullError when the ledger cannot save. Whatever was answered before is in the ledger.
    """
    return asyncio.run(_Sampler(tasks, subject, engine, ledger, limits, progress, watch).run())


class _Sampler:
    def __init__(
        self,
        tasks: Iterator[Task],
        subject: Subject,
        engine: Engine,
        ledger: Ledger,
        limits: Limits,
        progress: Progress,
        watch: Watcher,
    ) -> None:
        self.tasks, self.subject, self.engine, self.ledger = tasks, subject, engine, ledger
        self.limits, self.progress, self.watch = limits, progress, watch
        self.stop = asyncio.Event()
        self.interrupts = 0
        self.in_flight = 0
        self.failures_in_a_row = 0
        self.fatal: DistillError | None = None

    async def run(self) -> Progress:
        await self.engine.start()
        self.progress.started = time.monotonic()
        try:
            with self._signals():
                workers = [asyncio.create_task(self._work()) for _ in range(self.limits.in_flight)]
                await self._finish(workers)
        finally:
            await self.engine.close()
        if self.fatal is not None:
            raise self.fatal
        if self.interrupts:
            raise Interrupted(
                f"interrupted with {self.progress.done} of {self.progress.total} samples saved",
                todo="start the same command again; it goes on where this one stopped",
            )
        nothing = self.progress.failed and not self.progress.answered and not self.progress.already
        if nothing or self.failures_in_a_row >= FAILURES_AT_THE_END:
            raise self._broken(self.progress.failed if nothing else self.failures_in_a_row)
        return self.progress

    async def _finish(self, workers: list[asyncio.Task[None]]) -> None:
        """Waits for the workers; after a stop they get a grace period, after a second Ctrl-C none."""
        # what a worker raises is looked at in the end: a gather would complain of its own when they are cancelled
        ended: asyncio.Future[Any] = asyncio.create_task(asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION))
        stopped: asyncio.Future[Any] = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            deadline = time.monotonic() + GRACE_SECONDS
            while not ended.done() and time.monotonic() < deadline and self.interrupts < 2:
                await asyncio.wait({ended}, timeout=0.1)
        finally:
            for waiting in (stopped, ended, *workers):
                waiting.cancel()
            results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _work(self) -> None:
        while not self.stop.is_set():
            task = next(self.tasks, None)
            if task is None:
                return
            self.in_flight += 1
            try:
                await self._sample_one(task)
            except DistillError as error:
                self.fatal = self.fatal or error
                self.stop.set()
                return
            finally:
                self.in_flight -= 1

    async def _sample_one(self, task: Task) -> None:
        attempt = 0
        while True:
            attempt += 1
            try:
                reply = await self.engine.complete(task.request)
            except RefusedError as error:
                return self._give_up(task, error, attempt)
            except AttemptError as error:
                if attempt >= self.limits.max_attempts:
                    return self._give_up(task, error, attempt)
                self.progress.retries += 1
                if await self._pause(attempt, error.retry_after):
                    return None  # stopped while waiting: the sample stays wanted
            else:
                self.failures_in_a_row = 0
                trace = answered(task, reply, self.subject, self.ledger.next_revision(task.key), attempt)
                self.ledger.append(trace)
                self.progress.answered += 1
                self.progress.cut += reply.finish_reason == "length"
                self.progress.completion_tokens += reply.completion_tokens or 0
                self.watch(self.progress)
                return None

    def _give_up(self, task: Task, error: DistillError, attempts: int) -> None:
        revision = self.ledger.next_revision(task.key)
        self.ledger.append(failed(task, self.subject, self.engine.name, error.what, revision, attempts))
        self.progress.failed += 1
        self.progress.errors[error.what] += 1
        self.watch(self.progress)
        if isinstance(error, RefusedError) and self.progress.done > self.progress.failed:
            return  # it answers others: this one is at fault, not the endpoint
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= FAILURES_IN_A_ROW:
            raise self._broken(FAILURES_IN_A_ROW) from error

    def _broken(self, count: int) -> EndpointError:
        ((what, _),) = self.progress.errors.most_common(1)
        return EndpointError(
            f"{count} samples in a row failed; the endpoint looks broken",
            given=what,
            todo="mend the endpoint and start the same command again; failed samples are tried again",
        )

    async def _pause(self, attempt: int, retry_after: float | None) -> bool:
        """Waits before the next attempt; True when sampling was stopped meanwhile."""
        backoff = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), max(backoff, min(retry_after or 0.0, LONGEST_RETRY_AFTER)))
        return self.stop.is_set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop in order: the first lets requests in flight finish, the second does not."""
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            self.interrupts += 1
            self.stop.set()
            if self.interrupts == 1:
                say(
                    f"stopping: requests in flight ({self.in_flight}) may finish within {GRACE_SECONDS:.0f} s; "
                    "Ctrl-C again leaves at once and loses them"
                )

        handled = []
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread
                loop.add_signal_handler(number, interrupt)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)
