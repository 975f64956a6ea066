"""What the contestants of benchmarks/generate.py share: options, prompts, request body, a file appended to durably.

Standard library only, so that it runs in any contestant's environment. Knows nothing about who asks.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "served"
TEMPERATURE, TOP_P, MAX_TOKENS = 0.6, 0.95, 4_096
GROUP_RECORDS, GROUP_SECONDS = 64, 0.5
"""A file is fsynced after so many records or so long, whichever comes first, as the product's ledger does."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt and the seed of its request."""

    id: str
    question: str
    seed: int


@dataclass(frozen=True, slots=True)
class Job:
    """What a contestant has to do: ask `url` (ending in /v1) every prompt once, and leave the replies in `out`."""

    url: str
    prompts: tuple[Asked, ...]
    out: Path
    in_flight: int
    model: str
    max_tokens: int
    way: str

    def body(self, asked: Asked) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": asked.question}], **self.settings(), "seed": asked.seed}

    def settings(self) -> dict[str, Any]:
        """What all requests have in common; the sampling of the product's teacher spec `openai-compatible`."""
        return {"model": self.model, "max_tokens": self.max_tokens, "temperature": TEMPERATURE, "top_p": TOP_P}


def job() -> Job:
    """The job on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS)
    parser.add_argument("--way", default="")
    given = parser.parse_args()
    with given.prompts.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    prompts = tuple(Asked(str(row["id"]), row["question"], row.get("seed", n)) for n, row in enumerate(rows))
    given.out.mkdir(parents=True, exist_ok=True)
    return Job(given.url, prompts, given.out, given.in_flight, given.model, given.max_tokens, given.way)


def tell(stored: Callable[[], tuple[int, int]]) -> None:
    """Says on standard output's last line what the process has cost until now, and then what its output holds:
    `stored` counts distinct replies and their completion tokens."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cost = {
        "ended": time.time(),
        "cpu_seconds": sum(each.ru_utime + each.ru_stime for each in used),
        "peak_mb": max(each.ru_maxrss for each in used) / 1_024,
    }
    replies, tokens = stored()
    print(json.dumps({**cost, "stored": replies, "completion_tokens": tokens}), flush=True)


class Durable:
    """A JSONL file: a record is written at once; a thread fsyncs groups of them. Leaving the block fsyncs the rest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._waiting = 0
        self._due, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._sync, daemon=True)

    def __enter__(self) -> Durable:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._due.set()
        self._thread.join()
        os.fsync(self._file)
        os.close(self._file)

    def append(self, record: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(record, separators=(",", ":")).encode() + b"\n")
        self._waiting += 1
        if self._waiting >= GROUP_RECORDS and not self._due.is_set():
            self._due.set()

    def stored(self) -> tuple[int, int]:
        """(distinct replies, completion tokens of them) in the file."""
        rows = {row["id"]: row for row in map(json.loads, self.path.read_text(encoding="utf-8").splitlines())}
        return len(rows), sum(row["usage"]["completion_tokens"] for row in rows.values())

    def _sync(self) -> None:
        while not self._closing:
            self._due.wait(GROUP_SECONDS)
            self._due.clear()
            if self._waiting:
                self._waiting = 0
                os.fsync(self._file)
