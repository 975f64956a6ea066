"""What a scheduler asks for next: the protocol between it and whoever decides what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from distill.records import Trace
from distill.sampling.requests import Task


class Later(Enum):
    """The type of LATER."""

    LATER = "later"


LATER: Final = Later.LATER
"""Instead of a task: nothing may be asked now; what is still in flight or being judged decides what comes."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where a source of tasks stands, in samples, those of earlier starts included. Cheap enough for every reply."""

    settled: int
    """Asked and recorded, as an answer or a failure."""
    most: int
    """That can be wanted in all."""
    spared: int = 0
    """Of those, that are certain not to be wanted any more."""
    right: int | None = None
    """Found right so far; None where nobody looks."""
    solved: int | None = None
    """Prompts with enough right answers; None where nobody looks."""


class TaskSource(Protocol):
    """Decides which sample comes next. Used from one thread, that of the event loop."""

    wake: Callable[[], None]
    """Set by the scheduler; called in the event loop's thread when `take` after a LATER would give something else."""

    def take(self) -> Task | Later | None:
        """The next sample to ask for; None when nothing is left at all. Raises what keeps it from ever knowing."""

    def settled(self, task: Task, trace: Trace | None) -> None:
        """The last word on a task that was taken: its record, or None when there is none and nobody asks any more."""

    def outlook(self) -> Outlook: ...
