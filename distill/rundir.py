"""A run directory: its paths, its manifest and its lock. Knows where things lie, not what they mean."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from distill import __version__
from distill.code_version import code_version
from distill.errors import RunError
from distill.files import FileLock, now, sha256_tree, write_json
from distill.ledger import LedgerReader

FORMAT = 1
"""Version of the layout; a run of a newer one is refused."""
QUANTIZATION = "quantization.json"
"""In every folder of RUN/quantized: what lies there, and how it was made."""


@dataclass(slots=True)
class StageState:
    """One stage in the manifest. Hashes map a path inside the run to the sha256 of its content."""

    state: str
    started: str
    recipe_hash: str
    settings: dict[str, Any]
    """Everything that decided the stage's work: its part of the recipe, and the specs named there."""
    seed: int
    finished: str | None = None
    seconds: float | None = None
    """Of all starts together; what a start that was killed had taken is not known."""
    starts: int = 1
    """How often this very work was started: more than once after an interruption or a failure."""
    counts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageReport:
    """What a stage did: counts for the manifest, outputs by path, lines for the reader, gates that did not pass.

    An incomplete one (failed samples) does not stop those after it, and is taken up again by the next start.
    """

    counts: dict[str, Any]
    outputs: tuple[Path, ...] = ()
    lines: tuple[str, ...] = ()
    failed_gates: tuple[str, ...] = ()
    complete: bool = True


class RunDir:
    """Paths and state of one run. Nothing is created before something is written."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.manifest = self.path / "manifest.json"
        self.imported = self.path / "imported"
        self.prompts = self.path / "prompts.parquet"
        self.left_out = self.path / "left-out.parquet"
        self.traces = self.path / "traces"
        self.endpoints = self.path / "endpoints.json"
        self.early_verdicts = self.path / "early-verdicts.log"
        self.batches = self.path / "batches.jsonl"
        self.merging = self.path / ".merging"
        self.verdicts = self.path / "verdicts.parquet"
        self.judged = self.path / "judged"
        self.judge = self.path / "judge"
        self.suspects = self.path / "suspects.jsonl"
        self.kept = self.path / "kept"
        self.encoded = self.path / "encoded"
        self.student = self.path / "student"
        self.adapter = self.path / "adapter"
        self.untrained = self.path / "untrained"
        self.checkpoints = self.path / "checkpoints"
        self.evaluations = self.path / "evaluations"
        self.quantized = self.path / "quantized"
        self.report = self.path / "report.html"
        self.metrics = self.path / "metrics.jsonl"
        self.logs = self.path / "logs"

    def ledger(self) -> LedgerReader:
        return LedgerReader(self.traces)

    def lock(self) -> FileLock:
        """The run's lock, not yet taken; raises LockedError on entering when another process holds it."""
        return FileLock(self.path / ".lock", "run")

    def existing(self) -> RunDir:
        """This run, known to be one. Raises RunError when there is no recipe in it."""
        if not self.recipe.is_file():
            raise RunError(
                f"{self.path} is no run directory: it has no recipe.yaml",
                todo="give the folder that `distill run`, `generate` or `import` wrote with --out; if one of them was "
                "cut off there, start it again",
            )
        return self

    def stages(self) -> dict[str, StageState]:
        """Stage name → state, in the order in which they were first started."""
        if not self.manifest.is_file():
            return {}
        try:
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
            if content["format"] > FORMAT:
                raise RunError(
                    f"this run was written by a newer distill (format {content['format']}, known up to {FORMAT})",
                    given=str(self.manifest),
                    todo="upgrade distill",
                )
            found = {name: StageState(**state) for name, state in content["stages"].items()}
            for name, state in found.items():
                for part in ("settings", "counts", "inputs", "outputs"):
                    if not isinstance(getattr(state, part), dict):
                        raise ValueError(f"{name}.{part} is no object")
            return found
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            given = f"{self.manifest}: {error}"
            raise RunError("the manifest cannot be read", given=given, todo="restore it from a copy") from error

    def write_stage(self, name: str, state: StageState) -> None:
        """Puts one stage's state into the manifest, atomically."""
        stages = {**self.stages(), name: state}
        write_json(self.manifest, {"format": FORMAT, "stages": {key: asdict(value) for key, value in stages.items()}})

    def start_stage(
        self, name: str, recipe_hash: str, settings: dict[str, Any], seed: int, inputs: Mapping[str, str]
    ) -> StageState:
        """A stage begins, or goes on: the seconds of earlier starts count while settings and inputs are the same."""
        state = StageState("running", now(), recipe_hash, settings, seed, inputs=dict(inputs), versions=versions())
        before = self.stages().get(name)
        if (
            before is not None
            and before.state != "done"
            and (before.recipe_hash, before.inputs)
            == (
                recipe_hash,
                state.inputs,
            )
        ):
            state.seconds, state.starts = before.seconds, before.starts + 1
        self.write_stage(name, state)
        return state

    def hashes(self, *paths: Path) -> dict[str, str]:
        """Path inside the run → sha256 of its content, for those that exist. A folder counts with all its files,
        the ledger by the hashes that it keeps: there may be terabytes of traces."""
        there = [path for path in paths if path.exists()]
        return {
            str(path.relative_to(self.path)): self.ledger().digest() if path == self.traces else sha256_tree(path)
            for path in there
        }

    def log_metrics(self, stage: str, values: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl; a record for machines, not a durable fact. A number that JSON cannot say
        (NaN, infinite) is null there."""
        self.path.mkdir(parents=True, exist_ok=True)
        said = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now(), "stage": stage, **said}, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Versions of what decides results: distill, the commit of its code, Python and the installed libraries."""
    found = {"distill": __version__, "code": code_version(), "python": platform.python_version()}
    for name in ("torch", "transformers", "tokenizers", "math-verify", "pyarrow", "bitsandbytes", "llama-cpp-python"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
