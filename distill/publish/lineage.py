"""From a weight file back to the traces, verdicts, teacher, recipe and code that made it, every hash looked at again.

In a run the walk goes by its manifest; a folder from the Hub carries its own lineage.json. Reads, never writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill import specs
from distill.contract import CONTRACT_FILE
from distill.errors import RunError, UsageError
from distill.files import sha256_once
from distill.ledger.parts import read_parts
from distill.publish.publication import LINEAGE_FILE
from distill.rundir import QUANTIZATION, RunDir, StageState
from distill.verdicts import verdict_rows

Result = Literal["ok", "differs", "gone", "told"]
"""`told`: recorded, and nothing here to compare it with."""
MADE_BY = {
    "quantized": "quantize",
    "student": "train",
    "adapter": "train",
    "untrained": "train",
    "kept": "filter",
    "verdicts.parquet": "filter",
    "suspects.jsonl": "filter",
    "traces": "generate",
    "prompts.parquet": "prompts",
    "left-out.parquet": "prompts",
    "evaluations": "evaluate",
    "report.html": "report",
}
"""First part of a path inside a run → the stage that writes it."""
BEFORE: Mapping[str, tuple[str, ...]] = {
    "prompts": (),
    "generate": ("prompts",),
    "filter": ("generate", "prompts"),
    "train": ("filter", "generate", "prompts"),
    "evaluate": ("train", "filter", "generate", "prompts"),
    "quantize": ("train", "filter", "generate", "prompts"),
    "report": ("quantize", "evaluate", "train", "filter", "generate", "prompts"),
}
"""Stage → those whose work it builds on, the nearest first: a quantized student owes nothing to the evaluation."""


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: what was recorded somewhere with what is there now."""

    what: str
    result: Result
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """One step of the walk: `facts` are what was recorded of it."""

    name: str
    facts: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Lineage:
    """The walk from `subject` to the beginning, its end first."""

    subject: str
    links: tuple[Link, ...]
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> list[str]:
        """What does not hold."""
        return [
            f"{link.name}: {c.what} {c.detail}"
            for link in self.links
            for c in link.checks
            if c.result in ("differs", "gone")
        ]

    def to_json(self) -> dict[str, Any]:
        links = [
            {
                "name": link.name,
                "facts": dict(link.facts),
                "checks": [{"what": c.what, "result": c.result, "detail": c.detail} for c in link.checks],
            }
            for link in self.links
        ]
        return {"subject": self.subject, "holds": not self.broken, "links": links, **self.values}

    def lines(self) -> Iterator[str]:
        signs = {"ok": "✓", "differs": "✗", "gone": "✗", "told": "·"}
        yield self.subject
        for link in self.links:
            yield f"└ {link.name}"
            yield from (f"    {name}: {text}" for name, text in link.facts)
            yield from (f"    {signs[c.result]} {c.what}{f': {c.detail}' if c.detail else ''}" for c in link.checks)
        broken = self.broken
        yield f"{len(broken)} hashes do not hold" if broken else "every hash that could be looked at holds"


def lineage(place: Path) -> Lineage:
    """Of a run, of a file or folder inside one, or of a folder or file that was published.

    Raises UsageError for a place with neither a run nor a lineage.json around it, RunError where one cannot be read.
    """
    if not place.exists():
        raise UsageError(f"there is no {place}", todo="check the path")
    here = place.absolute()
    if _is_run(here):
        return _of_run(RunDir(here), None)
    around = next((folder for folder in here.parents[:4] if _is_run(folder)), None)
    if around is not None:
        return _of_run(RunDir(around), here)
    for folder in (here, *here.parents[:4]):
        if (folder / LINEAGE_FILE).is_file():
            return _of_published(folder, here)
    raise UsageError(
        f"{place} belongs to no run, and no {LINEAGE_FILE} lies beside it",
        todo="give a run, something inside one, or a folder that `distill publish` brought to the Hub",
    )


# --- a run ---------------------------------------------------------------------------------------------------------


def _is_run(folder: Path) -> bool:
    return (folder / "recipe.yaml").is_file() and (folder / "manifest.json").is_file()


def _of_run(run: RunDir, place: Path | None) -> Lineage:
    states = run.stages()
    recipe = specs.kept_in(run.recipe)
    links: list[Link] = []
    walked = tuple(reversed(specs.STAGES))
    scheme = None
    if place is not None:
        stage = _made_by(run, place)
        links.append(_artefact(run, place))
        walked = (stage, *BEFORE[stage])
        first, *rest = place.relative_to(run.path).parts
        scheme = rest[0] if first == "quantized" and rest else None
    for name in walked:
        if name in states:
            links.append(_stage(run, recipe, name, states, scheme if name == "quantize" else None))
        if name in states and name == "filter":
            links.append(_traces(run))
    subject = str(place.relative_to(run.path)) if place is not None else run.path.resolve().name
    return Lineage(subject, tuple(links))


