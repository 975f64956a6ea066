"""What every built-in generator shares: which split owns a problem, and a stream of one split that never repeats.

A problem's *content* is a short canonical text of what is asked, without its wording, such as `48+75*2`. It alone
decides the split. Knows nothing about any kind of problem, models, files or recipes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from distill.errors import InputError
from distill.records import Prompt

Split = Literal["train", "validation", "test"]
T = TypeVar("T")

MOST_DRAWS_IN_VAIN = 20_000
"""So many draws in a row without a new problem, and the supply counts as used up."""

SPLIT_OF_PERCENTILE: tuple[tuple[int, Split], ...] = ((90, "train"), (95, "validation"), (100, "test"))


def split_of(content: str) -> Split:
    """The split that owns this content: 90% train, 5% validation, 5% test, by hash."""
    percentile = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") % 100
    return next(split for bound, split in SPLIT_OF_PERCENTILE if percentile < bound)


@dataclass(frozen=True, slots=True)
class Draft:
    """A problem drawn but not yet written out: most draws belong to another split, so `prompt` is only then called."""

    content: str
    prompt: Callable[[], Prompt]


def supply(
    split: Split,
    draw: Callable[[], T],
    content: Callable[[T], str],
    what: str,
    *,
    todo: str = "lower the limit",
    patience: int = MOST_DRAWS_IN_VAIN,
) -> Iterator[T]:
    """What `draw` gives, in its order, as far as it belongs to the split and its content is new.

    Raises InputError after `patience` draws in vain, naming `what` there is hardly more of.
    """
    seen: set[str] = set()
    in_vain = 0
    while in_vain < patience:
        drawn = draw()
        key = content(drawn)
        if key not in seen and split_of(key) == split:
            seen.add(key)
            in_vain = 0
            yield drawn
        else:
            in_vain += 1
    raise InputError(f"there are hardly more than {len(seen)} different {what} ({split})", todo=todo)


def drafted(name: str, split: Split, seed: int, draw: Callable[[random.Random], Draft | None]) -> Iterator[Prompt]:
    """Prompts of the generator `name` from its drafts; the same seed gives the same sequence on every machine.

    A draw that came to nothing is None.
    """
    rng = random.Random(f"{name}:{split}:{seed}")

    def one() -> Draft:
        for _ in range(MOST_DRAWS_IN_VAIN):
            draft = draw(rng)
            if draft is not None:
                return draft
        raise InputError(f"no problem of '{name}' could be drawn", todo="report this: the generator is at fault")

    what = f"problems of '{name}'"
    stream = supply(split, one, lambda draft: draft.content, what, patience=MOST_DRAWS_IN_VAIN)
    return (draft.prompt() for draft in stream)
