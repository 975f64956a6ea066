"""Records and segments for tests of the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from distill.ledger import Ledger, PutAside, encode_line
from distill.records import Sampling, SamplingRecord, TeacherIdentity, Trace


def trace(key: object, *, revision: int = 0, finish: str = "stop", raw: str | None = None) -> Trace:
    return Trace(
        key=str(key),
        asked="a",
        prompt_id=f"prompt {key}",
        sample=0,
        raw=f"<think>\nreasoning {key} 思考\n</think>\n\n{key}" if raw is None else raw,
        finish_reason=finish,  # type: ignore[arg-type]  # some tests hand in a wrong one
        teacher=TeacherIdentity("m", "r"),
        sampling=SamplingRecord(Sampling(temperature=0.6, seed=1), Sampling(temperature=0.6)),
        revision=revision,
        error="failed" if finish == "error" else None,
    )


def eventually(condition: Callable[[], Any], what: str) -> None:
    """Polls until the condition holds; far beyond any delay that the ledger allows itself, it fails."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def open_segment(folder: Path, records: list[Trace], *, number: int = 0) -> Path:
    """What a writer that was killed leaves behind."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"open-{number:05d}.log"
    path.write_bytes(b"".join(encode_line(record.to_json()) for record in records))
    return path


def write_all(folder: Path, traces: Iterable[Trace]) -> None:
    with Ledger(folder) as ledger:
        for one in traces:
            ledger.append(one)


def put_aside_by_verify(folder: Path) -> list[PutAside]:
    """What opening with a full look finds."""
    told: list[PutAside] = []
    Ledger(folder, verify=True, on_put_aside=told.append).close()
    return told


class DiedError(Exception):
    """The process died here."""


def dying(patch: pytest.MonkeyPatch, steps: Sequence[tuple[object, str]], last: int) -> Callable[[], int]:
    """Each of the named functions counts as a step; after `last` of them the process dies. Returns what counts them."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*given: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done > last:
                raise DiedError
            return real(*given, **named)

        return instead

    for place, name in steps:
        patch.setattr(place, name, counted(getattr(place, name)))
    return lambda: done


def quarantined(folder: Path) -> list[Path]:
    return sorted((folder / "quarantine").glob("*"))
