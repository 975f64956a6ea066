"""Follows one batch at a provider: was it created, has it ended, what does each line of its results say.

Knows nothing about how batches are filled, or what is done when one failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from distill.engines import AttemptError, Reply, Request
from distill.engines.batch_provider import ENDED, WINDOW, Batch, Line, Provider, TooMuchError, read_line
from distill.engines.batch_state import Asked
from distill.errors import EndpointError

POLL_SECONDS, LONGEST_POLL = 5.0, 60.0
"""Between two looks at a batch, and between two tries of what failed: first the former, growing by half each time."""
LONGEST_RETRY_AFTER = 3_600.0
"""A provider's Retry-After is obeyed up to this many seconds."""
PATIENCE_SECONDS = 6 * 3_600.0
"""A provider that answers nothing else for so long is taken for broken; its batches stay known."""
DOUBT_SECONDS = 60.0
"""A batch whose creation was never confirmed is not there if the provider does not list it after so long."""
READS = 4
"""So often results that lack promised lines, or hold unreadable ones, are read before the requests count as failed."""

ENDINGS = {
    "completed": "the batch has ended without a word on this request",
    "expired": f"the batch expired after {WINDOW} before this request was answered",
    "cancelled": "the batch was cancelled at the provider before this request was answered",
}
"""What is said of a request that is in none of the batch's files, by how it ended."""

T = TypeVar("T")


@dataclass(slots=True)
class Entry:
    """One request of a batch, or on its way into one. Nobody may be waiting for it: its caller went, or has not come.

    `request` is None for one of an earlier process that nobody has asked for yet; `line` is its line of the input file
    while it waits to be uploaded.
    """

    asked: Asked
    request: Request | None = None
    line: bytes = b""
    waiting: list[asyncio.Future[Reply]] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        return any(not waiting.done() for waiting in self.waiting)

    def settle(self, outcome: Reply | BaseException) -> None:
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            if not one.done():
                if isinstance(outcome, Reply):
                    one.set_result(outcome)
                else:
                    one.set_exception(outcome)

    def cancel(self) -> None:
        for waiting in self.waiting:
            waiting.cancel()


@dataclass(slots=True, eq=False)
class Handed:
    """A batch; `entries` holds the requests whose reply nobody has got yet, by custom id.

    `input_file` is empty until it is written down that the batch will be created, and once it is given up.
    """

    uuid: str
    entries: dict[str, Entry]
    input_file: str = ""
    planned: float = 0.0
    provider_id: str | None = None
    adopted: bool = False
    """An earlier process made it: its callers come one by one."""
    watched: bool = False
    ended: bool = False
    completed: int = 0
    names: tuple[str, ...] = ()
    """Custom ids in the order of the input file."""

    @property
    def wanted(self) -> int:
        """How many of its requests somebody waits for."""
        return sum(entry.wanted for entry in self.entries.values())


async def patiently(provider: Provider, call: Callable[[], Awaitable[T]]) -> T:
    """Again and again until the provider answers. Raises EndpointError when it has not for PATIENCE_SECONDS, and
    whatever another try would not change."""
    wait, begun = POLL_SECONDS, time.monotonic()
    while True:
        try:
            return await call()
        except TooMuchError:
            raise
        except AttemptError as error:
            if time.monotonic() - begun > PATIENCE_SECONDS:
                todo = "start the same command again later; batches that were handed over are kept"
                raise EndpointError(error.what, given=provider.shown, todo=todo) from error
            await asyncio.sleep(max(wait, min(error.retry_after or 0.0, LONGEST_RETRY_AFTER)))
            wait = min(wait * 1.5, LONGEST_POLL)


async def look_for(provider: Provider, batch: Handed) -> Batch | None:
    """The batch whose creation was never confirmed; None once it is sure not to be there."""
    while True:
        late = time.time() - batch.planned >= DOUBT_SECONDS
        found = await patiently(provider, lambda: provider.find(batch.uuid, batch.input_file, batch.planned))
        if found is not None or late:
            return found
        await asyncio.sleep(min(LONGEST_POLL, DOUBT_SECONDS / 4))


async def until_ended(provider: Provider, batch: Handed, provider_id: str) -> Batch:
    """The batch in the state that it does not leave; `batch.completed` is kept up to date meanwhile."""
    wait = POLL_SECONDS
    while True:
        seen = await patiently(provider, lambda: provider.batch(provider_id))
        batch.completed = max(batch.completed, seen.completed)
        if seen.status in ENDED:
            return seen
        await asyncio.sleep(wait)
        wait = min(wait * 1.5, LONGEST_POLL)


async def until_quiet(batch: Handed, seconds: float) -> None:
    """Waits until for so long no further caller has come, so that results are read for all of them at once."""
    before = -1
    while before < (there := batch.wanted):
        before = there
        await asyncio.sleep(seconds)


async def read_results(provider: Provider, ended: Batch, name: str, take: Callable[[Line], None]) -> set[str]:
    """Gives every request's first line to `take`, in any order; returns the custom ids that had one.

    Reads again what broke off, and up to READS times what lacks lines that the batch's counts promise.
    """
    heard: set[str] = set()
    for attempt in range(1, READS + 1):
        bad = await patiently(provider, lambda: _read_once(provider, ended, name, take, heard))
        if attempt == READS or (not bad and len(heard) >= ended.completed + ended.failed):
            break
        await asyncio.sleep(POLL_SECONDS)
    return heard


async def _read_once(provider: Provider, ended: Batch, name: str, take: Callable[[Line], None], heard: set[str]) -> int:
    """One pass over the output and the error file; returns how many lines were none."""
    bad = 0
    for file_id in ended.files:
        async with contextlib.aclosing(provider.lines(file_id)) as lines:
            async for text in lines:
                try:
                    line = read_line(text, name) if text.strip() else None
                except ValueError:
                    bad += 1
                    continue
                if line is not None and line.custom_id not in heard:
                    heard.add(line.custom_id)
                    take(line)
                    await asyncio.sleep(0)  # its caller saves it before the next is read
    return bad
