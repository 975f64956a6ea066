"""Encoded traces on disk, mapped into memory: token ids one after the other, and an index of what they belong to.

Memory stays flat however many there are. No trace is ever cut: how long one may be is asked on reading. Knows nothing
about texts, tokenizers or batches.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from distill.errors import RunError
from distill.files import replacing_folder, sha256_file

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 2
"""Of the files below and of what is in them; a set of another one is made again."""
IDS, INDEX, META = "ids.bin", "index.arrow", "set.json"
ID_TYPE = "<i4"
INDEX_BATCH = 4_096
"""Traces in one batch of the index."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One training text: its ids (int32), of which those from `loss_start` on are learned. `trace_id` leads back to its
    trace."""

    trace_id: str
    ids: npt.NDArray[np.int32]
    loss_start: int

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def loss_tokens(self) -> int:
        """Nothing stands before the first token that could predict it."""
        return self.length - max(self.loss_start, 1)


@dataclass(frozen=True, slots=True)
class Row:
    """An example on its way to the disk, with what mixtures and orders go by."""

    example: Example
    domain: str | None = None
    difficulty: str | None = None
    special: str | None = None
    """A special token that its reply holds: it is not stored, only named."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenSet:
    """Encoded traces in their order. Ids and trace ids stay on the disk, in `folder`."""

    folder: Path
    lengths: npt.NDArray[np.int32]
    """Tokens per trace, prompt included."""
    loss_tokens: npt.NDArray[np.int32]
    domains: Sequence[str | None]
    difficulty: Sequence[str | None]
    special: Mapping[str, str]
    """Trace id → the special token in its reply, for the traces that are left out because of one."""
    _ids: npt.NDArray[np.int32]
    _offsets: npt.NDArray[np.int64]
    _trace_ids: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return int(self._offsets[-1])

    def example(self, index: int) -> Example:
        """Its ids are a view of the file and cannot be written to."""
        start, end = self._offsets[index : index + 2]
        loss_start = int(self.lengths[index] - self.loss_tokens[index])
        return Example(self._trace_ids[int(index)].as_py(), self._ids[start:end], loss_start)

    def within(self, context: int) -> npt.NDArray[np.int64]:
        """Indices of the traces of at most `context` tokens."""
        return np.flatnonzero(self.lengths <= context)


def write_set(folder: Path, rows: Iterable[Row]) -> TokenSet:
    """Writes the rows as they come, atomically, in place of whatever was in `folder`."""
    import pyarrow as pa

    special: dict[str, str] = {}
    with replacing_folder(folder) as temporary:
        with (
            (temporary / IDS).open("wb") as ids,
            (temporary / INDEX).open("wb") as file,
            pa.ipc.new_file(file, _schema()) as index,
        ):
            for entries in _in_parts(_entry(row, ids) for row in _plain(rows, special)):
                index.write_batch(pa.RecordBatch.from_pylist(entries, _schema()))
        meta = {
            "format": FORMAT,
            "sizes": {name: (temporary / name).stat().st_size for name in (IDS, INDEX)},
            "index": sha256_file(temporary / INDEX),
            "special": special,
        }
        (temporary / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    found = stored(folder)
    if found is None:
        raise RunError("the encoded traces cannot be read back", given=str(folder), todo="look at the disk's health")
    return found


def _plain(rows: Iterable[Row], special: dict[str, str]) -> Iterator[Row]:
    """The rows to store; what the others hold is noted in `special`."""
    for row in rows:
        if row.special is None:
            yield row
        else:
            special[row.example.trace_id] = row.special


def _entry(row: Row, ids: BinaryIO) -> dict[str, Any]:
    """Writes the row's ids; what the index says of it comes back."""
    example = row.example
    ids.write(np.ascontiguousarray(example.ids, dtype=ID_TYPE).data)
    return {
        "trace_id": example.trace_id,
        "length": example.length,
        "loss_start": max(example.loss_start, 1),
        "domain": row.domain,
        "difficulty": row.difficulty,
    }


def _in_parts(entries: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while part := list(islice(entries, INDEX_BATCH)):
        yield part


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    fields = {"trace_id": text, "length": number, "loss_start": number, "domain": text, "difficulty": text}
    return pa.schema(fields.items())


def stored(folder: Path) -> TokenSet | None:
    """The set in `folder`; None when there is none, or a damaged one, or one of another format."""
    import pyarrow as pa

    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in (IDS, INDEX)}
        if (meta["format"], meta["sizes"], meta["index"]) != (FORMAT, sizes, sha256_file(folder / INDEX)):
            return None
        special: dict[str, str] = meta["special"]
        index = pa.ipc.open_file(pa.memory_map(str(folder / INDEX))).read_all()
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    lengths = index["length"].to_numpy()
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    empty = np.zeros(0, np.int32)  # a file of no bytes cannot be mapped
    return TokenSet(
        folder,
        lengths,
        lengths - index["loss_start"].to_numpy(),
        _shared(index["domain"]),
        _shared(index["difficulty"]),
        special,
        np.memmap(folder / IDS, dtype=ID_TYPE, mode="r") if len(lengths) else empty,
        offsets,
        index["trace_id"],
    )


def _shared(column: pa.ChunkedArray) -> list[str | None]:
    """One object for equal texts, of which there are few."""
    known: dict[str | None, str | None] = {}
    return [known.setdefault(text, text) for chunk in column.chunks for text in chunk.to_pylist()]


def forget_others(folder: Path, used: Iterable[TokenSet]) -> None:
    """Removes the encoded traces below `folder` that none of `used` is: those of other kept traces or students, and
    what a killed encoding left."""
    wanted = {token_set.folder.name for token_set in used}
    for meta in folder.glob(f"*/{META}"):
        if meta.parent.name not in wanted:
            shutil.rmtree(meta.parent)
    for unfinished in folder.glob(".*.tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)
