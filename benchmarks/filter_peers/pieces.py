"""distill's own parts one by one, in the same plain pool as the peers: `--way math|near|contamination`.

What `distill filter` takes in all, with every check, is measured by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from work import CHUNK, NO_TEXT, Work, in_two_processes, tell, work

_contamination: Any = None


def nothing() -> None:
    return None


def near(wanted: Work) -> list[str]:
    from distill.filter.near import NearDuplicates, signatures

    rows = [(row["id"], row["text"]) for row in wanted.traces()]
    found = NearDuplicates()
    for place, mark in enumerate(together(signatures, [text for _, text in rows], nothing)):
        found.add(place, mark)
    return [rows[one.row][0] for one in found.decide()]


def contamination(wanted: Work) -> list[str]:
    rows = [(row["id"], row["text"]) for row in wanted.traces()]
    hits = together(contaminated, [text for _, text in rows], read_problems, wanted.problems())
    return [key for (key, _), hit in zip(rows, hits, strict=True) if hit]


def read_problems(problems: list[str]) -> None:
    global _contamination
    from distill.prompts.contamination import Contamination

    _contamination = Contamination(("evaluation", problem) for problem in problems)


def contaminated(texts: list[str]) -> list[bool]:
    return [hit is not None for hit in _contamination.hits(texts)]


def together(
    function: Callable[[list[str]], list[Any]], texts: list[str], prepare: Callable[..., None], *given: Any
) -> Iterator[Any]:
    """What a function says of texts that it takes many at a time, as the product calls it."""
    chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
    return chain.from_iterable(in_two_processes(function, chunks, prepare, *given, chunk=1))


def math(wanted: Work) -> list[str]:
    from distill.verify.math import prepare

    prepare()
    rows = [(row["id"], row["answer"], row["gold"]) for row in wanted.traces()]
    verdicts = in_two_processes(right, [row[1:] for row in rows], nothing)
    return [row[0] for row, passed in zip(rows, verdicts, strict=True) if not passed]


def right(pair: tuple[str, str]) -> bool:
    from distill.verify.math import check_math

    return check_math(*pair, fast=not os.environ.get(NO_TEXT)).outcome == "pass"


STAGES = {"near": near, "contamination": contamination, "math": math}

if __name__ == "__main__":
    given = work()
    tell(lambda: STAGES[given.way](given))
