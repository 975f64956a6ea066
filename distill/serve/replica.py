"""One replica's life: started, watched while it gives tokens, killed when it gives none, started again or given up.

Knows how to ask it and when it counts as lost; where it runs and who else there is, it does not.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill.errors import DistillError
from distill.progress import say
from distill.serve.asking import Asker
from distill.serve.diagnosis import Diagnosis, diagnose
from distill.serve.health import Failures, Pulse
from distill.serve.launching import Addresses, Launcher, Need, Running
from distill.serve.metrics import Rates, Reading, read
from distill.serve.node import NodeCommand
from distill.serve.state import ReplicaState, State

LOOK_SECONDS = 2.0
"""Between two looks at a replica's processes."""
LOOKS_PER_READING = 5
"""Its metrics are read at one look of so many: they are a long text, which the server writes while it serves."""
PROBE_LIMIT = 60.0
"""Seconds that an idle replica may take for one token."""
LONGEST_LOOK = 60.0
"""Seconds that a look does not take; after more the service itself was stopped meanwhile."""
EMPTY_LOOKS, EMPTY_SECONDS = 2, 1.0
LINES = 400
"""Of the log, looked at for what ended a replica."""
TERM_SECONDS = 20.0
"""vLLM ends its workers within this after SIGTERM; then it is killed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every replica of a service has in common. Times in seconds."""

    need: Need
    build: Callable[[Addresses], Sequence[NodeCommand]]
    logs: Path
    secrets: dict[str, str]
    start_timeout: float
    stall_timeout: float
    probe_seconds: float
    max_failures: int
    look_seconds: float = LOOK_SECONDS


