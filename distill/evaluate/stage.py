"""The fifth stage: teacher, untrained and trained student on unseen problems, all sampled and judged alike."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from distill import specs
from distill.engines import Engine
from distill.engines.openai import is_url, required_model
from distill.errors import InputError, RunError, UsageError
from distill.examine.examination import Examinee, examine
from distill.examine.models import model_examinee, prompts_around, run_around
from distill.examine.scores import table
from distill.files import sha256_of
from distill.prompts.stage import evaluation_problems, read_prompts
from distill.rundir import RunDir, StageReport
from distill.sampling.fleet import Fleet
from distill.sampling.subjects import engine_for, fleet_for, teacher_subject
from distill.teacher_specs import TeacherSpec

Hosting = Callable[[], AbstractContextManager[None]]
"""Has the teacher answer, at RUN/endpoints.json, for as long as it lasts."""


def run(recipe: specs.Recipe, run: RunDir, hosting: Hosting = nullcontext) -> StageReport:
    """Writes evaluations/NAME.json and its samples for every model the recipe names; a gate may fail at the end.

    `hosting` is entered while the teacher is examined.
    """
    settings = recipe.evaluate
    if not settings.prompts:
        raise InputError("the recipe names no problems to evaluate on", todo="add evaluate.prompts to it")
    problems = evaluation_problems(recipe, read_prompts(run.prompts) if run.prompts.is_file() else ())
    scores: dict[str, dict[str, Any]] = {}
    for name in settings.models:
        with hosting() if name == "teacher" else nullcontext():
            examinee = _examinee(name, recipe, run)
            scores[name] = examine(
                examinee, problems, settings.samples, run.evaluations, benchmark=recipe.benchmark, chosen=recipe.verify
            )
    counts: dict[str, Any] = {name: {key: result[key] for key in _SHOWN} for name, result in scores.items()}
    gates = []
    bar = settings.min_pass_at_1
    if bar is not None and scores["student"]["pass_at_1"] < bar:
        gates.append(
            f"the student's pass@1 is {scores['student']['pass_at_1']:.3f}, below evaluate.min_pass_at_1={bar}"
        )
    outputs = [run.evaluations / made for name in scores for made in (f"{name}.json", name)]
    return StageReport(counts, tuple(outputs), tuple(table(list(scores.items()))), tuple(gates))


def reads(recipe: specs.Recipe, run: RunDir) -> list[Path]:
    """The models of the run that a recipe wants examined; the teacher is none of them."""
    folders = {"untrained": run.untrained, "student": run.student}
    return [folder for name, folder in folders.items() if name in recipe.evaluate.models]


_SHOWN = ("problems", "samples", "pass_at_1", "stderr", "unfinished", "mean_tokens", "seconds")


def examine_alone(where: str, model: str | None, recipe: specs.Recipe, out: Path) -> dict[str, Any]:
    """A student's folder under the contract beside its weights, or the model of that name at a URL.

    Raises UsageError when it is neither, InputError when the recipe names no problems.
    """
    settings = recipe.evaluate
    if not settings.prompts:
        raise InputError(
            "no problems to evaluate on", todo="give --benchmark NAME|FILE, such as --benchmark arithmetic"
        )
    if is_url(where):
        examinee = _served(where, required_model(where, model), recipe)
    elif Path(where).exists():
        examinee = model_examinee(Path(where), _name_of(Path(where).resolve()), recipe)
    else:
        raise UsageError(f"{where} is no run, no model folder, no GGUF file and no URL", todo="check the path")
    problems = evaluation_problems(recipe, prompts_around(Path(where)))
    return examine(examinee, problems, settings.samples, out, benchmark=recipe.benchmark, chosen=recipe.verify)


def _name_of(place: Path) -> str:
    """A model's own name; one inside a run is named after the run as well, since all are called alike."""
    around = run_around(place)
    name = place.stem if place.is_file() else place.name
    return f"{around.path.name}-{name}" if around is not None else name


def _served(url: str, model: str, recipe: specs.Recipe) -> Examinee:
    teacher = specs.teacher("openai-compatible", {"model": model})
    served = recipe.model_copy(update={"generate": recipe.generate.model_copy(update={"engine": "openai", "url": url})})
    return _as_teacher(model.replace("/", "--"), teacher, served)


def _as_teacher(name: str, teacher: TeacherSpec, recipe: specs.Recipe, run: RunDir | None = None) -> Examinee:
    settings = recipe.evaluate
    subject = teacher_subject(teacher, settings.sampling, settings.max_tokens, recipe.seed)
    sampled = recipe.generate.model_copy(update={"concurrency": settings.concurrency})
    engine: Engine | Fleet
    if recipe.generate.engine == "vllm" and run is not None:
        engine = fleet_for(teacher, sampled, run, ())
    else:
        engine = engine_for(teacher, sampled)
    told = sha256_of([teacher.system, teacher.instruction, teacher.forced_prefix, teacher.reasoning_format])[:16]
    return Examinee(name, subject, engine, settings.concurrency, told)


def _examinee(name: str, recipe: specs.Recipe, run: RunDir) -> Examinee:
    if name == "teacher":
        return _as_teacher(name, specs.teacher(recipe.teacher, recipe.teacher_overrides), recipe, run)
    folder = run.untrained if name == "untrained" else run.student
    if not folder.is_dir():
        raise RunError(f"there is no {name} student in this run", given=str(folder), todo="run `distill train` first")
    return model_examinee(folder, name, recipe)
