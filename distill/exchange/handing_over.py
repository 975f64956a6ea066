"""Where an export goes: written atomically, and never over anything but an earlier export that nobody has changed.

A small record beside the file, or in the folder, keeps the hashes by which an earlier export is known again. Knows
nothing about what is exported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.errors import UsageError
from distill.files import replacing, replacing_folder, sha256_file, write_json

RECORD = "distill-export.json"
"""Name of the record in an exported folder, as a hidden file; beside a file it carries the file's name too."""
ELSEWHERE = "give another --out, or move what is there away"


def line(value: Any) -> str:
    """A JSON value as one line for every reader: also for those that end lines at U+2028, U+2029 or U+0085."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not text.isascii():
        for breaking in "\x85\u2028\u2029":
            text = text.replace(breaking, f"\\u{ord(breaking):04x}")
    return text + "\n"


@contextmanager
def export_file(path: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary path that becomes the file `path`. Raises UsageError, before any work, when another file is there."""
    record = path.with_name(f".{path.name}.{RECORD}")
    before = [] if not path.exists() else [_unchanged(path, _known(record).get(path.name))]
    with replacing(path) as temporary:
        yield temporary
        # the record first, with what stands there now: a kill between the two leaves a file that it still knows
        write_json(record, {**facts, "files": {path.name: list(dict.fromkeys([sha256_file(temporary), *before]))}})


@contextmanager
def export_folder(path: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary folder that becomes the folder `path`. Raises UsageError when anything in it is not an export's."""
    if path.exists() or path.is_symlink():
        _require_own(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(path) as temporary:
        yield temporary
        hashes = {file.name: [sha256_file(file)] for file in sorted(temporary.iterdir())}
        write_json(temporary / f".{RECORD}", {**facts, "files": hashes})


def _require_own(folder: Path) -> None:
    if not folder.is_dir() or folder.is_symlink():
        raise UsageError("this export is a folder, and --out is something else", given=str(folder), todo=ELSEWHERE)
    known = _known(folder / f".{RECORD}")
    for entry in sorted(folder.iterdir()):
        if entry.name != f".{RECORD}":
            _unchanged(entry, known.get(entry.name))


def _known(record: Path) -> dict[str, list[str]]:
    """File → the hashes that an export gave it; empty where there is no such record."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))["files"]
        return {str(name): list(hashes) for name, hashes in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _unchanged(path: Path, known: list[str] | None) -> str:
    """The hash of a file that an export wrote. Raises UsageError for any other."""
    if not path.is_file():
        raise UsageError("there is a folder in the place of the export", given=str(path), todo=ELSEWHERE)
    if known is None:
        raise UsageError("there is something that `distill export` did not write", given=str(path), todo=ELSEWHERE)
    found = sha256_file(path)
    if found not in known:
        raise UsageError("this export was changed after it was written", given=str(path), todo=ELSEWHERE)
    return found
