"""Asks a provider's batch API: many requests in one file, the replies within a day, at about half the price.

Requests that arrive together become one batch; each caller gets its reply when the batch has ended. A batch is paid
for once it is created, so nothing here gives one up: it is written down before (batch_state.py), outlives the process,
and is taken over by the next one. Knows nothing about ledgers or retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
import uuid
from collections.abc import Container
from pathlib import Path
from typing import Any

from distill.engines import AttemptError, RefusedError, Reply, Request
from distill.engines import batch_follow as follow
from distill.engines.batch_follow import ENDINGS, Entry, Handed, patiently
from distill.engines.batch_provider import ENDPOINT, Batch, GoneError, Line, Provider, TooMuchError, is_too_much
from distill.engines.batch_state import Asked, BatchState
from distill.engines.openai import OpenAIEngine, request_body
from distill.errors import DistillError, EndpointError
from distill.files import sha256_of
from distill.progress import say

BATCH_REQUESTS = 50_000
"""Requests per batch and bytes per input file, at most (developers.openai.com/api/docs/guides/batch)."""
BATCH_BYTES = 200_000_000
ROOM_SECONDS = 600.0
"""After the provider had no room for a batch, and while none of ours ends there, the next is tried after so long."""
KEPT_SECONDS = 30 * 86_400.0
"""How long results are kept (OpenAI: 30 days); a batch that is gone earlier belongs to another account or address."""
CLOSE_SECONDS = 10.0
"""So long the answer to a creation under way is waited for when the engine closes."""


class BatchApiEngine:
    """The Engine of a provider's batch API; `url` ends where `/batches` is to be added.

    `state` is the file that remembers batches, `answered` what has a durable reply already, by request id: a batch
    with nothing else in it is forgotten at the start. A batch is handed over once it holds `batch_requests` requests or
    `batch_bytes` bytes, or `gather_seconds` after the last request came. `timeout` is in seconds without any byte from
    the provider; how long a reply may take is the provider's matter: no caller should limit it below a day.
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        state: Path,
        answered: Container[str] = (),
        name: str = "batch",
        api_key: str | None = None,
        batch_requests: int = BATCH_REQUESTS,
        batch_bytes: int = BATCH_BYTES,
        gather_seconds: float = 10.0,
        capacity: int = BATCH_REQUESTS,
        timeout: float = 600.0,
    ) -> None:
        self.name, self.model, self.capacity = name, model, capacity
        self._most_bytes, self._gather = batch_bytes, gather_seconds
        self._size = batch_requests
        """Requests per batch at present: fewer after the provider wanted less, then growing again up to `_ceiling`."""
        self._ceiling = batch_requests
        self._server = OpenAIEngine(url=url, model=model, api_key=api_key)
        self._provider = Provider(url=url, api_key=api_key, timeout=timeout)
        self._state, self._answered = BatchState(state), answered
        self._queue: dict[tuple[str, Asked], Entry] = {}
        self._queued_bytes = 0
        self._batches: dict[str, Handed] = {}
        self._home: dict[str, Handed] = {}
        """Request id → the batch that will tell its reply; the latest, should there be several."""
        self._arrived, self._ended = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._submitter: asyncio.Task[None] | None = None
        self._creating: asyncio.Task[None] | None = None
        self._completed_before = 0
        self._not_before = self._room_at = 0.0

    def __repr__(self) -> str:
        return f"BatchApiEngine(name={self.name!r}, model={self.model!r})"

    async def start(self) -> None:
        """Looks for the model where the provider lists them, and takes over the batches of earlier processes.

        Raises EndpointError when no request could succeed, LockedError when another process has the state file.
        """
        await self.close()
        await self._server.start()
        try:
            await self._provider.open()
            for known in self._state.open(self._answered):
                entries = {name: Entry(asked) for name, asked in known.asked.items()}
                batch = Handed(known.uuid, entries, known.input_file, known.planned, known.provider_id, adopted=True)
                batch.ended = known.ended
                self._keep(batch)
        except BaseException:
            await self.close()
            raise
        if self._state.lost_bytes:
            say(f"{self._state.lost_bytes} bytes of {self._state.path} are no whole lines: a kill leaves the last so")
        self._submitter = asyncio.create_task(self._submit_all())

    async def complete(self, request: Request) -> Reply:
        """One sample, after hours. Raises AttemptError or RefusedError for this request, EndpointError when none can
        succeed, DiskFullError when the batch could not be written down."""
        if self._submitter is None:
            raise RuntimeError("the engine is not started")
        if request.goes_on_from is not None:
            raise RefusedError("a batch API takes chats, no continuation of a cut reply")
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._take(request, waiting)
        return await waiting

    async def probe(self) -> None:
        """Raises EndpointError when GET /models finds no server, or not this model."""
        await self._server.probe()

    async def check_continuation(self) -> None:
        what, todo = "a batch API goes on with no reply", "leave out slice_tokens and continue_truncated"
        raise EndpointError(what, given=self.name, todo=todo)

    async def progress(self) -> float | None:
        """None: while a batch waits its turn nothing moves for hours, and nothing is wrong. `completed` tells more."""
        return None

    @property
    def completed(self) -> int:
        """Requests that the provider has completed in all batches that this process looked at."""
        return self._completed_before + sum(batch.completed for batch in self._batches.values())

    async def close(self) -> None:
        """Gives connections and the state file back. Batches go on at the provider, and the next start finds them."""
        if self._creating is not None:
            await asyncio.wait({self._creating}, timeout=CLOSE_SECONDS)
        tasks = [task for task in (self._submitter, self._creating, *self._tasks) if task is not None]
        self._submitter = self._creating = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        out = [batch for batch in self._batches.values() if batch.input_file and batch.entries and not batch.ended]
        if out:
            requests = sum(len(batch.entries) for batch in out)
            say(f"{len(out)} batches with {requests} requests stay with the provider; the next start collects them")
        for batch in self._batches.values():
            for entry in batch.entries.values():
                entry.cancel()
        for entry in self._queue.values():
            entry.cancel()
        self._batches, self._home, self._queue, self._queued_bytes = {}, {}, {}, 0
        self._state.close()
        await self._provider.close()
        await self._server.close()

    # --- gathering ---------------------------------------------------------------------------------------------------

    def _take(self, request: Request, waiting: asyncio.Future[Reply]) -> None:
        """Attaches it to the batch that asks just this, or else puts it into the queue."""
        body = self._body(request)
        asked = Asked(sha256_of({k: v for k, v in body.items() if k != "max_tokens"})[:16], request.max_tokens)
        batch = self._home.get(request.id)
        entry = batch.entries.get(request.id) if batch is not None else None
        if batch is not None and entry is not None and entry.asked.digest == asked.digest:
            entry.request = request
            entry.waiting.append(waiting)
            if not batch.watched:
                self._watch(batch)
            return
        self._enqueue(Entry(asked, request, _line(request.id, body), [waiting]))

    def _enqueue(self, entry: Entry) -> None:
        assert entry.request is not None
        key = (entry.request.id, entry.asked)
        if key in self._queue:
            self._queue[key].waiting += entry.waiting
            return
        entry.line = entry.line or _line(entry.request.id, self._body(entry.request))
        if len(entry.line) > self._most_bytes:
            entry.settle(RefusedError(f"a request of {len(entry.line)} bytes is larger than a whole batch may be"))
            return
        self._queue[key] = entry
        self._queued_bytes += len(entry.line)
        self._arrived.set()

    def _body(self, request: Request) -> dict[str, Any]:
        return request_body(dataclasses.replace(request, token_ids=False), self.model)

    async def _submit_all(self) -> None:
        """Hands over batch after batch, as requests arrive."""
        while True:
            await self._arrived.wait()
            await self._gathered()
            await self._room()
            batch = self._cut()
            if batch is not None:
                try:
                    await self._submit(batch)
                except DistillError as error:
                    self._fail(batch, error)
                except Exception as error:  # noqa: BLE001  # those who wait have to hear of it, whatever it is
                    self._fail(batch, EndpointError("the batch failed", given=f"{type(error).__name__}: {error}"))
            if self._queue:
                self._arrived.set()
            else:
                self._arrived.clear()

    async def _gathered(self) -> None:
        """Waits until a batch is full, or nothing further comes."""
        while len(self._queue) < self._size and self._queued_bytes < self._most_bytes:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), self._gather)
            except TimeoutError:
                return

    async def _room(self) -> None:
        """Waits for what the provider asked for; after it had no room, also until one of our batches ends there."""
        await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
        left = self._room_at - time.monotonic()
        if left > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), left)
            self._room_at = 0.0

    def _cut(self) -> Handed | None:
        """The next batch from the front of the queue; ids are unique in it. Who no longer waits is left out."""
        taken: dict[str, Entry] = {}
        left: dict[tuple[str, Asked], Entry] = {}
        size = 0
        for key, entry in self._queue.items():
            if not entry.wanted:
                continue
            if key[0] in taken or len(taken) >= self._size or size + len(entry.line) > self._most_bytes:
                left[key] = entry
                continue
            taken[key[0]] = entry
            size += len(entry.line)
        self._queue, self._queued_bytes = left, sum(len(entry.line) for entry in left.values())
        if not taken:
            return None
        batch = Handed(str(uuid.uuid4()), taken, watched=True)
        self._keep(batch)
        return batch

    # --- handing over ------------------------------------------------------------------------------------------------

    async def _submit(self, batch: Handed) -> None:
        content = b"".join(entry.line for entry in batch.entries.values())
        name = f"{batch.uuid}.jsonl"
        try:
            input_file = await patiently(self._provider, lambda: self._provider.upload(name, content))
        except (GoneError, RefusedError) as error:
            raise self._unable(error) from error
        except TooMuchError as error:
            if len(batch.entries) == 1:  # the file is too large, and will be no smaller
                raise RefusedError(error.what) from error
            self._too_much(batch, error)
            return
        if not batch.wanted:
            self._forget(batch)
            return
        for entry in batch.entries.values():
            entry.line = b""  # the provider has them
        planned = time.time()
        self._state.plan(batch.uuid, input_file, {name: entry.asked for name, entry in batch.entries.items()})
        batch.input_file, batch.planned = input_file, planned
        self._creating = asyncio.create_task(self._create(batch))
        try:
            await asyncio.shield(self._creating)
        except AttemptError as error:
            if error.sent:  # it may have been created all the same
                self._watch(batch)
                return
            self._give_up(batch, error.what)
            if isinstance(error, TooMuchError):
                self._too_much(batch, error)
                return
            wait = min(error.retry_after or 0.0, follow.LONGEST_RETRY_AFTER)
            self._not_before = time.monotonic() + max(wait, follow.POLL_SECONDS)
            self._requeue(batch)
            return
        except (GoneError, RefusedError, EndpointError) as error:
            self._give_up(batch, error.what)
            raise self._unable(error) from error
        self._watch(batch)

    async def _create(self, batch: Handed) -> None:
        created = await self._provider.create(batch.input_file, batch.uuid)
        batch.provider_id = created.id
        self._state.created(batch.uuid, created.id)

    def _too_much(self, batch: Handed, error: TooMuchError) -> None:
        """Smaller batches from now on; the next one when one of ours has ended, or soon where there is none."""
        self._size = max(1, min(self._size, len(batch.names) // 2))
        others = [one for one in self._batches.values() if one is not batch and one.provider_id and not one.ended]
        if not others:
            self._ceiling = max(1, len(batch.names) - 1)
        seconds = ROOM_SECONDS if others or len(batch.names) == 1 else follow.LONGEST_POLL
        self._ended.clear()
        self._not_before = time.monotonic() + min(error.retry_after or 0.0, follow.LONGEST_RETRY_AFTER)
        self._room_at = time.monotonic() + seconds
        say(f"{error.what}; batches of at most {self._size} requests from now on, the next when there is room")
        self._requeue(batch)

    def _requeue(self, batch: Handed) -> None:
        """What is still wanted of a batch that did nothing goes to the front of the queue."""
        self._forget(batch)
        behind, self._queue, self._queued_bytes = self._queue, {}, 0
        for entry in (*batch.entries.values(), *behind.values()):
            if entry.wanted:
                self._enqueue(entry)

    def _keep(self, batch: Handed) -> None:
        batch.names = tuple(batch.entries)
        self._batches[batch.uuid] = batch
        self._home.update(dict.fromkeys(batch.entries, batch))

    def _forget(self, batch: Handed) -> None:
        if self._batches.pop(batch.uuid, None) is not None:
            self._completed_before += batch.completed
        for name in batch.entries:
            if self._home.get(name) is batch:
                del self._home[name]

    def _give_up(self, batch: Handed, why: str) -> None:
        """The provider has nothing of it: from now on its requests may be asked anew."""
        self._state.dropped(batch.uuid, why)
        batch.input_file = ""

    def _fail(self, batch: Handed, error: DistillError) -> None:
        """All who wait for it hear of the error. Who asks again is attached again to what the provider has of it."""
        batch.watched = False
        if not batch.input_file:
            self._forget(batch)
        for entry in batch.entries.values():
            entry.settle(error)

    def _unable(self, error: DistillError) -> DistillError:
        if isinstance(error, GoneError | RefusedError):
            todo = "check the model and generate.url; the provider has to have OpenAI's batch API"
            return EndpointError(error.what, given=self._provider.shown, todo=todo)
        return error

    # --- following ---------------------------------------------------------------------------------------------------

    def _watch(self, batch: Handed) -> None:
        batch.watched = True
        task = asyncio.create_task(self._see_to(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_to(self, batch: Handed) -> None:
        """One batch to its end; once more whenever somebody asks for a reply of it that was passed over."""
        try:
            await self._collect(batch)
        except GoneError as error:
            self._fail(batch, self._gone(batch, error))
        except DistillError as error:
            self._fail(batch, self._unable(error))
        except Exception as error:  # noqa: BLE001  # those who wait have to hear of it, whatever it is
            self._fail(batch, EndpointError("a batch cannot be read", given=f"{type(error).__name__}: {error}"))

    async def _collect(self, batch: Handed) -> None:
        if batch.provider_id is None:
            found = await follow.look_for(self._provider, batch)
            if found is None:
                self._give_up(batch, "the provider never created it")
                self._requeue(batch)
                return
            batch.provider_id = found.id
            self._state.created(batch.uuid, found.id)
        ended = await follow.until_ended(self._provider, batch, batch.provider_id)
        self._ended.set()
        if ended.status == "failed":
            self._did_nothing(batch, ended)
            return
        if not batch.ended:
            self._state.ended(batch.uuid)
            batch.ended = True
            self._size = min(self._ceiling, self._size + max(1, self._size // 10))
        while batch.wanted:
            if batch.adopted:
                await follow.until_quiet(batch, self._gather)
            await self._hand_out(batch, ended)
        batch.watched = False
        if not batch.entries:
            self._forget(batch)

    async def _hand_out(self, batch: Handed, ended: Batch) -> None:
        """Hands out every reply that somebody waits for. A request without one has failed, and may be asked anew.

        A reply that nobody waits for stays with the provider, to be read again when it is asked for.
        """
        failed: list[str] = []

        def take(line: Line) -> None:
            entry = batch.entries.get(line.custom_id)
            if entry is None or (isinstance(line.outcome, Reply) and not entry.wanted):
                return
            if not isinstance(line.outcome, Reply):
                failed.append(line.custom_id)
            self._drop(batch, line.custom_id)
            self._settle(entry, line.outcome)

        try:
            heard = await follow.read_results(self._provider, ended, self.name, take)
            for name in [name for name in batch.entries if name not in heard]:
                failed.append(name)
                entry = batch.entries[name]
                self._drop(batch, name)
                entry.settle(AttemptError(ENDINGS[ended.status]))
        finally:  # also where the engine closes in the middle, as it may once the last caller has its reply
            if failed:
                self._state.failed(batch.uuid, failed)

    def _settle(self, entry: Entry, outcome: Reply | AttemptError | RefusedError) -> None:
        """A reply that was cut earlier than its caller wants it, as its batch had a lower max_tokens, is asked anew."""
        short = isinstance(outcome, Reply) and outcome.finish_reason == "length"
        if short and entry.request is not None and entry.asked.max_tokens < entry.request.max_tokens:
            asked = Asked(entry.asked.digest, entry.request.max_tokens)
            self._enqueue(Entry(asked, entry.request, waiting=entry.waiting))
            return
        entry.settle(outcome)

    def _drop(self, batch: Handed, name: str) -> None:
        del batch.entries[name]
        if self._home.get(name) is batch:
            del self._home[name]

    def _did_nothing(self, batch: Handed, ended: Batch) -> None:
        """A batch that failed was not begun. Requests that the provider names are refused, the others asked anew."""
        self._give_up(batch, "; ".join(fault.message for fault in ended.faults[:3]) or "failed")
        limits = [fault for fault in ended.faults if is_too_much(fault)]
        if limits:
            self._too_much(batch, TooMuchError(f"the provider failed a batch: {limits[0].message}"))
            return
        whole = [fault for fault in ended.faults if fault.line is None or fault.line > len(batch.names)]
        if whole or not ended.faults:
            told = whole[0].message if whole else "it gives no reason"
            todo = "mend what it says and start the same command again; nothing of this batch was paid for"
            error = EndpointError(f"the provider failed a batch: {told}", given=self._provider.shown, todo=todo)
            self._fail(batch, error)
            return
        for fault in ended.faults:
            assert fault.line is not None
            name = batch.names[fault.line - 1]
            batch.entries[name].settle(RefusedError(f"the provider refuses it: {fault.message}"))
        self._requeue(batch)

    def _gone(self, batch: Handed, error: GoneError) -> DistillError:
        """The provider does not know a batch, or its files. Once results are no longer kept, their requests are free to
        be asked anew; before that, something is wrong that must not cost the whole batch again."""
        if batch.provider_id is not None and time.time() - batch.planned > KEPT_SECONDS:
            self._give_up(batch, error.what)
            return AttemptError("the provider no longer has the results of this batch")
        which = f"batch {batch.provider_id}" if batch.provider_id else f"whether a batch of {batch.input_file} exists"
        return EndpointError(
            f"the provider does not tell of {which}, which this run may have paid for: {error.what}",
            given=self._provider.shown,
            todo=f"use the url and key that it was made with; to pay for it again, remove {self._state.path}",
        )


def _line(custom_id: str, body: dict[str, Any]) -> bytes:
    """One line of an input file."""
    line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(line, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"
