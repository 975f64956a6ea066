"""Items of reasoning-gym, imported only when one is asked for. Knows nothing about prompts and splits.

Only tasks whose items depend on the seed alone are fit for use: `polynomial_multiplication`, for one, iterates over a
set of symbols, so its items change with Python's hash seed (reasoning-gym 0.1.25).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distill.environment import missing_extra

ITEMS = 2**40
"""Numbers of items that are drawn from: an item is made from its number alone, so none is stored."""


@dataclass(frozen=True, slots=True)
class Item:
    """What reasoning-gym says about one item: its gold answer, and the values that its question is made of."""

    answer: str
    values: dict[str, Any]


def task(name: str, **settings: Any) -> Callable[[random.Random], Item]:
    """Draws items of a task of reasoning-gym. Raises MissingError when it is not installed."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise missing_extra("the built-in algebra and counting problems need reasoning-gym", "problems") from error
    dataset = reasoning_gym.create_dataset(name, seed=0, size=ITEMS, **settings)

    def draw(rng: random.Random) -> Item:
        item = dataset[rng.randrange(ITEMS)]
        return Item(item["answer"], item["metadata"])

    return draw
