"""Several servers of one model as one: who gets the next request, who is put aside, probed and taken back.

Knows requests and replies only as what an Engine takes and gives; nothing about samples, ledgers or retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from distill.engines import AttemptError, EndpointError, Engine, RefusedError, Reply, Request
from distill.errors import DistillError
from distill.progress import say
from distill.sampling.concurrency import Concurrency

LONGEST_RETRY_AFTER = 600.0
"""A server's Retry-After is obeyed up to this many seconds."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds that a busy server, or one that went away, is left alone: doubling from the former up to the latter."""
PROBE_SECONDS = 10.0
"""What a look at a server may take. One that is stopped takes connections and never answers."""
FAULTS_IN_A_ROW = 3
"""Failures without a reply in between after which a server that still answers a probe is left alone for a while."""
TICK = 0.25
"""Seconds between two looks at the servers."""

State = Literal["ok", "aside", "refused", "leaving"]


@dataclass(eq=False, slots=True)
class Endpoint:
    """One server: its engine, how much it is sent, how it is doing. Times are those of `time.monotonic`, in seconds."""

    engine: Engine
    concurrency: Concurrency
    state: State = "ok"
    in_flight: int = 0
    answered: int = 0
    tokens: int = 0
    why: str = ""
    """What it was put aside for."""
    not_before: float = 0.0
    """Nothing is sent to it until then."""
    pauses: int = 0
    faults: int = 0
    """Failures since the last reply."""
    last_sign: float = 0.0
    """When it last gave a reply, or was seen to produce tokens."""
    seen: float | None = None
    """What it said of its progress when it was last asked."""
    calls: set[asyncio.Task[object]] = field(default_factory=set)
    cut: set[asyncio.Task[object]] = field(default_factory=set)
    """Calls that were ended because nothing came."""
    next_look: float = 0.0
    probing: asyncio.Task[None] | None = None
    started: bool = False

    @property
    def name(self) -> str:
        return self.engine.name

    def room(self, now: float) -> bool:
        return self.state == "ok" and now >= self.not_before and self.in_flight < self.concurrency.limit

    def described(self) -> str:
        """Its state in a few words, such as `replica-0 ok 31/64`."""
        return f"{self.name} {self.state} {self.in_flight}/{self.concurrency.limit}"


@dataclass(frozen=True, slots=True)
class FleetLimits:
    """`start` and `most` requests in flight at each server; seconds without progress after which a server counts as
    stuck, and seconds without any answer from anyone after which sampling stops."""

    start: int
    most: int
    stall: float = 180.0
    patience: float = 900.0
    continues: bool = False
    """Cut replies are to be gone on with: every server is asked first whether it can."""


class Roster(Protocol):
    """Says which servers there are now."""

    def changes(self, known: Sequence[str]) -> tuple[list[Engine], list[str]] | None:
        """Engines of those that came, not started, and names of those that went; None while nothing changed."""

    def coming(self) -> bool:
        """Whether servers are being started, so that it is worth waiting for them however long it takes."""

    def ended(self) -> EndpointError | None:
        """Why there will be no server any more, None while there may be."""


