"""The second stage: every prompt's samples from the teacher, into the ledger. Asks only for what is not there yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from distill import specs
from distill.errors import InputError, MissingError, RunError
from distill.exchange.import_store import texts_asked
from distill.generate.sight import Sight
from distill.generate.sources import (
    Source,
    left_to_ask,
    missing_ones,
    open_ends,
    require_continuation,
    until_correct,
)
from distill.ledger import RESERVE_BYTES, Entry, Ledger, PutAside, Recovery
from distill.progress import bar, say
from distill.prompts.table import PromptTable
from distill.rundir import RunDir, StageReport
from distill.sampling.budget import Budget, Spent, spent_before
from distill.sampling.requests import Subject, prompts_by_asked
from distill.sampling.scheduler import Limits, Progress, sample
from distill.sampling.subjects import fleet_for, foreign, teacher_subject
from distill.sampling.wanted import ABSENT, Wanted
from distill.specs import Recipe
from distill.teacher_specs import TeacherSpec
from distill.verify import verifiers

LONG_REPLY_BYTES = 128 * 1_024
"""A record of a reply of 32K tokens."""
Round = AbstractContextManager[Source]


Hosting = Callable[[], AbstractContextManager[None]]
"""Has the teacher answer, at RUN/endpoints.json, for as long as it lasts."""


def run(recipe: Recipe, run: RunDir, hosting: Hosting = nullcontext) -> StageReport:
    """Fills `traces/`; `hosting` is entered only where something is to be asked.

    Raises what `sampling.scheduler.sample` raises; everything answered until then is saved.
    """
    teacher = specs.teacher(recipe.teacher, recipe.teacher_overrides)
    settings = recipe.generate
    subject = teacher_subject(teacher, settings.sampling, settings.max_tokens, recipe.seed)
    prompts = PromptTable(run.prompts)
    if not len(prompts):
        raise InputError("there are no prompts", given=str(run.prompts))
    if settings.engine == "imported":
        return _report_imported(run, len(prompts), prompts_by_asked(prompts, subject, texts_asked(run.imported)))
    require_continuation(settings, teacher)
    named = [recipe.verify] if isinstance(recipe.verify, str) else recipe.verify.values()
    verifiers.require(name for name in named if name not in verifiers.BUILT_IN)
    if "correct" in recipe.filter.made and "code" in prompts.kinds():
        _tell_of_sandbox()
    with open_ledger(run, in_flight=settings.max_concurrency) as ledger:
        job = _Job(recipe, teacher, run, ledger, Wanted(prompts, subject, settings.samples, settings.shard), hosting)
        return job.done()


def _tell_of_sandbox() -> None:
    """Where programs cannot be run, filtering will refuse here; traces may be filtered elsewhere."""
    try:
        verifiers.require(("code",))
    except MissingError as error:
        say(f"generate: answers that are programs cannot be judged on this machine: {error.what}")


def open_ledger(run: RunDir, *, in_flight: int = 0, verify: bool = False) -> Ledger:
    """The run's ledger for writing; what it had to put aside is told. Space is kept for `in_flight` replies."""
    reserve = max(RESERVE_BYTES, in_flight * LONG_REPLY_BYTES)
    return Ledger(
        run.traces,
        on_recovery=_report_recovery,
        on_put_aside=_report_put_aside,
        verify=verify,
        reserve_bytes=reserve,
    )


