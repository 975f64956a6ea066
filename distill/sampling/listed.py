"""A TaskSource of samples that do not depend on each other: those that are missing, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distill.records import Trace
from distill.sampling.requests import Task
from distill.sampling.tasks import Outlook


class Listed:
    """Gives out `tasks`, of `most` samples in all of which `already` are settled."""

    def __init__(self, tasks: Iterator[Task], most: int = 0, already: int = 0) -> None:
        self._tasks, self._most, self._settled = tasks, most, already
        self.wake: Callable[[], None] = lambda: None

    def take(self) -> Task | None:
        return next(self._tasks, None)

    def settled(self, task: Task, trace: Trace | None) -> None:
        self._settled += trace is not None

    def outlook(self) -> Outlook:
        return Outlook(self._settled, self._most)
