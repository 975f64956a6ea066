"""What may come before sampling: a look at every stored trace."""

from __future__ import annotations

from distill.generate.stage import open_ledger
from distill.progress import say
from distill.rundir import RunDir


def put_aside_damage(run: RunDir) -> None:
    """Reads the run's traces in full and compares every hash. Damaged files are put aside and told; their traces are
    wanted again."""
    with run.lock(), open_ledger(run, verify=True) as ledger:
        say(f"generate: {len(ledger.index())} traces are stored; every file was read and compared")
