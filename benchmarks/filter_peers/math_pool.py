"""math-verify in a plain pool, as a user of it would write it: the answer against the gold one, its own time limits."""

from __future__ import annotations

import logging

from math_verify import parse, verify
from work import in_two_processes, tell, work


def prepare() -> None:
    logging.disable(logging.WARNING)


def right(pair: tuple[str, str]) -> bool:
    gold, answer = pair
    return bool(verify(parse(f"${gold}$"), parse(answer)))


if __name__ == "__main__":
    wanted = work()

    def run() -> list[str]:
        rows = [(row["id"], row["gold"], row["answer"]) for row in wanted.traces()]
        verdicts = in_two_processes(right, [row[1:] for row in rows], prepare)
        return [row[0] for row, passed in zip(rows, verdicts, strict=True) if not passed]

    tell(run)
