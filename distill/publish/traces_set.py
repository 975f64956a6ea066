"""A run's traces as a set of Parquet files that `load_dataset` reads: kept rows, all traces, verdicts, prompts.

Traces lose what is about this machine and no reader (endpoint, attempts, error); failures stay out, and so does what
the check `secrets` rejected. The files are made once, beside the run's own, and are the same bytes for the same ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from distill.files import replacing_folder, sha256_of, sha256_tree
from distill.publish.publication import File
from distill.rundir import RunDir
from distill.verdicts import verdict_rows

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 2
LEFT_OUT = ("endpoint", "attempts", "error", "prompt_ids", "output_ids")
"""Columns of a trace that are about the machine that asked, or that only a continuation needs."""
PART_BYTES = 512 * 2**20
"""Of decoded traces in a file: some hundred megabytes once compressed, well below what the Hub advises for one."""
ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration of the set: split → the pattern of its files, and its rows."""

    name: str
    splits: dict[str, str]
    rows: dict[str, int]


@dataclass(frozen=True, slots=True)
class TraceSet:
    files: tuple[File, ...]
    configs: tuple[Config, ...]


def trace_set(run: RunDir, work: Path) -> TraceSet:
    """The set, made below `work` unless it lies there already of these very traces."""
    made = _made(run, work / "traces")
    files = [File.of(f"kept/{path.name}", path) for path in sorted(run.kept.glob("*.parquet"))]
    files += [File.of(str(path.relative_to(made)), path) for path in sorted(made.rglob("*.parquet"))]
    rows = {file.path: _rows(file) for file in files}
    full = {file.path for file in files if rows[file.path]}
    configs = []
    for name, splits in {
        "kept": {"train": "kept/train-*.parquet", "heldout": "kept/heldout-*.parquet"},
        "traces": {"train": "traces/*.parquet"},
        "verdicts": {"train": "verdicts/*.parquet"},
        "prompts": {"train": "prompts/*.parquet"},
    }.items():
        held = {s: sum(rows[path] for path in full if PurePath(path).match(pattern)) for s, pattern in splits.items()}
        there = {split: count for split, count in held.items() if count}
        if there:
            configs.append(Config(name, {split: splits[split] for split in there}, there))
    return TraceSet(tuple(file for file in files if file.path in full), tuple(configs))


def _made(run: RunDir, folder: Path) -> Path:
    """`folder`, of the present ledger, verdicts and prompts."""
    marks = [
        FORMAT,
        run.ledger().digest(),
        *(sha256_tree(path) for path in (run.verdicts, run.prompts) if path.is_file()),
    ]
    mark = {"of": sha256_of(marks)}
    known = folder / "made.json"
    if known.is_file() and known.read_text(encoding="utf-8") == json.dumps(mark):
        return folder
    with replacing_folder(folder) as place:
        for name in ("traces", "verdicts", "prompts"):
            (place / name).mkdir()
        hidden = _with_secrets(run)
        _write(place / "traces", run.ledger().tables(), lambda table: _without(_answered(table), "key", hidden))
        if run.verdicts.is_file():
            _write(place / "verdicts", _tables(run.verdicts), lambda table: _without(table, "trace_key", hidden))
        if run.prompts.is_file():
            _write(place / "prompts", _tables(run.prompts), _without_folders)
        (place / "made.json").write_text(json.dumps(mark), encoding="utf-8")
    return folder


def _with_secrets(run: RunDir) -> list[str]:
    """Keys of the traces in which the check `secrets` found a key or something about a person."""
    return [row["trace_key"] for row in verdict_rows(run) if row["check"] == "secrets" and row["outcome"] == "fail"]


def _without(table: pa.Table, column: str, keys: list[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not keys:
        return table
    return table.filter(pc.invert(pc.is_in(table.column(column), value_set=pa.array(keys, pa.string()))))


def _write(folder: Path, tables: Iterator[pa.Table], change: Callable[[Any], Any]) -> None:
    """NAME-00000.parquet and so on, each of about PART_BYTES."""
    import pyarrow.parquet as pq

    writer: Any = None
    number = size = 0
    try:
        for table in map(change, tables):
            if writer is not None and size + table.nbytes > PART_BYTES:
                writer.close()
                writer, size, number = None, 0, number + 1
            if writer is None:
                writer = pq.ParquetWriter(
                    folder / f"{folder.name}-{number:05d}.parquet", table.schema, compression="zstd"
                )
            writer.write_table(table)
            size += table.nbytes
    finally:
        if writer is not None:
            writer.close()


def _tables(path: Path) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS):
            yield pa.Table.from_batches([batch])


def _answered(table: pa.Table) -> pa.Table:
    """The traces that are replies, without what is about this machine."""
    import pyarrow.compute as pc

    answered = table.filter(pc.not_equal(table.column("finish_reason"), "error"))
    return answered.drop_columns([name for name in LEFT_OUT if name in answered.schema.names])


def _without_folders(table: pa.Table) -> pa.Table:
    """A source that is a file is told by its name alone."""
    import pyarrow as pa

    place = table.schema.get_field_index("source")
    if place < 0:
        return table
    names = [PurePath(name).name if name is not None else None for name in table.column(place).to_pylist()]
    return table.set_column(place, "source", pa.array(names, pa.string()))


def _rows(file: File) -> int:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file.content) as opened:
        rows: int = opened.metadata.num_rows
    return rows
