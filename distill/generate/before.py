"""What may come before sampling: a look at every stored trace, and traces of other runs taken over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill.generate.reusing import reuse
from distill.generate.stage import open_ledger
from distill.progress import say
from distill.rundir import RunDir
from distill.specs import Recipe


def put_aside_damage(run: RunDir) -> None:
    """Reads the run's traces in full and compares every hash. Damaged files are put aside and told; their traces are
    wanted again."""
    with run.lock(), open_ledger(run, verify=True) as ledger:
        say(f"generate: {len(ledger.index())} traces are stored; every file was read and compared")


def take_over(sources: Sequence[Path], run: RunDir, recipe: Recipe) -> None:
    """Traces of other runs that this recipe wants as well, told by run. Raises what `reuse` raises."""
    with run.lock():
        for source in map(RunDir, sources):
            for line in reuse(source, run, recipe).lines(source):
                say(f"generate: {line}")