class Replica:
    """A slot of the service. `changed` is called, in the event loop, whenever its state is another."""

    def __init__(
        self, name: str, plan: Plan, launcher: Launcher, asker: Asker, rates: Rates, changed: Callable[[], None]
    ) -> None:
        self._plan, self._launcher, self._asker, self._rates, self._changed = plan, launcher, asker, rates, changed
        self._failures = Failures(plan.max_failures)
        self._running: Running | None = None
        self._life: asyncio.Task[None] | None = None
        self._ready_at: float | None = None
        self.state = ReplicaState(name, "starting", time.time())
        self.text: str | None = None
        """Its metrics as they came last."""
        self.diagnosis: Diagnosis | None = None
        """Of its last failure."""

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def root(self) -> str | None:
        """Where it answers, without /v1; None while it does not."""
        return self.state.url

    def start(self) -> None:
        self._life = asyncio.create_task(self._live(), name=self.name)

    def withdraw(self) -> None:
        """From now on it is no server for anybody new."""
        if self.state.state == "ready":
            self._become("draining")

    def require_life(self) -> None:
        """Raises what its life ended with, if that was no ending foreseen: nobody would look after it any more."""
        if self._life is not None and self._life.done() and not self._life.cancelled():
            fault = self._life.exception()
            if fault is not None:
                raise fault

    async def drain(self, seconds: float) -> None:
        """It gets nothing new and may finish what is in it; then it is stopped. Returns when nothing of it is left."""
        self.withdraw()
        was_ready = self.state.state == "draining"
        await self._end_life()
        running = self._running
        if running is not None and was_ready and self.root is not None:
            await self._emptied(running, self.root, seconds)
        await self._stopped()

    async def _end_life(self) -> None:
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait({self._life})
            self._life = None

    async def _emptied(self, running: Running, root: str, seconds: float) -> None:
        """Two looks must find it empty: a client may have sent a request just before it saw that the server leaves, and
        a server may count it a moment later. One that does not tell is waited for."""
        limit, empty = time.monotonic() + seconds, 0
        while time.monotonic() < limit and await running.ended() is None:
            reading = await self._looked(root)
            empty = empty + 1 if reading is not None and reading.running == reading.waiting == 0 else 0
            if empty == EMPTY_LOOKS:
                return
            await asyncio.sleep(EMPTY_SECONDS)

    async def _stopped(self) -> None:
        if self._running is not None:
            await self._running.stop(TERM_SECONDS)
            self._running = None
        self._become("stopped", url=None, pid=None)

    async def kill(self) -> None:
        """At once, whatever is in it."""
        await self._end_life()
        if self._running is not None:
            await self._running.kill()
            self._running = None
        self._become("stopped", url=None, pid=None)

    # --- its life ----------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            self._ready_at = None
            try:
                why = await self._one_start()
            except DistillError as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001  # of a library; the others go on, and so does this one
                traceback.print_exc()
                why = f"{type(error).__name__}: {error}"
            good = 0.0 if self._ready_at is None else time.monotonic() - self._ready_at
            delay = await self._after_failure(why, good)
            if delay is None:
                return
            await asyncio.sleep(delay)
            self.state = replace(self.state, restarts=self.state.restarts + 1)

    async def _one_start(self) -> str:
        """Starts it and watches it; why it ended."""
        plan = self._plan
        self._become("starting", url=None, pid=None)
        running = await self._launcher.start(self.name, plan.need, plan.build, plan.logs / self.name, plan.secrets)
        self._running = running
        root = f"http://{url_host(running.addresses.hosts[0])}:{running.addresses.port}"
        self._become("starting", pid=next(iter(running.pids), None))
        why = await self._until_ready(running, root)
        if why is None:
            self._failures.ready()
            self._ready_at = time.monotonic()
            self._become("ready", url=root)
            say(f"{self.name} is ready at {root}")
            why = await self._watched(running, root)
        return why

    async def _until_ready(self, running: Running, root: str) -> str | None:
        limit = time.monotonic() + self._plan.start_timeout
        fault: str | None = None
        while (left := limit - time.monotonic()) > 0:
            if (ended := await running.ended()) is not None:
                return ended
            if await self._asker.metrics(root) is not None:  # it listens; now for a token
                fault = await self._token_or_end(running, root, left)
                if fault is None:
                    return None
            await asyncio.sleep(min(self._plan.look_seconds, 1.0))
        return f"not ready within {self._plan.start_timeout:.0f} s" + (f": {fault}" if fault else "")

    async def _token_or_end(self, running: Running, root: str, left: float) -> str | None:
        """The first token may take long (kernels are compiled for it); a server that dies meanwhile has ended."""
        asked = asyncio.create_task(self._asker.token(root, left))
        try:
            while not asked.done():
                await asyncio.wait({asked}, timeout=self._plan.look_seconds)
                if not asked.done() and (ended := await running.ended()) is not None:
                    return ended
            return asked.result()
        finally:
            asked.cancel()

    async def _watched(self, running: Running, root: str) -> str:
        plan = self._plan
        pulse = Pulse(plan.stall_timeout, min(plan.probe_seconds, plan.stall_timeout / 3), time.monotonic())
        probe: asyncio.Task[str | None] | None = None
        looked, looks = time.monotonic(), 0
        try:
            while True:
                looked, before = time.monotonic(), looked
                if looked - before > LONGEST_LOOK + plan.look_seconds:
                    pulse.slept(looked - before)
                if (ended := await running.ended()) is not None:
                    return ended
                if looks % LOOKS_PER_READING == 0:
                    await self._read(pulse, root)
                looks += 1
                now = time.monotonic()
                probe = self._probed(pulse, probe, root)
                if (stuck := pulse.stuck(now)) is not None:
                    self._become("stuck", url=None)
                    return stuck
                await asyncio.sleep(plan.look_seconds)
        finally:
            if probe is not None:
                probe.cancel()

    async def _read(self, pulse: Pulse, root: str) -> None:
        reading = await self._looked(root)
        if reading is None:
            pulse.silent("it does not answer")
            return
        tokens = (reading.generation_tokens or 0) + (reading.prompt_tokens or 0)
        pulse.told(tokens, (reading.running or 0) + (reading.waiting or 0), time.monotonic())

    def _probed(
        self, pulse: Pulse, probe: asyncio.Task[str | None] | None, root: str
    ) -> asyncio.Task[str | None] | None:
        """Takes a probe's answer, or begins one where one is wanted."""
        now = time.monotonic()
        if probe is not None and probe.done():
            fault = probe.result()
            pulse.answered(now) if fault is None else pulse.silent(fault)
            return None
        if probe is None and pulse.wants_probe(now):
            return asyncio.create_task(self._asker.token(root, min(PROBE_LIMIT, self._plan.stall_timeout)))
        return probe

    async def _looked(self, root: str) -> Reading | None:
        text = await self._asker.metrics(root)
        if text is None:
            return None
        self.text, reading = text, read(text)
        now = time.monotonic()
        self._rates.note(self.name, reading, now)
        rate = self._rates.tokens_per_second(self.name, now)
        self.state = replace(self.state, reading=reading, tokens_per_second=rate)
        return reading

    async def _after_failure(self, why: str, good: float) -> float | None:
        """Takes what is left of it away; seconds to the next start, None when there is none."""
        self._become("stuck", url=None)  # nobody is sent there any more
        running, lines, code = self._running, list[str](), None
        if running is not None:
            code = running.exit_code
            lines = await running.tail(LINES)
            await running.kill()
            self._running = None
        self.text = None
        self._rates.forget(self.name)
        found = diagnose(lines, code, secrets=tuple(self._plan.secrets.values())) if lines else None
        self.diagnosis = found if found is not None and (code is not None or found.cause != "unknown") else None
        told = f"{why}: {self.diagnosis.what}" if self.diagnosis is not None else why
        delay = self._failures.failed(good, final=self.diagnosis is not None and self.diagnosis.final)
        what = "given up" if delay is None else f"started again in {delay:.0f} s"
        say(f"{self.name}: {told}; {what}")
        if self.diagnosis is not None and delay is None:
            for line in self.diagnosis.lines:
                say(f"  | {line}")
        self._become("failed" if delay is None else "waiting", url=None, pid=None, last_error=told)
        return delay

    def _become(self, state: State, **changes: object) -> None:
        since = self.state.since if self.state.state == state else time.time()
        self.state = replace(self.state, state=state, since=since, **changes)  # type: ignore[arg-type]
        self._changed()


def url_host(host: str) -> str:
    """A host as it stands in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