class Fleet:
    """The servers that sampling may use. `notify` is called in the event loop whenever there may be room again."""

    def __init__(self, engines: Sequence[Engine], limits: FleetLimits, roster: Roster | None = None) -> None:
        self.limits, self.roster = limits, roster
        self.endpoints = [self._endpoint(engine) for engine in engines]
        self.notify: Callable[[], None] = lambda: None
        self.fatal: DistillError | None = None
        """Why no request can succeed any more; set by the watch, for whoever samples to raise."""
        self._last_answer = 0.0
        self._watch: asyncio.Task[None] | None = None

    def _endpoint(self, engine: Engine) -> Endpoint:
        return Endpoint(engine, Concurrency(self.limits.start, self.limits.most), last_sign=time.monotonic())

    async def start(self) -> None:
        """Makes every server ready. Those that do not answer are put aside; raises EndpointError when none does."""
        failures = await asyncio.gather(*(self._started(endpoint) for endpoint in self.endpoints))
        if failures and None not in failures:  # there may be none yet: a service starts them
            await self._close_engines()
            raise next(failure for failure in failures if failure is not None)
        for endpoint, failure in zip(self.endpoints, failures, strict=True):
            if failure is not None:
                self._put_aside(endpoint, failure.what)
        self._last_answer = time.monotonic()
        self._watch = asyncio.create_task(self._watching())

    async def _started(self, endpoint: Endpoint) -> EndpointError | None:
        try:
            await self._begin(endpoint)
        except EndpointError as error:
            return error
        except AttemptError as error:
            return EndpointError(error.what)
        return None

    async def _begin(self, endpoint: Endpoint) -> None:
        await endpoint.engine.start()
        if self.limits.continues:
            await endpoint.engine.check_continuation()
        endpoint.started = True

    async def close(self) -> None:
        """Ends every call and gives connections and memory back."""
        tasks = [self._watch, *(endpoint.probing for endpoint in self.endpoints)]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
        await self._close_engines()

    async def _close_engines(self) -> None:
        for endpoint in self.endpoints:
            await endpoint.engine.close()

    @property
    def capacity(self) -> int:
        """Requests that may be in flight at all servers together, at least one."""
        return max(1, sum(e.concurrency.limit for e in self.endpoints if e.state in ("ok", "aside")))

    @property
    def in_flight(self) -> int:
        return sum(endpoint.in_flight for endpoint in self.endpoints)

    def pick(self, avoid: Endpoint | None = None) -> Endpoint | None:
        """The server with the fewest requests in flight among those with room; `avoid` only if there is no other."""
        now = time.monotonic()
        best = None
        for endpoint in self.endpoints:
            if endpoint.room(now) and (
                best is None or best is avoid or (endpoint is not avoid and endpoint.in_flight < best.in_flight)
            ):
                best = endpoint
        return best

    async def ask(self, endpoint: Endpoint, request: Request) -> Reply:
        """One request to one server, whose place the caller took by raising its `in_flight`; gives it back.

        Raises what the engine raises; EndpointError only when no server is left that could answer.
        """
        call = asyncio.current_task()
        assert call is not None
        asked, used = time.monotonic(), endpoint.concurrency.is_used(endpoint.in_flight)
        if not endpoint.calls:
            endpoint.last_sign = asked  # before it had nothing to do
        endpoint.calls.add(call)
        try:
            reply = await endpoint.engine.complete(request)
        except asyncio.CancelledError:
            if call not in endpoint.cut:
                raise
            endpoint.cut.discard(call)
            call.uncancel()
            raise AttemptError(endpoint.why, fault="endpoint") from None
        except RefusedError:
            self._alive(endpoint)
            raise
        except AttemptError as error:
            self._failed(endpoint, error, asked)
            raise
        except EndpointError as error:
            self._refused(endpoint, error)
            raise AttemptError(error.what, fault="endpoint", sent=False) from error
        else:
            now = time.monotonic()
            new = (reply.completion_tokens or 0) - (len(request.goes_on_from.output) if request.goes_on_from else 0)
            self._alive(endpoint)
            endpoint.answered += 1
            endpoint.tokens += new
            endpoint.concurrency.answered(now - asked, new, used=used)
            return reply
        finally:
            endpoint.calls.discard(call)
            endpoint.in_flight -= 1

    def _alive(self, endpoint: Endpoint) -> None:
        endpoint.last_sign = self._last_answer = time.monotonic()
        endpoint.faults = endpoint.pauses = 0
        endpoint.seen = None

    def _failed(self, endpoint: Endpoint, error: AttemptError, asked: float) -> None:
        now = time.monotonic()
        if error.fault == "busy":
            endpoint.concurrency.back_off(asked, now)
            endpoint.last_sign = now  # it answers, if only to ask for patience
            self._pause(endpoint, now, error.retry_after)
        elif error.fault == "endpoint":
            endpoint.concurrency.back_off(asked, now)
            self._put_aside(endpoint, error.what)
        elif error.retry_after:
            self._pause(endpoint, now, error.retry_after)

    def _pause(self, endpoint: Endpoint, now: float, wish: float | None) -> None:
        """Nothing is sent for as long as the server wishes, else for longer each time."""
        if now < endpoint.not_before and wish is None:
            return  # of the same moment
        endpoint.pauses += 1
        seconds = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (endpoint.pauses - 1)) * random.uniform(0.5, 1.0)
        until = now + max(seconds if wish is None else 0.0, min(wish or 0.0, LONGEST_RETRY_AFTER))
        endpoint.not_before = max(endpoint.not_before, until)

    def _put_aside(self, endpoint: Endpoint, why: str) -> None:
        """Nothing is sent before a probe finds it well; one that fails again and again is left alone for longer."""
        endpoint.faults += 1
        endpoint.why = why
        if endpoint.state != "ok":
            return
        endpoint.state = "aside"
        if endpoint.faults >= FAULTS_IN_A_ROW:
            self._pause(endpoint, time.monotonic(), None)
        elif endpoint.probing is None and self._watch is not None:  # a single broken connection costs a moment
            endpoint.probing = asyncio.create_task(self._look(endpoint, aside=True))

    def _refused(self, endpoint: Endpoint, error: EndpointError) -> None:
        """It will never answer: the key, the model or the address is wrong. The others go on without it."""
        if endpoint.state in ("refused", "leaving"):
            return
        endpoint.state, endpoint.why = "refused", error.what
        if all(other.state in ("refused", "leaving") for other in self.endpoints):
            self.fatal = error
        else:
            say(f"{endpoint.name} is left out: {error.what}")

    # --- the watch ---------------------------------------------------------------------------------------------------

    async def _watching(self) -> None:
        """Probes who was put aside, ends calls where nothing comes, follows the roster, until it is cancelled."""
        while True:
            now = time.monotonic()
            try:
                await self._follow_roster()
            except DistillError as error:  # nobody would watch any more
                self.fatal = error
            for endpoint in self.endpoints:
                due = endpoint.state == "aside" and now >= endpoint.not_before
                quiet = endpoint.in_flight > 0 and now - endpoint.last_sign > self.limits.stall / 2
                if endpoint.probing is None and (due or (quiet and now >= endpoint.next_look)):
                    endpoint.probing = asyncio.create_task(self._look(endpoint, aside=due))
            self._lose_patience(now)
            self.notify()
            await asyncio.sleep(TICK)

    def _lose_patience(self, now: float) -> None:
        """Sampling stops when nothing is in flight anywhere, for nobody takes anything, and that for too long."""
        waiting = [endpoint for endpoint in self.endpoints if endpoint.state in ("ok", "aside")]
        if self.roster is not None and self.roster.coming():
            self._last_answer = now
        if self.fatal is None and not waiting and self.roster is not None:
            self.fatal = self.roster.ended()
        if self.fatal or self.in_flight or any(endpoint.room(now) for endpoint in waiting):
            return
        if now - self._last_answer > self.limits.patience:
            self.fatal = EndpointError(
                f"no server answered for {self.limits.patience:.0f} s",
                given="; ".join(f"{e.name}: {e.why or 'busy'}" for e in waiting[:5]) or "no server is left",
                todo="mend the servers and start the same command again; everything answered so far is saved",
            )

    async def _look(self, endpoint: Endpoint, *, aside: bool) -> None:
        try:
            if aside:
                await self._look_again(endpoint)
            else:
                await self._look_for_progress(endpoint)
        finally:
            endpoint.probing = None

    async def _look_again(self, endpoint: Endpoint) -> None:
        """A server that was put aside is taken back when a probe finds it well."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                if endpoint.started:
                    await endpoint.engine.probe()
                else:
                    await self._begin(endpoint)
        except (AttemptError, EndpointError, TimeoutError) as error:
            endpoint.why = error.what if isinstance(error, DistillError) else f"no answer within {PROBE_SECONDS:g} s"
            if endpoint.pauses == 1:
                say(f"{endpoint.name} is put aside: {endpoint.why}")
            self._pause(endpoint, time.monotonic(), None)
            return
        if endpoint.state == "aside":
            if endpoint.pauses > 1:
                say(f"{endpoint.name} answers again")
                endpoint.concurrency.begin_again()
            endpoint.state = "ok"
            endpoint.last_sign = time.monotonic()
            self.notify()

    async def _look_for_progress(self, endpoint: Endpoint) -> None:
        """Requests at a server that produces nothing are ended, to be asked elsewhere."""
        quiet = time.monotonic() - endpoint.last_sign
        endpoint.next_look = time.monotonic() + self.limits.stall / 8
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                now = await endpoint.engine.progress()
                if now is None:  # it tells none: that it answers at all has to do, and the time limit of each request
                    await endpoint.engine.probe()
                    endpoint.last_sign = time.monotonic()
                    return
        except (AttemptError, EndpointError, TimeoutError):
            now = endpoint.seen
        if now != endpoint.seen:
            if endpoint.seen is not None:
                endpoint.last_sign = time.monotonic()
            endpoint.seen = now
        elif quiet > self.limits.stall:
            endpoint.why = f"no progress for {quiet:.0f} s"
            say(f"{endpoint.name} is put aside: {endpoint.why}; its {endpoint.in_flight} requests are asked again")
            endpoint.concurrency.back_off(time.monotonic(), time.monotonic())
            self._put_aside(endpoint, endpoint.why)
            for call in list(endpoint.calls):
                endpoint.cut.add(call)
                call.cancel()

    async def _follow_roster(self) -> None:
        changes = self.roster.changes([e.name for e in self.endpoints if e.state != "leaving"]) if self.roster else None
        came, went = changes or ([], [])
        for engine in came:
            self.endpoints.append(self._endpoint(engine))
            self.endpoints[-1].state = "aside"  # until it has started
            say(f"{engine.name} joins")
        for endpoint in self.endpoints:
            if endpoint.name in went and endpoint.state != "leaving":
                endpoint.state = "leaving"
                say(
                    f"{endpoint.name} leaves"
                    + (f"; {endpoint.in_flight} requests may finish" * bool(endpoint.in_flight))
                )
        for endpoint in [e for e in self.endpoints if e.state == "leaving" and not e.in_flight]:
            self.endpoints.remove(endpoint)
            with contextlib.suppress(DistillError):
                await endpoint.engine.close()
