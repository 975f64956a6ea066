"""Rows of data files: JSONL, JSON, Parquet and CSV, on disk or on the Hugging Face Hub, one at a time.

Every mistake names the file and the line or row. Knows nothing about what the columns mean.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from distill.errors import DistillError, InputError
from distill.source_specs import COMPRESSIONS

Row = Mapping[str, Any]

MAX_LINE = 256 * 2**20
"""Bytes of a line beyond which a file counts as damaged: test cases of one problem can take some tens of MB."""
BATCH_BYTES = 32 * 2**20
"""Parquet is read in batches of about this many bytes, and of BATCH_ROWS rows at most."""
BATCH_ROWS = 1_024
REMOTE = "hf://"
"""Begins the address of a file on the Hub, as fsspec and huggingface_hub write it."""


def rows(place: Path | str, columns: Collection[str] | None = None) -> Iterator[tuple[int, Row]]:
    """(1-based line or row number, columns) of a file, by its suffix: .jsonl, .json, .ndjson, .parquet, .csv, and
    .jsonl.gz, .zst or .bz2. `place` is a path, or an `hf://` address.

    Of Parquet only the named `columns` are read, where given. Raises InputError naming the file and the line or row.
    """
    if not is_remote(place) and not Path(place).is_file():
        raise InputError(
            f"there is no file {place}", todo="check the path (a relative one starts at the working directory)"
        )
    kind = kind_of(place)
    if kind == ".parquet":
        return _parquet(place, columns)
    readers: Mapping[str, Callable[[Path | str], Iterator[tuple[int, Row]]]] = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".json": _json,
        ".csv": _csv,
    }
    if kind not in readers:
        raise InputError(f"{place}: unknown kind of file '{kind}'", todo=f"use one of {', '.join(readers)}, .parquet")
    return readers[kind](place)


def is_remote(place: Path | str) -> bool:
    return isinstance(place, str) and place.startswith(REMOTE)


def kind_of(place: Path | str) -> str:
    """The suffix that tells how a file is read, in lower case; that of a compression left out."""
    path = Path(place)
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSIONS else path.suffix.lower()


def unit_of(place: Path | str) -> str:
    """What the number of a row counts: `row` in Parquet, `line` elsewhere."""
    return "row" if kind_of(place) == ".parquet" else "line"


@contextmanager
def _opened(place: Path | str) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed. Raises InputError when it cannot be opened or breaks off."""
    import fsspec
    import pyarrow as pa

    try:
        # Of Parquet on the Hub only the columns wanted are fetched: reading ahead would fetch those between them too.
        ahead = {"cache_type": "none"} if is_remote(place) and kind_of(place) == ".parquet" else {}
        files, path = fsspec.url_to_fs(str(place))
        with files.open(path, "rb", **ahead) as file:
            compression = COMPRESSIONS.get(Path(place).suffix.lower())
            if compression is None:
                # a remote file of fsspec has a readline that takes no limit
                yield file if not is_remote(place) or ahead else io.BufferedReader(file)
            else:
                yield io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), compression))
    except DistillError:
        raise
    except OSError as error:
        what = f"{place} cannot be read: {str(error)[:200]}"
        raise InputError(what, todo="check the file and start the same command again") from error


def _jsonl(place: Path | str) -> Iterator[tuple[int, Row]]:
    with _opened(place) as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE + 1)
            if not line:
                return
            if len(line) > MAX_LINE:
                raise InputError(
                    f"{place}, line {number}: longer than {MAX_LINE >> 20} MiB", todo="is a line break missing there?"
                )
            if line.strip():
                yield number, _object(line, place, number)


def _object(line: bytes, place: Path | str, number: int) -> Row:
    where = f"{place}, line {number}"
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 at byte {error.start + 1}", todo="convert the file to UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: not JSON: {error}",
            given=repr(line[:80].decode("utf-8", "replace")),
            todo="write one JSON object per line",
        ) from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def _json(place: Path | str) -> Iterator[tuple[int, Row]]:
    """One JSON array of objects, read as a whole; such a file that does not begin with `[` is read line by line."""
    with _opened(place) as file:
        begin = file.read(64).decode("utf-8-sig", "replace").lstrip()
    if not begin.startswith("["):
        yield from _jsonl(place)
        return
    with _opened(place) as file:
        text = file.read(MAX_LINE + 1)
    if len(text) > MAX_LINE:
        raise InputError(
            f"{place}: a JSON array longer than {MAX_LINE >> 20} MiB", todo="write one JSON object per line (.jsonl)"
        )
    try:
        found = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8 at byte {error.start + 1}", todo="convert the file to UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON: {error}", todo="write one JSON object per line (.jsonl)") from error
    for number, row in enumerate(found, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{place}, entry {number}: expected a JSON object, found {type(row).__name__}")
        yield number, row


def _parquet(place: Path | str, columns: Collection[str] | None) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 1
    with _opened(place) as opened:
        try:
            with pq.ParquetFile(opened) as file:
                names = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
                for batch in file.iter_batches(_batch_rows(file.metadata), columns=names):
                    yield from enumerate(_rows_of(batch, place, first), start=first)
                    first += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{place} is not a readable Parquet file: {str(error)[:200]}") from error


def _batch_rows(metadata: Any) -> int:
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return int(max(1, min(BATCH_ROWS, BATCH_BYTES * max(1, metadata.num_rows) // max(1, size))))


def _rows_of(batch: Any, place: Path | str, first: int) -> list[Row]:
    """Raises InputError naming the first row whose text is not UTF-8: Parquet itself does not look."""
    try:
        found: list[Row] = batch.to_pylist()
        return found
    except UnicodeDecodeError as error:
        for offset in range(batch.num_rows):
            try:
                batch.slice(offset, 1).to_pylist()
            except UnicodeDecodeError:
                what = f"{place}, row {first + offset}: not UTF-8"
                raise InputError(what, todo="convert the text to UTF-8") from error
        raise


def _csv(place: Path | str) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(MAX_LINE)  # its own limit, 131,072 characters, is less than one long trace
    with _opened(place) as opened:
        reader = csv.DictReader(io.TextIOWrapper(opened, encoding="utf-8-sig", newline=""), strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    width = len(reader.fieldnames or [])
                    raise InputError(f"{place}, line {reader.line_num}: not the {width} columns that the header has")
                yield reader.line_num, {name: value if value != "" else None for name, value in row.items()}
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{place}, line {reader.line_num + 1}: not CSV in UTF-8: {error}") from error
