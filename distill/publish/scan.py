"""Looks for what must not leave this machine: tokens, keys, its folders, its name, its user's name.

In what was written for the Hub, and in every setting, word for word; in the texts of traces, where a person's name may
just be a word of a question, for keys, folders and addresses alone. Weights are numbers: their headers are looked
through. What was found is named, never shown.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from distill.publish.publication import File, Part

SECRET_VARIABLES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
KEYS = {
    "a token of the Hub": re.compile(rb"\bhf_[A-Za-z0-9]{30,}"),
    "an OpenAI or Anthropic key": re.compile(rb"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{24,}"),
    "an AWS key": re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36,}"),
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"),
}
PLACES = {
    "a folder of a user": re.compile(rb"(?:/home|/Users|\\Users)[/\\][A-Za-z0-9._-]+"),
    "an address of a private network": re.compile(
        rb"(?<![0-9.])(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}(?:\.\d{1,3})?(?![0-9.])(?=[:/\s\"'])"
    ),
    "an address with a login": re.compile(rb"https?://[^/\s\"'@]+:[^/\s\"'@]+@"),
}
"""Not looked for in traces: a question about files or networks may well hold one."""
ANY_FOLDER = re.compile(rb"(?<![\w:/.<>)}~*-])/(?:[A-Za-z0-9._-]+/)+[A-Za-z0-9._-]+")
"""An absolute path. Looked for in what is written for the Hub, which needs none; a vocabulary may hold some."""
WRITTEN = ("README.md", "recipe.yaml", "lineage.json")
COMMON = {
    "root",
    "user",
    "users",
    "ubuntu",
    "admin",
    "home",
    "debian",
    "runner",
    "jovyan",
    "localhost",
    "local",
    "main",
    "distill",
    "student",
    "teacher",
    "model",
    "math",
    "test",
    "train",
    "data",
}
"""Names of users and machines that are nobody's."""
SHORTEST = 4
"""Characters below which a name is too likely to be a word or a part of one."""
HEAD = 64 * 2**20
"""Bytes at the start of a GGUF file that are looked through: its metadata lie there."""


@dataclass(frozen=True, slots=True)
class Needles:
    """What is looked for word for word: `secrets` and `places` anywhere, `names` in what is no trace."""

    secrets: Mapping[str, bytes]
    places: Mapping[str, bytes]
    names: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Leak:
    """`what` was found in a file of a repository."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def needles(token: str | None, run: Path) -> Needles:
    """Of this machine, this user and this run."""
    secrets = {f"the value of ${name}": value for name, value in os.environ.items() if SECRET_VARIABLES.search(name)}
    if token:
        secrets["your token of the Hub"] = token
    home = Path.home()
    places = {"the folder of the run": str(run.resolve()), "the working directory": str(Path.cwd())}
    if home.name not in COMMON and len(str(home)) > SHORTEST:
        places["your home folder"] = str(home)
    names = {"your user name": _user(), "the name of this machine": socket.gethostname()}
    return Needles(
        _told({what: value for what, value in secrets.items() if len(value) >= 8}),
        _told({what: value for what, value in places.items() if value.count("/") > 1}),
        _told({what: v for what, v in names.items() if len(v) >= SHORTEST and v.lower() not in COMMON}),
    )


def leaks(part: Part, looked_for: Needles) -> list[Leak]:
    """What of a part must not be uploaded, one for each file and kind."""
    exact = {**looked_for.secrets, **looked_for.places}
    in_traces = {**{what: re.compile(re.escape(value)) for what, value in exact.items()}, **KEYS}
    word = rb"(?<![A-Za-z0-9])%b(?![A-Za-z0-9])"
    shown = set(re.split(r"[^a-z0-9]+", part.repo.lower()))  # who publishes under a name shows it
    told = {what: value for what, value in looked_for.names.items() if value.decode().lower() not in shown}
    names = {what: re.compile(word % re.escape(value)) for what, value in told.items()}
    elsewhere = {**in_traces, **PLACES, **names}
    found: list[Leak] = []
    for file in part.files:
        where = f"{part.repo}: {file.path}"
        if file.path.endswith(".parquet"):
            found += _found(where, _parquet_texts(file), in_traces)
        else:
            here = list(_found(where, _texts(file), elsewhere))
            if not here and file.path in WRITTEN:
                here = list(_found(where, _texts(file), {"a folder of this machine": ANY_FOLDER}))
            found += here
    return found


def _found(where: str, texts: Iterable[bytes], patterns: Mapping[str, re.Pattern[bytes]]) -> Iterator[Leak]:
    left = dict(patterns)
    for text in texts:
        for what in [what for what, pattern in left.items() if pattern.search(text)]:
            del left[what]
            yield Leak(where, what)


def _texts(file: File) -> Iterator[bytes]:
    """A file's words: all of it, or the head of one that holds weights."""
    kind = PurePosixPath(file.path).suffix
    if isinstance(file.content, bytes):
        yield file.content
        return
    with file.content.open("rb") as opened:
        if kind == ".safetensors":
            (size,) = struct.unpack("<Q", opened.read(8))
            yield opened.read(size)
        elif kind == ".gguf":
            yield opened.read(HEAD)
        else:
            yield opened.read()


def _parquet_texts(file: File) -> Iterator[bytes]:
    """The texts of every column, some thousand rows at a time, and the file's own metadata."""
    import io

    import pyarrow.parquet as pq

    source = io.BytesIO(file.content) if isinstance(file.content, bytes) else file.content
    with pq.ParquetFile(source) as opened:
        yield b"\n".join(value for value in (opened.schema_arrow.metadata or {}).values())
        for batch in opened.iter_batches(2_048):
            for column in batch.columns:
                yield from _buffers(column)


def _buffers(column: object) -> Iterator[bytes]:
    """The characters of a column's strings, lists and structs included, without making Python strings of them."""
    import pyarrow as pa

    kind = column.type  # type: ignore[attr-defined]
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        data = column.buffers()[2]  # type: ignore[attr-defined]
        if data is not None:
            yield data.to_pybytes()
    elif pa.types.is_list(kind):
        yield from _buffers(column.flatten())  # type: ignore[attr-defined]
    elif pa.types.is_struct(kind):
        for part in column.flatten():  # type: ignore[attr-defined]
            yield from _buffers(part)
    elif pa.types.is_dictionary(kind):
        yield from _buffers(column.dictionary)  # type: ignore[attr-defined]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _told(texts: Mapping[str, str]) -> dict[str, bytes]:
    return {what: text.encode() for what, text in texts.items()}
