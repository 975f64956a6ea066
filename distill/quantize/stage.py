"""The sixth stage: smaller files of the student, each examined on the same problems by the program it is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from distill import specs
from distill.contract import CONTRACT_FILE
from distill.errors import UsageError
from distill.examine.examination import examine
from distill.examine.models import model_contract, model_examinee, prompts_around
from distill.examine.scoring import Difference, paired_difference
from distill.files import FileLock
from distill.prompts.stage import evaluation_problems, read_prompts
from distill.quantize.gates import four_bit_gate, loss_gate
from distill.quantize.making import Source, facts_of, make_all, require
from distill.quantize.schemes import SCHEMES
from distill.records import Prompt
from distill.rundir import RunDir, StageReport

Status = Literal["passed", "not passed", "not examined", "no bar"]
"""What is known of a file: `no bar` when no loss was too much, `not examined` when nobody asked it anything."""

REFERENCE = "student-bf16"
"""Name of the score that files are compared with: the student itself on the same problems."""


def run(recipe: specs.Recipe, run: RunDir) -> StageReport:
    """Writes quantized/SCHEME/ and evaluations/student-SCHEME.json for every scheme; gates may fail at the end.

    Files that an earlier start made of this very student are judged with the others, and made again where they are
    not whole or had a fault: what did not pass is not forgotten because the next command names another scheme.
    """
    present = _present(run)
    schemes = [name for name in SCHEMES if name in recipe.quantize.schemes or name in present]
    if not schemes:
        return StageReport({}, (), ("no schemes asked for",))
    require(schemes)
    problems = evaluation_problems(recipe, read_prompts(run.prompts) if run.prompts.is_file() else ())
    problems = problems[: recipe.quantize.limit]
    learner = specs.student(recipe.student, recipe.student_overrides)
    source = Source(run.student, learner.name, model_contract(run.student), _texts(problems), learner.gguf_pre)
    made = make_all(source, schemes, run.quantized)
    results = judged(recipe, run.student, made, run.quantized, run.evaluations, problems, run.evaluations / "student")
    names = [REFERENCE, *(f"student-{SCHEMES[name].folder}" for name in made)]
    outputs = [run.quantized / SCHEMES[name].folder for name in made]
    outputs += [path for name in names for path in (run.evaluations / f"{name}.json", run.evaluations / name)]
    failed = [f"{name}: {reason}" for name, result in results.items() for reason in result["gates"]]
    counts = {SCHEMES[name].folder: result for name, result in results.items()}
    return StageReport(counts, tuple(path for path in outputs if path.exists()), tuple(table(results)), tuple(failed))


def reads(recipe: specs.Recipe, run: RunDir) -> list[Path]:
    return [run.student] if recipe.quantize.schemes or run.quantized.is_dir() else []


def _present(run: RunDir) -> list[str]:
    """Schemes of the files that an earlier start made of the run's present student, with a fault or without."""
    folders = [name for name, scheme in SCHEMES.items() if (run.quantized / scheme.folder).is_dir()]
    student = specs.folder_revision(run.student) if folders else None
    return [name for name in folders if facts_of(run.quantized / SCHEMES[name].folder).get("source") == student]


def quantize_alone(model: Path, recipe: specs.Recipe, out: Path) -> dict[str, dict[str, Any]]:
    """A student's folder outside a run; without problems in the recipe its files are not examined.

    Raises UsageError when the folder is none, InputError when it holds no contract, LockedError when another process
    writes to the same place.
    """
    settings = recipe.quantize
    if not model.is_dir():
        raise UsageError(f"{model} is no run and no model folder", todo="check the path")
    if not settings.schemes:
        raise UsageError("nothing to do", todo=f"give --scheme NAME, one of: {', '.join(SCHEMES)}")
    require(settings.schemes)
    contract = model_contract(model)
    problems = evaluation_problems(recipe, prompts_around(model))[: settings.limit] if recipe.evaluate.prompts else []
    pre = json.loads((model / CONTRACT_FILE).read_text(encoding="utf-8")).get("gguf_pre")
    source = Source(model, model.resolve().name, contract, _texts(problems), pre)
    with FileLock(out / ".lock", "folder"):
        made = make_all(source, settings.schemes, out)
        return judged(recipe, model, made, out, out / "evaluations", problems, None)


