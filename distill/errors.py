"""Errors that a user can act on: what happened, what was given, what to do. Nothing here knows any room.

Every kind also is the standard exception it refines, so library users can catch either.
"""

from __future__ import annotations

DONE, FAILED, USAGE, GATE, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes of every command."""


class DistillError(Exception):
    """The base of all expected failures; `exit_code` is what the command line returns for it."""

    exit_code = FAILED

    def __init__(self, what: str, *, given: str | None = None, todo: str | None = None) -> None:
        super().__init__(what)
        self.what, self.given, self.todo = what, given, todo

    def __str__(self) -> str:
        lines = [self.what]
        if self.given:
            lines.append(f"  given: {self.given}")
        if self.todo:
            lines.append(f"  to do: {self.todo}")
        return "\n".join(lines)


class UsageError(DistillError, ValueError):
    """Options that contradict each other or name something that does not exist."""

    exit_code = USAGE


class MissingError(DistillError, ImportError):
    """Something that has to be installed first; names the exact command."""


class SpecError(DistillError, ValueError):
    """A recipe or spec with an unknown key, a wrong type or an impossible combination; names file and line."""

    exit_code = USAGE


class InputError(DistillError, ValueError):
    """A data file that cannot be used; names the file and the row."""


class ContractError(DistillError, ValueError):
    """A text that would break the template contract, such as a think tag inside the reasoning."""


class RunError(DistillError, RuntimeError):
    """A run directory that cannot be used as asked: made by another recipe, an unknown format, a missing stage."""


class LockedError(DistillError, BlockingIOError):
    """Another process writes to the same run."""


class DiskFullError(DistillError, OSError):
    """The disk took no more; everything reported as durable before is on it."""


class EndpointError(DistillError, ConnectionError):
    """A teacher endpoint that does not answer, does not know the model, or refuses the key."""


class PublishError(DistillError, ConnectionError):
    """An upload that could not go on, or that must not begin: a token, a name, another's files, a Hub that fails."""


class TrainingError(DistillError, ArithmeticError):
    """Training cannot go on: a loss that is not a number, or nothing to train on."""


class GateError(DistillError, AssertionError):
    """Work finished, but a quality gate did not pass."""

    exit_code = GATE


class Interrupted(DistillError):
    """Stopped by the user after saving; the same command continues. No KeyboardInterrupt: that one has not saved."""

    exit_code = INTERRUPTED


def near(name: str, known: list[str]) -> str:
    """`; did you mean X?` for a misspelt name, or the empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
