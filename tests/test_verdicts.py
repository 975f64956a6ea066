"""A verdicts.parquet of an earlier version: whoever reads it says so and what to do, and says nothing wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from report import material

from distill.errors import FAILED, RunError
from distill.exchange.whole_run import write_whole_run
from distill.report import stage as report
from distill.rundir import RunDir
from distill.show import show
from distill.verdicts import verdict_rows

READERS: dict[str, Callable[[RunDir], object]] = {
    "show": lambda run: show(str(run.path), rejected=True, reason=None),
    "report": lambda run: report.run(material.RECIPE, run),
    "export": lambda run: write_whole_run(
        material.RECIPE.model_copy(update={"teacher": "tiny-r1"}), run, run.path / "out.jsonl"
    ),
}


def without_outcomes(table: pa.Table) -> pa.Table:
    return table.select(["trace_key", "content_hash", "check"]).append_column("passed", pa.array([True] * len(table)))


def without_kept(table: pa.Table) -> pa.Table:
    return table.filter(pc.not_equal(table["check"], "kept"))


def without_details(table: pa.Table) -> pa.Table:
    return table.drop_columns(["detail"])


def older(folder: Path, change: Callable[[pa.Table], pa.Table]) -> RunDir:
    run, _ = material.filtered(folder)
    pq.write_table(change(pq.read_table(run.verdicts)), run.verdicts)
    return run


@pytest.mark.parametrize(
    ("reader", "change", "what"),
    [
        ("show", without_outcomes, "verdicts.parquet cannot be read"),
        ("report", without_outcomes, "verdicts.parquet cannot be read"),
        ("export", without_outcomes, "verdicts.parquet cannot be read"),
        ("show", without_kept, "verdicts.parquet is of an earlier version"),
        ("report", without_kept, "verdicts.parquet is of an earlier version"),
    ],
)
def test_what_an_earlier_version_wrote_is_named_with_what_to_do(
    tmp_path: Path, reader: str, change: Callable[[pa.Table], pa.Table], what: str
) -> None:
    run = older(tmp_path / "run", change)
    with pytest.raises(RunError, match=what) as caught:
        READERS[reader](run)
    assert caught.value.exit_code == FAILED
    assert str(run.verdicts) in str(caught.value.given)
    assert "make it again" in str(caught.value.todo)
    assert "`distill filter" in str(caught.value.todo)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_needed_may_be_missing(tmp_path: Path, reader: str) -> None:
    READERS[reader](older(tmp_path / "run", without_details))


def test_rows_have_the_columns_that_are_wanted_and_there(tmp_path: Path) -> None:
    run, _ = material.filtered(tmp_path / "run")
    assert set(next(verdict_rows(run))) == {"trace_key", "check", "outcome", "reason"}
    assert set(next(verdict_rows(run, "detail"))) == {"trace_key", "check", "outcome", "reason", "detail"}
    assert set(next(verdict_rows(older(tmp_path / "older", without_details), "detail"))) == {
        *("trace_key", "check", "outcome", "reason")
    }
    run.verdicts.unlink()
    assert list(verdict_rows(run)) == []
