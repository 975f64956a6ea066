"""From gathered values to one HTML page that needs nothing else: no script, no font, no picture from elsewhere.

Whatever a teacher wrote is text here and stays text. Knows nothing about files of a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import wording
from distill.measures import Score
from distill.report import charts
from distill.report.gather import Report, StageFacts
from distill.report.traces import Fate, Ledgered, quantile
from distill.wording import displayable

LIMITS = {"question": 2_000, "answer": 1_500, "reasoning": 3_000, "raw": 6_000, "error": 600}
"""Characters of a text that are shown: with forty traces of 32,000 tokens the page stays below 1.5 MB."""
SYMBOLS = {"done": "✓", "failed": "✕", "interrupted": "‖", "incomplete": "◐", "running": "…", "not started": "○"}
NOTHING = "\u2013"


@dataclass(frozen=True, slots=True)
class Figure:
    """A key figure: what it is, how much, and what that rests on."""

    label: str
    value: str
    remark: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Rejections by one reason: `decided` traces for it alone, `found` traces in which `checks` saw it."""

    name: str
    decided: int
    found: int
    checks: str


def render(report: Report) -> str:
    """The page. The same report gives the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    teacher, student = teacher_name(report), label(report.recipe.student)
    return environment.get_template("page.html.j2").render(
        report=report,
        teacher=teacher,
        student=student,
        sentence=sentence(report, teacher, student),
        standing=standing(report.stages),
        gate=gate(report),
        figures=key_figures(report),
        reasons=reasons(report.ledger) if report.ledger else (),
        charts=drawn(report),
        groups=groups(report.ledger),
        limits=LIMITS,
        symbols=SYMBOLS,
        nothing=NOTHING,
        cut=lambda text, limit: wording.cut(displayable(text), limit),
        one_line=one_line,
        quantile=quantile,
        benchmarks=sorted({score.benchmark for score in report.scores if score.benchmark}),
        words=wording,
    )


def _harmless(value: Any) -> Any:
    """Every value on its way into the page; markup that the template itself made goes through as it is."""
    return displayable(value) if type(value) is str else value


def label(spec: str) -> str:
    """A spec by its name, also where the recipe gives a path: whose machine it was is nobody's business."""
    return Path(spec).stem if spec.endswith((".yaml", ".yml")) else spec.rstrip("/").rpartition("/")[2]


def teacher_name(report: Report) -> str:
    if report.recipe.teacher:
        return label(report.recipe.teacher)
    found = report.ledger.teachers if report.ledger else Counter[str]()
    return ", ".join(label(name) for name, _ in found.most_common(3))


def sentence(report: Report, teacher: str, student: str) -> str:
    """What this run is, from how far it has come."""
    done = {stage.name for stage in report.stages if stage.state == "done"}
    steps = {step.name: step.number for step in report.funnel}
    who = teacher or "a teacher"
    if "train" in done and "Trained on" in steps:
        return f"{student or 'A student'} has learned from {wording.count(steps['Trained on'])} traces of {who}."
    if "Kept" in steps:
        return f"{wording.count(steps['Kept'])} traces of {who} are kept; no student has been trained on them yet."
    if report.ledger is not None:
        return f"{wording.count(report.ledger.answered)} traces of {who}, not filtered yet."
    if report.training or report.scores or "train" in done:
        return f"A training of {student or 'a student'}; the traces it learned from are not in this run."
    return "Nothing has been sampled yet."


def standing(stages: Sequence[StageFacts]) -> tuple[str, str]:
    """(kind, words) of the run as a whole: `good`, `bad` or `open`."""
    for state in ("failed", "interrupted", "incomplete"):
        named = [stage.name for stage in stages if stage.state == state]
        if named:
            return ("bad" if state == "failed" else "open"), f"{named[0]} {state}"
    done = sum(stage.state == "done" for stage in stages)
    if done == len(stages):
        return "good", "all stages done"
    return "open", f"{done} of {len(stages)} stages done"


def gate(report: Report) -> tuple[str, str]:
    """(kind, words) about the quality gates."""
    if report.failed_gates:
        number = len(report.failed_gates)
        return "bad", f"{number} gate{'s' if number > 1 else ''} did not pass"
    done = {stage.name for stage in report.stages if stage.state == "done" and not stage.stale}
    settings = report.recipe.quantize
    files = settings.schemes or report.comparisons
    barred = settings.min_difference is not None or settings.min_four_bit_share is not None
    wanted = {"evaluate"} if report.recipe.evaluate.min_pass_at_1 is not None else set()
    wanted |= {"quantize"} if files and barred else set()
    if not wanted:
        return "open", "no gate set"
    return ("good", "gates passed") if wanted <= done else ("open", "gates not reached")


