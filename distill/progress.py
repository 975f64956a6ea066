"""Progress on stderr: a live bar on a terminal, a plain line every 30 seconds elsewhere. Knows nothing of any stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_SECONDS = 30.0


class Bar(Protocol):
    """Takes the number done so far and a short remark; cheap enough to call for every item."""

    def __call__(self, done: float, remark: str = "") -> None: ...


@contextmanager
def bar(what: str, total: float | None, begun: float = 0.0) -> Iterator[Bar]:
    """A bar for `total` units of work under the name `what`; None when nobody knows how many will come. `begun` of them
    were done before."""
    if sys.stderr.isatty():
        with _live(what, total, begun) as update:
            yield update
    else:
        yield _lines(what, total, begun)


def say(line: str) -> None:
    """One line for the reader, on stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def quiet_transformers() -> None:
    """No progress bars and no advice of the libraries' own between our lines.

    bitsandbytes warns at every product of an 8-bit layer that bfloat16 is cast to float16.
    """
    import logging

    from transformers.utils import logging as transformers_logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def _live(what: str, total: float | None, begun: float) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}" if total is None else "{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=int(begun), remark="")
        yield lambda done, remark="": progress.update(task, completed=done, remark=remark)


def _lines(what: str, total: float | None, begun: float) -> Bar:
    started = last = time.monotonic()

    def update(done: float, remark: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            detail = f", {remark}" if remark else ""
            if total is None:
                say(f"{what}: {done:.0f}, {now - started:.0f} s{detail}")
                return
            left = (total - done) * (now - started) / (done - begun) if done > begun else 0.0
            say(f"{what}: {done:.0f} of {total:.0f}, {now - started:.0f} s, about {left:.0f} s left{detail}")

    return update
