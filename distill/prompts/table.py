"""A prompts.parquet, gone through in order or by row, a few row groups in memory at a time.

Knows nothing about what is asked of the prompts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from distill.files import reading
from distill.records import Kind, Prompt, Reasoning, field_names

BATCH_ROWS = 1_024
_FIELDS = set(field_names(Prompt))
_KINDS, _REASONINGS = set(get_args(Kind)), set(get_args(Reasoning))
GROUPS_KEPT = 8
"""Row groups that `fetch` keeps decoded: rows are asked for again in about the order of the first time."""
AGAIN = "run the prompts stage again: `distill run RECIPE --from prompts --out RUN`, or the same `distill generate`"


def _prompt(row: dict[str, Any]) -> Prompt:
    """The prompt of a row. A file has types of its own: what need not be read value by value is taken as it is."""
    known = row.keys() == _FIELDS and row["kind"] in _KINDS and row["reasoning"] in _REASONINGS
    if not known or row["choices"] is not None or row["tests"] is not None:
        return Prompt.from_json(row)
    marks = row["marks"]
    return Prompt(**{**row, "marks": None if marks is None else tuple(marks)})


class PromptTable:
    """The prompts in a file; may be gone through any number of times. Raises RunError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._groups: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        self._bounds: list[int] = []

    def __len__(self) -> int:
        return self._ends()[-1] if self._ends() else 0

    def __iter__(self) -> Iterator[Prompt]:
        import pyarrow.parquet as pq

        with reading(self.path, AGAIN), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                yield from map(_prompt, batch.to_pylist())

    def fetch(self, row: int) -> Prompt:
        """The prompt in a row, counted from 0."""
        import bisect

        group = bisect.bisect_right(self._ends(), row)
        first = self._ends()[group - 1] if group else 0
        return _prompt(self._group(group)[row - first])

    def _group(self, number: int) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        if number in self._groups:
            self._groups.move_to_end(number)
            return self._groups[number]
        with reading(self.path, AGAIN), pq.ParquetFile(self.path) as file:
            found: list[dict[str, Any]] = file.read_row_group(number).to_pylist()
        self._groups[number] = found
        if len(self._groups) > GROUPS_KEPT:
            self._groups.popitem(last=False)
        return found

    def _ends(self) -> list[int]:
        """Row groups end before these rows."""
        import pyarrow.parquet as pq

        if not self._bounds:
            with reading(self.path, AGAIN):
                metadata = pq.read_metadata(self.path)
            end = 0
            for group in range(metadata.num_row_groups):
                end += metadata.row_group(group).num_rows
                self._bounds.append(end)
        return self._bounds

    def kinds(self) -> set[str]:
        """The kinds of prompts that there are; only that column is read."""
        import pyarrow.parquet as pq

        found: set[str] = set()
        with reading(self.path, AGAIN), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(BATCH_ROWS * 64, columns=["kind"]):
                found.update(batch.column(0).unique().to_pylist())
        return found
