"""The stages in order: skip what is done, run the rest, count, stop on failure. Knows no stage from inside."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import GateError, Interrupted, RunError, UsageError
from distill.files import now, write_text
from distill.progress import say
from distill.rundir import RunDir, StageReport, StageState
from distill.specs import STAGES, Recipe, dump, folder_revision, kept_in

if TYPE_CHECKING:
    from distill.generate.merging import Merged

DATA, MODELS, BESIDE = "data/", "models/", "beside/"
"""Begin the names of inputs outside the run: files of prompts, model folders, and what else decides verdicts."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How a stage is run, and which paths of a run it reads. Those outside of it are its sources' data files."""

    run: Callable[[Recipe, RunDir], StageReport]
    reads: Callable[[Recipe, RunDir], Sequence[Path]]
    about_the_run: bool = False
    """It tells what the manifest says of the others: run again whenever one of those was."""


def stages() -> dict[str, Stage]:
    """Name → stage, in order. Imported here so that the command line starts without them."""
    from distill.evaluate import stage as evaluate
    from distill.filter import stage as filtering
    from distill.generate import stage as generate
    from distill.prompts import stage as prompts
    from distill.quantize import stage as quantize
    from distill.report import stage as report

    return {
        "prompts": Stage(prompts.run, lambda recipe, run: ()),
        "generate": Stage(
            lambda recipe, run: generate.run(recipe, run, _hosting(recipe, run)), lambda recipe, run: (run.prompts,)
        ),
        "filter": Stage(filtering.run, lambda recipe, run: (run.prompts, run.traces)),
        "train": Stage(_train, lambda recipe, run: (run.kept,)),
        "evaluate": Stage(lambda recipe, run: evaluate.run(recipe, run, _hosting(recipe, run)), evaluate.reads),
        "quantize": Stage(quantize.run, quantize.reads),
        "report": Stage(report.run, report.reads, about_the_run=True),
    }


def _hosting(recipe: Recipe, run: RunDir) -> Callable[[], AbstractContextManager[None]]:
    """What has the teacher answer while a stage asks it: its own service, where the recipe wants that."""
    if recipe.generate.engine != "vllm":
        return nullcontext
    from distill.serve.hosting import hosted

    return lambda: hosted(recipe, run)


def _train(recipe: Recipe, run: RunDir) -> StageReport:
    from distill.train import stage  # brings torch, seconds that the other stages need not wait for

    return stage.run(recipe, run)


def run_recipe(
    recipe: Recipe,
    run: RunDir,
    *,
    first: str = STAGES[0],
    last: str = STAGES[-1],
    force: bool = False,
    adopting: bool = True,
) -> None:
    """Runs the stages from `first` to `last` that are not done yet; `force` runs `first` again in any case.

    Without `adopting` the run keeps its own recipe: this one is for a single look at it.

    Raises RunError for a run made by another recipe, GateError when all is done but a gate did not pass, and whatever
    a stage raises; finished stages stay finished.
    """
    names = between(first, last)
    recipe.require(names)  # before anything is paid for
    if "filter" in names:
        from distill.filter.stage import require

        require(recipe)
    with run.lock():
        if adopting:
            adopt(recipe, run, names)
        failed: list[str] = []
        before = run.stages()
        for name in names:
            changed = stages()[name].about_the_run and run.stages() != before
            failed += _run_stage(name, recipe, run, force=(force and name == first) or changed)
    if failed:
        raise GateError(
            "a gate did not pass: " + "; ".join(failed), todo="look at the evaluations before using the student"
        )


def adopt(recipe: Recipe, run: RunDir, stages: Sequence[str] = ()) -> None:
    """Makes the run one of this recipe, before `stages` are run.

    Raises RunError with the differences and the numbers when any trace that was paid for would be left out: that a
    lowered limit buys nothing new does not tell whether it was meant, and a new run with --reuse costs nothing either.
    """
    if run.merging.exists():
        raise RunError(
            f"the merge into {run.path} was cut off: what it has not brought yet would be bought again",
            todo="start the same `distill merge` once more; it completes the run",
        )
    if run.recipe.is_file():
        from distill.generate.changed import refuse_lost

        earlier = recipe_of(run)
        refuse_lost(earlier, recipe, run, stages)
        if dump(earlier) == dump(recipe):
            return
    write_text(run.recipe, dump(recipe))


def recipe_of(run: RunDir) -> Recipe:
    """The recipe a run was made by. Raises RunError when the folder is no run."""
    return kept_in(run.existing().recipe)


def plan(recipe: Recipe, run: RunDir, first: str, last: str) -> dict[str, str]:
    """What `run_recipe` would do, stage by stage, without doing it."""
    names = between(first, last)
    recipe.require(names)
    return {name: "done" if _is_done(name, recipe, run) else "to run" for name in names}


