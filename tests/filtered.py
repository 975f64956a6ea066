"""Filtered runs written by hand: traces with the outcomes that a test wants, in the filter's own files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distill.filter.kept import SPLITS, kept_row, writing_kept, writing_verdicts
from distill.keep_rule import rule_of
from distill.records import KEPT, Prompt, Trace, Verdict
from distill.verify import Outcome


@dataclass(frozen=True, slots=True)
class Judged:
    """A trace with its prompt and the outcome of every check."""

    prompt: Prompt
    trace: Trace
    outcomes: Mapping[str, Outcome]


def rejection(item: Judged, keep: str = "verified") -> str | None:
    """Why a trace is not trained on, None when it is."""
    check, reason = rule_of(keep, tuple(item.outcomes)).decides(item.outcomes)
    return reason if check else None


def write_verdicts(path: Path, items: Iterable[Judged]) -> None:
    found: list[Verdict] = []
    for item in items:
        reason = rejection(item)
        fate = Outcome("pass" if reason is None else "fail", reason or "")
        for check, one in {**item.outcomes, KEPT: fate}.items():
            found.append(Verdict(item.trace.key, item.trace.content_hash, check, one.outcome, one.reason, one.score))
    with writing_verdicts(path) as file:
        file.add_table(Verdict.table(found))


def write_kept(folder: Path, train: Iterable[Judged], heldout: Iterable[Judged]) -> None:
    with writing_kept(folder) as files:
        for split, items in zip(SPLITS, (train, heldout), strict=True):
            for item in items:
                files.add(split, kept_row(item.prompt, item.trace.to_json(), None))
