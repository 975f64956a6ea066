"""The sixth stage: smaller files of the student, each examined on the same problems by the program it is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill import specs
from distill.errors import UsageError
from distill.examine.examination import examine
from distill.examine.models import MODEL_CONTRACT, model_contract, model_examinee
from distill.prompts.stage import evaluation_problems, read_prompts
from distill.quantize.gates import Difference, difference, four_bit_gate, loss_gate
from distill.quantize.making import Source, make_all, require
from distill.quantize.schemes import SCHEMES
from distill.records import Prompt
from distill.rundir import RunDir, StageReport

REFERENCE = "student-bf16"
"""Name of the score that files are compared with: the student itself on the same problems."""


def run(recipe: specs.Recipe, run: RunDir) -> StageReport:
    """Writes quantized/SCHEME/ and evaluations/student-SCHEME.json for every scheme; gates may fail at the end."""
    settings = recipe.quantize
    if not settings.schemes:
        return StageReport({}, (), ("no schemes asked for",))
    require(settings.schemes)
    problems = evaluation_problems(recipe, read_prompts(run.prompts) if run.prompts.is_file() else ())[: settings.limit]
    learner = specs.student(recipe.student, recipe.student_overrides)
    source = Source(run.student, learner.name, model_contract(run.student), _texts(problems), learner.gguf_pre)
    made = make_all(source, settings.schemes, run.quantized)
    already = run.evaluations / "student"
    results = judged(recipe, run.student, made, run.quantized, run.evaluations, problems, already)
    names = [REFERENCE, *(f"student-{SCHEMES[name].folder}" for name in made)]
    outputs = [run.quantized / SCHEMES[name].folder for name in made]
    outputs += [path for name in names for path in (run.evaluations / f"{name}.json", run.evaluations / name)]
    failed = [f"{name}: {reason}" for name, result in results.items() for reason in result["gates"]]
    counts = {SCHEMES[name].folder: result for name, result in results.items()}
    return StageReport(counts, tuple(path for path in outputs if path.exists()), tuple(table(results)), tuple(failed))


def reads(recipe: specs.Recipe, run: RunDir) -> list[Path]:
    return [run.student] if recipe.quantize.schemes else []


def quantize_alone(model: Path, recipe: specs.Recipe, out: Path) -> dict[str, dict[str, Any]]:
    """A student's folder outside a run; without problems in the recipe its files are not examined.

    Raises UsageError when the folder is none, InputError when it holds no contract.
    """
    settings = recipe.quantize
    if not model.is_dir():
        raise UsageError(f"{model} is no run and no model folder", todo="check the path")
    if not settings.schemes:
        raise UsageError("nothing to do", todo=f"give --scheme NAME, one of: {', '.join(SCHEMES)}")
    require(settings.schemes)
    problems = evaluation_problems(recipe, ())[: settings.limit] if recipe.evaluate.prompts else []
    pre = json.loads((model / MODEL_CONTRACT).read_text(encoding="utf-8")).get("gguf_pre")
    source = Source(model, model.resolve().name, model_contract(model), _texts(problems), pre)
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
        if problems and not facts["faults"]:
            if not reference:
                examinee = model_examinee(student, REFERENCE, recipe, known_as="student")
                reference = _score(recipe, examinee, problems, evaluations, already)
            examinee = model_examinee(folder / scheme.folder, f"student-{scheme.folder}", recipe)
            score = _score(recipe, examinee, problems, evaluations, None)
            found = difference(reference["per_problem"], score["per_problem"])
            gates.append(loss_gate(found, reference["pass_at_1"], settings.min_difference))
            result |= _scored(score, found)
        results[name] = {**result, "gates": [gate for gate in gates if gate]}
    return results


def _score(
    recipe: specs.Recipe, examinee: Any, problems: list[Prompt], evaluations: Path, also: Path | None
) -> dict[str, Any]:
    return examine(examinee, problems, recipe.quantize.samples, evaluations, benchmark=recipe.benchmark, also=also)


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
            f"{result['four_bit_share']:>6.0%} {score}  {'NOT PASSED' if result['gates'] else 'passed'}"
        )
    return lines


def _texts(problems: list[Prompt]) -> list[str]:
    return [problem.text for problem in problems[:50]]
