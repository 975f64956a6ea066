"""How many replies are right so far, estimated from a few of them: for the eye, decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from distill.errors import DistillError
from distill.records import Prompt, Trace
from distill.sampling.requests import Task
from distill.sampling.rightness import Rightness
from distill.sampling.tasks import Later, Outlook, TaskSource
from distill.verify import Outcome
from distill.verify.verifiers import Chosen, verifier_of

AFTER_SECONDS = 10.0
"""Nobody looks at progress before; loading a verifier takes seconds of a core."""
EVERY_SECONDS = 0.5
"""One reply in so many seconds at most: a verifier judges hundreds, which would take a core from the sampling."""


class Glance:
    """A TaskSource that gives out the tasks of `inner` and judges one of their replies now and then."""

    def __init__(self, inner: TaskSource, prompt_of: Callable[[int], Prompt], chosen: Chosen) -> None:
        self.inner, self._prompt_of = inner, prompt_of
        self._rightness = Rightness(None, workers=1, chosen=chosen)
        self._begun = self._last = time.monotonic()
        self._judged = self._right = 0
        self._busy = False

    def __enter__(self) -> Self:
        self._rightness.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._rightness.__exit__()

    @property
    def wake(self) -> Callable[[], None]:
        return self.inner.wake

    @wake.setter
    def wake(self, wake: Callable[[], None]) -> None:
        self.inner.wake = wake

    def take(self) -> Task | Later | None:
        return self.inner.take()

    def outlook(self) -> Outlook:
        return self.inner.outlook()

    def settled(self, task: Task, trace: Trace | None) -> None:
        self.inner.settled(task, trace)
        now = time.monotonic()
        if self._busy or now - self._last < EVERY_SECONDS or now - self._begun < AFTER_SECONDS:
            return
        if trace is not None and trace.finish_reason != "error" and task.place is not None:
            self._last = now
            self._look(self._prompt_of(task.place), trace)

    def right(self) -> tuple[int, int] | None:
        """(right, judged) so far, None before the first."""
        return (self._right, self._judged) if self._judged else None

    def _look(self, prompt: Prompt, trace: Trace) -> None:
        if verifier_of(prompt.kind, self._rightness.chosen) is None or (prompt.answer is None and not prompt.tests):
            return
        try:
            self._busy = True
            self._rightness.judge(prompt, trace, self._told)
        except DistillError:  # the verifier broke down: sampling goes on without, and this stays busy for ever
            return

    def _told(self, outcome: Outcome) -> None:
        self._busy = False
        if outcome.outcome != "abstain":
            self._judged += 1
            self._right += outcome.outcome == "pass"
