"""Compares the files of a model with what the Hub told of them, by content: several at a time, remembered over starts.

Knows nothing about which files a model needs; see distill/serve/model_files.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import hardware
from distill.environment import Finding
from distill.files import NO_PLACE, write_json
from distill.progress import Bar, bar
from distill.serve.model_files import SHA256, ModelFiles, some, weight_files

BLOCK = 2**22
"""Bytes read at once. Larger ones were not faster."""
MOST_THREADS = 8
"""One thread hashed 0.8 GB/s on busy cores: eight take two minutes for 690 GB, where the disk keeps up."""


@dataclass(frozen=True, slots=True)
class _State:
    """By what a file that was hashed before is known to be the same: size, time of change, inode."""

    size: int
    modified: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> _State:
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


def hashes_found(files: ModelFiles, memory: Path) -> Finding:
    """Whether each recorded file that is read has the content that the Hub told. `memory`: a JSON file of what was
    hashed before, written after every file, so that a start that was cut goes on and the next one takes seconds."""
    weights = set(weight_files(files.folder))
    wanted = {name: told for name, told in files.told.items() if name in weights or not _is_weights(name)}
    silent = sorted(weights - set(wanted))
    if not wanted:
        what = f"{files.folder} holds no record of a download: lengths were compared, contents were not"
        return Finding("hashes", "note", what)
    known = _Memory(memory)
    have = _hashed({name: files.folder / name for name in wanted}, wanted, known)
    wrong = sorted(name for name, told in wanted.items() if have[name] != told)
    if wrong:
        what = f"not what the Hub has: {some(wrong)}"
        return Finding("hashes", "missing", what, (files.download(*wrong),), necessary=True)
    if silent:
        what = f"{len(wanted)} files are what the Hub has; it has told nothing of {some(silent)}"
        return Finding("hashes", "note", what)
    return Finding("hashes", "ok", f"{len(wanted)} files are what the Hub has, by their hashes", necessary=True)


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx"))


class _Memory:
    """Path → state and hash of files, in a JSON file. A place that cannot be written, or nonsense in it, is no error:
    it only costs time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self._known = value if isinstance(value, dict) else {}

    def get(self, path: Path, state: _State, digits: int) -> str | None:
        row = self._known.get(str(path))
        if not isinstance(row, list) or row[:3] != [state.size, state.modified, state.inode]:
            return None
        return next((text for text in row[3:] if isinstance(text, str) and len(text) == digits), None)

    def keep(self, path: Path, state: _State, digest: str) -> None:
        self._known[str(path)] = [state.size, state.modified, state.inode, digest]
        try:
            write_json(self.path, self._known)
        except OSError as error:
            if error.errno not in NO_PLACE:
                raise


def _hashed(paths: Mapping[str, Path], told: Mapping[str, str], known: _Memory) -> dict[str, str]:
    """Name → hash, of the kind that was told."""
    states = {name: _State.of(path) for name, path in paths.items()}
    found = {name: known.get(paths[name].resolve(), states[name], len(told[name])) for name in paths}
    left = sorted((name for name in paths if found[name] is None), key=lambda name: -states[name].size)
    total = sum(states[name].size for name in left) / 1e9
    stop = threading.Event()
    with bar("hashing (GB)", total) as update, ThreadPoolExecutor(min(MOST_THREADS, hardware.cores())) as pool:
        count = _counting(update)
        try:
            jobs = {pool.submit(_digest, paths[name], len(told[name]), count, stop): name for name in left}
            for job in as_completed(jobs):
                name = jobs[job]
                found[name] = job.result()
                if _State.of(paths[name]) == states[name]:  # not while it is still being written
                    known.keep(paths[name].resolve(), states[name], job.result())
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return {name: digest or "" for name, digest in found.items()}


def _counting(update: Bar) -> Callable[[int], None]:
    """Adds up the bytes of all threads."""
    lock, done = threading.Lock(), 0

    def count(read: int) -> None:
        nonlocal done
        with lock:
            done += read
            update(done / 1e9)

    return count


def _digest(path: Path, digits: int, count: Callable[[int], None], stop: threading.Event) -> str:
    """sha256 or, of 40 digits, git's hash of a file, whose head tells the length."""
    with path.open("rb", buffering=0) as file:
        hashing = hashlib.sha256() if digits == SHA256 else hashlib.sha1(usedforsecurity=False)
        if digits != SHA256:
            hashing.update(f"blob {os.fstat(file.fileno()).st_size}\0".encode())
        block = bytearray(BLOCK)
        while (read := file.readinto(block)) and not stop.is_set():
            hashing.update(memoryview(block)[:read])
            count(read)
    return hashing.hexdigest()
