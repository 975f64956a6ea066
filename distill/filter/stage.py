"""The third stage: a verdict of every check on every trace, and from them what the student is trained on.

Three passes over the traces, a bucket at a time: each is looked at by worker processes (what was found lies in
RUN/judged/ and is not looked for again); then duplicates, the keep rule and the selection are decided on some numbers
per trace; then verdicts and kept traces are written. Memory grows by about 200 bytes a trace, most of them the hashes
that duplicates are found by.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import specs
from distill.errors import DistillError, InputError, RunError, SpecError
from distill.exchange.import_store import texts_asked
from distill.files import sha256_of, sha256_once
from distill.filter import checks
from distill.filter.deciding import Decided, decide
from distill.filter.in_buckets import BucketChecks, Sample
from distill.filter.judged import SIGNATURE, Judged, Row
from distill.filter.judging import judge_spec
from distill.filter.kept import KeptFiles, draw_of, kept_row, writing_kept, writing_verdicts
from distill.filter.length import tokenizer_file
from distill.filter.looking import Item, Lens, LocalLooking, Looked, Looking, trace_of
from distill.filter.near import version as signature_version
from distill.filter.placing import ROW, Buckets, Places, each
from distill.filter.suspects import write_suspects
from distill.filter_specs import FilterSettings
from distill.progress import bar
from distill.prompts.stage import benchmark_texts
from distill.prompts.table import PromptTable
from distill.records import Prompt
from distill.rundir import RunDir, StageReport
from distill.sampling.requests import Subject
from distill.sampling.subjects import foreign, teacher_subject
from distill.specs import Recipe
from distill.verify import Outcome
from distill.verify import verifiers as verifying
from distill.verify.verifiers import verifier_of, wants_of

if TYPE_CHECKING:
    import pyarrow as pa


MOST_EXPECTED = 16_384
"""Traces that wait behind one that is being looked at, most of them known already, before no further bucket is read."""


def run(recipe: Recipe, run: RunDir) -> StageReport:
    """Writes verdicts.parquet and kept/. Raises RunError when there are no traces; keeping none is not an error."""
    teacher = specs.teacher(recipe.teacher, recipe.teacher_overrides)
    subject = teacher_subject(teacher, recipe.generate.sampling, recipe.generate.max_tokens, recipe.seed)
    prompts = PromptTable(run.prompts)
    imported = recipe.generate.engine == "imported"
    texts = texts_asked(run.imported) if imported else None
    ledger = run.ledger()
    lens = _lens(recipe, prompts)
    judged = Judged(run.judged, _fingerprints(recipe.filter, lens))
    with contextlib.ExitStack() as stack:
        with BucketChecks(recipe, run.judge) as later, _looking(recipe.filter, lens) as looking:
            if not judged.known:
                looking.start(ledger.text_bytes)
            places = Places(prompts, subject, recipe.generate.samples, imported=imported, texts=texts)
            buckets = stack.enter_context(Buckets(run.path / ".buckets", ledger, places, len(prompts)))
            if not buckets.traces:
                raise nothing_to_filter(run, subject)
            with bar("filter", buckets.traces) as update:
                _Looks(recipe, lens, prompts, buckets, judged, looking, later, update).look()
            suspects = later.suspects()
        judged.finish()
        decided = decide(buckets, judged, prompts, recipe, lens.verifiers)
        report = _write(recipe, run, prompts, buckets, judged, decided)
    write_suspects(run.suspects, suspects)
    told = [f"{len(suspects)} prompts whose gold answer is suspect: {run.suspects}"] if suspects else []
    lines = (*report.lines, *told, *later.judge.lines())
    complete = report.complete and later.judge.complete
    return replace(report, lines=lines, outputs=(*report.outputs, run.suspects), complete=complete)


def require(recipe: Recipe) -> None:
    """Raises what is wrong with the recipe's verifiers, judge or files, before the run is made one of this recipe."""
    named = [recipe.verify] if isinstance(recipe.verify, str) else recipe.verify.values()
    verifying.require(name for name in named if name not in verifying.BUILT_IN)
    if "judge" in recipe.filter.made:
        judge_spec(recipe.filter.judge)
    scores = recipe.filter.score.scores
    if scores is not None and not Path(scores).is_file():
        raise InputError(
            f"there is no file {scores}", todo="give filter.score.scores the path of a JSONL or Parquet file"
        )


def outside(recipe: Recipe) -> dict[str, str]:
    """What the stage reads besides the run's files → its hash: the file of scores, the student's tokenizer, the source
    of verifiers of one's own."""
    found: dict[str, str] = {}
    settings = recipe.filter
    named = [recipe.verify] if isinstance(recipe.verify, str) else recipe.verify.values()
    for name in named:
        if name not in verifying.BUILT_IN:
            with contextlib.suppress(SpecError):  # it is gone, which changes nothing about what it said
                found[f"verifier-{name}"] = verifying.fingerprint(name)
    with contextlib.suppress(OSError, DistillError):
        if settings.score.scores is not None:
            found["scores"] = sha256_once(Path(settings.score.scores))
        if "length" in settings.made:
            found["tokenizer"] = sha256_once(Path(tokenizer_file(recipe)))
    return found