def _made_by(run: RunDir, place: Path) -> str:
    """The stage that wrote a file or folder. Raises UsageError for one that none did."""
    first, *rest = place.relative_to(run.path).parts
    if first not in MADE_BY:
        known = ", ".join(sorted(MADE_BY))
        raise UsageError(f"no stage made {place}", todo=f"give a run, or something in one of its {known}")
    return "quantize" if first == "evaluations" and rest and rest[0].startswith("student-") else MADE_BY[first]


def _artefact(run: RunDir, place: Path) -> Link:
    """The file or folder itself: against what its own folder says, and against the manifest."""
    checks = []
    quantized = _quantized_folder(run, place)
    facts: list[tuple[str, str]] = [("sha256", sha256_once(place))] if place.is_file() else []
    if quantized is not None:
        told = _read(quantized / QUANTIZATION)
        facts += [("scheme", str(told.get("scheme"))), ("for", str(told.get("loaded_by")))]
        named = told.get("files", {}) if place == quantized or place.name in told.get("files", {}) else {}
        wanted = {place.name: named[place.name]} if place.is_file() and place.name in named else named
        checks += [
            _file(quantized / name, digest, f"{name} as {QUANTIZATION} has it") for name, digest in wanted.items()
        ]
        revision = specs.folder_revision(run.student) if run.student.is_dir() else None
        checks.append(_same("made of the present student", told.get("source"), revision))
    return Link(str(place.relative_to(run.path)), tuple(facts), tuple(checks))


def _quantized_folder(run: RunDir, place: Path) -> Path | None:
    parts = place.relative_to(run.path).parts
    folder = run.quantized / parts[1] if parts[0] == "quantized" and len(parts) > 1 else None
    return folder if folder is not None and (folder / QUANTIZATION).is_file() else None


def _stage(
    run: RunDir, recipe: specs.Recipe, name: str, states: Mapping[str, StageState], scheme: str | None = None
) -> Link:
    """`scheme`: of all files that quantize wrote, those of this folder."""
    state = states[name]
    ours = (f"quantized/{scheme}", f"evaluations/student-{scheme}", f"evaluations/student-{scheme}.json")
    wrote = {path: digest for path, digest in state.outputs.items() if scheme is None or path in ours}
    checks = [_output(run, path, digest) for path, digest in wrote.items()]
    made = {path: (stage, digest) for stage, other in states.items() for path, digest in other.outputs.items()}
    for path, read in state.inputs.items():
        if path in made and made[path][0] != name:
            stage, written = made[path]
            checks.append(_same(f"read {path} as {stage} wrote it", read, written))
    if name == "generate":
        checks.append(traces_as_sealed(run))
    checks.append(_recipe(recipe, name, state))
    return Link(name, tuple(_facts(name, state)), tuple(checks))


def _output(run: RunDir, path: str, digest: str) -> Check:
    found = run.hashes(run.path / path)
    return _same(f"wrote {path}", digest, found.get(path))


def _recipe(recipe: specs.Recipe, name: str, state: StageState) -> Check:
    """Whether recipe.yaml and the specs that it names still say what decided this stage."""
    from distill.errors import SpecError

    what = "the recipe as recipe.yaml has it"
    try:
        now = recipe.section_hash(name)
    except SpecError as error:  # a spec that does not lie here any more
        return Check(what, "told", f"{state.recipe_hash[:16]}; {error.what}")
    if now == state.recipe_hash:
        return Check(what, "ok", now[:16])
    own = {key: value for key, value in state.settings.items() if key != "specs"}
    if own == recipe.section(name):
        return Check(what, "told", f"{state.recipe_hash[:16]}; the specs that it names say something else here by now")
    return Check(what, "differs", f"{state.recipe_hash[:16]}, now {now[:16]}")


def _facts(name: str, state: StageState) -> Iterator[tuple[str, str]]:
    yield "state", f"{state.state}, {state.finished or state.started}"
    yield "code", state.versions.get("code") or f"{state.versions.get('distill', 'unknown')}"
    settings, counts = state.settings, state.counts
    named = settings.get("specs", {}) if isinstance(settings.get("specs"), dict) else {}
    if name == "generate":
        teacher = named.get("teacher", {})
        yield "teacher", " ".join(str(teacher[k]) for k in ("model", "revision", "quantization") if teacher.get(k))
        if "models/teacher" in state.inputs:
            yield "weights of the teacher", state.inputs["models/teacher"]
        yield "traces", f"{counts.get('answered', 'unknown')} answered of {counts.get('samples', 'unknown')}"
    elif name == "prompts":
        yield "sources", ", ".join(f"{source} {number}" for source, number in counts.get("sources", {}).items())
        files = {
            path.removeprefix("data/"): digest for path, digest in state.inputs.items() if path.startswith("data/")
        }
        yield from ((f"file {path}", digest) for path, digest in files.items())
    elif name == "filter":
        yield "kept", f"{counts.get('kept', 'unknown')} of {counts.get('traces', 'unknown')}"
    elif name == "train":
        learner = named.get("student", {})
        yield "student", str(learner.get("name", "unknown"))
        base = " ".join(str(learner[key]) for key in ("base", "revision") if learner.get(key))
        yield "base", base or "none: from nothing"
        yield (
            "trained on",
            f"{counts.get('traces', 'unknown')} traces, {counts.get('tokens', 'unknown')} tokens an epoch",
        )
    yield "seed", str(state.seed)


