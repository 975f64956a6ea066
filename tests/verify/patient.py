"""A verifier whose items say how long they take, and how long they may take; it loads for a second at the first."""

from __future__ import annotations

import functools
import time

from distill.verify import PASS, Outcome


def wait(takes: float, may_take: float) -> Outcome:
    time.sleep(takes)
    return PASS


def seconds(takes: float, may_take: float) -> float:
    return may_take


@functools.cache
def _load() -> None:
    time.sleep(1.0)


def ready(takes: float, may_take: float) -> None:
    _load()


def wait_readily(takes: float, may_take: float) -> Outcome:
    _load()
    return wait(takes, may_take)
