"""Scores of traces from a file: read into little memory, with errors that name the line, and compared with bounds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checked_trace import PROMPT, TRACE
from pydantic import ValidationError

from distill.errors import InputError
from distill.filter.scores import Scores, read_scores, score_column
from distill.filter_specs import ScoreSettings


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, **settings: Any) -> Scores:
    return read_scores(ScoreSettings(scores=path, **{"max": 20, **settings}))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".ndjson"])
def test_reading(tmp_path: Path, suffix: str) -> None:
    rows = [{"trace_key": key(n), "score": n / 7, "other": "x"} for n in range(3_000)]
    scores = read(written(tmp_path / f"scores{suffix}", rows))
    assert [scores.of(key(n)) for n in range(0, 3_000, 97)] == [n / 7 for n in range(0, 3_000, 97)]
    assert scores.of(key(3_001)) is None
    assert scores.of("k") is None
    assert scores.keys.nbytes + scores.values.nbytes == 16 * 3_000


def test_other_columns_whole_numbers_and_repeated_rows(tmp_path: Path) -> None:
    rows = [{"id": key(1), "perplexity": 12}, {"id": key(1), "perplexity": 12.0}, {"id": key(2), "perplexity": -1}]
    scores = read(written(tmp_path / "s.jsonl", rows), key="id", column="perplexity")
    assert (scores.of(key(1)), scores.of(key(2))) == (12.0, -1.0)
    (tmp_path / "s.jsonl").write_text("\n  \n", encoding="utf-8")
    assert read(tmp_path / "s.jsonl").of(key(1)) is None
    assert read_scores(ScoreSettings()).of(key(1)) is None


GOOD = {"trace_key": key(0), "score": 1.5}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"trace_key": key(1)}, r"line 2: no column 'score'"),
        ({"score": 1.0, "trace_kye": key(1)}, r"line 2: no column 'trace_key'; did you mean 'trace_kye'"),
        ({"trace_key": key(1), "score": "high"}, r"line 2: 'score' must be a finite number"),
        ({"trace_key": key(1), "score": True}, r"line 2: 'score' must be a finite number"),
        ({"trace_key": key(1), "score": None}, r"line 2: 'score' must be a finite number"),
        ({"trace_key": "first", "score": 1.0}, r"line 2: 'trace_key' is no key of a trace"),
        ({"trace_key": "+123456789abcdef", "score": 1.0}, r"line 2: 'trace_key' is no key of a trace"),
        ({"trace_key": 7, "score": 1.0}, r"line 2: 'trace_key' is no key of a trace"),
        ({"trace_key": key(0), "score": 2.0}, r"row 2 gives a trace another score than row 1"),
        ([1, 2], r"line 2: no JSON object"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, row: Any, what: str) -> None:
    with pytest.raises(InputError, match=what):
        read(written(tmp_path / "s.jsonl", [GOOD, row]))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"trace_key": key(1), "score": None}, r"row 9001: 'score' must be a finite number"),
        ({"trace_key": key(1), "score": float("nan")}, r"row 9001: 'score' must be a finite number"),
        ({"trace_key": None, "score": 1.0}, r"row 9001: 'trace_key' is no key of a trace"),
    ],
)
def test_rows_of_parquet_that_cannot_be_used(tmp_path: Path, row: Any, what: str) -> None:
    rows = [{"trace_key": key(n), "score": 1.0} for n in range(10, 9_010)]
    with pytest.raises(InputError, match=what):
        read(written(tmp_path / "s.parquet", [*rows, row]))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the file of scores is not there"):
        read(tmp_path / "s.jsonl")
    with pytest.raises(InputError, match=r"scores are read from \.jsonl and \.parquet"):
        read(written(tmp_path / "s.csv", [GOOD]))
    with pytest.raises(InputError, match="no column 'points'"):
        read(written(tmp_path / "s.parquet", [GOOD]), column="points")
    (tmp_path / "s.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="no Parquet file"):
        read(tmp_path / "s.parquet")
    (tmp_path / "s.jsonl").write_bytes(b'{"trace_key": "\xff"}\n')
    with pytest.raises(InputError, match="line 1: no JSON"):
        read(tmp_path / "s.jsonl")
    (tmp_path / "s.jsonl").write_text(json.dumps(GOOD).replace("1.5", "1" + "0" * 400), encoding="utf-8")
    with pytest.raises(InputError, match="line 1"):
        read(tmp_path / "s.jsonl")


@pytest.mark.parametrize(
    ("bounds", "score", "outcome", "reason"),
    [
        ({"max": 20}, None, "abstain", "no_score"),
        ({"max": 20}, 20.0, "pass", ""),
        ({"max": 20}, 20.1, "fail", "score_too_high"),
        ({"min": 0.7}, 0.7, "pass", ""),
        ({"min": 0.7}, 0.6, "fail", "score_too_low"),
        ({"min": 0, "max": 0}, 0.0, "pass", ""),
        ({"min": 0}, -0.1, "fail", "score_too_low"),
        ({"max": 0}, 0.1, "fail", "score_too_high"),
    ],
)
def test_bounds(bounds: dict[str, float], score: float | None, outcome: str, reason: str) -> None:
    found = score_column(PROMPT, replace(TRACE, key=key(1)), ScoreSettings(**bounds), score)
    assert (found.outcome, found.reason, found.score) == (outcome, reason, score)


def test_settings_that_reject_nothing() -> None:
    with pytest.raises(ValidationError, match="without min or max would reject nothing"):
        ScoreSettings(scores=Path("s.jsonl"))
    with pytest.raises(ValidationError, match=r"min \(2.0\) is more than max \(1.0\)"):
        ScoreSettings(min=2, max=1)
