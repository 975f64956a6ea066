"""The fifth stage: teacher, untrained and trained student on unseen problems, all sampled and judged alike."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill import specs
from distill.contract import Contract
from distill.engines import Engine
from distill.engines.local import LocalEngine
from distill.errors import InputError, RunError, UsageError
from distill.evaluate.scoring import Graded, Score, paired_difference, per_problem, score
from distill.files import sha256_of, write_json
from distill.ledger import Ledger, LedgerReader
from distill.progress import bar, say
from distill.prompts.stage import evaluation_problems, read_prompts, require_gold
from distill.records import Prompt, Trace
from distill.rundir import RunDir, StageReport
from distill.sampling.requests import Subject, tasks_by_key, wanted
from distill.sampling.scheduler import Limits, Progress, sample
from distill.sampling.subjects import engine_for, in_flight, model_subject, teacher_subject
from distill.verify import BROKEN
from distill.verify.pool import VerifierPool

FORMAT = 1
VERIFIER = "distill.verify.math:check_math"
MODEL_CONTRACT = "distill.json"


@dataclass(frozen=True, slots=True)
class Examinee:
    """Someone to be examined: how to ask, the engine that answers, requests in flight, and the contract's hash."""

    name: str
    subject: Subject
    engine: Engine
    concurrency: int
    contract: str


def run(recipe: specs.Recipe, run: RunDir) -> StageReport:
    """Writes evaluations/NAME.json and its samples for every model the recipe names; a gate may fail at the end."""
    settings = recipe.evaluate
    if not settings.prompts:
        raise InputError("the recipe names no problems to evaluate on", todo="add evaluate.prompts to it")
    problems = evaluation_problems(recipe, read_prompts(run.prompts) if run.prompts.is_file() else ())
    scores: dict[str, dict[str, Any]] = {}
    for name in settings.models:
        examinee = _examinee(name, recipe, run)
        scores[name] = examine(examinee, problems, settings.samples, run.evaluations, benchmark=_benchmark_name(recipe))
    counts: dict[str, Any] = {name: {key: result[key] for key in _SHOWN} for name, result in scores.items()}
    gates = []
    student = scores.get("student")
    if settings.min_pass_at_1 is not None and student is not None and student["pass_at_1"] < settings.min_pass_at_1:
        gates.append(
            f"the student's pass@1 is {student['pass_at_1']:.3f}, below evaluate.min_pass_at_1={settings.min_pass_at_1}"
        )
    return StageReport(counts, (run.evaluations,), tuple(table(list(scores.items()))), tuple(gates))


def reads(recipe: specs.Recipe, run: RunDir) -> list[Path]:
    """The models of the run that a recipe wants examined; the teacher is none of them."""
    folders = {"untrained": run.untrained, "student": run.student}
    return [folder for name, folder in folders.items() if name in recipe.evaluate.models]


_SHOWN = ("problems", "samples", "pass_at_1", "stderr", "unfinished", "mean_tokens", "seconds")


def examine(
    examinee: Examinee, problems: list[Prompt], samples: int, folder: Path, *, benchmark: str
) -> dict[str, Any]:
    """Samples every problem, verifies the answers and writes FOLDER/NAME.json; the samples lie in FOLDER/NAME/.

    Samples that an interrupted examination left are used. Raises what sampling raises, RunError for failed samples.
    """
    require_gold(problems)
    started = time.monotonic()
    keys = tasks_by_key(problems, examinee.subject, samples)
    with Ledger(folder / examinee.name) as ledger:
        have = {trace.key for trace in ledger.traces() if usable(trace, examinee.subject.max_tokens)}
        missing = sum(1 for key in keys if key not in have)
        if missing < len(keys):
            there = f"{len(keys) - missing} of {len(keys)} samples are there already, in {folder / examinee.name}"
            say(f"evaluate {examinee.name}: {there}")
        if missing:
            progress = Progress(len(keys), already=len(keys) - missing)
            tasks = wanted(problems, examinee.subject, samples, have)
            limits = Limits(in_flight(examinee.engine, examinee.concurrency), max_attempts=6)
            with bar(f"evaluate {examinee.name}", len(keys)) as update:
                sample(tasks, examinee.subject, examinee.engine, ledger, limits, progress, lambda p: update(p.done))
        traces = [trace for trace in ledger.traces() if trace.key in keys and trace.finish_reason != "error"]
    if len(traces) < len(keys):
        raise RunError(
            f"{len(keys) - len(traces)} of {len(keys)} samples of {examinee.name} failed, so there is no fair score",
            given=first_error(folder / examinee.name),
            todo="mend that and start the same command again; it asks for those alone",
        )
    traces.sort(key=lambda trace: trace.key)
    graded = grade([(keys[trace.key], trace) for trace in traces], examinee.subject.max_tokens)
    result = _result(examinee, problems, samples, benchmark, graded, time.monotonic() - started)
    write_json(folder / f"{examinee.name}.json", result)
    return result


