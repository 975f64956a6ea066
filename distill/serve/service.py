"""The teacher service: its replicas, how many of them there are, and the files and the page that tell of them.

Runs until it is told to end, or until no replica is left that would be started again. Knows nothing about models.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from distill.errors import EndpointError, Interrupted
from distill.files import write_json, write_text
from distill.progress import say
from distill.serve import scaling
from distill.serve.asking import Asker
from distill.serve.launching import Launcher
from distill.serve.metrics import Rates, merged
from distill.serve.page import Pages, serving
from distill.serve.replica import Plan, Replica
from distill.serve.state import ServiceState, own_metrics

FILES_SECONDS = 10.0
"""Between two writings of the files."""
KEY = "key"


@dataclass(frozen=True, slots=True)
class Place:
    """The files of a service: what clients follow, and beside it its state, metrics and key."""

    out: Path

    @property
    def endpoints(self) -> Path:
        return self.out / "endpoints.json"

    @property
    def folder(self) -> Path:
        return self.out / "serve"

    @property
    def key(self) -> Path:
        return self.folder / KEY

    @property
    def state(self) -> Path:
        return self.folder / "service.json"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.prom"

    @property
    def logs(self) -> Path:
        return self.out / "logs"


@dataclass(frozen=True, slots=True)
class Terms:
    """What is served, as clients ask for it, and how many replicas there may be. Seconds."""

    teacher: str
    model: str
    """The name that clients give."""
    key: str | None
    replicas: int
    least: int
    most: int
    most_requests: int
    """Requests that one replica works on at once."""
    drain_timeout: float
    page_port: int | None


class Service:
    """Supervises the replicas of one teacher."""

    def __init__(self, place: Place, terms: Terms, plan: Plan, launcher: Launcher) -> None:
        self.place, self.terms, self._plan, self._launcher = place, terms, plan, launcher
        self.replicas: list[Replica] = []
        self._rates = Rates()
        self._scaling = scaling.Scaling()
        self._since = time.time()
        self._asker: Asker | None = None
        self._ending = asyncio.Event()
        self._changes = asyncio.Event()
        self._hurried = asyncio.Event()
        self._signal: int | None = None
        self._ended: EndpointError | None = None
        self._leaving: dict[Replica, asyncio.Task[None]] = {}
        """Replicas of which one fewer was wanted, until nothing is left of them."""
        self._unwritten = False
        self._number = 0

    # --- its life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until SIGTERM, Ctrl-C, or nothing is left to start again.

        Raises EndpointError with the telling log lines when every replica was given up, Interrupted after Ctrl-C.
        """
        with self._signals():
            async with aiohttp.ClientSession(trust_env=False) as session:
                self._asker = Asker(session, self.terms.model, self.terms.key)
                self._write_endpoints()
                async with serving(Pages(self.state, self.texts), port=self.terms.page_port or 0) as page:
                    say(f"metrics of all replicas: {page}/metrics, to look at: {page}/")
                    for _ in range(self.terms.replicas):
                        self._add()
                    try:
                        await self._supervise()
                    finally:
                        await self._end()
        if self._signal == signal.SIGINT:
            raise Interrupted("the service was ended; the same command starts it again")

    async def _supervise(self) -> None:
        written = 0.0
        while not self._ending.is_set():
            if self._changes.is_set():
                self._changes.clear()
                self._write_endpoints()
            if time.monotonic() - written > FILES_SECONDS:
                written = time.monotonic()
                self._write_endpoints()
                await asyncio.to_thread(self._write_files)
                await self._scaled()
            for replica in self.replicas:
                replica.require_life()
            if self.replicas and all(replica.state.state == "failed" for replica in self.replicas):
                self._ended = self._given_up()
                raise self._ended
            await self._first_of(self._ending.wait(), self._changes.wait(), seconds=1.0)

    async def _first_of(self, *waits: Awaitable[object], seconds: float) -> None:
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    async def _end(self) -> None:
        """Clients see no server any more; what is in flight may finish, unless a second signal comes."""
        for replica in self.replicas:
            if replica.state.state == "ready":
                say(f"{replica.name} is drained: requests in it have {self.terms.drain_timeout:.0f} s to finish")
                replica.withdraw()
        self._write_endpoints()
        drained = asyncio.create_task(self._drained())
        hurried = asyncio.create_task(self._hurry())
        await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
        if not drained.done() or drained.exception() is not None:
            drained.cancel()
            everybody = (*self.replicas, *self._leaving)
            await asyncio.gather(*(replica.kill() for replica in everybody), return_exceptions=True)
        hurried.cancel()
        await self._launcher.close()
        self._write_files()
        if self._ended is None:
            self.place.endpoints.unlink(missing_ok=True)
        else:
            self._write_endpoints()  # whoever waits for servers reads there why none will come

    async def _drained(self) -> None:
        drains = (replica.drain(self.terms.drain_timeout) for replica in self.replicas)
        await asyncio.gather(*drains, *self._leaving.values())

    async def _hurry(self) -> None:
        await self._hurried.wait()

    def _given_up(self) -> EndpointError:
        """The error that names what ended the replicas."""
        last = next((r for r in reversed(self.replicas) if r.diagnosis is not None), None)
        if last is None or last.diagnosis is None:
            what = self.replicas[-1].state.last_error or "no replica could be started"
            return EndpointError(f"every replica was given up: {what}", todo=f"look into {self.place.logs}")
        found = last.diagnosis
        return EndpointError(
            f"every replica was given up: {found.what}",
            given=" / ".join(found.lines[:3]) or None,
            todo=f"{found.todo} (logs: {self.place.logs / last.name})",
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)

        def told(number: int) -> None:
            if self._ending.is_set():
                say("the service ends at once")
                self._hurried.set()
            self._signal = self._signal or number
            self._ending.set()

        for number in numbers:
            loop.add_signal_handler(number, told, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    # --- how many ----------------------------------------------------------------------------------------------------

    def _add(self) -> None:
        assert self._asker is not None
        name = f"replica-{self._number}"
        self._number += 1
        replica = Replica(name, self._plan, self._launcher, self._asker, self._rates, self._changes.set)
        self.replicas.append(replica)
        replica.start()

    async def _scaled(self) -> None:
        """As `_scale`, whose questions to a cluster may fail without harm to the replicas that run."""
        for replica in [replica for replica, task in self._leaving.items() if task.done()]:
            del self._leaving[replica]
        try:
            await self._scale()
        except Exception as error:  # noqa: BLE001  # whatever the cluster's library raises
            say(f"the number of replicas stays: {type(error).__name__}: {error}")

    async def _scale(self) -> None:
        """A replica that was given up is not replaced by another: that would end the same way, again and again."""
        if self.terms.least == self.terms.most or any(r.state.state == "failed" for r in self.replicas):
            return
        now, terms = time.monotonic(), self.terms
        found = scaling.wanted(now, self._load(), self._scaling, least=terms.least, most=terms.most)
        self._scaling = found.scaling
        if found.replicas > len(self.replicas):
            if not await self._launcher.room(self._plan.need):
                self._scaling = scaling.no_room(now, self._scaling)
                return
            say(f"one replica more, {found.replicas} of at most {terms.most}: {found.why}")
            self._add()
        elif found.replicas < len(self.replicas):
            leaving = next((r for r in reversed(self.replicas) if r.state.state == "ready"), None)
            if leaving is not None:
                say(f"one replica fewer, {leaving.name} is drained: {found.why}")
                self.replicas.remove(leaving)
                leaving.withdraw()
                self._leaving[leaving] = asyncio.create_task(leaving.drain(terms.drain_timeout))
                self._write_endpoints()

    def _load(self) -> scaling.Load:
        ready = [replica.state for replica in self.replicas if replica.state.state == "ready"]
        readings = [state.reading for state in ready if state.reading is not None]
        waiting = sum(reading.waiting or 0 for reading in readings)
        running = sum(reading.running or 0 for reading in readings)
        return scaling.Load(len(ready), len(self.replicas) - len(ready), waiting, running, self.terms.most_requests)

    # --- what is told ------------------------------------------------------------------------------------------------

    def state(self) -> ServiceState:
        everybody = (*self.replicas, *self._leaving)
        return ServiceState(self.terms.teacher, self._since, os.getpid(), tuple(r.state for r in everybody))

    def texts(self) -> dict[str, str]:
        return {r.name: r.text for r in (*self.replicas, *self._leaving) if r.text is not None}

    def _write_endpoints(self) -> None:
        """The replicas that give tokens, for whoever samples them; written all the time, to show that somebody does."""
        ready = [replica for replica in self.replicas if replica.state.state == "ready" and replica.root is not None]
        key = {} if self.terms.key is None else {"key_file": str(self.place.key.relative_to(self.place.out))}
        found = [{"name": r.name, "url": f"{r.root}/v1", "model": self.terms.model, **key} for r in ready]
        starting = sum(replica.state.state in ("starting", "waiting", "stuck") for replica in self.replicas)
        told: dict[str, object] = {"pid": os.getpid(), "starting": 0 if self._ending.is_set() else starting}
        if self._ended is not None:
            told |= {"starting": 0, "ended": self._ended.what, "given": self._ended.given, "todo": self._ended.todo}
        try:
            write_json(self.place.endpoints, {"endpoints": found, "service": told})
            self._unwritten = False
        except OSError as error:  # a full disk stops no replica; it is tried again with the other files
            if not self._unwritten:
                say(f"{self.place.endpoints} cannot be written: {error}")
            self._unwritten = True

    def _write_files(self) -> None:
        try:
            write_json(self.place.state, self.state().to_json())
            write_text(self.place.metrics, merged(self.texts(), own_metrics(self.state())))
        except OSError as error:  # a full disk stops no replica: the page tells the same
            say(f"the state of the service cannot be written: {error}")
