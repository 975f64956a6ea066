"""Takes traces of one ledger over into another: sealed parts as whole files where all of a part is new, else records.

What is there already is never taken twice, so a start that was cut off is simply done again. Knows nothing about
recipes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distill.errors import RunError
from distill.files import FileLock, fsync_folder, reading, replacing, sha256_file
from distill.ledger import Entry, Ledger, LedgerReader, supersedes
from distill.ledger.parts import (
    MEND,
    DamagedError,
    check_content,
    describe,
    number_of,
    numbers_taken,
    part_path,
    read_parts,
    write_parts,
)
from distill.ledger.segments import segment_paths

READ_ROWS = 16_384
"""Keys of a part that are looked at together."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken over: whole parts, and records one by one beside them."""

    parts: int
    records: int


def take_over(source: LedgerReader, folder: Path, ids: Mapping[bytes, str] | None = None) -> Taken:
    """Everything that `source` holds and the ledger in `folder` does not, by the rule of revisions.

    With `ids` (32 bytes of a key → the prompt's id here) only those keys are taken; `source` has an answer to each. It
    is only read. Whoever calls holds the lock of the run to which `folder` belongs. Raises RunError for a part that is
    not what was sealed.
    """
    Ledger(folder).close()  # what an earlier writer left there is mended first
    index = LedgerReader(folder).index()
    parts = 0
    with FileLock(folder / ".lock", "ledger"):
        for part in source.parts():
            if _all_new(part, index, ids):
                _link(part, folder)
                parts += 1
    if parts:
        index = LedgerReader(folder).index()
    missing = {
        key: entry
        for key, entry in source.index().items()
        if _is_new(entry, index.get(key)) and (ids is None or bytes.fromhex(key) in ids)
    }
    if not missing:
        return Taken(parts, 0)
    with Ledger(folder) as ledger:
        for trace in source.traces():
            if trace.key in missing:
                here = trace.prompt_id if ids is None else ids[bytes.fromhex(trace.key)]
                ledger.append(trace if here == trace.prompt_id else replace(trace, prompt_id=here))
    return Taken(parts, len(missing))


def _is_new(entry: Entry, known: Entry | None) -> bool:
    return known is None or supersedes(entry, known)


def _all_new(part: Path, index: Mapping[str, Entry], ids: Mapping[bytes, str] | None) -> bool:
    """Whether each record of a part may be taken over as it stands: none is there already, or goes behind what is."""
    for key, prompt_id, entry in _rows(part):
        if not _is_new(entry, index.get(key)):
            return False
        if ids is not None and not (entry.answered and ids.get(bytes.fromhex(key)) == prompt_id):
            return False
    return True


def _rows(part: Path) -> Iterator[tuple[str, str, Entry]]:
    import pyarrow.parquet as pq

    names = ["key", "prompt_id", "revision", "finish_reason"]
    with reading(part, MEND), pq.ParquetFile(part, page_checksum_verification=True) as file:
        for batch in file.iter_batches(READ_ROWS, columns=names):
            columns = [batch.column(name).to_pylist() for name in names]
            for key, prompt_id, revision, finish_reason in zip(*columns, strict=True):
                yield key, prompt_id, Entry(revision, finish_reason)


def _link(part: Path, folder: Path) -> None:
    """The part as the next one of `folder`: a hard link, for a sealed part is never written to again, or a copy.

    Its whole content is checked first. A crash before it is listed leaves a part without an entry, which gets one when
    the ledger is opened.
    """
    entry = read_parts(part.parent).get(part.name)
    try:
        check_content(part, entry)
    except DamagedError as error:
        raise RunError(f"{part.name} cannot be read", given=f"{part}: {error}", todo=MEND) from error
    entry = entry or describe(part, traces=sum(1 for _ in _rows(part)))
    numbers = [*numbers_taken(folder), *map(number_of, segment_paths(folder))]
    here = part_path(folder, max(numbers, default=-1) + 1)
    try:
        os.link(part, here)
        fsync_folder(folder)
    except OSError:  # another file system, or one without links
        _copy(part, here, entry.sha256)
    write_parts(folder, {**read_parts(folder), here.name: entry})


def _copy(part: Path, here: Path, sha256: str) -> None:
    with replacing(here) as temporary:
        shutil.copyfile(part, temporary)
        if sha256_file(temporary) != sha256:
            raise RunError(f"the copy of {part.name} is not what was copied", given=str(part), todo="look at the disk")
