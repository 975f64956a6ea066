"""The second stage: every prompt's samples from the teacher, into the ledger. Asks only for what is not there yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from distill import specs
from distill.errors import InputError, RunError
from distill.exchange.import_store import texts_asked
from distill.ledger import Ledger, Recovery
from distill.progress import bar, say
from distill.prompts.stage import read_prompts, require_verifier
from distill.records import Prompt
from distill.rundir import RunDir, StageReport
from distill.sampling.requests import Subject, prompts_by_asked, samples_of, tasks_by_key, wanted
from distill.sampling.scheduler import Limits, Progress, sample
from distill.sampling.subjects import engine_for, foreign, in_flight, teacher_subject


def run(recipe: specs.Recipe, run: RunDir) -> StageReport:
    """Fills `traces/`. Raises what `sampling.scheduler.sample` raises; everything answered until then is saved."""
    teacher = specs.teacher(recipe.teacher, recipe.teacher_overrides)
    settings = recipe.generate
    subject = teacher_subject(teacher, settings.sampling, settings.max_tokens, recipe.seed)
    prompts = list(read_prompts(run.prompts))
    if not prompts:
        raise InputError("there are no prompts", given=str(run.prompts))
    if settings.engine == "imported":
        return _report_imported(run, len(prompts), prompts_by_asked(prompts, subject, texts_asked(run.imported)))
    if "math" in recipe.filter.required:
        require_verifier(prompts, unjudged=("open",))
    with Ledger(run.traces, on_recovery=_report_recovery) as ledger:
        refuse_foreign(ledger, prompts, subject, settings.samples)
        total = sum(samples_of(prompt, settings.samples) for prompt in prompts)
        missing = sum(1 for _ in wanted(prompts, subject, settings.samples, ledger))
        progress = Progress(total, already=total - missing)
        if progress.already:
            say(f"generate: {progress.already} of {total} samples are there already, {missing} to go")
        if missing:
            engine = engine_for(teacher, settings)
            limits = Limits(in_flight(engine, settings.concurrency), settings.max_attempts)
            tasks = wanted(prompts, subject, settings.samples, ledger)
            with bar("generate", total) as update:
                sample(tasks, subject, engine, ledger, limits, progress, lambda p: update(p.done, _remark(p)))
    return _report(run, tasks_by_key(prompts, subject, settings.samples), progress)


def refuse_foreign(ledger: Ledger, prompts: list[Prompt], subject: Subject, samples: int) -> None:
    """Raises RunError when the ledger holds answers and not one of them belongs to this recipe.

    Such a run was made by another teacher, sampling or set of prompts; going on would buy everything again.
    """
    bought = {key for key, entry in ledger.index().items() if entry.answered}
    if not bought:
        return
    missing = sum(1 for _ in wanted(prompts, subject, samples, bought))
    if missing == sum(samples_of(prompt, samples) for prompt in prompts):
        raise foreign(len(bought), ledger.folder, subject)


def _remark(progress: Progress) -> str:
    cut = f", {progress.cut} cut" if progress.cut else ""
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.tokens_per_second:.0f} tokens/s{cut}{failed}"


def _report(run: RunDir, keys: Collection[str], progress: Progress) -> StageReport:
    """Counts over all that the ledger holds for this recipe, and apart from them what this start added."""
    index = run.ledger().index()
    found = Counter(index[key].finish_reason for key in keys if key in index)
    counts = {
        "samples": len(keys),
        "answered": sum(found.values()) - found["error"],
        "cut": found["length"],
        "failed": found["error"],
        "this_start": {
            "answered": progress.answered,
            "retries": progress.retries,
            "completion_tokens": progress.completion_tokens,
            "errors": dict(progress.errors.most_common(10)),
        },
    }
    line = f"{counts['answered']} of {len(keys)} samples, {found['length']} cut at the token limit"
    failed = [f"{found['error']} samples failed; the same command tries them again"] if found["error"] else []
    failed += [f"  {count} × {what}" for what, count in progress.errors.most_common(3)]
    return StageReport(counts, (run.traces,), (line, *failed), complete=not found["error"])


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
