"""Reading verdicts.parquet: rows of all checks on all traces, and what is said where an earlier version wrote it.

Knows nothing about what a verdict means.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distill.errors import RunError
from distill.files import reading
from distill.rundir import RunDir

NEEDED = ("trace_key", "check", "outcome", "reason")
"""Columns that every version is asked for."""
BATCH = 65_536


def verdict_rows(run: RunDir, *more: str) -> Iterator[dict[str, Any]]:
    """The rows with the columns NEEDED, and of `more` those that are there; nothing where there is no file.

    Raises RunError for a file that cannot be read or lacks a column that is needed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not run.verdicts.is_file():
        return
    with reading(run.verdicts, _again(run)), pq.ParquetFile(run.verdicts) as file:
        there = file.schema_arrow.names
        missing = [name for name in NEEDED if name not in there]
        if missing:
            raise pa.ArrowInvalid(f"it has no {', '.join(missing)}")
        for batch in file.iter_batches(BATCH, columns=[name for name in (*NEEDED, *more) if name in there]):
            yield from batch.to_pylist()


def undecided(run: RunDir) -> RunError:
    """For verdicts without the one that says whether a trace is kept."""
    what = "verdicts.parquet is of an earlier version, which did not say what is kept"
    return RunError(what, given=str(run.verdicts), todo=_again(run))


def _again(run: RunDir) -> str:
    return f"make it again: `distill filter {run.path}`"
