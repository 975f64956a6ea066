"""What a new writer does before it writes: takes over what the last one left, and looks at every part.

Knows nothing about threads and appending; whoever calls holds the ledger's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from distill.ledger.index import Index, entries_of, without_collecting
from distill.ledger.parts import (
    PARTS,
    DamagedError,
    Part,
    PutAside,
    check_content,
    describe,
    key_columns,
    number_of,
    part_path,
    part_paths,
    parts_or_damage,
    put_aside,
    put_list_aside,
    read_parts,
    refuse_gone,
    write_parts,
)
from distill.ledger.segments import Recovery, finish_sealing, mend_and_seal, segment_paths

if TYPE_CHECKING:
    import pyarrow as pa

READERS = 4
"""Parts that are read at once when a ledger is opened: on a network file system each costs a few round trips."""

OnRecovery = Callable[[Recovery], None]
OnPutAside = Callable[[PutAside], None]


def recover(folder: Path, on_recovery: OnRecovery, on_put_aside: OnPutAside) -> None:
    """Finishes a sealing, puts a torn tail aside, seals what is open. Raises RunError for a part that is gone."""
    _open_list(folder, on_put_aside)
    for pattern in (".part-*.tmp", ".open-*.tmp", f".{PARTS}.*.tmp"):
        for leftover in folder.glob(pattern):
            leftover.unlink()
    for segment in segment_paths(folder):
        if part_path(folder, number_of(segment)).exists():
            finish_sealing(segment, on_recovery)
        else:
            mend_and_seal(segment, on_recovery)


def _open_list(folder: Path, on_put_aside: OnPutAside) -> None:
    """A damaged list is put aside, to be made again; a part that is gone is refused unless its segment is there."""
    try:
        parts = parts_or_damage(folder)
    except DamagedError as error:
        on_put_aside(PutAside(PARTS, 0, 0, str(error), put_list_aside(folder)))
        return
    sealed_again = {part_path(folder, number_of(path)).name for path in segment_paths(folder)}
    refuse_gone(folder, {name: part for name, part in parts.items() if name not in sealed_again})


@without_collecting()
def look_at_parts(folder: Path, on_put_aside: OnPutAside, *, content: bool) -> Index:
    """The index of what is sound. Parts of older runs get their entry in the list.

    Sizes, footers and the columns of the index are looked at, with `content` every byte.
    """
    index, parts = Index(), read_parts(folder)
    for path, reading in _read_ahead(part_paths(folder), parts):
        part = parts.get(path.name)
        try:
            table = reading.result()
            if content or part is None:
                check_content(path, part)
        except DamagedError as error:
            aside = put_aside(path, parts, str(error))
            on_put_aside(aside)
            if not aside.kept:
                continue
            table = key_columns(path, parts[path.name])
        if path.name not in parts:
            parts[path.name] = describe(path, traces=len(table))
            write_parts(folder, parts)
        index.note_all(*entries_of(table))
    return index


def _read_ahead(paths: list[Path], parts: Mapping[str, Part]) -> Iterator[tuple[Path, Future[pa.Table]]]:
    """Each part with its columns of the index, a few of which are read while the one before is taken in."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[tuple[Path, Future[pa.Table]]] = deque()
        for path in paths:
            waiting.append((path, pool.submit(key_columns, path, parts.get(path.name))))
            if len(waiting) > 2 * READERS:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
