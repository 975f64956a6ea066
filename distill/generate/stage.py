"""The second stage: every prompt's samples from the teacher, into the ledger. Asks only for what is not there yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from distill import specs
from distill.errors import InputError, RunError
from distill.exchange.import_store import texts_asked
from distill.generate.budget import Budget, Spent
from distill.generate.sight import Sight
from distill.generate.sources import Source, source_of
from distill.ledger import Ledger, Recovery
from distill.progress import bar, say
from distill.prompts.stage import require_verifier
from distill.prompts.table import PromptTable
from distill.rundir import RunDir, StageReport
from distill.sampling.requests import Subject, prompts_by_asked
from distill.sampling.scheduler import Limits, Progress, sample
from distill.sampling.subjects import fleet_for, foreign, teacher_subject
from distill.sampling.wanted import ABSENT, Wanted
from distill.specs import Recipe
from distill.teacher_specs import TeacherSpec


def run(recipe: Recipe, run: RunDir) -> StageReport:
    """Fills `traces/`. Raises what `sampling.scheduler.sample` raises; everything answered until then is saved."""
    teacher = specs.teacher(recipe.teacher, recipe.teacher_overrides)
    settings = recipe.generate
    subject = teacher_subject(teacher, settings.sampling, settings.max_tokens, recipe.seed)
    prompts = PromptTable(run.prompts)
    if not len(prompts):
        raise InputError("there are no prompts", given=str(run.prompts))
    if settings.engine == "imported":
        return _report_imported(run, len(prompts), prompts_by_asked(prompts, subject, texts_asked(run.imported)))
    if "math" in recipe.filter.required:
        require_verifier(prompts.of_other_kinds(JUDGED), unjudged=("open",))
    with Ledger(run.traces, on_recovery=_report_recovery) as ledger:
        wanted = Wanted(prompts, subject, settings.samples, settings.shard)
        there = wanted.tally(ledger.index())
        _refuse_foreign(ledger, there, subject)
        with source_of(recipe, teacher, wanted, ledger, run) as source:
            progress = Progress(len(wanted), already=len(wanted) - source.missing)
            if progress.already:
                say(f"generate: {progress.already} of {len(wanted)} samples are there already, {source.missing} to go")
            for line in source.lines:
                say(f"generate: {line}")
            if source.missing:
                _sample(recipe, teacher, subject, ledger, source, progress, run)
        return _report(run, wanted.tally(ledger.index()), progress, source)


JUDGED = ("math", "numeric", "open")
"""Kinds of prompts that the math check judges, or lets pass."""


def _sample(
    recipe: Recipe,
    teacher: TeacherSpec,
    subject: Subject,
    ledger: Ledger,
    source: Source,
    progress: Progress,
    run: RunDir,
) -> None:
    settings = recipe.generate
    fleet = fleet_for(teacher, settings, run.endpoints)
    limits = Limits(
        settings.concurrency, settings.max_attempts, settings.slice_tokens, teacher.continuation == "token_ids"
    )
    budget = Budget(settings, teacher, _spent(ledger))
    with bar("generate", progress.total) as update:
        sight = Sight(run, update, fleet, budget, source.right)
        try:
            sample(source.tasks, subject, fleet, ledger, limits, progress, sight, budget)
        finally:
            sight.log(progress)


def _spent(ledger: Ledger) -> Spent:
    """What the records of earlier starts were paid for."""
    replies = sum(1 for entry in ledger.index().values() if entry.tokens)
    return Spent(ledger.prompt_tokens, ledger.tokens, replies)


def _refuse_foreign(ledger: Ledger, there: Counter[str], subject: Subject) -> None:
    """Raises RunError when the ledger holds answers and not one of them belongs to this recipe.

    Such a run was made by another teacher, sampling or set of prompts; going on would buy everything again.
    """
    if there.total() == there[ABSENT] + there["error"]:
        bought = sum(1 for entry in ledger.index().values() if entry.answered)
        if bought:
            raise foreign(bought, ledger.folder, subject)


def _report(run: RunDir, found: Counter[str], progress: Progress, source: Source) -> StageReport:
    """Counts over all that the ledger holds for this recipe, and apart from them what this start added."""
    absent, failed = found[ABSENT] - source.spared, found["error"]
    answered = found.total() - found[ABSENT] - failed
    counts = {
        "samples": found.total(),
        "answered": answered,
        "cut": found["length"],
        "looped": found["loop"],
        "failed": failed,
        **source.counts(),
        "this_start": {
            "answered": progress.answered,
            "retries": progress.retries,
            "completion_tokens": progress.completion_tokens,
            "stopped_by": progress.stopped_by,
            "errors": dict(progress.errors.most_common(10)),
        },
    }
    line = f"{answered} of {found.total()} samples, {found['length']} cut at the token limit"
    lines = [line + (f", {found['loop']} stopped as loops" if found["loop"] else ""), *source.closing_lines()]
    if progress.stopped_by is not None:
        lines.append(f"stopped: {progress.stopped_by}; {absent} samples to go: the same command with a larger limit")
    if failed:
        lines.append(f"{failed} samples failed; the same command tries them again, --retry-failed them alone")
    lines += [f"  {count} × {what}" for what, count in progress.errors.most_common(3)]
    return StageReport(counts, (run.traces,), tuple(lines), complete=not failed and absent <= 0 and not source.open)


def _report_imported(run: RunDir, prompts: int, wanted: Collection[str]) -> StageReport:
    """Nothing is sampled: counts what `distill import` brought, for these prompts and beside them."""
    found = Counter("wanted" if trace.asked in wanted else "other" for trace in run.ledger().traces())
    if not found:
        raise RunError("there are no imported traces", given=str(run.traces), todo="run `distill import` first")
    counts = {"samples": found.total(), "answered": found["wanted"], "cut": 0, "failed": 0, "imported": found.total()}
    lines = [f"{found['wanted']} imported traces of {prompts} prompts"]
    if found["other"]:
        lines.append(f"{found['other']} more belong to prompts that were left out")
    return StageReport(counts, (run.traces,), tuple(lines))


def _report_recovery(recovery: Recovery) -> None:
    say(
        f"generate: the last writer was cut off; {recovery.records} records are whole, "
        f"{recovery.lost_bytes} torn bytes lie in {recovery.quarantined}"
    )