def nothing_to_filter(run: RunDir, subject: Subject) -> RunError:
    """Why there is none: nothing sampled yet, nothing but failures, or all of it by another recipe."""
    entries = run.ledger().index().values()
    bought = sum(entry.answered for entry in entries)
    if bought:
        return foreign(bought, run.traces, subject)
    what = f"all {len(entries)} samples failed" if entries else "there are no traces to filter"
    return RunError(what, given=str(run.traces), todo="run `distill generate` " + ("again" if entries else "first"))


# --- looking at every trace ------------------------------------------------------------------------------------------


def _lens(recipe: Recipe, prompts: PromptTable) -> Lens:
    """Raises what keeps a verifier from judging, before any trace is looked at."""
    settings = recipe.filter
    kinds = prompts.kinds() if "correct" in settings.made else set()
    verifiers = verifying.names_of(kinds, recipe.verify)
    verifying.require(verifiers)
    problems = benchmark_texts(recipe) if "contaminated" in settings.made else ()
    signatures = bool(set(checks.OF_ALL) & set(settings.made)) or settings.select.prefer == "diverse"
    tokenizer = tokenizer_file(recipe) if "length" in settings.made else None
    return Lens(settings, recipe.verify, verifiers, tuple(problems), signatures, tokenizer)


def _looking(settings: FilterSettings, lens: Lens) -> Looking:
    if settings.engine == "ray":
        from distill.filter.on_ray import RayLooking  # an extra that most do without

        return RayLooking(lens, settings.workers, settings.ray_address)
    return LocalLooking(lens, settings.workers)


def _fingerprints(settings: FilterSettings, lens: Lens) -> dict[str, str]:
    """Of the checks whose outcomes are kept for later starts, and of the signatures."""
    more: dict[str, Any] = {
        "contaminated": sha256_of(lens.problems),
        "score": settings.score.scores and sha256_once(Path(settings.score.scores)),
        "length": lens.tokenizer and sha256_once(Path(lens.tokenizer)),
    }
    names = [name for name in settings.made if name not in checks.OF_ALL]
    found = {name: checks.fingerprint(name, settings, more.get(name)) for name in names}
    return {**found, SIGNATURE: sha256_of([signature_version(), settings.across_prompts, lens.signatures])}


def fingerprint_of(verifier: str | None) -> str:
    """16 hex digits of what may change a verifier's verdicts; nothing where there is none."""
    return sha256_of(verifying.fingerprint(verifier))[:16] if verifier is not None else ""


@dataclass(slots=True)
class _Bucket:
    """A bucket whose traces are being looked at."""

    number: int
    rows: list[dict[str, Any]]
    places: list[int]
    prompts: list[Prompt]
    wants: list[str]
    by: list[str]
    found: list[Row | None]
    left: int


