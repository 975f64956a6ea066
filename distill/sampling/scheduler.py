"""Keeps requests in flight until every wanted sample is in the ledger: retries, slices, interruption, budgets.

Tasks are taken only when a server has room, so memory does not grow with their number. Knows nothing about prompts,
verification or what a reply means.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from distill.engines import AttemptError, Engine, RefusedError, Reply, Request, TokenIds
from distill.errors import DiskFullError, DistillError, EndpointError, Interrupted
from distill.files import now
from distill.ledger import Ledger
from distill.progress import say
from distill.records import Trace, request_seed
from distill.sampling.cycles import cycle
from distill.sampling.fleet import Endpoint, Fleet, FleetLimits
from distill.sampling.listed import Listed
from distill.sampling.requests import Subject, Task, answered, failed
from distill.sampling.tasks import LATER, TaskSource

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 60.0
"""Seconds before the second attempt, doubling each time with jitter, never longer than the latter."""
GRACE_SECONDS = 30.0
"""After the first Ctrl-C: how long requests in flight may still finish."""
FAILURES_IN_A_ROW = 50
"""So many samples given up on, with none answered in between, and the endpoint counts as broken."""
GARBAGE_OBJECTS = 50_000
"""Objects made and not freed between two looks for garbage while sampling."""
FAILURES_AT_THE_END = 5
"""The same where a job ends with them: a server that died near the end must not pass for a few odd prompts."""


@dataclass(slots=True)
class Progress:
    """Running totals of one sampling job; `total` counts the samples wanted when it began."""

    total: int
    already: int = 0
    answered: int = 0
    cut: int = 0
    looped: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """New ones of this start, those of failed replies included."""
    finished_tokens: int = 0
    """Those of whole replies, what they had before included."""
    errors: Counter[str] = field(default_factory=Counter)
    """What was said of the samples that failed, and how often."""
    stopped_by: str | None = None
    """The budget that ended the job before everything was asked."""
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
    """How hard to try: requests in flight, attempts per sample; of how many tokens a slice of a reply is."""

    in_flight: int
    max_attempts: int
    slice_tokens: int | None = None
    token_ids: bool = False
    """Ask for the token ids of replies, so that cut ones can go on later."""


class Budget(Protocol):
    """What may be spent."""

    def used_up(self, progress: Progress) -> str | None:
        """Why nothing new may be asked for any more, None while something may."""

    def holds_back(self, progress: Progress, in_flight: int) -> bool:
        """Whether what is in flight is expected to use up the rest: nothing new before more is known."""


class NoLimit:
    """A Budget without an end."""

    def used_up(self, progress: Progress) -> str | None:
        return None

    def holds_back(self, progress: Progress, in_flight: int) -> bool:
        return False


def sample(
    tasks: Iterator[Task] | TaskSource,
    subject: Subject,
    engine: Engine | Fleet,
    ledger: Ledger,
    limits: Limits,
    progress: Progress,
    watch: Watcher = lambda progress: None,
    budget: Budget | None = None,
) -> Progress:
    """Draws every task's sample and appends it, or the failure after the last attempt, to the ledger.

    Returns `progress`, whose `stopped_by` is what the budget said when it ended the job. Raises Interrupted after
    Ctrl-C or SIGTERM once what was in flight is saved, EndpointError when no request can succeed, DiskFullError when
    the ledger cannot save. Whatever was answered before is in the ledger.
    """
    fleet = engine if isinstance(engine, Fleet) else Fleet([engine], FleetLimits(limits.in_flight, limits.in_flight))
    source = Listed(tasks) if isinstance(tasks, Iterator) else tasks
    sampler = _Sampler(source, subject, fleet, ledger, limits, progress, watch, budget or NoLimit())
    import uvloop  # libuv's event loop: a sixth less time per request than asyncio's own

    with _little_garbage_collection(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(sampler.run())


@contextlib.contextmanager
def _little_garbage_collection() -> Iterator[None]:
    """What is there by now stays, and what a request leaves goes by itself: to look through all of it every 700 new
    objects, Python's default, took a tenth of the time."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class _Stopped(Exception):
    """Sampling ends: what waits for its next attempt gives up, its sample stays wanted."""


