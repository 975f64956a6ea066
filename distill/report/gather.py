"""A run directory as frozen values for one page: what is there, and plainly what is not yet. Reads, never writes.

Knows nothing about HTML. Every part is optional, except the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill import measures, specs
from distill.files import reading
from distill.prompts import table
from distill.report.traces import AGAIN, Ledgered, read_ledger
from distill.rundir import QUANTIZATION, RunDir, StageState
from distill.train_specs import Phase, TrainSettings
from distill.wording import count, without_folders

OWN = "report"
"""This stage itself, which cannot tell how it ended."""


@dataclass(frozen=True, slots=True)
class StageFacts:
    """One stage as the manifest has it. `stale` names its inputs that were made anew since."""

    name: str
    state: str
    started: str | None = None
    finished: str | None = None
    seconds: float | None = None
    starts: int = 0
    error: str = ""
    failed_gates: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    seed: int | None = None
    versions: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What leaves, or with a positive number joins, between one step of the funnel and the next."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the funnel: its number is the one before with all `changes` added. `of` scales its bar; 0 draws
    none, as for prompts and tokens, which are counted in another unit."""

    name: str
    number: int
    unit: str
    changes: tuple[Change, ...] = ()
    of: int = 0
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page says."""

    name: str
    recipe: specs.Recipe
    stages: tuple[StageFacts, ...]
    funnel: tuple[Step, ...]
    ledger: Ledgered | None
    filtered: bool
    training: measures.Training | None
    scores: tuple[measures.Score, ...]
    weights: tuple[measures.Weights, ...]
    comparisons: Mapping[str, measures.Comparison]
    phases: tuple[Phase, ...]
    """Of the training that the manifest tells of; empty where it tells of none."""
    left_out: tuple[str, ...]
    """Sentences about what is in the run, but not about its present student."""

    @property
    def seconds(self) -> float:
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def peak_rate(self) -> float:
        """The highest learning rate asked for, or the highest that was logged where nobody knows what was asked for."""
        logged = self.training.rates if self.training is not None else ()
        return max((p.learning_rate for p in self.phases), default=max((rate for _, rate in logged), default=0.0))

    @property
    def failed_gates(self) -> tuple[str, ...]:
        return tuple(gate for stage in self.stages for gate in stage.failed_gates)

    def score(self, name: str) -> measures.Score | None:
        return next((score for score in self.scores if score.name == name), None)

    def status(self, name: str) -> str:
        """Whether a quantized file passed, one of measures.STATUSES."""
        return self.comparisons[name].status if name in self.comparisons else "not examined"

    @property
    def smallest(self) -> measures.Weights | None:
        """The quantized file of the fewest bytes among those that passed, among all where none did."""
        files = [one for one in self.weights if one.name != "student" and one.bytes is not None]
        passed = [one for one in files if self.status(one.name) == "passed"]
        return min(passed or files, key=lambda one: one.bytes or 0.0, default=None)


def gather(recipe: specs.Recipe, run: RunDir) -> Report:
    """Raises RunError for a file that cannot be read, naming it; what does not exist yet is no error."""
    states = run.stages()
    ledger = read_ledger(run)
    files = measures.quantized(run)
    return Report(
        name=run.path.resolve().name,
        recipe=recipe,
        stages=tuple(stage_facts(states)),
        funnel=funnel(recipe, run, states, ledger),
        ledger=ledger,
        filtered=run.verdicts.is_file(),
        training=measures.training(run),
        scores=measures.scores(run, files),
        weights=measures.weights(run, files),
        comparisons=measures.comparisons(states, files),
        phases=phases_of(states),
        left_out=measures.left_out(run, files),
    )


def reads(run: RunDir) -> list[Path]:
    """What of a run decides the page and exists, the manifest aside: it names this stage as well."""
    score_files = sorted(run.evaluations.glob("*.json"))
    about_quantized = [folder / QUANTIZATION for folder in measures.quantized_folders(run)]
    places = (run.recipe, run.prompts, run.traces, run.verdicts, run.kept, run.metrics, *score_files, *about_quantized)
    return [path for path in places if path.exists()]


def stage_facts(states: Mapping[str, StageState]) -> list[StageFacts]:
    """Every stage of a recipe and whatever else the run went through, in order."""
    names = [name for name in dict.fromkeys((*specs.STAGES, *states)) if name != OWN]
    return [_facts(name, states[name], states) if name in states else StageFacts(name, "not started") for name in names]


def _facts(name: str, state: StageState, states: Mapping[str, StageState]) -> StageFacts:
    gates = state.counts.get("_failed_gates", ())
    made = {
        path: digest for other in states.values() if other.state == "done" for path, digest in other.outputs.items()
    }
    return StageFacts(
        name=name,
        state=state.state,
        started=state.started,
        finished=state.finished,
        seconds=state.seconds,
        starts=state.starts,
        error=what_happened(str(state.counts.get("error", ""))),
        failed_gates=tuple(map(str, gates)) if isinstance(gates, list) else (),
        stale=tuple(path for path, digest in state.inputs.items() if made.get(path, digest) != digest),
        seed=state.seed,
        versions=_sorted(state.versions),
        inputs=_sorted(state.inputs),
        outputs=_sorted(state.outputs),
    )


def what_happened(error: str) -> str:
    """The first line of an error: what was given and what to do name places on the machine that ran it."""
    return without_folders(next(iter(error.strip().splitlines()), ""))


def _sorted(mapping: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(key), str(value)) for key, value in mapping.items()))


def funnel(
    recipe: specs.Recipe, run: RunDir, states: Mapping[str, StageState], ledger: Ledgered | None
) -> tuple[Step, ...]:
    """From prompts to tokens; ends where the run does."""
    prompts = _rows(run.prompts, table.AGAIN) if run.prompts.is_file() else 0
    steps: list[Step] = []
    if prompts:
        steps.append(Step("Prompts", prompts, "prompts", remark=_left_out(states)))
        samples = recipe.generate.samples
        asked = _count(states, "generate", "samples") or prompts * samples
        each = f"{samples} sample{'s' if samples > 1 else ''} of every prompt" if asked == prompts * samples else ""
        steps.append(Step("Samples asked", asked, "samples", of=asked, remark=each))
    if ledger is not None:
        steps += _ledger_steps(ledger, steps[-1].number if steps else None)
    if run.kept.is_dir():
        steps += _kept_steps(run, states, ledger, steps[-1].of if steps else 0)  # one scale for all bars
    return tuple(steps)


def _left_out(states: Mapping[str, StageState]) -> str:
    """What the prompts stage took away, the most frequent reason first."""
    reasons = states["prompts"].counts.get("left_out", {}) if "prompts" in states else {}
    told = ", ".join(f"{count(number)} {reason}" for reason, number in reasons.items())
    return f"left out before: {told}" if told else ""


def _ledger_steps(ledger: Ledgered, asked: int | None) -> list[Step]:
    there = ledger.answered + ledger.failed
    scale = asked or there
    missing = max(0, scale - there)
    joined = Change("in the ledger, but not asked for by this recipe", max(0, there - scale))
    changes = _some(Change("failed", -ledger.failed), Change("not answered yet", -missing), joined)
    ended = ledger.ended
    lost = _some(Change("cut at the token limit", -ended["length"]), Change("ran in a loop", -ended["loop"]))
    answered = Step("Traces answered", ledger.answered, "traces", changes, scale)
    return [answered, Step("Finished whole", ended["stop"], "traces", lost, scale)]


def _kept_steps(run: RunDir, states: Mapping[str, StageState], ledger: Ledgered | None, scale: int) -> list[Step]:
    again = AGAIN.format(run=run.path)
    train, heldout = (
        sum(_rows(path, again) for path in run.kept.glob(f"{split}-*.parquet")) for split in ("train", "heldout")
    )
    kept = ledger.fates["kept"] if ledger is not None else train + heldout
    steps = []
    changes: tuple[Change, ...] = ()
    remark = ""
    if ledger is not None:
        unjudged = Change("not judged", -ledger.unjudged_whole)
        changes = _some(Change("rejected though whole", -ledger.rejected_whole), unjudged)
        cut = ledger.fates["rejected"] - ledger.rejected_whole
        remark = f"{count(ledger.fates['rejected'])} rejected in all, {count(cut)} of them unfinished" if cut else ""
    scale = scale or kept
    steps.append(Step("Kept", kept, "traces", changes, scale, remark))
    aside = (Change("held out to measure the loss", -heldout),)
    steps.append(Step("For training", train, "traces", _some(*aside), scale))
    trained, tokens = _count(states, "train", "traces"), _count(states, "train", "tokens")
    if trained is not None and tokens is not None:
        long = _count(states, "train", "too_long") or 0
        special = _count(states, "train", "special_token") or 0
        earlier = Change("the training saw another selection", trained - (train - long - special))
        held = Change("with a special token of the student's in the reply", -special)
        changes = _some(Change("longer than the context", -long), held, earlier)
        steps.append(Step("Trained on", trained, "traces", changes, scale))
        again = f"per epoch, prompts included; {_epochs(phases_of(states))}"
        steps.append(Step("Tokens trained on", tokens, "tokens", remark=again))
    return steps


def _some(*changes: Change) -> tuple[Change, ...]:
    return tuple(change for change in changes if change.number)


def _count(states: Mapping[str, StageState], stage: str, name: str) -> int | None:
    value = states[stage].counts.get(name) if stage in states else None
    return value if isinstance(value, int) else None


def phases_of(states: Mapping[str, StageState]) -> tuple[Phase, ...]:
    """What the latest training went through, by its own settings and those of its student at that time."""
    settings = states["train"].settings if "train" in states else {}
    try:
        student = settings.get("specs", {}).get("student", {})
        section = TrainSettings.model_validate(settings["train"])
        return section.phases_of(learning_rate=student.get("learning_rate"), epochs=student.get("epochs"))
    except (KeyError, TypeError, AttributeError, ValueError):  # another version's, or nobody's
        return ()


def _epochs(phases: Sequence[Phase]) -> str:
    told = [f"{phase.epochs:g} epochs{f' in {phase.name}' if phase.name else ''}" for phase in phases]
    return ", ".join(told) or "an unknown number of epochs"


def _rows(path: Path, again: str) -> int:
    """From the file's own count: nothing of it is read but its end."""
    import pyarrow.parquet as pq

    with reading(path, again), pq.ParquetFile(path) as file:
        rows: int = file.metadata.num_rows
    return rows