@dataclass(slots=True)
class _Looks:
    """Looks at every trace that nothing is known about yet, and writes what was found, a bucket at a time."""

    recipe: Recipe
    lens: Lens
    prompts: PromptTable
    buckets: Buckets
    judged: Judged
    looking: Looking
    later: BucketChecks
    update: Any
    wanted: tuple[str, ...] = ()
    done: int = 0
    expected: deque[tuple[_Bucket, int, Looked | None]] = field(default_factory=deque)
    """Traces in their order; those of which all is known come with it."""

    def look(self) -> None:
        self.wanted = tuple(name for name in self.recipe.filter.made if name not in (*checks.OF_ALL, *checks.OF_BUCKET))
        for looked in self.looking.look(self._items()):
            self._drain()
            bucket, place, _ = self.expected.popleft()
            self._take(bucket, place, looked)
            self._drain()
        self._drain()

    def _items(self) -> Iterator[Item | None]:
        for number, table in each(self.buckets):
            bucket = self._bucket(number, table)
            for place, row in enumerate(bucket.rows):
                while len(self.expected) >= MOST_EXPECTED:  # all behind one that is being looked at
                    yield None
                known = self._known(bucket, place)
                outcomes: Mapping[str, Outcome] = known.outcomes if known is not None else {}
                complete = known is not None and (bool(known.signature) or not self.lens.signatures)
                if known is not None and complete and all(name in outcomes for name in self.wanted):
                    told = Looked(outcomes, known.signature, known.evidence, content=known.content)
                    self.expected.append((bucket, place, told))
                    self._drain()
                else:
                    self.expected.append((bucket, place, None))
                    evidence = dict(known.evidence) if known is not None else {}
                    yield bucket.prompts[place], row, self.wanted, outcomes, evidence

    def _bucket(self, number: int, table: pa.Table) -> _Bucket:
        places: list[int] = table.column(ROW).to_pylist()
        rows = table.select([name for name in table.column_names if not name.startswith("_")]).to_pylist()
        prompts: dict[int, Prompt] = {place: self.prompts.fetch(place) for place in dict.fromkeys(places)}
        names = {place: verifier_of(prompt.kind, self.lens.chosen) for place, prompt in prompts.items()}
        wants = {place: sha256_of(wants_of(prompt, names[place]))[:16] for place, prompt in prompts.items()}
        by = {place: fingerprint_of(name) for place, name in names.items()}
        return _Bucket(
            number,
            rows,
            places,
            [prompts[p] for p in places],
            [wants[p] for p in places],
            [by[p] for p in places],
            [None] * len(rows),
            len(rows),
        )

    def _known(self, bucket: _Bucket, place: int) -> Row | None:
        row = bucket.rows[place]
        if not self.judged.has(row["key"]):
            return None
        content = trace_of(row).content_hash
        return self.judged.find(row["key"], content, bucket.wants[place], bucket.by[place])

    def _drain(self) -> None:
        while self.expected and self.expected[0][2] is not None:
            bucket, place, looked = self.expected.popleft()
            assert looked is not None
            self._take(bucket, place, looked)

    def _take(self, bucket: _Bucket, place: int, looked: Looked) -> None:
        trace = bucket.rows[place]
        bucket.found[place] = Row(
            trace["key"],
            looked.content,
            bucket.wants[place],
            looked.outcomes,
            looked.signature,
            looked.evidence,
            bucket.by[place],
            bucket.places[place],
            trace["completion_tokens"],
        )
        bucket.left -= 1
        if not bucket.left:
            self._finish(bucket)

    def _finish(self, bucket: _Bucket) -> None:
        found = [row for row in bucket.found if row is not None]
        samples = [
            Sample(prompt, trace, dict(row.outcomes))
            for prompt, trace, row in zip(bucket.prompts, bucket.rows, found, strict=True)
        ]
        self.later.make(samples)
        if "correct" in self.recipe.filter.made:
            self.later.look_for_suspects(samples)
        found = [replace(row, outcomes=sample.outcomes) for row, sample in zip(found, samples, strict=True)]
        self.judged.write(bucket.number, found)
        self.done += len(found)
        self.update(self.done)


# --- writing ---------------------------------------------------------------------------------------------------------


def _write(
    recipe: Recipe, run: RunDir, prompts: PromptTable, buckets: Buckets, judged: Judged, decided: Decided
) -> StageReport:
    hold_out = decided.may_hold_out(recipe.filter.heldout)
    kept_prompts: set[int] = set()
    with writing_verdicts(run.verdicts) as verdicts, writing_kept(run.kept) as files:
        for number, table in each(buckets):
            verdicts.add_table(decided.verdicts(number, judged.read(number)))
            _write_kept(recipe, prompts, table, decided, number, files, kept_prompts, hold_out=hold_out)
    return _report(run, decided, files.rows, len(kept_prompts))


def _write_kept(
    recipe: Recipe,
    prompts: PromptTable,
    table: pa.Table,
    decided: Decided,
    number: int,
    files: KeptFiles,
    seen: set[int],
    *,
    hold_out: bool,
) -> None:
    chosen = np.flatnonzero(decided.kept_in(number))
    if not len(chosen):
        return
    for row in table.select([ROW, "key", "reasoning", "answer", "completion_tokens"]).take(chosen).to_pylist():
        place = row[ROW]
        prompt = prompts.fetch(place)
        held = hold_out and draw_of(recipe.seed, prompt.question) < recipe.filter.heldout
        files.add("heldout" if held else "train", kept_row(prompt, row, decided.pass_rate(place)))
        seen.add(place)


def _report(run: RunDir, decided: Decided, rows: Mapping[str, int], prompts_kept: int) -> StageReport:
    """A verifier that broke on some traces leaves the stage incomplete: such verdicts are not kept for good."""
    reasons: Counter[str] = decided.rejected
    kept, traces = sum(rows.values()), decided.traces
    counts = {
        "traces": traces,
        "kept": kept,
        **rows,
        "prompts_kept": prompts_kept,
        "rejected": dict(reasons.most_common()),
    }
    lines = [f"{kept} of {traces} traces kept, from {prompts_kept} prompts"]
    if reasons:
        lines.append("rejected: " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()))
    lines += decided.lines
    if decided.broken and not decided.judged:
        raise RunError(
            f"the verifier broke on every answer that it was given, {decided.broken} of them",
            given=", ".join(decided.verifiers) or None,
            todo="what it said stands above; mend it and run `distill filter` again",
        )
    if decided.broken:
        lines.append(f"the verifier broke on {decided.broken} answers; they are judged again by the next start")
    return StageReport(counts, (run.verdicts, run.kept), tuple(lines), complete=not decided.broken)