class _Sampler:
    def __init__(
        self,
        source: TaskSource,
        subject: Subject,
        fleet: Fleet,
        ledger: Ledger,
        limits: Limits,
        progress: Progress,
        watch: Watcher,
        budget: Budget,
    ) -> None:
        self.source, self.subject, self.fleet, self.ledger = source, subject, fleet, ledger
        self.limits, self.progress, self.watch, self.budget = limits, progress, watch, budget
        self.stop = asyncio.Event()
        self.interrupts = 0
        self.live: set[asyncio.Task[None]] = set()
        self.waiting = 0
        """Samples that need another attempt and wait for a server: they come before new ones."""
        self.pausing = 0
        self.failures_in_a_row = 0
        self.failure: BaseException | None = None
        self.cannot_save = False
        """The ledger takes nothing more: to wait for what is in flight would be in vain."""
        self.out_of_budget: str | None = None
        self._changed = asyncio.Event()

    async def run(self) -> Progress:
        self.fleet.notify = self._changed.set
        self.source.wake = self._changed.set
        await self.fleet.start()
        if not self.progress.completion_tokens:
            self.progress.started = time.monotonic()
        try:
            with self._signals():
                try:
                    await self._dispatch()
                except Exception as error:  # noqa: BLE001  # what is in flight may finish all the same; raised below
                    self._fail(error)
                await self._finish()
        finally:
            await self.fleet.close()
        if self.failure is not None:
            raise self.failure
        if self.interrupts:
            raise Interrupted(
                f"interrupted with {self.progress.done} of {self.progress.total} samples saved",
                todo="start the same command again; it goes on where this one stopped",
            )
        nothing = self.progress.failed and not self.progress.answered and not self.progress.already
        if nothing or self.failures_in_a_row >= FAILURES_AT_THE_END:
            raise self._broken(self.progress.failed if nothing else self.failures_in_a_row)
        self.progress.stopped_by = self.out_of_budget
        return self.progress

    async def _dispatch(self) -> None:
        """Gives tasks to servers that have room until nothing is left to ask, or sampling has to stop."""
        while not self.stop.is_set():
            if self.fleet.fatal is not None:
                self._fail(self.fleet.fatal)
                return
            endpoint = self._place_for_more(len(self.live))
            task = self.source.take() if endpoint is not None else LATER
            if isinstance(task, Task) and endpoint is not None:
                self._begin(task, endpoint)
            elif (task is None or self.out_of_budget is not None) and not self.live:
                return
            else:
                await self._change()

    def _place_for_more(self, live: int) -> Endpoint | None:
        """A server that may be asked for a new sample, while `live` are under way; None where none may be asked.

        Samples that pause between two attempts hold no place at a server, and still must not grow without end.
        """
        if self.out_of_budget is None:
            self.out_of_budget = self.budget.used_up(self.progress)
        if self.waiting or self.out_of_budget is not None or self.stop.is_set():
            return None
        if (self.pausing and live >= self.fleet.capacity) or (live and self.budget.holds_back(self.progress, live)):
            return None
        return self.fleet.pick()

    def _begin(self, task: Task, endpoint: Endpoint) -> None:
        endpoint.in_flight += 1
        work = asyncio.create_task(self._work(task, endpoint))
        self.live.add(work)
        work.add_done_callback(self._ended)

    def _ended(self, work: asyncio.Task[None]) -> None:
        self.live.discard(work)
        self._changed.set()

    def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self.stop.set()
        self._changed.set()

    async def _change(self) -> None:
        """Waits until something may have made room, or sampling stops; the fleet's watch sees that it is not long."""
        await self._changed.wait()
        self._changed.clear()
        self.watch(self.progress)

    async def _finish(self) -> None:
        """After a stop what is in flight gets a grace period, after a second Ctrl-C none."""
        deadline = time.monotonic() + GRACE_SECONDS
        while self.live and time.monotonic() < deadline and self.interrupts < 2 and not self.cannot_save:
            await asyncio.wait(self.live, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
        for work in self.live:
            work.cancel()
        await asyncio.gather(*self.live, return_exceptions=True)

    # --- one sample --------------------------------------------------------------------------------------------------

    async def _work(self, task: Task, endpoint: Endpoint) -> None:
        """One sample after the other, as long as there is a place for the next as soon as one is done."""
        following: tuple[Task, Endpoint] | None = (task, endpoint)
        try:
            while following is not None:
                await self._work_on(*following)
                following = self._following()
        except Exception as error:  # noqa: BLE001  # told at once, so that nothing further is asked; raised by `run`
            self._fail(error)

    async def _work_on(self, task: Task, endpoint: Endpoint) -> None:
        trace: Trace | None = None
        try:
            trace = await self._sample(task, endpoint)
        except _Stopped:
            pass
        finally:
            self.source.settled(task, trace)

    def _following(self) -> tuple[Task, Endpoint] | None:
        """The next sample and a place for it, None where the dispatcher has to see."""
        endpoint = self._place_for_more(len(self.live) - 1)
        task = self.source.take() if endpoint is not None else LATER
        if endpoint is None or not isinstance(task, Task):
            return None
        endpoint.in_flight += 1
        if endpoint.in_flight < endpoint.concurrency.limit:
            self._changed.set()
        return task, endpoint

    async def _sample(self, task: Task, endpoint: Endpoint) -> Trace:
        """Asks for one reply, slice by slice, and records each; returns the last record."""
        left, ids, attempts = task.request.max_tokens, task.request.goes_on_from, 0
        trace = task.cut
        held: Endpoint | None = endpoint
        while True:
            wanted_now = min(left, self.limits.slice_tokens or left)
            request = self._slice(task.request, wanted_now, ids)
            endpoint = held or await self._room(None)
            try:
                reply, tried = await self._attempts(request, endpoint)
            except _GivenUp as given_up:
                if trace is not None and isinstance(given_up.error, RefusedError):
                    return self._leave(trace)
                return self._give_up(task, given_up, attempts + given_up.attempts)
            held, attempts = None, attempts + tried
            left -= wanted_now
            new = (reply.completion_tokens or 0) - (len(ids.output) if ids else 0)
            self.progress.completion_tokens += new
            self.progress.prompt_tokens += reply.prompt_tokens or 0
            cut_here = reply.finish_reason == "length"
            ids = reply.token_ids if cut_here and new >= wanted_now else None  # with fewer its context is full
            looping = ids is not None and left > 0 and cycle(ids.output) is not None
            trace = self._record(task, reply, attempts, goes_on=ids is not None, looping=looping)
            if looping or ids is None or left <= 0:
                return self._count(trace)
            if self.out_of_budget is not None:
                raise _Stopped

    def _slice(self, whole: Request, tokens: int, ids: TokenIds | None) -> Request:
        """The request for the next tokens: the whole one where it is not asked for in slices."""
        if ids is None and tokens == whole.max_tokens and self.limits.token_ids == whole.token_ids:
            return whole
        if ids is None:
            return replace(whole, max_tokens=tokens, token_ids=self.limits.token_ids)
        seed = request_seed(self.subject.sampling, whole.id, after=len(ids.output)) if whole.seed is not None else None
        return replace(whole, max_tokens=tokens, token_ids=True, goes_on_from=ids, seed=seed)

    async def _attempts(self, request: Request, endpoint: Endpoint) -> tuple[Reply, int]:
        """The reply, and how many attempts it took. Those that a server turned away, or never got, do not count.

        Raises _GivenUp after the last one, _Stopped when sampling stops before the next.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self.fleet.ask(endpoint, request), attempt
            except RefusedError as error:
                raise _GivenUp(error, attempt, endpoint.name) from None
            except AttemptError as error:
                counts = error.sent and error.fault != "busy"
                attempt -= not counts
                if attempt >= self.limits.max_attempts:
                    raise _GivenUp(error, attempt, endpoint.name) from None
                self.progress.retries += 1
                self._changed.set()  # its place is free
                if counts and error.fault == "request":
                    await self._pause(attempt)
            endpoint = await self._room(endpoint)

    async def _room(self, avoid: Endpoint | None) -> Endpoint:
        """A place at a server for one that was in flight before. Raises _Stopped when there will be none."""
        self.waiting += 1
        pause = 0.01
        try:
            while True:
                if self.fleet.fatal is not None:
                    self._fail(self.fleet.fatal)
                if self.stop.is_set():
                    raise _Stopped
                endpoint = self.fleet.pick(avoid)
                if endpoint is not None:
                    endpoint.in_flight += 1
                    return endpoint
                await asyncio.sleep(pause)
                pause = min(0.25, pause * 2)
        finally:
            self.waiting -= 1
            self._changed.set()

    def _record(self, task: Task, reply: Reply, attempts: int, *, goes_on: bool, looping: bool) -> Trace:
        revision = self.ledger.next_revision(task.key)
        trace = answered(task, reply, self.subject, revision, attempts, goes_on=goes_on, looping=looping)
        self._save(trace)
        return trace

    def _save(self, trace: Trace) -> None:
        """A full disk has room for what is in flight; after any other failure nothing can be saved."""
        try:
            self.ledger.append(trace)
        except DiskFullError:
            raise
        except Exception:
            self.cannot_save = True
            raise

    def _leave(self, trace: Trace) -> Trace:
        """A server takes no more of this reply: there is no room for a slice in its context. It stays as it is."""
        revision = self.ledger.next_revision(trace.key)
        last = replace(trace, revision=revision, prompt_ids=None, output_ids=None, created=now())
        self._save(last)
        return self._count(last)

    def _count(self, trace: Trace) -> Trace:
        self.progress.finished_tokens += trace.completion_tokens or 0
        if trace.finish_reason == "error":
            self.progress.failed += 1
            self.progress.errors[trace.error or ""] += 1
        else:
            self.failures_in_a_row = 0
            self.progress.answered += 1
            self.progress.cut += trace.finish_reason == "length"
            self.progress.looped += trace.finish_reason == "loop"
        self.watch(self.progress)
        return trace

    def _give_up(self, task: Task, given_up: _GivenUp, attempts: int) -> Trace:
        revision, error = self.ledger.next_revision(task.key), given_up.error
        trace = failed(task, self.subject, given_up.endpoint, error.what, revision, attempts)
        self._save(trace)
        self._count(trace)
        if isinstance(error, RefusedError) and self.progress.done > self.progress.failed:
            return trace  # it answers others: this one is at fault, not the endpoint
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= FAILURES_IN_A_ROW:
            raise self._broken(FAILURES_IN_A_ROW) from error
        return trace

    def _broken(self, count: int) -> EndpointError:
        ((what, _),) = self.progress.errors.most_common(1)
        return EndpointError(
            f"{count} samples in a row failed; the endpoint looks broken",
            given=what,
            todo="mend the endpoint and start the same command again; failed samples are tried again",
        )

    async def _pause(self, attempt: int) -> None:
        """Waits before the next attempt, less when sampling is stopped meanwhile."""
        backoff = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        self.pausing += 1
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), backoff)
        finally:
            self.pausing -= 1

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop in order: the first lets requests in flight finish, the second does not."""
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            self.interrupts += 1
            self.stop.set()
            self._changed.set()
            if self.interrupts == 1:
                say(
                    f"stopping: requests in flight ({self.fleet.in_flight}) may finish within {GRACE_SECONDS:.0f} s; "
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


class _GivenUp(Exception):
    """No further attempt is made; `error` is the last one's."""

    def __init__(self, error: DistillError, attempts: int, endpoint: str) -> None:
        super().__init__(error.what)
        self.error, self.attempts, self.endpoint = error, attempts, endpoint
