"""Stands in for worker processes where they would only cost time: the same functions, called in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from distill.filter import looking
from distill.filter.looking import Item, Lens, Looked
from distill.verify import READ_GOLD, Outcome
from distill.verify.verifiers import JUDGE, judge


class InProcess:
    """A VerifierPool of `verifiers.judge`, and of nothing else, that judges in this process."""

    def __init__(self, function: str, **_: Any) -> None:
        assert function == JUDGE

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def map(self, items: Iterable[Any]) -> Iterator[Outcome]:
        return (judge(*item) for item in items)


class GoldsInProcess:
    """A VerifierPool of `math.read_gold` that reads in this process."""

    def __init__(self, function: str, **_: Any) -> None:
        assert function == READ_GOLD

    def __enter__(self) -> GoldsInProcess:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def map(self, items: Iterable[tuple[str]]) -> Iterator[Outcome]:
        from distill.verify.math import read_gold  # math-verify takes a second to load

        return (read_gold(*item) for item in items)


class LooksInProcess:
    """A LocalLooking that looks in this process."""

    def __init__(self, lens: Lens, workers: int | None = None) -> None:
        self.lens = lens

    def __enter__(self) -> LooksInProcess:
        looking.prepare(self.lens)
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def start(self, size: int) -> None:
        """There is nothing to start."""

    def look(self, items: Iterable[Item | None]) -> Iterator[Looked]:
        return (looking.look(*item) for item in items if item is not None)
