"""Derives reasoning and answer again from the raw replies, after a teacher spec or the parser has changed."""

from __future__ import annotations

from dataclasses import replace

from distill import specs
from distill.exchange.importing import ENDPOINT
from distill.files import now
from distill.ledger import Ledger
from distill.rundir import RunDir
from distill.sampling.requests import derive


def reparse(recipe: specs.Recipe, run: RunDir) -> tuple[int, int]:
    """(traces looked at, traces changed). A change is a new revision; what was there before stays.

    In an imported run those of our own making are left alone: how their teacher writes is not known there. Whoever
    calls holds the run's lock.
    """
    teacher = specs.teacher(recipe.teacher, recipe.teacher_overrides)
    looked = changed = 0
    with Ledger(run.traces) as ledger:
        for trace in list(ledger.traces()):
            looked += 1
            if recipe.generate.engine == "imported" and not (trace.endpoint or "").startswith(ENDPOINT):
                continue
            derived = derive(trace, teacher.reasoning_format, teacher.forced_prefix)
            if derived != trace:
                ledger.append(replace(derived, revision=ledger.next_revision(trace.key), created=now()))
                changed += 1
    return looked, changed
