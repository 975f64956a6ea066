"""The built-in problem generators by name: prompts with ground truth, for tests, demos and machines without network.

Every one gives the same sequence for the same seed, no problem twice, and each problem to exactly one split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from distill.errors import UsageError, near
from distill.problems import algebra, arithmetic, choices, counting, programs, units
from distill.problems.supply import Split
from distill.records import Prompt


@dataclass(frozen=True, slots=True)
class Settings:
    """What a source spec says to the generator of arithmetic; the others have no settings."""

    steps: tuple[int, int] = (1, 4)
    operators: str = "+-*"


Generator = Callable[[Split, int, Settings], Iterator[Prompt]]


def generated(
    name: str, split: Split, seed: int, *, steps: tuple[int, int] = (1, 4), operators: str = "+-*"
) -> Iterator[Prompt]:
    """Prompts of one generator, without source, license and reasoning, which are the caller's to fill in.

    The iterator raises InputError when the supply is used up. Raises UsageError for an unknown name, MissingError at
    once when the generator needs a package that is not installed.
    """
    if name not in GENERATORS:
        raise UsageError(
            f"there is no generator '{name}'{near(name, list(GENERATORS))}", todo=f"use one of {', '.join(GENERATORS)}"
        )
    return GENERATORS[name](split, seed, Settings(steps, operators))


def _arithmetic(split: Split, seed: int, settings: Settings) -> Iterator[Prompt]:
    for problem in arithmetic.problems(split, seed, steps=settings.steps, operators=settings.operators):
        yield Prompt(
            problem.question,
            kind="math",
            answer=str(problem.result),
            domain="math",
            difficulty=str(len(problem.steps)),
        )


def _plain(problems: Callable[[Split, int], Iterator[Prompt]]) -> Generator:
    return lambda split, seed, settings: problems(split, seed)


GENERATORS: Mapping[str, Generator] = {
    "arithmetic": _arithmetic,
    "algebra": _plain(algebra.problems),
    "counting": _plain(counting.problems),
    "unit-conversion": _plain(units.problems),
    "programs": _plain(programs.problems),
    "multiple-choice": _plain(choices.problems),
}
GENERATOR_NAMES: tuple[str, ...] = tuple(GENERATORS)
