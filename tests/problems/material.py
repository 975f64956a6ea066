"""What the tests of the generators share: drawing once, and the promises that all of them make."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable
from fractions import Fraction

from distill.problems.generators import generated
from distill.problems.supply import Split
from distill.records import Prompt
from distill.verify.math import check_math

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@functools.cache
def take(name: str, split: Split, seed: int, count: int) -> tuple[Prompt, ...]:
    return tuple(itertools.islice(generated(name, split, seed), count))


def assert_one_split_each(name: str, facts: Callable[[Prompt], Hashable], counts: tuple[int, int, int]) -> None:
    """`facts` reads from the text alone what is asked, so that it is the same for all wordings."""
    owners: dict[Hashable, Split] = {}
    for split, count in zip(SPLITS, counts, strict=True):
        for seed in (0, 1):
            drawn = take(name, split, seed, count)
            found = [facts(prompt) for prompt in drawn]
            assert len(found) == count
            assert len(set(found)) == count, "no problem twice"
            assert len({prompt.id for prompt in drawn}) == count
            for fact in found:
                assert owners.setdefault(fact, split) == split, fact


def assert_number_is_read(gold: str) -> None:
    """The verifier has to take in the gold answer, not only to find the same text: so it is written differently."""
    value = Fraction(gold)
    for number, outcome in ((value, "pass"), (value + 1, "fail"), (-value or Fraction(7), "fail")):
        boxed = f"\\boxed{{\\frac{{{2 * number.numerator}}}{{{2 * number.denominator}}}}}"
        assert check_math(boxed, gold).outcome == outcome, (boxed, gold)
    assert check_math(f"so it is \\boxed{{{gold}}}.", gold).outcome == "pass"
