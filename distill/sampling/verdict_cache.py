"""Outcomes of traces that were judged while sampling, kept so that a later start need not judge them again.

An append-only file of checksummed lines `[id, outcome, reason]`. The id stands for a record of the ledger (which is
append-only itself: its key, revision and time of writing say which), for what its prompt wants, and for the version of
the verifier: none of it can change without the outcome being looked for in vain. So a trace's text need not be read to
know its outcome. Losing the file costs time and nothing else: it is not fsynced, and a torn line is passed over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from distill import __version__
from distill.files import sha256_of
from distill.ledger import decode_line, encode_line
from distill.progress import say
from distill.records import Prompt, Result, Trace
from distill.verify import TRANSIENT, Outcome
from distill.verify.verifiers import fingerprint, wants_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Head:
    """What the ledger knows of a trace without its text."""

    key: str
    asked: str
    sample: int
    revision: int
    created: str
    finish_reason: str
    completion_tokens: int | None = None

    @classmethod
    def of(cls, trace: Trace) -> Self:
        tokens = trace.completion_tokens
        return cls(trace.key, trace.asked, trace.sample, trace.revision, trace.created, trace.finish_reason, tokens)


def judged_by(prompt: Prompt, verifier: str | None) -> bytes:
    """8 bytes for all but the trace that an outcome depends on: the verifier, and what it compares with."""
    by = fingerprint(verifier) if verifier is not None else ""
    return bytes.fromhex(sha256_of([FORMAT, __version__, by, *wants_of(prompt, verifier)])[:16])


def _id(head: Head, by: bytes) -> bytes:
    """16 bytes."""
    text = f"{head.key} {head.revision} {head.created} {head.finish_reason} "
    return hashlib.sha256(text.encode() + by).digest()[:16]


class VerdictCache:
    """The outcomes in `path`; with None it keeps and knows nothing. What `add` takes counts for later starts."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: int | None = None
        self._reasons: list[Outcome] = []
        self._known: tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint16]] | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Starts to append; what cannot be written is said once and then left, since it costs time alone."""
        if self.path is None:
            return
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                self._write(b"\n")  # a torn last line must not take the next one with it
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def add(self, head: Head, by: bytes, outcome: Outcome) -> None:
        """Keeps an outcome, but none that tells of this machine at this time; of a record without a time of writing
        nothing is known for sure, and none is kept."""
        if self._file is not None and head.created and outcome.reason not in TRANSIENT:
            self._write(encode_line([_id(head, by).hex(), outcome.outcome, outcome.reason]))

    def find(self, head: Head, by: bytes) -> Outcome | None:
        """An outcome of an earlier start. The first call reads the file (seconds for 800,000 lines, 20 bytes each in
        memory); `forget` gives that back."""
        import numpy as np

        if self._known is None:
            self._load()
        assert self._known is not None
        firsts, seconds, reasons = self._known
        found = _id(head, by)
        first, second = int.from_bytes(found[:8]), int.from_bytes(found[8:])
        place = int(np.searchsorted(firsts, np.uint64(first)))
        there = place < len(firsts) and firsts[place] == first and seconds[place] == second
        return self._reasons[int(reasons[place])] if there and head.created else None

    def forget(self) -> None:
        """Lets go of what was read."""
        self._known = None

    def _load(self) -> None:
        import numpy as np

        ids, codes = bytearray(), bytearray()
        numbers: dict[tuple[Result, str], int] = {}
        for found, outcome, reason in self._lines():
            ids += found
            codes += numbers.setdefault((outcome, reason), len(numbers)).to_bytes(2, "little")
        self._reasons = [Outcome(outcome, reason) for outcome, reason in numbers]
        halves = np.frombuffer(bytes(ids), dtype=">u8").astype(np.uint64).reshape(-1, 2)
        order = np.argsort(halves[:, 0], kind="stable")
        self._known = halves[order, 0], halves[order, 1], np.frombuffer(bytes(codes), dtype="<u2")[order]

    def _lines(self) -> Iterator[tuple[bytes, Result, str]]:
        if self.path is None or not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for line in file:
                try:
                    text, outcome, reason = decode_line(line)
                    found = bytes.fromhex(text)
                except (ValueError, TypeError):
                    continue
                if len(found) == 16 and outcome in ("pass", "fail", "abstain"):
                    yield found, outcome, reason

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        try:
            os.write(self._file, line)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        say(f"generate: verdicts are not kept for later starts: {(error.strerror or str(error)).lower()}, {self.path}")
        self.close()
