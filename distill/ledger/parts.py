"""Sealed parts: what `parts.json` says of each, whether it still is what was written, and putting aside what is not.

A part is put aside only for its own content: a read that fails with an error of the system is told and changes nothing.
Knows nothing about segments and writers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import RunError
from distill.files import fsync_folder, replacing, sha256_file, write_json
from distill.ledger.index import KEY_COLUMNS
from distill.records import Trace

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = "parts.json"
FORMAT = 1
QUARANTINE = "quarantine"
MEND = (
    f"`distill generate … --verify` moves it to {QUARANTINE}/ and samples its traces again; to keep them, restore it "
    "from a copy"
)

_PART = re.compile(r"part-(\d{5})\.parquet")


@dataclass(frozen=True, slots=True)
class Part:
    """What a part was when it was sealed: `bytes` and `sha256` of the whole file, `footer` the CRC-32 of its footer."""

    bytes: int
    sha256: str
    traces: int
    footer: str
    was: str = ""
    """The footer of the damaged file that this part was kept from: until it is replaced, that one is there."""


@dataclass(frozen=True, slots=True)
class PutAside:
    """A part that was not what had been written. `traces` of its records are lost, and wanted again; `kept` could be
    read whole and are in the ledger still. `quarantined` names the file that keeps the part as it was found."""

    part: str
    traces: int
    kept: int
    reason: str
    quarantined: Path

    def __str__(self) -> str:
        if not self.traces and not self.kept:
            return f"{self.part} is damaged: {self.reason}; it lies in {self.quarantined}"
        kept = f" ({self.kept} others in it could be kept)" if self.kept else ""
        lost = f"its {self.traces} traces" if self.traces >= 0 else "its traces"
        return f"{self.part} is damaged: {self.reason}; {lost} are wanted again{kept}; it lies in {self.quarantined}"


class DamagedError(Exception):
    """The content of a part is not what was written; says how."""


def number_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def part_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("part-*.parquet") if _PART.fullmatch(path.name))


def numbers_taken(folder: Path) -> list[int]:
    """Of parts that are there, listed or put aside: none is given twice, so that each can come back."""
    aside = part_paths(folder / QUARANTINE)
    return [number_of(path) for path in (*part_paths(folder), *aside, *map(Path, read_parts(folder)))]


# --- parts.json ------------------------------------------------------------------------------------------------------


def read_parts(folder: Path) -> dict[str, Part]:
    """Name → what was written; empty for a ledger that has no list. Raises RunError for a list that cannot be read."""
    try:
        return parts_or_damage(folder)
    except DamagedError as error:
        raise RunError(
            f"{PARTS} cannot be read",
            given=f"{folder / PARTS}: {error}",
            todo="`distill generate` makes it again from the parts that are there",
        ) from error


def parts_or_damage(folder: Path) -> dict[str, Part]:
    """The same, but raises DamagedError for a list that is none; RunError for one of a newer version."""
    path = folder / PARTS
    try:
        told = json.loads(path.read_bytes())
        if told["format"] != FORMAT:
            raise RunError(
                f"{PARTS} is of a format that this version of distill does not know",
                given=f"{path}: format {told['format']!r}",
                todo="use the version that wrote it, or a newer one",
            )
        parts = {name: Part(**entry) for name, entry in told["parts"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error
    for name, part in parts.items():
        if not _PART.fullmatch(name) or [type(value) for value in asdict(part).values()] != [int, str, int, str, str]:
            raise DamagedError(f"no entry of a part: {name}")
    return parts


def write_parts(folder: Path, parts: dict[str, Part]) -> None:
    """Atomically, in the order of the names."""
    write_json(folder / PARTS, {"format": FORMAT, "parts": {name: asdict(parts[name]) for name in sorted(parts)}})


def put_list_aside(folder: Path) -> Path:
    """Moves a damaged `parts.json` into quarantine."""
    return _move_aside(folder / PARTS)


def refuse_gone(folder: Path, parts: dict[str, Part]) -> None:
    """Raises RunError that names the parts that are listed but not there: nobody may buy them again unasked."""
    gone = [name for name in parts if not (folder / name).exists()]
    if not gone:
        return
    count, names = sum(parts[name].traces for name in gone), ", ".join(gone[:5]) + (", …" if len(gone) > 5 else "")
    raise RunError(
        f"{count} traces are gone: {names} {'is' if len(gone) == 1 else 'are'} not there",
        given=str(folder),
        todo=f"restore {'it' if len(gone) == 1 else 'them'} from a copy; or, to sample those traces again, delete the "
        f"entry of each from {folder / PARTS}",
    )


# --- looking at a part -----------------------------------------------------------------------------------------------


def describe(path: Path, *, traces: int) -> Part:
    """What `parts.json` says of a part."""
    return Part(path.stat().st_size, sha256_file(path), traces, _footer(path))


def _footer(path: Path) -> str:
    """CRC-32 of the footer, in which Parquet has no checksum of its own."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - 8 - length))
        return f"{zlib.crc32(file.read()):08x}"


@contextlib.contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Sorts what reading a part raises: DamagedError when it is the content, RunError when it is the system."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise RunError(
                f"{path.name} cannot be read just now",
                given=f"{path}: {str(error)[:200]}",
                todo="start the same command again once the disk or the network answers",
            ) from error
        raise DamagedError(str(error)[:200] or type(error).__name__) from error