@dataclass(slots=True)
class _Job:
    """One start of sampling: what it is about, and what came of it."""

    recipe: Recipe
    teacher: TeacherSpec
    run: RunDir
    ledger: Ledger
    wanted: Wanted
    hosting: Hosting
    budget: Budget = field(init=False)

    def done(self) -> StageReport:
        """Asks for everything that is missing, and reports on all that is there then."""
        settings, index = self.recipe.generate, self.ledger.index()
        there = self.wanted.tally(index)
        _refuse_foreign(self.ledger, index, there, self.wanted.subject)
        going_on = open_ends(self.wanted, index, settings, self.teacher)
        left = left_to_ask(there, len(going_on), only_failed=settings.retry_failed)
        already = there.total() - there[ABSENT] - there["error"] - len(going_on)
        progress = Progress(len(self.wanted), already=already)
        if already or settings.retry_failed:
            failed = ", those that failed" if settings.retry_failed else ""
            say(f"generate: {already} of {len(self.wanted)} samples are there already, {left} to go{failed}")
        self.budget = Budget(settings, self.teacher, self._spent(), self.wanted.subject.max_tokens)
        told: dict[str, Any] = {}
        lines: list[str] = []
        broken = spared = 0
        with self.hosting() if left else nullcontext():
            for following in self._rounds(index, going_on) if left else ():
                with following as source:
                    self._sample(source, progress)
                    told, lines = {**told, **source.counts()}, [*lines, *source.lines()]
                    broken, spared = source.broken, source.spared
                if progress.stopped_by is not None:
                    break
        index = self.ledger.index()
        unfinished = len(self.wanted.cut(index, lambda entry: entry.unfinished))
        found = self.wanted.tally(index)
        return _report(self.run, found, progress, told, lines, spared=spared, broken=broken, unfinished=unfinished)

    def _rounds(self, index: Mapping[str, Entry], going_on: Mapping[str, int]) -> Iterator[Round]:
        """What is sampled one after the other: verdicts on a reply that goes on would be of no use before it ended."""
        settings = self.recipe.generate
        if settings.until_correct is None or settings.retry_failed:
            only_failed = settings.retry_failed
            yield missing_ones(self.wanted, self.ledger, index, going_on, self.recipe.verify, only_failed=only_failed)
            return
        if going_on:
            yield missing_ones(self.wanted, self.ledger, {}, going_on, self.recipe.verify, only_failed=True)
        yield until_correct(self.wanted, self.ledger, settings, self.run, self.recipe.verify)

    def _sample(self, source: Source, progress: Progress) -> None:
        settings, teacher = self.recipe.generate, self.teacher
        fleet = fleet_for(teacher, settings, self.run, self.ledger)
        by_ids = teacher.continuation == "token_ids"
        limits = Limits(settings.concurrency, settings.max_attempts, settings.slice_tokens, by_ids)
        with bar("generate", progress.total, progress.already) as update:
            sight = Sight(self.run, update, fleet, self.budget, source)
            try:
                sample(source.tasks, self.wanted.subject, fleet, self.ledger, limits, progress, sight, self.budget)
            finally:
                sight.log(progress)

    def _spent(self) -> Spent:
        """What earlier starts paid: exactly where it matters, which takes a look at every record."""
        settings = self.recipe.generate
        if settings.max_tokens_total is None and settings.max_cost is None and self.teacher.price is None:
            return Spent(completion_tokens=self.ledger.tokens)
        return spent_before(self.ledger)


def _refuse_foreign(ledger: Ledger, index: Mapping[str, Entry], there: Counter[str], subject: Subject) -> None:
    """Raises RunError when the ledger holds answers and not one of them belongs to this recipe.

    Such a run was made by another teacher, sampling or set of prompts; going on would buy everything again.
    """
    if there.total() == there[ABSENT] + there["error"]:
        bought = sum(1 for entry in index.values() if entry.answered)
        if bought:
            raise foreign(bought, ledger.folder, subject)


def _report(
    run: RunDir,
    found: Counter[str],
    progress: Progress,
    told: dict[str, Any],
    lines: list[str],
    *,
    spared: int,
    broken: int,
    unfinished: int,
) -> StageReport:
    """Counts over all that the ledger holds for this recipe, and apart from them what this start added."""
    absent, failed = max(0, found[ABSENT] - spared), found["error"]
    answered = found.total() - found[ABSENT] - failed
    counts = {
        "samples": found.total(),
        "answered": answered,
        "cut": found["length"],
        "looped": found["loop"],
        "failed": failed,
        **told,
        "this_start": {
            "answered": progress.answered,
            "retries": progress.retries,
            "completion_tokens": progress.completion_tokens,
            "stopped_by": progress.stopped_by,
            "errors": dict(progress.errors.most_common(10)),
        },
    }
    line = f"{answered} of {found.total()} samples, {found['length']} cut at the token limit"
    said = [line + (f", {found['loop']} stopped as loops" if found["loop"] else ""), *lines]
    if unfinished:
        said.append(f"{unfinished} replies stopped between two slices; the same command goes on with them")
    if progress.stopped_by is not None and (absent or unfinished):
        said.append(f"stopped: {progress.stopped_by}; {absent} samples to go: the same command with a larger limit")
    if failed:
        said.append(f"{failed} samples failed; the same command tries them again, --retry-failed them alone")
    said += [f"  {count} × {what}" for what, count in progress.errors.most_common(3)]
    complete = not (failed or absent or broken or unfinished)
    return StageReport(counts, (run.traces,), tuple(said), complete=complete)


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


def _report_put_aside(found: PutAside) -> None:
    say(f"generate: {found}")
