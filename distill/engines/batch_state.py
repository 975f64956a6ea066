"""What is known of batches that were handed to a provider, in a file that outlives the process.

Append-only, one checksummed line per event, each on disk before anything that follows from it is done:

- `planned`: a batch will be created now; its own id and what it asks, by custom id
- `created`: the provider's id of it; a batch without this line may exist there or not
- `dropped`: it does not exist there, or did none of its work: whatever is still wanted of it is asked for anew
- `ended`: the provider was seen to have ended it; its results are read for whoever asks for a reply in them
- `failed`: these of its requests have no reply in its results: they are asked for anew
- `done`: nothing of it is wanted any more

Knows nothing about HTTP, replies or ledgers.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill.errors import RunError
from distill.files import FileLock, disk_full_is_clear, fsync_folder, now
from distill.ledger import decode_line, encode_line


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request of a batch asks: a hash of its body without max_tokens, and max_tokens."""

    digest: str
    max_tokens: int


@dataclass(slots=True)
class Known:
    """One batch of the file that is neither dropped nor done; `asked` lacks the requests that are known to have failed.

    `provider_id` is None while it is not known whether the provider created it. `planned` is a Unix time.
    """

    uuid: str
    input_file: str
    planned: float
    asked: dict[str, Asked] = field(repr=False)
    provider_id: str | None = None
    ended: bool = False


class BatchState:
    """The one writer of a state file; `open` takes it over from the process before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost_bytes = 0
        """Of lines that could not be read when the file was opened."""
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), "list of batches")
        self._file: int | None = None

    def open(self, answered: Container[str]) -> list[Known]:
        """The batches whose replies may still be wanted, in the order in which they were planned.

        Those whose every request is in `answered` are done: nobody will ask for them again, and nothing of them is
        only with the provider. Raises LockedError when another process has the file, RunError for a line of a later
        version.
        """
        self._lock.acquire()
        try:
            found = self._read()
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            fsync_folder(self.path.parent)
            self._end_torn_line()
            wanted = []
            for batch in found.values():
                if all(name in answered for name in batch.asked):
                    self._write({"event": "done", "batch": batch.uuid})
                else:
                    wanted.append(batch)
            return wanted
        except BaseException:
            self.close()
            raise

    def plan(self, uuid: str, input_file: str, asked: dict[str, Asked]) -> None:
        """To be called before the batch is created."""
        ids = {name: [one.digest, one.max_tokens] for name, one in asked.items()}
        self._write({"event": "planned", "batch": uuid, "input_file": input_file, "time": now(), "asked": ids})

    def created(self, uuid: str, provider_id: str) -> None:
        self._write({"event": "created", "batch": uuid, "provider_id": provider_id})

    def dropped(self, uuid: str, why: str) -> None:
        self._write({"event": "dropped", "batch": uuid, "why": why})

    def failed(self, uuid: str, ids: list[str]) -> None:
        """These requests have no reply in its results, and somebody was told so."""
        self._write({"event": "failed", "batch": uuid, "ids": ids})

    def ended(self, uuid: str) -> None:
        self._write({"event": "ended", "batch": uuid})

    def close(self) -> None:
        """Gives the file and its lock back; may be called twice."""
        descriptor, self._file = self._file, None
        if descriptor is not None:
            os.close(descriptor)
        self._lock.release()

    def _write(self, event: dict[str, Any]) -> None:
        """Raises DiskFullError; part of a line may then stand in the file, which no reader takes for one."""
        if self._file is None:
            raise RuntimeError("the list of batches is not open")
        line = memoryview(encode_line(event))
        with disk_full_is_clear(self.path):
            try:
                while line:
                    line = line[os.write(self._file, line) :]
                os.fsync(self._file)
            except OSError:
                self._end_torn_line()
                raise

    def _end_torn_line(self) -> None:
        """Cuts off what stands behind the last line's end, so that the next line is one of its own."""
        assert self._file is not None
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)

    def _read(self) -> dict[str, Known]:
        found: dict[str, Known] = {}
        self.lost_bytes = 0
        for event in self._events():
            try:
                _note(found, event)
            except (KeyError, TypeError, ValueError) as error:
                raise RunError(
                    "the list of batches holds a line that this version of distill cannot read",
                    given=f"{self.path}: {str(event)[:200]}",
                    todo="use the version that wrote it, or a newer one",
                ) from error
        return found

    def _events(self) -> Iterator[Any]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                try:
                    yield decode_line(line)
                except ValueError:
                    self.lost_bytes += len(line)


def _note(found: dict[str, Known], event: Any) -> None:
    """Raises KeyError, TypeError or ValueError for an event that is none of ours."""
    kind, uuid = event["event"], event["batch"]
    if kind == "planned":
        asked = {name: Asked(str(digest), int(tokens)) for name, (digest, tokens) in event["asked"].items()}
        planned = datetime.fromisoformat(event["time"]).astimezone(UTC).timestamp()
        found[uuid] = Known(uuid, event["input_file"], planned, asked)
    elif kind == "created" and uuid in found:
        found[uuid].provider_id = event["provider_id"]
    elif kind == "ended" and uuid in found:
        found[uuid].ended = True
    elif kind == "failed" and uuid in found:
        for name in event["ids"]:
            found[uuid].asked.pop(name, None)
    elif kind in ("dropped", "done"):
        found.pop(uuid, None)
    elif kind not in (
        "created",
        "failed",
        "ended",
    ):  # of a batch whose `planned` line was altered: nothing to attach to
        raise ValueError(f"an event {kind}")
