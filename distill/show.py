"""What there is to see: shipped specs by kind or name, a run's state, its rejected traces. Reads, never writes.

Other files and folders are in show_files.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import yaml

from distill import specs
from distill.errors import UsageError, near
from distill.records import KEPT
from distill.rundir import RunDir, StageState
from distill.show_files import Shown, path_shown, short_count
from distill.student_specs import StudentSpec, positions_of
from distill.verdicts import undecided, verdict_rows


def show(what: str | None, *, rejected: bool, reason: str | None) -> Shown:
    """About everything shipped (None), a kind of spec, one spec, a run, or a file or folder that distill knows.

    Raises UsageError when there is nothing of that name.
    """
    is_run = what is not None and (Path(what) / "recipe.yaml").is_file()
    if (rejected or reason) and not is_run:
        todo = "give the run's folder: distill show RUN --rejected"
        raise UsageError("--rejected and --reason are about a run's traces", given=what, todo=todo)
    if what is None:
        return kinds_shown()
    if what in get_args(specs.SpecKind):
        return kind_shown(what)  # type: ignore[arg-type]  # just checked
    if not is_run:
        named = any(what in specs.names(kind) for kind in get_args(specs.SpecKind))
        return (None if named else path_shown(Path(what))) or spec_shown(what)
    run = RunDir(what)
    if rejected or reason:
        traces = list(rejected_traces(run, reason))
        return {"rejected": traces}, [line for trace in traces for line in rejected_lines(trace)]
    states = {name: asdict(state) for name, state in run.stages().items()}
    return {"run": str(run.path), "stages": states}, list(run_lines(run))


def kinds_shown() -> Shown:
    """The kinds of spec, how many there are of each, and how to go on from here."""
    kinds: tuple[specs.SpecKind, ...] = get_args(specs.SpecKind)
    found = {kind: specs.names(kind) for kind in kinds}
    lines = [f"{kind:<10} {len(names):>3}, such as {names[0]}" for kind, names in found.items() if names]
    some = found["students"][0]
    lines.append(f"`distill show students` lists one kind, `distill show {some}` shows one spec;")
    lines.append("a run, a model folder, a score or a spec file is given by its path")
    return {str(kind): names for kind, names in found.items()}, lines


def kind_shown(kind: specs.SpecKind) -> Shown:
    loaded: dict[str, Any] = {name: specs.load(kind, name) for name in specs.names(kind)}
    if kind == "students":
        return students_shown(loaded)
    lines = [f"{name:<24} {spec.description}" for name, spec in loaded.items()]
    return {kind: {name: spec.description for name, spec in loaded.items()}}, lines


def students_shown(loaded: Mapping[str, StudentSpec]) -> Shown:
    """Students from small to large: weights, tokens of context, licence, and what each starts from."""
    ordered = sorted(loaded.items(), key=lambda item: item[1].parameters or 0)
    values: dict[str, Any] = {}
    lines = [f"{'student':<22}{'weights':>8}{'context':>9}  {'licence':<11} starts from"]
    for name, spec in ordered:
        context = positions_of(spec, spec.architecture) if spec.architecture else None
        weights = short_count(spec.parameters) if spec.parameters else "?"
        positions = f"{context:,}" if context else "?"
        origin = spec.base or "nothing"
        lines.append(f"{name:<22}{weights:>8}{positions:>9}  {spec.license or '?':<11} {origin}")
        values[name] = {
            "description": spec.description,
            "parameters": spec.parameters,
            "context": context,
            "license": spec.license,
            "base": spec.base,
            "learning_rate": spec.learning_rate,
        }
    return {"students": values}, lines


def spec_shown(name: str) -> Shown:
    kinds: tuple[specs.SpecKind, ...] = get_args(specs.SpecKind)
    found = [kind for kind in kinds if name in specs.names(kind)]
    if not found:
        raise UsageError(
            f"nothing is called '{name}': no spec of that name, no run, model folder, score or spec file",
            todo="`distill show teachers` (students, data, recipes) lists specs; all else is given by its path",
        )
    values: dict[str, Any] = {}
    lines: list[str] = []
    for kind in found:
        path, spec = specs.find(kind, name), specs.load(kind, name).model_dump(mode="json")
        values[kind] = {"path": str(path), "spec": spec}
        lines += [f"# {kind}: {path}", yaml.safe_dump(spec, sort_keys=False, allow_unicode=True).rstrip()]
    return values, lines


def run_lines(run: RunDir) -> Iterator[str]:
    states = run.stages()
    yield f"run {run.path}"
    for name in specs.STAGES:
        state = states.get(name)
        if state is None:
            yield f"  {name}: not started"
            continue
        seconds = f", {_spent(state)}" if state.seconds is not None else ""
        yield f"  {name}: {state.state}{seconds}"
        yield from (f"    {line}" for line in state.counts.get("_lines", []))
        if "error" in state.counts:
            yield from (f"    {line}" for line in str(state.counts["error"]).splitlines())


TABLES = ("evaluate", "quantize")
"""Stages whose lines are the result of a run."""


def closing_lines(run: RunDir, stages: Sequence[str]) -> Iterator[str]:
    """The end of a command that went through these stages: how long each took, the results, and what to do next."""
    found = run.stages()
    states = {name: found[name] for name in specs.STAGES if name in found}
    done = {name: state for name, state in states.items() if state.seconds is not None}
    if done:
        total = sum(state.seconds or 0.0 for state in done.values())
        yield ", ".join(f"{name} {_spent(state)}" for name, state in done.items()) + f", in all {total:.0f} s"
    told = [name for name in stages if name in TABLES] or list(stages[-1:])
    for name in told:
        yield from done[name].counts.get("_lines", []) if name in done else []
    if run.student.is_dir():
        yield f"student:    {run.student} (chat with it: `distill chat {run.path}`)"
    if run.quantized.is_dir():
        yield f"quantized:  {run.quantized}"
    if run.report.is_file():
        yield f"report:     {run.report} (open it in a browser)"
    yield f"everything: {run.path} (`distill show {run.path}`)"
    if "report" in stages:
        if run.student.is_dir():
            yield f"to the Hub: `distill publish {run.path} --repo ORG/NAME --dry-run` shows what would go there"
        yield "next, with your own questions and teacher:"
        yield "  distill generate --prompts questions.jsonl --teacher http://localhost:8000/v1 --model NAME"


def _spent(state: StageState) -> str:
    again = f" in {state.starts} starts" if state.starts > 1 else ""
    return f"{state.seconds:.0f} s{again}"


def rejected_traces(run: RunDir, reason: str | None) -> Iterator[dict[str, Any]]:
    """Every trace that is not trained on, or of these every one that `reason` was said against: which one it is, why it
    was left out, all that was said against it, its text."""
    if not run.verdicts.is_file():
        raise UsageError(f"the run {run.path} has no verdicts yet", todo="run `distill filter` first")
    reasons: Counter[str] = Counter()
    wanted: dict[str, dict[str, Any]] = {}
    decided = True
    for key, group in groupby(verdict_rows(run, "detail"), lambda row: row["trace_key"]):
        rows = list(group)
        decided = any(row["check"] == KEPT for row in rows)
        if not decided:
            break
        against = {row["check"]: row["reason"] for row in rows if row["outcome"] != "pass"}
        reasons.update(set(against.values()))
        if KEPT in against and (reason is None or reason in against.values()):
            left_out = against.pop(KEPT)
            details = {row["check"]: row["detail"] for row in rows if row.get("detail")}
            wanted[key] = {"left_out": left_out, "reasons": against, "details": details}
    if not decided:
        raise undecided(run)
    if reason is not None and not wanted:
        known = ", ".join(name for name, _ in reasons.most_common() if name) or "none"
        meant = near(reason, list(reasons)) if reason not in reasons else ", which only kept ones have"
        raise UsageError(f"no trace was rejected for '{reason}'{meant}", todo=f"reasons here: {known}")
    for trace in run.ledger().traces():
        found = wanted.get(trace.key)
        if found is not None:
            place = {"trace_key": trace.key, "prompt_id": trace.prompt_id, "sample": trace.sample}
            yield {**place, **found, "raw": trace.raw}


def rejected_lines(trace: dict[str, Any]) -> Iterator[str]:
    """A rejected trace for a reader: key, why it was left out, what else was said, and the end of its text."""
    told = {check: f"{check}: {reason}" for check, reason in trace["reasons"].items() if reason != trace["left_out"]}
    seen = {check: f"{check} saw {detail}" for check, detail in trace["details"].items()}
    also = "".join(f"; {text}" for text in (*told.values(), *seen.values()))
    which = f"{trace['trace_key'][:12]} sample {trace['sample']} of prompt {trace['prompt_id']}"
    yield f"{which}: {trace['left_out']}{also}"
    yield f"    … {' '.join(trace['raw'].split())[-160:]}"