def judged(
    recipe: specs.Recipe,
    student: Path,
    made: Mapping[str, Mapping[str, Any]],
    folder: Path,
    evaluations: Path,
    problems: list[Prompt],
    already: Path | None,
) -> dict[str, dict[str, Any]]:
    """Scheme → its facts, score and the gates that it does not pass; a file with a fault is not examined."""
    settings = recipe.quantize
    results: dict[str, dict[str, Any]] = {}
    reference: dict[str, Any] = {}
    for name, facts in made.items():
        scheme = SCHEMES[name]
        gates = [*facts["faults"], four_bit_gate(facts, scheme.bits, settings.min_four_bit_share)]
        result = {key: facts[key] for key in ("bytes", "bits_per_weight", "four_bit_share", "types", "worst_tensor")}
        if facts["faults"]:  # an earlier file of that name may have been examined
            (evaluations / f"student-{scheme.folder}.json").unlink(missing_ok=True)
        elif problems:
            if not reference:
                examinee = model_examinee(student, REFERENCE, recipe, known_as="student")
                reference = _score(recipe, examinee, problems, evaluations, already)
            examinee = model_examinee(folder / scheme.folder, f"student-{scheme.folder}", recipe)
            score = _score(recipe, examinee, problems, evaluations, None)
            found = paired_difference(reference["per_problem"], score["per_problem"])
            gates.append(loss_gate(found, reference["pass_at_1"], settings.min_difference))
            result |= _scored(score, found)
        failed = [gate for gate in gates if gate]
        results[name] = {**result, "gates": failed, "status": _status(failed, result, settings)}
    return results


def _status(failed: list[str], result: Mapping[str, Any], settings: specs.QuantizeSettings) -> Status:
    if failed:
        return "not passed"
    if "pass_at_1" not in result:
        return "not examined"
    return "no bar" if settings.min_difference is None else "passed"


def _score(
    recipe: specs.Recipe, examinee: Any, problems: list[Prompt], evaluations: Path, also: Path | None
) -> dict[str, Any]:
    return examine(
        examinee,
        problems,
        recipe.quantize.samples,
        evaluations,
        benchmark=recipe.benchmark,
        also=also,
        chosen=recipe.verify,
    )


def _scored(score: Mapping[str, Any], found: Difference) -> dict[str, Any]:
    shown = ("pass_at_1", "interval", "unfinished", "mean_tokens", "problems", "samples", "seconds")
    interval = [round(found.low, 5), round(found.high, 5)]
    kept = {key: score[key] for key in shown}
    return {**kept, "difference": round(found.mean, 5), "difference_interval": interval}


def table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The files as lines for a terminal."""
    lines = [
        f"{'file':<12} {'MB':>9} {'bits':>6} {'4-bit':>6} {'pass@1':>7} {'against bf16':>13} {'95% interval':>18}  gate"
    ]
    for name, result in results.items():
        score = " " * 40
        if "pass_at_1" in result:
            low, high = result["difference_interval"]
            interval = f"{low:+.1%} – {high:+.1%}"
            score = f"{result['pass_at_1']:>7.1%} {result['difference']:>+13.1%} {interval:>18}"
        lines.append(
            f"{name:<12} {result['bytes'] / 1e6:>9,.2f} {result['bits_per_weight']:>6.2f} "
            f"{result['four_bit_share']:>6.0%} {score}  {result['status'].replace('not passed', 'NOT PASSED')}"
        )
    return lines


def _texts(problems: list[Prompt]) -> list[str]:
    return [problem.text for problem in problems[:50]]