def key_figures(report: Report) -> list[Figure]:
    steps = {step.name: step.number for step in report.funnel}
    kept, answered = steps.get("Kept"), report.ledger.answered if report.ledger else 0
    some = kept is not None and answered > 0
    starts = sum(stage.starts for stage in report.stages)
    return [
        _score_figure("Student pass@1", report.score("student")),
        _score_figure("Teacher pass@1", report.score("teacher")),
        Figure(
            "Traces kept",
            f"{(kept or 0) / answered:.1%}" if some else NOTHING,
            f"{wording.count(kept or 0)} of {wording.count(answered)}" if some else "not filtered yet",
        ),
        Figure(
            "Total time",
            wording.duration(report.seconds) if report.seconds else NOTHING,
            f"{starts} start{'s' if starts != 1 else ''} of a stage" if starts else "nothing has run yet",
        ),
        _size_figure(report),
    ]


def _size_figure(report: Report) -> Figure:
    smallest = report.smallest
    if smallest is None:
        return Figure("Smallest passing file", NOTHING, "none quantized and passed yet")
    status = report.status(smallest.name)
    bits = f", {smallest.bits_per_weight:.2f} bits per weight" if smallest.bits_per_weight else ""
    name, remark = ("Smallest passing file", "") if status == "passed" else ("Smallest file", f", {status}")
    return Figure(name, wording.size(smallest.bytes), f"{smallest.name}{bits}{remark}")


def _score_figure(name: str, score: Score | None) -> Figure:
    if score is None:
        return Figure(name, NOTHING, "not examined yet")
    return Figure(name, f"{score.pass_at_1:.1%}", f"95% interval {score.low:.1%} to {score.high:.1%}")


def reasons(ledger: Ledgered) -> list[Reason]:
    found: Counter[str] = Counter()
    checks: dict[str, list[str]] = {}
    for (check, reason), number in sorted(ledger.objections.items()):
        found[reason] += number
        checks.setdefault(reason, []).append(check)
    names = {*found, *ledger.reasons}
    rows = [Reason(name, ledger.reasons[name], found[name], ", ".join(checks.get(name, ["form"]))) for name in names]
    return sorted(rows, key=lambda row: (-row.decided, -row.found, row.name))


def groups(ledger: Ledgered | None) -> list[tuple[Fate, Any]]:
    """What there is to look at: the traces of every fate that is shown."""
    return [(fate, ledger.examples[fate]) for fate in shown_fates(ledger)] if ledger else []


def shown_fates(ledger: Ledgered) -> tuple[Fate, ...]:
    """Kept and rejected; unjudged only where nothing was judged."""
    return ("kept", "rejected") if ledger.fates["kept"] + ledger.fates["rejected"] else ("unjudged",)


def one_line(text: str, limit: int = 140) -> str:
    flat = " ".join(text[: limit * 4].split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def drawn(report: Report) -> dict[str, Any]:
    """Every chart as markup, None where there is nothing to show yet."""
    from markupsafe import Markup

    found = {**_length_charts(report.ledger), "loss": None}
    if report.training is not None:
        last = report.training.loss[-1:] or report.training.heldout[-1:]
        title = f"Loss by training step, {last[0][1]:.3f} at the end"
        found["loss"] = charts.losses("loss", title, report.training.loss, report.training.heldout)
    rows = [(s.name, s.pass_at_1, s.low, s.high, s.name == "student") for s in report.scores]
    told = ", ".join(f"{score.name} {score.pass_at_1:.1%}" for score in report.scores)
    found["accuracy"] = charts.intervals("accuracy", f"pass@1 with 95% intervals: {told}", rows)
    seconds = {stage.name: stage.seconds for stage in report.stages if stage.seconds is not None}
    told = ", ".join(f"{name} {wording.duration(value)}" for name, value in seconds.items())
    found["time"] = charts.durations("time", f"Time per stage: {told}", seconds)
    # Made by charts.py, which escapes every text: the one place where markup does not come from the template.
    return {name: Markup(svg) if svg is not None else None for name, svg in found.items()}  # noqa: S704


def _length_charts(ledger: Ledgered | None) -> dict[str, str | None]:
    if ledger is None:
        return {"lengths": None, "reasoning": None}
    shown = {fate: ledger.lengths[fate] for fate in shown_fates(ledger) if fate in ledger.lengths}
    blank: list[Counter[int]] = (
        [Counter()] if list(shown) == ["rejected"] else []
    )  # the second colour is the rejected ones'
    medians = "; ".join(f"{fate}: median {quantile(lengths.tokens, 0.5)}" for fate, lengths in shown.items())
    whole = [*blank, *(lengths.tokens for lengths in shown.values())]
    thought = [*blank, *(lengths.reasoning for lengths in shown.values())]
    return {
        "lengths": charts.lengths("lengths", f"Tokens in a reply; {medians}", whole),
        "reasoning": charts.lengths("reasoning", "Tokens of reasoning in a reply", thought),
    }
