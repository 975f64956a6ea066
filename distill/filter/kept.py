"""What a filter writes for those after it: kept/train-*.parquet and heldout-*.parquet by prompt, and verdicts.parquet.

Both are written as they come, some thousand rows in memory. Knows nothing about why a trace is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.contract import Response
from distill.files import replacing, replacing_folder, sha256_of
from distill.records import Prompt, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 1_024
"""Rows of a kept file that are read at a time: tens of megabytes of R1's traces; pyarrow's default is a million."""
ROWS_OF_FILE = 100_000
SPLITS = ("train", "heldout")


def schema() -> pa.Schema:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema(
        [
            ("trace_id", pa.string()),
            ("prompt_id", pa.string()),
            ("kind", pa.string()),
            ("messages", pa.list_(message)),
            ("domain", pa.string()),
            ("tokens", pa.int64()),
            ("pass_rate", pa.float64()),
            ("difficulty", pa.string()),
        ]
    )


def kept_row(prompt: Prompt, trace: dict[str, Any], pass_rate: float | None) -> dict[str, Any]:
    """A training example: the question as asked by the user, and the canonical text of the reply. `pass_rate`: share of
    the prompt's judged answers that are right."""
    text = Response(trace["reasoning"], trace["answer"] or "").render()
    return {
        "trace_id": trace["key"],
        "prompt_id": prompt.id,
        "kind": prompt.kind,
        "messages": [{"role": "user", "content": prompt.text}, {"role": "assistant", "content": text}],
        "domain": prompt.domain,
        "tokens": trace["completion_tokens"],
        "pass_rate": pass_rate,
        "difficulty": prompt.difficulty,
    }


def draw_of(seed: int, question: str) -> float:
    """Between 0 and 1, by the question alone: a prompt keeps its side when others come or go."""
    return int(sha256_of([seed, question])[:8], 16) / 2**32


class KeptFiles:
    """Writes the files of both splits into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = dict.fromkeys(SPLITS, 0)
        self._held: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self._writers: dict[str, Any] = {}
        self._files = dict.fromkeys(SPLITS, 0)

    def add(self, split: str, row: dict[str, Any]) -> None:
        self._held[split].append(row)
        self.rows[split] += 1
        if len(self._held[split]) == ROW_GROUP:
            self._flush(split)

    def close(self) -> None:
        """Writes what is held; of an empty split a file without rows."""
        for split in SPLITS:
            if self._held[split] or not self.rows[split]:
                self._flush(split)
        for writer in self._writers.values():
            writer.close()

    def _flush(self, split: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = (self.rows[split] - len(self._held[split])) // ROWS_OF_FILE
        if split not in self._writers or number != self._files[split]:
            if split in self._writers:
                self._writers[split].close()
            path = self.folder / f"{split}-{number:05d}.parquet"
            self._writers[split] = pq.ParquetWriter(path, schema(), compression="zstd")
            self._files[split] = number
        self._writers[split].write_table(pa.Table.from_pylist(self._held[split], schema=schema()), ROW_GROUP)
        self._held[split].clear()


@contextmanager
def writing_kept(folder: Path) -> Iterator[KeptFiles]:
    """Replaces `kept/` as a whole when the block ends well."""
    with replacing_folder(folder) as temporary:
        files = KeptFiles(temporary)
        yield files
        files.close()


class VerdictFile:
    """Verdicts in a Parquet file, written as they come."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def add_table(self, verdicts: pa.Table) -> None:
        """Verdicts as rows of Verdict's schema."""
        self._writer.write_table(verdicts.select(Verdict.schema().names).cast(Verdict.schema()))


@contextmanager
def writing_verdicts(path: Path) -> Iterator[VerdictFile]:
    """Replaces verdicts.parquet when the block ends well."""
    import pyarrow.parquet as pq

    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, Verdict.schema(), compression="zstd") as writer,
    ):
        yield VerdictFile(writer)