def _traces(run: RunDir) -> Link:
    """Every kept row leads to a record of the ledger, and that one to verdicts on its very content."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept: set[str] = set()
    for path in sorted(run.kept.glob("*.parquet")):
        try:
            kept.update(pq.read_table(path, columns=["trace_id"]).column(0).to_pylist())
        except (pa.ArrowException, KeyError, OSError):
            return Link("traces and verdicts", (), (Check(f"rows of kept/{path.name}", "differs", "not readable"),))
    if not kept or not run.traces.is_dir():
        return Link("traces and verdicts", (), (Check("kept rows", "gone" if not kept else "told"),))
    sealed = traces_as_sealed(run)
    if sealed.result != "ok":
        return Link("traces and verdicts", (), (sealed,))
    there = {trace.key: trace.content_hash for trace in run.ledger().traces() if trace.key in kept}
    judged = {
        row["trace_key"]
        for row in verdict_rows(run, "content_hash")
        if there.get(row["trace_key"]) == row.get("content_hash")
    }
    checks = [
        sealed,
        _counted("kept rows whose trace is in the ledger", len(there), len(kept)),
        _counted("of those, traces with verdicts on their very content", len(judged & kept), len(kept)),
    ]
    return Link("traces and verdicts", (("kept traces", f"{len(kept):,}"),), tuple(checks))


def traces_as_sealed(run: RunDir) -> Check:
    """The manifest stands for the ledger by the hashes that its parts were sealed with: here they are computed anew."""
    sealed = read_parts(run.traces)
    changed = [
        name
        for name, part in sealed.items()
        if not (run.traces / name).is_file() or sha256_once(run.traces / name) != part.sha256
    ]
    return Check(
        "traces as they were sealed", "differs" if changed else "ok", ", ".join(changed) or f"{len(sealed)} files"
    )


def _counted(what: str, found: int, wanted: int) -> Check:
    return Check(what, "ok" if found == wanted else "differs", f"{found:,} of {wanted:,}")


# --- a published folder --------------------------------------------------------------------------------------------


def _of_published(folder: Path, place: Path) -> Lineage:
    told = _read(folder / LINEAGE_FILE)
    files = told.get("files")
    if not isinstance(files, dict) or not isinstance(told.get("stages"), dict):
        raise RunError(
            f"{LINEAGE_FILE} says nothing about files and stages", given=str(folder), todo="get it anew from the Hub"
        )
    inside = str(place.relative_to(folder)) if place != folder else None
    if inside is not None and inside not in files and place.is_file():
        raise UsageError(
            f"{LINEAGE_FILE} does not name {inside}", given=str(folder), todo="give another file of that folder"
        )
    wanted = {path: digest for path, digest in files.items() if inside in (None, path)}
    checks = tuple(_file(folder / path, digest, path) for path, digest in wanted.items())
    links = [Link("files" if inside is None else inside, (("repository", str(told.get("repository"))),), checks)]
    for name in reversed(list(told["stages"])):
        stage = told["stages"][name]
        facts = [(key, _text(value)) for key, value in stage.items() if key not in ("outputs", "inputs")]
        recorded = [Check(f"wrote {path}", "told", digest[:16]) for path, digest in stage.get("outputs", {}).items()]
        links.append(Link(name, tuple(facts), tuple(recorded)))
    contract = folder / CONTRACT_FILE
    if contract.is_file() and "train" in told["stages"]:
        trained = _read(contract).get("trained_on", {})
        kept = told["stages"]["train"].get("inputs", {}).get("kept")
        links.insert(
            1, Link("student", (), (_same("trained on the kept traces of this lineage", trained.get("kept"), kept),))
        )
    return Lineage(str(told.get("repository") or folder.name), tuple(links))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _file(path: Path, digest: str, what: str) -> Check:
    if not path.is_file():
        return Check(what, "gone", digest[:16])
    return _same(what, digest, sha256_once(path))


def _same(what: str, recorded: str | None, found: str | None) -> Check:
    if recorded is None:
        return Check(what, "told", "not recorded")
    if found is None:
        return Check(what, "gone", recorded[:16])
    return Check(
        what,
        "ok" if recorded == found else "differs",
        recorded[:16] if recorded == found else f"{recorded[:16]}, found {found[:16]}",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path.name} cannot be read", given=f"{path}: {error}", todo="restore it from a copy"
        ) from error
    return value
