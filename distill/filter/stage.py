"""The third stage: a verdict of every check on every trace, and from them what the student is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import specs
from distill.contract import Response
from distill.errors import RunError
from distill.exchange.import_store import texts_asked
from distill.files import replacing, replacing_folder, sha256_of
from distill.filter.checks import Check, Duplicates
from distill.progress import bar
from distill.prompts.stage import read_prompts
from distill.records import Prompt, Trace, Verdict
from distill.rundir import RunDir, StageReport
from distill.sampling.requests import Subject, prompts_by_asked, tasks_by_key
from distill.sampling.subjects import foreign, teacher_subject
from distill.specs import FilterSettings, Recipe
from distill.verify import BROKEN, MATH, Outcome
from distill.verify.form import finished, has_gold_to_check, think_format
from distill.verify.pool import VerifierPool

ROW_GROUP = 1_024
"""Rows of a kept file that are read at a time: tens of megabytes of R1's traces; pyarrow's default is a million."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A trace with its prompt and the outcome of every check that ran."""

    prompt: Prompt
    trace: Trace
    outcomes: dict[str, Outcome]


def run(recipe: Recipe, run: RunDir) -> StageReport:
    """Writes verdicts.parquet and kept/. Raises RunError when there are no traces; keeping none is not an error."""
    teacher = specs.teacher(recipe.teacher, recipe.teacher_overrides)
    subject = teacher_subject(teacher, recipe.generate.sampling, recipe.generate.max_tokens, recipe.seed)
    prompts = read_prompts(run.prompts)
    if recipe.generate.engine == "imported":
        wanted = prompts_by_asked(prompts, subject, texts_asked(run.imported))
        pairs = paired_by_asked(wanted, run.ledger().traces())
    else:
        pairs = paired(tasks_by_key(prompts, subject, recipe.generate.samples), run.ledger().traces())
    if not pairs:
        raise nothing_to_filter(run, subject)
    with bar("filter", len(pairs)) as update:
        judged = []
        for number, item in enumerate(judge(pairs, recipe.filter.checks), start=1):
            judged.append(item)
            update(number)
    write_verdicts(run.verdicts, judged)
    rejections = [rejection(item, recipe.filter) for item in judged]
    kept = [item for item, reason in zip(judged, rejections, strict=True) if reason is None]
    train, heldout = split_by_prompt(kept, recipe.filter.heldout, recipe.seed)
    write_kept(run.kept, train, heldout)
    broken = sum(outcome.reason in BROKEN for item in judged for outcome in item.outcomes.values())
    return _report(run, rejections, train, heldout, broken)


def nothing_to_filter(run: RunDir, subject: Subject) -> RunError:
    """Why there is none: nothing sampled yet, nothing but failures, or all of it by another recipe."""
    entries = run.ledger().index().values()
    bought = sum(entry.answered for entry in entries)
    if bought:
        return foreign(bought, run.traces, subject)
    what = f"all {len(entries)} samples failed" if entries else "there are no traces to filter"
    return RunError(what, given=str(run.traces), todo="run `distill generate` " + ("again" if entries else "first"))


def paired(wanted: Mapping[str, Prompt], traces: Iterable[Trace]) -> list[tuple[Prompt, Trace]]:
    """Traces with their prompts in the order of `wanted` (key → prompt), whatever order they arrived in.

    Paired by the trace's key, not the prompt's id: an edited question never meets the trace of the old one. Failures
    and traces that this recipe does not ask for are left out.
    """
    found = {trace.key: trace for trace in traces if trace.finish_reason != "error" and trace.key in wanted}
    return [(prompt, found[key]) for key, prompt in wanted.items() if key in found]


def paired_by_asked(wanted: Mapping[str, Prompt], traces: Iterable[Trace]) -> list[tuple[Prompt, Trace]]:
    """Imported traces with their prompts, in the order of `wanted` (hash of what was asked → prompt), then of import.

    Whoever wrote them, and however many: nobody chose their number.
    """
    found: dict[str, list[Trace]] = {}
    for trace in traces:
        if trace.finish_reason != "error" and trace.asked in wanted:
            found.setdefault(trace.asked, []).append(trace)
    return [(prompt, trace) for asked, prompt in wanted.items() for trace in found.get(asked, ())]


