"""Is a trace right, judged while others are still being sampled? The same notion of right as the filter's.

A trace is right when it ended by itself, is well-formed, and the verifier of its prompt's kind passes it. Answers that
need one go through worker processes that one thread of this process feeds. Outcomes are kept in a file of checksummed
lines, so that a later start need not judge, or even read, what this one has judged. Knows nothing about what is asked
for next.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Self

from distill.errors import RunError
from distill.records import Prompt, Trace
from distill.sampling.verdict_cache import Head, VerdictCache, judged_by
from distill.verify import Outcome, abstaining
from distill.verify.form import finished, think_format
from distill.verify.math import LONGEST, told_by_text
from distill.verify.pool import SECONDS_PER_ITEM, Item, VerifierPool
from distill.verify.verifiers import JUDGE, Chosen, told_without, verifier_of

LONGEST_AT_ONCE = 20_000
"""Characters of an answer, times its boxes, up to which the event loop compares the text itself: some milliseconds at
worst, and what follows the reasoning of an R1 trace is a tenth of that."""

Done = Callable[[Outcome], None]
"""Takes the outcome of one trace."""


def told_by_form(prompt: Prompt, trace: Trace, verifier: str | None) -> Outcome | None:
    """The outcome where no verifier has to look, None where one has to."""
    for check in (finished, think_format):
        outcome = check(prompt, trace)
        if outcome.outcome != "pass":
            return outcome
    return told_without(verifier, trace.answer)


def told_at_once(verifier: str | None, answer: str | None, gold: str | None) -> Outcome | None:
    """What the math verifier would say where the text alone tells and looking takes no time; else None."""
    if verifier != "math":
        return None
    size = len(answer or "") * max(1, (answer or "").count("\\boxed{"))
    return told_by_text(answer, gold) if size <= LONGEST_AT_ONCE and len(gold or "") <= LONGEST else None


@dataclass(slots=True)
class _Asked:
    """A trace that is being judged, and whom to tell."""

    done: Done
    loop: asyncio.AbstractEventLoop


class Rightness:
    """Judges traces beside sampling; a context manager, used from the thread of one event loop.

    Leaving it drops what is still being judged. `cache` is the file of outcomes, None for none; `chosen` is the
    recipe's `verify`; `function` is what the workers run, other than `verifiers.judge` in tests alone.
    """

    def __init__(
        self,
        cache: Path | None,
        *,
        workers: int | None = None,
        seconds: float = SECONDS_PER_ITEM,
        chosen: Chosen = MappingProxyType({}),
        function: str = JUDGE,
    ) -> None:
        self.cache, self.chosen = VerdictCache(cache), chosen
        self._pool = VerifierPool(function, workers=workers, seconds=seconds)
        self._inbox: deque[tuple[int, Item]] = deque()
        self._asked: dict[int, _Asked] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self.cache.open()
        self._pool.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.stop()
        if self._thread is not None:
            self._thread.join()
        self._pool.__exit__()
        self.cache.close()

    def judge(self, prompt: Prompt, trace: Trace, done: Done) -> None:
        """Has `done` called in the event loop's thread, after this returns, with the outcome: a pass is right.

        Never waits. Raises RunError when judging has broken down; those asked before then abstain, `verifier_error`.
        """
        self._check()
        loop = asyncio.get_running_loop()
        verifier = verifier_of(prompt.kind, self.chosen)
        told = partial(self._told, Head.of(trace), judged_by(prompt, verifier), done)
        outcome = told_by_form(prompt, trace, verifier) or told_at_once(verifier, trace.answer, prompt.answer)
        if outcome is not None:
            loop.call_soon(told, outcome)
            return
        number = next(self._numbers)
        self._asked[number] = _Asked(told, loop)
        self._inbox.append((number, (verifier, prompt, trace.answer)))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="rightness", daemon=True)
            self._thread.start()
        self._pool.nudge()
        if self._failure is not None and self._asked.pop(number, None) is not None:  # it broke down between the two
            self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise RunError("answers can no longer be verified", given=repr(self._failure)[:200]) from self._failure

    def _told(self, head: Head, by: bytes, done: Done, outcome: Outcome) -> None:
        self.cache.add(head, by, outcome)
        done(outcome)

    # --- in the thread -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            for number, outcome in self._pool.as_they_come(self._items()):
                self._tell(number, outcome)
        except BaseException as failure:  # noqa: BLE001  # told to whoever asks next: nobody would see it in a thread
            self._failure = failure
            for number in list(self._asked):
                self._tell(number, abstaining("verifier_error"))

    def _items(self) -> Iterable[tuple[int, Item] | None]:
        while True:
            try:
                yield self._inbox.popleft()
            except IndexError:
                yield None

    def _tell(self, number: int, outcome: Outcome) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits for it
                asked.loop.call_soon_threadsafe(asked.done, outcome)


__all__ = ["Done", "Head", "Rightness", "judged_by"]