def usable(trace: Trace, max_tokens: int) -> bool:
    """Whether a sample drawn earlier, perhaps under another limit, tells what this limit would have given."""
    if trace.finish_reason == "error":
        return False
    limit = trace.max_tokens or 0
    if trace.finish_reason == "length":
        return limit >= max_tokens
    return trace.completion_tokens is not None or limit <= max_tokens


def first_error(folder: Path) -> str | None:
    return next((trace.error for trace in LedgerReader(folder).traces() if trace.error), None)


def grade(pairs: list[tuple[Prompt, Trace]], max_tokens: int) -> list[Graded]:
    """Right means verified and finished: a reply that was cut is wrong, whatever its text happens to contain.

    Raises RunError when the verifier itself broke: that would count as wrong answers.
    """
    with VerifierPool(VERIFIER) as pool:
        outcomes = list(pool.map((trace.answer, prompt.answer) for prompt, trace in pairs))
    broken = sum(outcome.reason in BROKEN for outcome in outcomes)
    if broken:
        raise RunError(
            f"the verifier broke on {broken} of {len(outcomes)} answers", todo="report this with the samples"
        )
    graded = []
    for (prompt, trace), outcome in zip(pairs, outcomes, strict=True):
        tokens = trace.completion_tokens
        finished = trace.finish_reason == "stop" and (tokens or 0) <= max_tokens
        tokens = min(tokens, max_tokens) if tokens is not None else None  # it may be from an earlier, larger limit
        right = outcome.outcome == "pass" and finished
        graded.append(Graded(prompt.id, right, finished, tokens, abstained=outcome.outcome == "abstain"))
    return graded


def _result(
    examinee: Examinee, problems: list[Prompt], samples: int, benchmark: str, graded: list[Graded], seconds: float
) -> dict[str, Any]:
    """The score and everything it depends on: two scores are comparable only where `conditions` agree."""
    found: Score = score(graded)
    subject = examinee.subject
    return {
        "format": FORMAT,
        "name": examinee.name,
        "model": subject.identity.to_json(),
        "contract": examinee.contract,
        "conditions": {
            "benchmark": benchmark,
            "problems_hash": sha256_of(sorted([p.id, p.text, p.answer] for p in problems))[:16],
            "samples": samples,
            "sampling": subject.sampling.to_json(),
            "max_tokens": subject.max_tokens,
            "verifier": VERIFIER,
        },
        **asdict(found),
        "interval": list(found.interval),
        "seconds": round(seconds, 1),
        "per_problem": per_problem(graded),
    }


