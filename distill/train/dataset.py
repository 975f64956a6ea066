"""Kept traces become token ids, once: encoded in a stream, stored under a name that says what decided them.

Knows nothing about recipes, batches or models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.contract import Contract, Response, parse_canonical
from distill.errors import ContractError, DiskFullError, RunError
from distill.files import reading, sha256_of, sha256_once
from distill.progress import Bar, bar
from distill.records import Message
from distill.train.token_set import FORMAT, Example, Row, TokenSet, stored, write_set
from distill.train.tokenizer import special_in, special_tokens

BATCH = 64
"""Traces encoded at once: some 350,000 tokens at R1's mean length."""
READ_BYTES = 1 << 20
"""Of a kept file's column at a time; otherwise pyarrow reads a whole row group of it."""
AGAIN = "make it again with `distill filter RUN`"
REQUIRED, OPTIONAL = ("trace_id", "kind", "messages"), ("domain", "difficulty")
"""Columns of a kept file; an optional one is missing where an earlier version wrote it."""


def encode_split(
    kept: Path, split: str, tokenizer: Any, contract: Contract, folder: Path, *, key: str | None = None
) -> TokenSet:
    """The traces of kept/SPLIT-*.parquet, encoded as `Contract.encode` does it, in a folder of their own in `folder`.

    Those whose reply holds a special token of this tokenizer are left out and named: a server would drop it.

    That folder is named after all that decides its content, so the same is never encoded twice. `key` is a hash of the
    kept files where the caller has one already. Raises RunError for missing files and rows that cannot be rendered,
    ContractError for a tokenizer that cannot, DiskFullError before anything is written where the space will not do.
    """
    files = sorted(kept.glob(f"{split}-*.parquet"))
    if not files:
        raise RunError(f"there are no kept traces ({split})", given=str(kept), todo="run `distill filter` first")
    content = key or sha256_of([[file.name, sha256_once(file)] for file in files])
    name = sha256_of([FORMAT, split, content, tokenizer_hash(tokenizer), contract.hash])[:16]
    target = folder / f"{split}-{name}"
    found = stored(target)
    if found is not None:
        return found
    _check_space(files, folder)
    with bar(f"encode {split}", sum(_rows_in(file) for file in files)) as update:
        return write_set(target, encoded_rows(files, tokenizer, contract, update))


def tokenizer_hash(tokenizer: Any) -> str:
    """Over everything that decides which ids a text gets; the same for two copies in different folders."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = [type(tokenizer).__name__, tokenizer.get_vocab(), tokenizer.special_tokens_map]
    else:
        rules = json.loads(backend.to_str())
        rules = {name: rule for name, rule in rules.items() if name not in ("truncation", "padding")}  # set by calls
    return sha256_of([rules, bool(getattr(tokenizer, "split_special_tokens", False))])


def encoded_rows(files: Sequence[Path], tokenizer: Any, contract: Contract, update: Bar) -> Iterator[Row]:
    """The rows of kept files in their order, a batch of them in memory."""
    done = tokens = 0
    special = special_tokens(tokenizer)
    for file in files:
        for first, rows in _batches_of(file):
            texts = [_text(row, contract, file, first + place) for place, row in enumerate(rows)]
            for row, encoded in zip(rows, contract.encode_batch(tokenizer, texts), strict=True):
                example = Example(row["trace_id"], np.array(encoded.ids, np.int32), encoded.loss_start)
                tokens += example.length
                held = special_in(encoded.ids[encoded.loss_start :], special)
                yield Row(example, row.get("domain"), row.get("difficulty"), held)
            done += len(rows)
            update(done, f"{tokens:,} tokens")


def _rows_in(file: Path) -> int:
    import pyarrow.parquet as pq

    with reading(file, AGAIN):
        return int(pq.read_metadata(file).num_rows)


def _batches_of(file: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(number of the first row, rows)."""
    import pyarrow.parquet as pq

    with reading(file, AGAIN), pq.ParquetFile(file, buffer_size=READ_BYTES) as source:
        names = source.schema_arrow.names
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            raise KeyError(f"it has no column {', '.join(missing)}")
        number = 0
        for batch in source.iter_batches(BATCH, columns=[name for name in (*REQUIRED, *OPTIONAL) if name in names]):
            yield number, batch.to_pylist()
            number += len(batch)


def _text(row: dict[str, Any], contract: Contract, file: Path, number: int) -> tuple[list[Message], Response]:
    try:
        if not row["trace_id"]:
            raise ValueError("it has no trace_id")
        question, reply = (message["content"] for message in row["messages"])
        return contract.messages(question, row["kind"]), parse_canonical(reply)
    except (ContractError, ValueError, TypeError, AttributeError) as error:
        what = f"row {number} of {file.name} cannot be trained on"
        given = f"{file}: {error.what if isinstance(error, ContractError) else error}"
        raise RunError(what, given=given, todo=AGAIN) from error


# --- room on the disk ------------------------------------------------------------------------------------------------

PROMPT_TOKENS = 200
"""Taken for a prompt, which the kept files do not count: GSM8K's questions are half that long."""
INDEX_BYTES = 128
"""Of a trace in the index: its id of 64 characters, domain and difficulty, five numbers."""


def _check_space(files: Sequence[Path], folder: Path) -> None:
    """Raises DiskFullError when what the teacher counted will not fit."""
    needed = _bytes_of(files)
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DiskFullError(
            f"no room for the encoded traces: about {needed / 1e9:,.3f} GB needed, {free / 1e9:,.3f} GB free",
            given=str(folder),
            todo="free some space, and start the same command again",
        )


def _bytes_of(files: Sequence[Path]) -> int:
    """About what the encoded traces will take: four bytes a token, where the teacher counted none as if a token had
    four bytes of text."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = uncounted = tokens = text = 0
    for file in files:
        with reading(file, AGAIN), pq.ParquetFile(file) as source:
            about = source.metadata
            rows += about.num_rows
            groups = [about.row_group(number) for number in range(about.num_row_groups)]
            columns = [group.column(place) for group in groups for place in range(group.num_columns)]
            text += sum(c.total_uncompressed_size for c in columns if c.path_in_schema.startswith("messages."))
            if "tokens" not in source.schema_arrow.names:
                uncounted += about.num_rows
                continue
            for batch in source.iter_batches(columns=["tokens"]):
                uncounted += batch.column(0).null_count
                tokens += pc.sum(batch.column(0)).as_py() or 0
    return 4 * (tokens + rows * PROMPT_TOKENS) + (text * uncounted // rows if rows else 0) + rows * INDEX_BYTES
