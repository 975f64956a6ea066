"""A judge that can be killed from outside: `python -m filter.judge_job URL FOLDER ANSWERS`, and what it is asked."""

from __future__ import annotations

import sys
from pathlib import Path

from distill.filter.judging import Judge
from distill.judge_specs import JudgeSettings
from distill.records import Prompt


def sums(count: int) -> list[tuple[Prompt, str]]:
    """Questions with their answers, every third of them wrong."""
    return [
        (Prompt(f"What is {n}+{n}?", id=f"p{n}", kind="math", answer=str(2 * n)), f"It is {2 * n + (n % 3 == 0)}.")
        for n in range(count)
    ]


def main(url: str, folder: str, count: str) -> None:
    settings = JudgeSettings(teacher=url, model="scripted", concurrency=4)
    with Judge(settings, Path(folder), seed=1) as judge:
        for outcome in judge.outcomes(sums(int(count))):
            sys.stdout.write(f"{outcome.outcome}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