def table(scores: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """The scores as lines for a terminal."""
    lines = [
        f"{'model':<12} {'pass@1':>7} {'95% interval':>16} {'unfinished':>11} {'mean tokens':>12} {'problems':>12}"
    ]
    for name, result in scores:
        (low, high), length = result["interval"], result["mean_tokens"]
        size = f"{result['problems']} × {result['samples'] // result['problems']}"
        lines.append(
            f"{name:<12} {result['pass_at_1']:>7.1%} {f'{low:.1%} – {high:.1%}':>16} {result['unfinished']:>11.1%} "
            f"{'unknown' if length is None else f'{length:.1f}':>12} {size:>12}"
        )
    return lines


def compare(a: Path, b: Path) -> tuple[dict[str, Any], list[str]]:
    """The paired difference of two score files, b − a, as values and as lines.

    Raises UsageError when they were not measured alike, InputError for a file that is no score.
    """
    first, second = _read_score(a), _read_score(b)
    differing = [
        f"{key}: {first['conditions'][key]} and {second['conditions'].get(key)}"
        for key in first["conditions"]
        if first["conditions"][key] != second["conditions"].get(key)
    ]
    if differing:
        raise UsageError(
            "these scores cannot be compared: they were measured differently",
            given="; ".join(differing),
            todo="evaluate both on the same problems with the same sampling, samples and max_tokens",
        )
    mean, error = paired_difference(first["per_problem"], second["per_problem"])
    names = [f"{path.stem}" for path in (a, b)]
    lines = table([(name, result) for name, result in zip(names, (first, second), strict=True)])
    low, high = mean - 1.96 * error, mean + 1.96 * error
    interval = f"{low:+.1%} to {high:+.1%}"
    lines.append(f"{names[1]} − {names[0]}: {mean:+.1%} (95% {interval}, paired over {first['problems']} problems)")
    values = {"difference": mean, "stderr": error, "interval": [low, high], "problems": first["problems"]}
    return {"a": str(a), "b": str(b), **values}, lines


def _read_score(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not {"conditions", "per_problem", "pass_at_1"} <= content.keys():
            raise ValueError("conditions, per_problem or pass_at_1 is missing")
        if content.get("format") != FORMAT:
            raise ValueError(f"its format is {content.get('format')}, known is {FORMAT}")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a score: {error}", todo="give a file RUN/evaluations/NAME.json") from error
    return content


def examine_alone(where: str, model: str | None, recipe: specs.Recipe, out: Path) -> dict[str, Any]:
    """A student's folder under the contract beside its weights, or the model of that name at a URL.

    Raises UsageError when it is neither, InputError when the recipe names no problems.
    """
    settings = recipe.evaluate
    if not settings.prompts:
        raise InputError(
            "no problems to evaluate on", todo="give --benchmark NAME|FILE, such as --benchmark arithmetic"
        )
    if where.startswith(("http://", "https://")):
        examinee = _served(where, model, recipe)
    elif Path(where).is_dir():
        examinee = _folder(Path(where), _name_of(Path(where).resolve()), recipe)
    else:
        raise UsageError(f"{where} is no run, no model folder and no URL", todo="check the path")
    around = RunDir(Path(where).resolve().parent)  # a student inside a run must not meet what it was trained on
    problems = evaluation_problems(recipe, read_prompts(around.prompts) if around.prompts.is_file() else ())
    return examine(examinee, problems, settings.samples, out, benchmark=_benchmark_name(recipe))


def _name_of(folder: Path) -> str:
    """A folder's own name; a student inside a run is named after the run as well, since all are called alike."""
    return f"{folder.parent.name}-{folder.name}" if (folder.parent / "recipe.yaml").is_file() else folder.name


def _folder(folder: Path, name: str, recipe: specs.Recipe) -> Examinee:
    settings, contract = recipe.evaluate, model_contract(folder)
    sampling = settings.sampling.sampling(recipe.seed)
    limit = min(settings.max_tokens, context_of(folder))
    subject = model_subject(folder, name, contract, sampling, limit)
    engine = LocalEngine(str(folder), name=f"local/{name}", batch=settings.concurrency)
    return Examinee(name, subject, engine, settings.concurrency, contract.hash)


def _served(url: str, model: str | None, recipe: specs.Recipe) -> Examinee:
    if model is None:
        raise UsageError("a URL needs --model NAME, the model's name at that server", given=url)
    teacher = specs.teacher("openai-compatible", {"model": model})
    served = recipe.model_copy(update={"generate": recipe.generate.model_copy(update={"engine": "openai", "url": url})})
    return _as_teacher(model.replace("/", "--"), teacher, served)


def _as_teacher(name: str, teacher: specs.TeacherSpec, recipe: specs.Recipe) -> Examinee:
    settings = recipe.evaluate
    subject = teacher_subject(teacher, settings.sampling, settings.max_tokens, recipe.seed)
    engine = engine_for(teacher, recipe.generate.model_copy(update={"concurrency": settings.concurrency}))
    told = sha256_of([teacher.system, teacher.instruction, teacher.forced_prefix, teacher.reasoning_format])[:16]
    return Examinee(name, subject, engine, settings.concurrency, told)


def context_of(folder: Path) -> int:
    """Tokens that a model has for prompt and reply together. Raises InputError for a folder without a config."""
    try:
        length: int = json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} is no model folder: its config.json cannot be read", given=str(error)) from error
    return length


def model_contract(folder: Path) -> Contract:
    """The contract a student was saved with. Raises InputError when the folder has none."""
    path = folder / MODEL_CONTRACT
    if not path.is_file():
        raise InputError(
            f"{folder} does not say under which contract it was trained (no {MODEL_CONTRACT})",
            todo="evaluate a student that distill trained, or serve the model and give its URL",
        )
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["contract"]
        return Contract(saved["template"], saved["forced_prefix"], saved["instruction"] or None, saved["system"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read: {type(error).__name__}: {error}", todo="restore it, or train the student again"
        ) from error


def _examinee(name: str, recipe: specs.Recipe, run: RunDir) -> Examinee:
    if name == "teacher":
        return _as_teacher(name, specs.teacher(recipe.teacher, recipe.teacher_overrides), recipe)
    folder = run.untrained if name == "untrained" else run.student
    if not folder.is_dir():
        raise RunError(f"there is no {name} student in this run", given=str(folder), todo="run `distill train` first")
    return _folder(folder, name, recipe)


def _benchmark_name(recipe: specs.Recipe) -> str:
    return "+".join(f"{Path(part.source).stem}:{part.split}" for part in recipe.evaluate.prompts)
