"""Score files: reading them, comparing two, and a table of many. Knows nothing about models or sampling."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import InputError, UsageError
from distill.examine.examination import FORMAT
from distill.examine.scoring import paired_difference


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
        lines += _source_lines(result.get("sources") or {})
    return lines


def _source_lines(sources: Mapping[str, Any]) -> Iterator[str]:
    """The same by source, where there are several."""
    for name, part in sources.items() if len(sources) > 1 else ():
        low, high = part["interval"]
        size = f"{part['problems']} × {part['samples'] // part['problems']}"
        yield f"  {name:<10} {part['pass_at_1']:>7.1%} {f'{low:.1%} – {high:.1%}':>16} {'':>11} {'':>12} {size:>12}"


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
    found = paired_difference(first["per_problem"], second["per_problem"])
    names = [f"{path.stem}" for path in (a, b)]
    lines = table([(name, result) for name, result in zip(names, (first, second), strict=True)])
    interval = f"{found.low:+.1%} to {found.high:+.1%}"
    difference = f"{names[1]} − {names[0]}: {found.mean:+.1%}"
    lines.append(f"{difference} (95% {interval}, paired over {first['problems']} problems)")
    values = {"difference": found.mean, "stderr": found.stderr, "interval": [found.low, found.high]}
    return {"a": str(a), "b": str(b), **values, "problems": first["problems"]}, lines


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
