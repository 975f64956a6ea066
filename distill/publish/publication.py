"""What is to lie on the Hub in the end: repositories and their files, each known by its hash. Knows nothing about how
it gets there.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from distill.files import sha256_of, sha256_once

RepoKind: TypeAlias = Literal["model", "dataset"]
OWN_FILES = (".gitattributes",)
"""What the Hub itself puts into a new repository; it says nothing about who filled it."""
CARD = "README.md"
LINEAGE_FILE = "lineage.json"
"""In every repository: by it a later start knows that a publication of this run made it."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a repository: `content` is where it lies, or its bytes where it was written for the Hub alone."""

    path: str
    content: Path | bytes
    size: int
    sha256: str

    @classmethod
    def of(cls, path: str, content: Path | bytes) -> File:
        if isinstance(content, bytes):
            return cls(path, content, len(content), hashlib.sha256(content).hexdigest())
        return cls(path, content, content.stat().st_size, sha256_once(content))

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    @property
    def git_oid(self) -> str:
        """Name of the content as a git object: what the Hub tells of files that it keeps in git itself."""
        return _git_oid(self)


@functools.lru_cache(maxsize=4_096)
def _git_oid(file: File) -> str:
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    digest.update(file.read())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """One repository of a publication. `what` names it for the reader: the student, its GGUF files, the traces."""

    repo: str
    kind: RepoKind
    what: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def staging(self) -> str:
        """Branch on which it is gathered: the same for the same files, on any machine."""
        return f"{STAGING}{sha256_of([[file.path, file.sha256] for file in self.files])[:16]}"

    @property
    def card(self) -> str:
        """Its README."""
        return next(file for file in self.files if file.path == CARD).read().decode()

    @property
    def url(self) -> str:
        """Its address below the Hub's own."""
        return f"datasets/{self.repo}" if self.kind == "dataset" else self.repo


STAGING = "distill-staging-"


@dataclass(frozen=True, slots=True)
class Publication:
    """All repositories of one publication. `run` is the id by which it knows its own again."""

    run: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


def in_order(files: Iterable[File]) -> tuple[File, ...]:
    """The largest last, so that what is small and could be refused shows early; the same order on every machine."""
    return tuple(sorted(files, key=lambda file: (file.size, file.path)))
