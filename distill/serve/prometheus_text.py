"""Prometheus' text format 0.0.4, read strictly and written again: families, samples, labels. Knows no metric.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from distill.errors import InputError

TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
"""What the samples of a family may have behind its name."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,\s*|(?=\}))')
_OPENING = re.compile(r"\s*\{\s*")
_VALUE = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf(?:inity)?|nan)", re.IGNORECASE)
_TIME = re.compile(r"-?\d+")
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


@dataclass(frozen=True, slots=True)
class Sample:
    """`value` and `time` (milliseconds since the epoch, mostly absent) as they were written."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: str
    time: str = ""

    @property
    def number(self) -> float:
        return float(self.value)

    def line(self) -> str:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in self.labels)
        tail = f"{self.value} {self.time}".rstrip()
        return f"{self.name}{{{labels}}} {tail}" if labels else f"{self.name} {tail}"


@dataclass(slots=True)
class Family:
    """A metric with all of its samples. `help` as it was written, escapes included; None where there is none."""

    name: str
    type: str = "untyped"
    help: str | None = None
    samples: list[Sample] = field(default_factory=list)

    def owns(self, sample: str) -> bool:
        return sample == self.name or sample in (self.name + suffix for suffix in SUFFIXES.get(self.type, ()))

    def lines(self) -> Iterator[str]:
        if self.help is not None:
            yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.type}"
        for sample in self.samples:
            yield sample.line()


def families(text: str) -> list[Family]:
    """What a page holds, in its order. Raises InputError naming the line that is no Prometheus text."""
    found: dict[str, Family] = {}
    current: Family | None = None
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if line.startswith("#"):
                current = _described(line, found) or current
            elif line.strip():
                sample = _sample(line)
                if current is None or not current.owns(sample.name):
                    current = _owner(sample.name, found)
                current.samples.append(sample)
        except ValueError as error:
            raise InputError(f"line {number} is no Prometheus text: {error}", given=line[:200]) from error
    return list(found.values())


def _described(line: str, found: dict[str, Family]) -> Family | None:
    """The family of a HELP or TYPE line, None for any other comment."""
    words = line[1:].split(None, 2)
    if not words or words[0] not in ("HELP", "TYPE"):
        return None
    if len(words) < 2 or not _NAME.fullmatch(words[1]):
        raise ValueError("no name of a metric")
    family = found.setdefault(words[1], Family(words[1]))
    rest = words[2] if len(words) > 2 else ""
    if words[0] == "HELP":
        family.help = rest
    elif rest.strip() not in TYPES:
        raise ValueError("no type of a metric")
    elif family.samples:
        raise ValueError("a type behind the samples of its metric")
    else:
        family.type = rest.strip()
    return family


def _owner(sample: str, found: dict[str, Family]) -> Family:
    owner = next((family for family in found.values() if family.owns(sample)), None)
    return owner or found.setdefault(sample, Family(sample))


def _sample(line: str) -> Sample:
    name = _NAME.match(line)
    if name is None:
        raise ValueError("no name of a metric")
    labels, rest = _labels(line, name.end())
    words = line[rest:].split()
    if not 1 <= len(words) <= 2 or not _VALUE.fullmatch(words[0]):
        raise ValueError("no value")
    if words[1:] and not _TIME.fullmatch(words[1]):
        raise ValueError("no time")
    return Sample(name.group(), labels, *words)


def _labels(line: str, start: int) -> tuple[tuple[tuple[str, str], ...], int]:
    """Labels in braces at `start`, and where the rest of the line begins."""
    opening = _OPENING.match(line, start)
    if opening is None:
        return (), start
    labels: list[tuple[str, str]] = []
    position = opening.end()
    while not line.startswith("}", position):
        label = _LABEL.match(line, position)
        if label is None:
            raise ValueError('labels that are not written as name="value"')
        labels.append((label.group(1), _unescaped(label.group(2))))
        position = label.end()
    if len({name for name, _ in labels}) < len(labels):
        raise ValueError("a label given twice")
    return tuple(labels), position + 1


def _unescaped(text: str) -> str:
    return re.sub(r"\\.", lambda found: _ESCAPES.get(found.group(), found.group()), text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def written(page: Iterable[Family]) -> str:
    """One page of these families."""
    return "".join(line + "\n" for family in page for line in family.lines())
