"""What the scheduler draws its work from: samples one at a time, only when there is room for one.

Knows nothing about how they are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, Protocol

from distill.records import Trace
from distill.sampling.requests import Task


class Later(Enum):
    """The type of LATER."""

    LATER = "later"


LATER: Final = Later.LATER
"""Taken instead of a task: nothing may be asked before something is settled."""


class TaskSource(Protocol):
    """Gives tasks out one by one and is told what became of each."""

    def take(self) -> Task | Later | None:
        """The next sample to draw; LATER while that depends on what is in flight; None when there is nothing left."""

    def settled(self, task: Task, trace: Trace | None) -> None:
        """`trace` is what was recorded: an answer, or a failure. None: the task was given back unanswered."""

    def on_change(self, wake: Callable[[], None]) -> None:
        """`wake` is to be called, in the event loop's thread, whenever `take` would no longer say LATER."""


class Listed:
    """A TaskSource of tasks that do not depend on each other."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks = tasks

    def take(self) -> Task | None:
        return next(self._tasks, None)

    def settled(self, task: Task, trace: Trace | None) -> None:
        """Nothing depends on it."""

    def on_change(self, wake: Callable[[], None]) -> None:
        """Nothing changes."""
