"""The last stage: one self-contained page about the run, `report.html`. Joins reading and rendering, no more."""

from __future__ import annotations

from pathlib import Path

from distill.files import write_text
from distill.report import gather, page
from distill.rundir import RunDir, StageReport
from distill.specs import Recipe


def run(recipe: Recipe, run: RunDir) -> StageReport:
    """Writes report.html, whatever the run has come to. Raises RunError for a file of it that cannot be read."""
    report = gather.gather(recipe, run)
    path = run.report
    write_text(path, page.render(report))
    counts = {"bytes": path.stat().st_size, "traces_shown": sum(len(shown) for _, shown in page.groups(report.ledger))}
    return StageReport(counts, (path,), (f"the page about this run: {path}",))


def reads(recipe: Recipe, run: RunDir) -> list[Path]:
    """What the page is made of, as far as it exists."""
    return gather.reads(run)
