"""What every contestant of benchmarks/filter.py shares: the traces of the corpus, two processes, what it tells.

    python SCRIPT --corpus FOLDER [--way WAY]

The last line of the output is a JSON object with `found`: the ids that it would leave out, and `seconds`, from the
first trace read to the last one decided; starting the interpreter and importing are not in it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

PROCESSES = 2
NO_TEXT = "FILTER_BENCHMARK_NO_TEXT"
"""Set in the environment: distill does not compare answers and gold as texts first."""
CHUNK = 64
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    corpus: Path
    way: str

    def traces(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.corpus.glob("traces-*.jsonl")):
            with path.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def problems(self) -> list[str]:
        lines = (self.corpus / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["question"] for line in lines]


def work() -> Work:
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--way", default="")
    options = parser.parse_args()
    return Work(options.corpus, options.way)


def in_two_processes(
    function: Callable[[Any], T], items: Iterable[Any], prepare: Callable[..., None], *given: Any, chunk: int = CHUNK
) -> Iterator[T]:
    """A plain pool over the items, in order. Forked, so that what is imported is not imported again."""
    with get_context("fork").Pool(PROCESSES, prepare, given) as pool:
        yield from pool.imap(function, items, chunk)


def tell(run: Callable[[], list[str]]) -> None:
    began = time.perf_counter()
    found = run()
    print(json.dumps({"seconds": time.perf_counter() - began, "found": found}))