def judge(pairs: list[tuple[Prompt, Trace]], checks: Iterable[str]) -> Iterator[Judged]:
    """Every check on every pair, in order; the verifiers run in worker processes."""
    wanted = tuple(checks)
    simple: dict[str, Check] = {"finished": finished, "think_format": think_format, "duplicate": Duplicates()}
    with VerifierPool(MATH) as pool:
        if "math" in wanted:
            shortcuts = [has_gold_to_check(prompt, trace) for prompt, trace in pairs]
            open_items = (
                (t.answer, p.answer) for (p, t), shortcut in zip(pairs, shortcuts, strict=True) if shortcut is None
            )
            verified = pool.map(open_items)
        for place, (prompt, trace) in enumerate(pairs):
            outcomes = {name: simple[name](prompt, trace) for name in wanted if name in simple}
            if "math" in wanted:
                outcomes["math"] = shortcuts[place] or next(verified)
            yield Judged(prompt, trace, {name: outcomes[name] for name in wanted})


def rejection(item: Judged, settings: FilterSettings) -> str | None:
    """The first reason why a trace is not trained on, None when it is. An abstention is no pass.

    The recipe's keep rule says which checks have to pass; a cut or malformed reply is left out whatever it says.
    """
    always = (check(item.prompt, item.trace) for check in (finished, think_format))
    for result in (*(item.outcomes[name] for name in settings.required), *always):
        if result.outcome != "pass":
            return result.reason
    return None


def split_by_prompt(kept: list[Judged], share: float, seed: int) -> tuple[list[Judged], list[Judged]]:
    """(train, heldout): a prompt's traces stay together, and a prompt keeps its side when others come or go.

    Where chance would hold out everything, as it can with a handful of prompts, nothing is held out.
    """
    train: list[Judged] = []
    heldout: list[Judged] = []
    for item in kept:
        draw = int(sha256_of([seed, item.prompt.question])[:8], 16) / 2**32
        (heldout if draw < share else train).append(item)
    return (train, heldout) if train else (heldout, [])


def write_verdicts(path: Path, judged: list[Judged]) -> None:
    import pyarrow.parquet as pq

    verdicts = (
        Verdict(item.trace.key, item.trace.content_hash, check, result.outcome, result.reason, result.score)
        for item in judged
        for check, result in item.outcomes.items()
    )
    with replacing(path) as temporary:
        pq.write_table(Verdict.table(verdicts), temporary, compression="zstd")


def kept_row(item: Judged) -> dict[str, Any]:
    """A training example: the question as asked by the user, and the canonical text of the reply."""
    text = Response(item.trace.reasoning, item.trace.answer or "").render()
    return {
        "trace_id": item.trace.key,
        "prompt_id": item.prompt.id,
        "kind": item.prompt.kind,
        "messages": [{"role": "user", "content": item.prompt.text}, {"role": "assistant", "content": text}],
        "domain": item.prompt.domain,
        "tokens": item.trace.completion_tokens,
        "difficulty": item.prompt.difficulty,
    }


def write_kept(folder: Path, train: list[Judged], heldout: list[Judged]) -> None:
    """Replaces `kept/` as a whole: train-00000.parquet and heldout-00000.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [
            ("trace_id", pa.string()),
            ("prompt_id", pa.string()),
            ("kind", pa.string()),
            ("messages", pa.list_(message)),
            ("domain", pa.string()),
            ("tokens", pa.int64()),
            ("difficulty", pa.string()),
        ]
    )
    with replacing_folder(folder) as temporary:
        for name, items in (("train", train), ("heldout", heldout)):
            table = pa.Table.from_pylist([kept_row(item) for item in items], schema=schema)
            pq.write_table(table, temporary / f"{name}-00000.parquet", compression="zstd", row_group_size=ROW_GROUP)


def _report(
    run: RunDir, rejections: list[str | None], train: list[Judged], heldout: list[Judged], broken: int
) -> StageReport:
    """A verifier that broke on `broken` traces leaves the stage incomplete: such verdicts are not kept for good."""
    reasons = Counter(reason for reason in rejections if reason is not None)
    prompts = len({item.prompt.id for item in (*train, *heldout)})
    counts = {
        "traces": len(rejections),
        "kept": len(train) + len(heldout),
        "train": len(train),
        "heldout": len(heldout),
        "prompts_kept": prompts,
        "rejected": dict(reasons.most_common()),
    }
    lines = [f"{counts['kept']} of {len(rejections)} traces kept, from {prompts} prompts"]
    if reasons:
        lines.append("rejected: " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()))
    if broken:
        lines.append(f"the verifier broke on {broken} answers; they are judged again by the next start")
    return StageReport(counts, (run.verdicts, run.kept), tuple(lines), complete=not broken)