def key_columns(path: Path, part: Part | None) -> pa.Table:
    """The columns of the index, every page checked, and the part's size and footer where it has an entry.

    Raises DamagedError, or RunError for a part that cannot be read or is none of a ledger.
    """
    import pyarrow.parquet as pq

    with telling_damage(path):
        check_size(path, part)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if not {"key", "revision", "finish_reason"} <= set(names):
                raise RunError(f"{path.name} is no part of a ledger", given=f"{path}: columns {', '.join(names)[:200]}")
            table = file.read([name for name in KEY_COLUMNS if name in names], use_threads=False)
    if part is not None and len(table) != part.traces:
        raise DamagedError(f"{len(table)} traces instead of {part.traces}")
    return table


def check_size(path: Path, part: Part | None) -> None:
    """Size and footer against the part's entry, where it has one. Raises DamagedError, and OSError as it comes."""
    if part is None:
        return
    size = path.stat().st_size
    if size != part.bytes:
        raise DamagedError(f"{size} bytes instead of {part.bytes}")
    if _footer(path) != part.footer:
        raise DamagedError("its footer was altered")


def check_content(path: Path, part: Part | None) -> None:
    """Reads the whole part: its hash, or every page where it has no entry. Raises DamagedError."""
    if part is not None:
        with telling_damage(path):
            found = sha256_file(path)
        if found != part.sha256:
            raise DamagedError("its sha256 is not that of what was written")
        return
    for _ in _row_groups(path):
        pass


def batches(path: Path, limit: int) -> Iterator[Any]:
    """Record batches in order, each of about `limit` bytes uncompressed, pages checked."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for place in range(file.num_row_groups):
            group = file.metadata.row_group(place)
            mean = max(1, group.total_byte_size // max(1, group.num_rows))
            yield from file.iter_batches(max(1, limit // mean), row_groups=[place], use_threads=False)


def columns(path: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    """These columns, a row group at a time, pages checked."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for place in range(file.num_row_groups):
            yield file.read_row_group(place, columns=list(names), use_threads=False)


def _row_groups(path: Path) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with telling_damage(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for place in range(file.num_row_groups):
            yield file.read_row_group(place, use_threads=False)


# --- putting aside ---------------------------------------------------------------------------------------------------


def put_aside(path: Path, parts: dict[str, Part], reason: str) -> PutAside:
    """Moves a damaged part into quarantine under its own name, keeping what can be read whole; changes `parts`.

    A part whose hash is right after all is not moved: RunError.
    """
    part = parts.get(path.name)
    if part is not None:
        with telling_damage(path):
            if sha256_file(path) == part.sha256:
                raise RunError(
                    f"{path.name} cannot be read, though it is what was written",
                    given=f"{path}: {reason}",
                    todo="start the same command again; if that does not help, use the version that wrote it",
                )
    sound, footer = _salvage(path, part)
    kept = sum(map(len, sound))
    lost = max(-1, (_rows_told(path) if part is None or footer else part.traces) - kept)
    if not sound:
        parts.pop(path.name, None)
        write_parts(path.parent, parts)  # first: a crash here leaves a part without an entry, which is looked at again
        return PutAside(path.name, lost, 0, reason, _move_aside(path))
    aside = _move_aside(path, keep=True)
    with replacing(path) as temporary:
        write_tables(temporary, iter(sound))
        parts[path.name] = replace(describe(temporary, traces=kept), was=footer)
        write_parts(path.parent, parts)  # first: by `was`, a crash here leaves a part that can be salvaged again
    return PutAside(path.name, lost, kept, reason, aside)


def write_tables(path: Path, tables: Iterator[pa.Table]) -> int:
    """Each table as one row group of a new Parquet file; returns the rows."""
    import pyarrow.parquet as pq

    count, schema = 0, Trace.schema()
    options = {"compression": "zstd", "write_page_checksum": True, "write_statistics": False}
    with pq.ParquetWriter(path, schema, use_dictionary=_repeated(), **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, len(table)))
            count += len(table)
    return count


def _repeated() -> list[str]:
    """Columns whose values recur, for which a dictionary saves space; for a text it only costs time."""
    return ["finish_reason", "fault", "endpoint", "teacher.model", "teacher.revision", "teacher.quantization", "error"]


def _salvage(path: Path, part: Part | None) -> tuple[list[pa.Table], str]:
    """The row groups of a damaged part that can be read whole, and its footer; nothing where that is in doubt."""
    import pyarrow.parquet as pq

    sound: list[pa.Table] = []
    with contextlib.suppress(DamagedError), telling_damage(path):
        footer = _footer(path)
        if part is None or footer not in (part.footer, part.was):
            return [], ""
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(Trace.schema()):
                return [], ""
            for place in range(file.num_row_groups):
                with contextlib.suppress(DamagedError), telling_damage(path):
                    sound.append(file.read_row_group(place, use_threads=False))
            return sound, footer
    return [], ""


def _rows_told(path: Path) -> int:
    """By the footer of a part without an entry, -1 where it cannot be read."""
    import pyarrow.parquet as pq

    with contextlib.suppress(DamagedError), telling_damage(path):
        return int(pq.read_metadata(path).num_rows)
    return -1


def _move_aside(path: Path, *, keep: bool = False) -> Path:
    """Into quarantine under its own name, or that with a number where it is taken; `keep` leaves it here as well."""
    folder = path.parent / QUARANTINE
    folder.mkdir(exist_ok=True)
    names = itertools.chain([path.name], (f"{path.stem}-{count}{path.suffix}" for count in itertools.count(2)))
    place = next(folder / name for name in names if not (folder / name).exists())
    if keep:
        with replacing(place) as temporary:
            shutil.copyfile(path, temporary)
    else:
        path.rename(place)
        fsync_folder(folder)
    fsync_folder(path.parent)
    return place
