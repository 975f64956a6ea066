"""Durable file operations: atomic replacement, hashes, one-writer locks. Knows nothing of what is in the files."""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill.errors import DiskFullError, InputError, LockedError, RunError


def now() -> str:
    """The present in UTC, ISO 8601, to the millisecond."""
    milliseconds = time.time_ns() // 1_000_000
    return f"{_second(milliseconds // 1_000)}.{milliseconds % 1_000:03d}+00:00"


@functools.lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces. What hashes and fingerprints are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_of(value: Any) -> str:
    """Hex sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """`sha256_file`, computed again only when the file's size or time says that it changed: weights take minutes."""
    status = path.stat()
    return _sha256_of_state(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4_096)
def _sha256_of_state(path: Path, size: int, modified: int) -> str:
    return sha256_file(path)


def sha256_tree(path: Path) -> str:
    """Hex sha256 over names and contents of a file, or of every file below a folder (hidden ones left out).

    A file that was hashed in this process and has not changed since is not read again.
    """
    if path.is_file():
        return sha256_once(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    shown = [p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    return sha256_of([[str(p.relative_to(path)), sha256_once(p)] for p in shown])


def fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_full_is_clear(path: Path) -> Iterator[None]:
    """Turns `no space left` and `quota exceeded` into a `DiskFullError` that names the place."""
    try:
        yield
    except Exception as error:
        if not _is_disk_full(error, path):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no space left"
        raise DiskFullError(
            f"the disk is full: {reason.lower()}",
            given=str(path),
            todo="free some space and start the same command again; everything saved so far is kept",
        ) from error


def _is_disk_full(error: Exception, path: Path) -> bool:
    """By its code; torch and safetensors, which write files by themselves, raise errors of their own without one."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if "No space left" in str(error):
        return True
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return isinstance(error, RuntimeError) and shutil.disk_usage(existing).free == 0


@contextmanager
def reading(path: Path, todo: str) -> Iterator[None]:
    """Turns any failure to read a file that distill wrote itself into a RunError that names it and what to do."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, KeyError, InputError) as error:
        raise RunError(f"{path.name} cannot be read", given=f"{path}: {str(error)[:200]}", todo=todo) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, durably, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_full_is_clear(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Like `replacing`, for a folder; an older folder of that name is gone once the new one stands in its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    outgoing = path.with_name(f".{path.name}.{os.getpid()}.old")
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of writers that were killed; there is one writer
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with disk_full_is_clear(path):
            yield temporary
            for entry in (temporary, *temporary.rglob("*")):
                if entry.is_file():
                    with entry.open("rb") as opened:
                        os.fsync(opened.fileno())
                elif entry.is_dir():
                    fsync_folder(entry)
            if path.exists():
                path.rename(outgoing)
            try:
                temporary.rename(path)
            except BaseException:
                if outgoing.exists():
                    outgoing.rename(path)
                raise
            fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(outgoing, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


NO_PLACE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR)
"""Where no folder can be made or written: read-only, another's, or a file."""


class FileLock:
    """An advisory lock that dies with its process; the file names the holder for whoever comes second."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self._descriptor: int | None = None

    def acquire(self) -> FileLock:
        """Raises LockedError at once when another process holds it, RunError where nothing can be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno not in NO_PLACE:
                raise
            raise RunError(
                f"nothing can be written to this {self.what}: {(error.strerror or str(error)).lower()}",
                given=str(self.path.parent),
                todo="give another --out, or make that place a folder that you may write to",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 500).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise LockedError(
                f"another process is writing to this {self.what}",
                given=f"{self.path.parent}, held by {holder}",
                todo="wait for it or stop it, or use another --out",
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        try:
            with disk_full_is_clear(self.path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {now()}\n".encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FileLock:
        return self if self._descriptor is not None else self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
