"""A verifier whose items say how long they take, and how long they may take."""

from __future__ import annotations

import time

from distill.verify import PASS, Outcome


def wait(takes: float, may_take: float) -> Outcome:
    time.sleep(takes)
    return PASS


def seconds(takes: float, may_take: float) -> float:
    return may_take
