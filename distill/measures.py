"""What was measured: loss by step, scores, sizes of weight files, comparisons. Reads files; knows nothing about pages.

What another tool wrote about a quantized file is taken leniently: a value that is not there is unknown, no error.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import safetensors_file
from distill.errors import InputError, RunError
from distill.rundir import QUANTIZATION, RunDir, StageState
from distill.specs import folder_revision

FIRST = ("teacher", "untrained", "student", "student-bf16")
"""Models in the order in which a reader asks for them; quantized ones follow, then whatever else was examined."""
STATUSES = ("passed", "not passed", "not examined", "no bar")
"""What the quantize stage says of a file."""
REFERENCE = "student-bf16"
"""The score that those of the files are compared with: it has no folder of its own."""


@dataclass(frozen=True, slots=True)
class Training:
    """The latest training: (step, loss) for both losses, and (step, rate)."""

    steps: int
    loss: tuple[tuple[int, float], ...]
    heldout: tuple[tuple[int, float], ...]
    rates: tuple[tuple[int, float], ...]
    unreadable: int
    """Lines of metrics.jsonl that a killed writer left torn."""


@dataclass(frozen=True, slots=True)
class SourceScore:
    """pass@1 with its 95% interval on the problems of one source."""

    source: str
    pass_at_1: float
    low: float
    high: float
    problems: int


@dataclass(frozen=True, slots=True)
class Score:
    """How one model did: pass@1 with its 95% interval, shares of 1, samples per problem."""

    name: str
    pass_at_1: float
    low: float
    high: float
    unfinished: float | None
    mean_tokens: float | None
    problems: int
    samples: int
    benchmark: str
    sources: tuple[SourceScore, ...] = ()
    """By source, in the order of their names; empty in a file that was written before they were told apart."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A weight file, or a folder of them. `types`: name of a tensor type → number of weights in it."""

    name: str
    scheme: str
    bytes: float | None
    bits_per_weight: float | None
    types: dict[str, int]
    four_bit_share: float | None
    loaded_by: str
    worst_tensor: str
    worst_error: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A quantized student against the student on the same problems. `gates`: why it did not pass, else empty."""

    difference: float | None
    low: float | None
    high: float | None
    gates: tuple[str, ...]
    status: str
    """One of STATUSES."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What lies in RUN/quantized: folder → its quantization.json, and the folders made of an earlier student."""

    folders: Mapping[str, Mapping[str, Any]]
    earlier: tuple[str, ...]
    student: bool
    """Whether there is a student at all: without one nothing can be told to be of an earlier one."""

    def has(self, name: str) -> bool:
        """Whether what is known of a file of that name is about the present student."""
        return name in self.folders or not self.student

    def has_score(self, name: str) -> bool:
        """The same of a score; those of no quantized file are not asked about here."""
        return not name.startswith("student-") or name == REFERENCE or self.has(name.removeprefix("student-"))


def training(run: RunDir) -> Training | None:
    """None when nothing was logged. The file is appended to by every start: a later line about a step takes the place
    of what was logged for it and for the steps after it, and another number of steps is another training."""
    if not run.metrics.is_file():
        return None
    total, last, unreadable = 0, 0, 0
    found: dict[str, dict[int, float]] = {name: {} for name in ("loss", "heldout_loss", "lr")}
    with run.metrics.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            values = _logged(line)
            if values is None:
                unreadable += 1
            elif values.get("stage") == "train" and number(values.get("step")) and number(values.get("steps")):
                step, steps = int(values["step"]), int(values["steps"])
                again = step < last or any(step in found[name] for name in found if name in values)
                if again or steps != total:
                    first = step if steps == total else 0
                    found = {name: {k: v for k, v in rows.items() if k < first} for name, rows in found.items()}
                total, last = steps, step
                for name, rows in found.items():
                    value = number(values.get(name))
                    if value is not None:
                        rows[step] = value
    loss, heldout, rates = (tuple(sorted(found[name].items())) for name in ("loss", "heldout_loss", "lr"))
    return Training(total, loss, heldout, rates, unreadable) if loss or heldout else None


