"""Small programming tasks with tests on stdin and stdout and a solution in Python that is known to be right.

The tests of a task follow from the task alone, whatever split or seed asked for it. Knows nothing about models, files
or recipes, and runs no program.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from distill.problems import program_lists, program_numbers, program_texts
from distill.problems.program_task import MOST_TESTS, Family, Task
from distill.problems.supply import Draft, Split, drafted
from distill.records import CodeTest, Prompt

FAMILIES: tuple[Family, ...] = (*program_lists.FAMILIES, *program_texts.FAMILIES, *program_numbers.FAMILIES)

_OPENINGS = (
    "Write a program that reads from standard input and prints to standard output.",
    "Write a complete program. It reads its input from stdin and prints the result to stdout.",
    "Solve this task with a program that reads standard input and writes standard output.",
)

_GOOD_EXAMPLE = 40
"""Characters of an example that says something and is read at a glance."""


def problems(split: Split, seed: int) -> Iterator[Prompt]:
    """Raises InputError when there are hardly any left."""
    return drafted("programs", split, seed, _draw)


def _draw(rng: random.Random) -> Draft:
    task = rng.choice(FAMILIES)(rng)
    opening = rng.choice(_OPENINGS)
    return Draft(task.content, lambda: prompt_of(task, opening))


def prompt_of(task: Task, opening: str = _OPENINGS[0]) -> Prompt:
    tests = tests_of(task)
    shared = Counter(test.output for test in tests)
    example = min(tests, key=lambda test: (shared[test.output], abs(len(test.input + test.output) - _GOOD_EXAMPLE)))
    question = "\n\n".join(
        (
            f"{opening} {task.statement}",
            f"Input: {task.reads}",
            f"Output: {task.prints}",
            f"Example input:\n```\n{example.input}```",
            f"Example output:\n```\n{example.output}```",
        )
    )
    return Prompt(question, kind="code", tests=tests, domain="code", solution=task.solution)


def tests_of(task: Task) -> tuple[CodeTest, ...]:
    """At most MOST_TESTS different ones; both sides are whole lines, as a terminal would show them."""
    inputs = list(dict.fromkeys(task.inputs(random.Random(task.content))))[:MOST_TESTS]
    return tuple(CodeTest(f"{text}\n", f"{task.expected(text)}\n") for text in inputs)