def between(first: str, last: str) -> list[str]:
    """The stages from `first` to `last`. Raises UsageError when there is none of that name, or none between them."""
    for name in (first, last):
        if name not in STAGES:
            raise UsageError(f"unknown stage '{name}'", todo=f"one of: {', '.join(STAGES)}")
    names = list(STAGES[STAGES.index(first) : STAGES.index(last) + 1])
    if not names:
        raise UsageError(f"--from {first} comes after --until {last}")
    return names


def _run_stage(name: str, recipe: Recipe, run: RunDir, *, force: bool) -> list[str]:
    """Runs one stage unless it is done; returns the gates that did not pass."""
    if not force and _is_done(name, recipe, run):
        state = run.stages()[name]
        say(f"{name}: done before ({state.seconds:.0f} s)")
        for line in state.counts.get("_lines", []):
            say(f"  {line}")
        return list(state.counts.get("_failed_gates", []))
    stage = stages()[name]
    missing = [path for path in stage.reads(recipe, run) if not path.exists()]
    if missing:
        raise RunError(
            f"{name} needs {missing[0].name}, which is not in {run.path} yet", todo="run the stages before it"
        )
    started = time.monotonic()
    inputs = inputs_of(name, recipe, run)
    state = run.start_stage(name, recipe.section_hash(name), recipe.decides(name), recipe.seed, inputs)
    try:
        report = stage.run(recipe, run)
    except BaseException as error:
        state.state = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
        _finish(run, name, state, started, {"error": str(error)})
        raise
    state.outputs = run.hashes(*report.outputs)
    state.state = "done" if report.complete else "incomplete"
    counts = {**report.counts, "_lines": list(report.lines), "_failed_gates": list(report.failed_gates)}
    _finish(run, name, state, started, counts)
    say(f"{name}: {state.state} in {state.seconds:.0f} s")
    for line in report.lines:
        say(f"  {line}")
    return list(report.failed_gates)


def merge(runs: Sequence[RunDir], out: RunDir) -> Merged:
    """Makes one run of several; see `generate.merging`."""
    from distill.generate.merging import merge as merge_runs

    return merge_runs(runs, out, inputs_of)


def inputs_of(name: str, recipe: Recipe, run: RunDir) -> dict[str, str]:
    """What a stage would read now, in the run and outside of it → its hash."""
    return {**run.hashes(*stages()[name].reads(recipe, run)), **_outside_hashes(name, recipe)}


def _outside_hashes(name: str, recipe: Recipe) -> dict[str, str]:
    """`data/NUMBER-FILE` → sha256 of the data files that a stage takes prompts from, `models/NAME` → revision of the
    model folders that it loads, for those that exist."""
    from distill.prompts.sources import data_files, state_of

    files = {f"{DATA}{n}-{file.name}": state_of(file) for n, file in data_files(recipe.parts(name)).items()}
    folders = recipe.model_folders(name).items()
    return {
        **files,
        **{f"{MODELS}{what}": folder_revision(folder) for what, folder in folders},
        **{f"{BESIDE}{what}": mark for what, mark in _beside(name, recipe).items()},
    }


def _beside(name: str, recipe: Recipe) -> dict[str, str]:
    """What decides verdicts and is neither prompts nor a model; of stages after the filter, verifiers alone."""
    if name not in ("filter", "evaluate", "quantize"):
        return {}
    from distill.filter.stage import outside

    found = outside(recipe)
    return found if name == "filter" else {what: mark for what, mark in found.items() if what.startswith("verifier-")}


def _finish(run: RunDir, name: str, state: StageState, started: float, counts: dict[str, Any]) -> None:
    state.counts, state.finished = counts, now()
    state.seconds = round((state.seconds or 0.0) + time.monotonic() - started, 2)
    run.write_stage(name, state)


def _is_done(name: str, recipe: Recipe, run: RunDir) -> bool:
    """Whether a stage finished with these settings on these inputs, and its outputs are what it wrote."""
    state = run.stages().get(name)
    if state is None or state.state != "done" or state.recipe_hash != recipe.section_hash(name):
        return False
    outside = _outside_hashes(name, recipe)
    beyond = {key: value for key, value in state.inputs.items() if key.startswith((DATA, MODELS, BESIDE))}
    gone = {key: value for key, value in beyond.items() if key not in outside}  # what is gone has not changed
    inputs = {**run.hashes(*stages()[name].reads(recipe, run)), **outside, **gone}
    outputs = run.hashes(*(run.path / path for path in state.outputs))
    return inputs == state.inputs and outputs == state.outputs
