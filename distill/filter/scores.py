"""Scores that another program gave to traces, such as perplexities or rewards: read from a file, compared with bounds.

A file is read row by row into two arrays, 16 bytes for a trace: the first 8 bytes of its key, and its score. Two keys
that share those are refused as one key with two scores; among a million traces that happens once in 40 million runs.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import InputError, near
from distill.filter_specs import ScoreSettings
from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome, abstaining

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEX_DIGITS = 16
"""Of a key that are kept: 8 bytes."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Sorted beginnings of keys (uint64), and the score of each (float64)."""

    keys: NDArray[np.uint64]
    values: NDArray[np.float64]

    def of(self, trace_key: str) -> float | None:
        """The score of a trace, None where the file has none."""
        import numpy as np

        wanted = _beginning(trace_key)
        if wanted is None or not len(self.keys):
            return None
        place = int(np.searchsorted(self.keys, np.uint64(wanted)))
        return float(self.values[place]) if place < len(self.keys) and int(self.keys[place]) == wanted else None


def score_column(prompt: Prompt, trace: Trace, settings: ScoreSettings, score: float | None) -> Outcome:
    """`score_too_low`, `score_too_high`, or `no_score` where the file does not name the trace."""
    if score is None:
        return abstaining("no_score")
    if settings.min is not None and score < settings.min:
        return Outcome("fail", "score_too_low", score)
    if settings.max is not None and score > settings.max:
        return Outcome("fail", "score_too_high", score)
    return Outcome(PASS.outcome, PASS.reason, score)


def read_scores(settings: ScoreSettings) -> Scores:
    """The scores of `settings.scores`. Raises InputError with file and row for a row without a key or a number, for a
    key that is no trace's and for one key with two scores."""
    import numpy as np

    if settings.scores is None:
        return Scores(np.empty(0, np.uint64), np.empty(0))
    path = Path(settings.scores)
    keys, values = array("Q"), array("d")
    for place, key, value in _rows(path, settings):
        keys.append(_key(path, place, key, settings))
        values.append(_number(path, place, value, settings))
    found = np.frombuffer(keys, np.uint64) if keys else np.empty(0, np.uint64)
    order = np.argsort(found, kind="stable")
    sorted_keys, sorted_values = found[order], np.frombuffer(values, np.float64)[order] if values else np.empty(0)
    twice = np.flatnonzero((sorted_keys[1:] == sorted_keys[:-1]) & (sorted_values[1:] != sorted_values[:-1]))
    if len(twice):
        first, second = sorted(int(order[twice[0] + after]) + 1 for after in (0, 1))
        raise InputError(
            f"{path.name}: row {second} gives a trace another score than row {first}",
            given=f"{settings.key} {int(sorted_keys[twice[0]]):016x}…",
            todo="leave one row for each trace",
        )
    return Scores(sorted_keys, sorted_values)


def _rows(path: Path, settings: ScoreSettings) -> Iterator[tuple[str, Any, Any]]:
    """(place, key, score) of each row; the place is `line N` or `row N`, from 1."""
    if not path.is_file():
        raise InputError("the file of scores is not there", given=str(path), todo="check filter.score.scores")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, settings)
    elif path.suffix in (".jsonl", ".ndjson"):
        yield from _json_rows(path, settings)
    else:
        raise InputError("scores are read from .jsonl and .parquet", given=str(path))


def _json_rows(path: Path, settings: ScoreSettings) -> Iterator[tuple[str, Any, Any]]:
    import orjson

    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError(f"{path}, {place}: no JSON: {error}", given=ascii(line[:60])) from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, {place}: no JSON object", given=ascii(line[:60]))
            for column in (settings.key, settings.column):
                if column not in row:
                    raise _no_column(f"{path}, {place}", column, list(row))
            yield place, row[settings.key], row[settings.column]


def _parquet_rows(path: Path, settings: ScoreSettings) -> Iterator[tuple[str, Any, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: no Parquet file: {error}") from None
    with file:
        for column in (settings.key, settings.column):
            if column not in file.schema_arrow.names:
                raise _no_column(str(path), column, file.schema_arrow.names)
        done = 0
        for batch in file.iter_batches(batch_size=8_192, columns=[settings.key, settings.column]):
            pairs = zip(batch.column(settings.key).to_pylist(), batch.column(settings.column).to_pylist(), strict=True)
            for number, (key, value) in enumerate(pairs, start=done + 1):
                yield f"row {number}", key, value
            done += batch.num_rows


def _no_column(where: str, column: str, known: list[str]) -> InputError:
    given = f"columns {', '.join(known[:12]) or 'none'}"
    return InputError(f"{where}: no column '{column}'{near(column, known)}", given=given)


def _key(path: Path, place: str, key: Any, settings: ScoreSettings) -> int:
    found = _beginning(key) if isinstance(key, str) else None
    if found is None:
        what = f"{path}, {place}: '{settings.key}' is no key of a trace"
        raise InputError(
            what, given=ascii(key)[:80], todo="take the keys as `distill export` writes them: 64 hex digits"
        )
    return found


def _number(path: Path, place: str, value: Any, settings: ScoreSettings) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise InputError(f"{path}, {place}: '{settings.column}' must be a finite number", given=ascii(value)[:80])


def _beginning(key: str) -> int | None:
    try:
        return int(key[:HEX_DIGITS], 16) if len(key) >= HEX_DIGITS and key.isalnum() else None
    except ValueError:
        return None