def _logged(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def number(value: Any) -> float | None:
    """A finite number, None for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def scores(run: RunDir, files: Quantized) -> tuple[Score, ...]:
    """Every evaluations/NAME.json but those of files that are left out, in the order of reading.

    Raises RunError naming the file that is no score.
    """
    found = [_score(path) for path in sorted(run.evaluations.glob("*.json")) if files.has_score(path.stem)]
    place = {name: position for position, name in enumerate(FIRST)}
    quantized = {f"student-{name}" for name in files.folders}
    return tuple(sorted(found, key=lambda s: (place.get(s.name, 4 if s.name in quantized else 5), s.name)))


def _score(path: Path) -> Score:
    again = "examine the models again: `distill run RECIPE --from evaluate --out RUN`, or remove that file"
    content = read_object(path, again)
    low, high = _pair(content.get("interval"))
    values = [number(content.get(name)) for name in ("pass_at_1", "problems", "samples")]
    if low is None or high is None or None in values:
        raise RunError(
            f"{path.name} is no score: it lacks pass_at_1, interval, problems or samples", given=str(path), todo=again
        )
    right, problems, samples = (float(value or 0) for value in values)
    conditions = content.get("conditions")
    return Score(
        name=path.stem,
        pass_at_1=right,
        low=low,
        high=high,
        unfinished=number(content.get("unfinished")),
        mean_tokens=number(content.get("mean_tokens")),
        problems=int(problems),
        samples=int(samples) // max(1, int(problems)),
        benchmark=str(conditions.get("benchmark", "")) if isinstance(conditions, dict) else "",
        sources=tuple(_source_scores(content.get("sources"))),
    )


def _source_scores(told: Any) -> Iterator[SourceScore]:
    for name, content in (told if isinstance(told, dict) else {}).items():
        if not isinstance(content, dict):
            continue
        low, high = _pair(content.get("interval"))
        right, problems = number(content.get("pass_at_1")), number(content.get("problems"))
        if low is not None and high is not None and right is not None and problems is not None:
            yield SourceScore(str(name), right, low, high, int(problems))


def read_object(path: Path, todo: str) -> dict[str, Any]:
    """A JSON object. Raises RunError naming the file when it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise RunError(f"{path.name} cannot be read", given=f"{path}: {error}", todo=todo) from error
    return content


def quantized_folders(run: RunDir) -> list[Path]:
    """The folders of RUN/quantized that say what lies in them."""
    return sorted(path.parent for path in run.quantized.glob(f"*/{QUANTIZATION}"))


def quantized(run: RunDir) -> Quantized:
    """Which folders are of the present student; one that does not say what it was made of is taken to be.

    Raises RunError for a quantization.json that cannot be read.
    """
    again = "quantize again, or remove that file"
    found = {folder.name: read_object(folder / QUANTIZATION, again) for folder in quantized_folders(run)}
    there = run.student.is_dir()
    sources = {name: made["source"] for name, made in found.items() if there and made.get("source") is not None}
    revision = folder_revision(run.student) if sources else ""  # over all weights, so at most once
    earlier = tuple(name for name, source in sources.items() if source != revision)
    return Quantized({name: made for name, made in found.items() if name not in earlier}, earlier, there)


def left_out(run: RunDir, files: Quantized) -> tuple[str, ...]:
    """A sentence about everything in the run that the page leaves out, as it is not about the present student."""
    told = [f"quantized/{name} was made of an earlier student and is left out" for name in files.earlier]
    known = {f"student-{name}" for name in files.earlier}
    told += [
        f"evaluations/{path.name} is the score of a file that is not in quantized/ any more and is left out"
        for path in sorted(run.evaluations.glob("*.json"))
        if path.stem not in known and not files.has_score(path.stem)
    ]
    return tuple(f"{sentence}; run `distill quantize RUN`" for sentence in told)


def weights(run: RunDir, files: Quantized) -> tuple[Weights, ...]:
    """The student as trained, then every quantized one."""
    student = trained_weights(run.student) if files.student else None
    return (*([student] if student else []), *(quantized_weights(*one) for one in files.folders.items()))


def quantized_weights(name: str, content: Mapping[str, Any]) -> Weights:
    types, worst = content.get("types"), content.get("worst_tensor")
    worst = worst if isinstance(worst, dict) else {}
    counted = {str(name): number(part) for name, part in types.items()} if isinstance(types, dict) else {}
    return Weights(
        name=name,
        scheme=str(content.get("scheme") or name),
        bytes=number(content.get("bytes")),
        bits_per_weight=number(content.get("bits_per_weight")),
        types={name: int(part) for name, part in counted.items() if part is not None},
        four_bit_share=number(content.get("four_bit_share")),
        loaded_by=str(content.get("loaded_by") or ""),
        worst_tensor=str(worst.get("name") or ""),
        worst_error=number(worst.get("relative_error")),
    )


def trained_weights(folder: Path) -> Weights | None:
    """Of a model folder, from the headers of its safetensors files; None when there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    types: Counter[str] = Counter()
    for path in files:
        try:
            tensors = safetensors_file.tensors(path)
        except InputError as error:
            raise RunError(f"{path.name} cannot be read", given=f"{path}: {error.given}", todo="train again") from error
        for tensor in tensors:
            types[tensor.type] += tensor.elements
    size = sum(path.stat().st_size for path in files)
    bits = size * 8 / types.total() if types.total() else None
    return Weights("student", "as trained", size, bits, dict(types), 0.0, "transformers", "", None)


def comparisons(states: Mapping[str, StageState], files: Quantized) -> dict[str, Comparison]:
    """Folder of a quantized student → how it compares, from what the quantize stage counted."""
    counts = states["quantize"].counts if "quantize" in states else {}
    found = {}
    for name, values in counts.items():
        if isinstance(values, dict) and "gates" in values and files.has(name):
            low, high = _pair(values.get("difference_interval"))
            gates = tuple(map(str, values["gates"] if isinstance(values["gates"], list) else [values["gates"]]))
            status = values["status"] if values.get("status") in STATUSES else "not examined"
            found[name] = Comparison(number(values.get("difference")), low, high, gates, status)
    return found


def _pair(value: Any) -> tuple[float | None, float | None]:
    if isinstance(value, list) and len(value) == 2:
        return number(value[0]), number(value[1])
    return None, None
