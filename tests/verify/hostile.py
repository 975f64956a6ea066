"""Verifiers for the tests of the pool: one that dies, hangs, fails or answers as its argument says."""

from __future__ import annotations

import os
import time

from distill.records import Prompt
from distill.verify import PASS, Outcome, failing


def obey(order: str, number: int) -> Outcome:
    if order == "die":
        os._exit(3)
    if order == "hang":
        time.sleep(3600)
    if order == "raise":
        raise ValueError("a bug in the verifier")
    if order == "recurse":
        return obey(order, number + 1)
    if order == "eat":
        return Outcome("pass", score=float(len(bytearray(2**40))))
    return PASS if number % 3 == 0 else failing(f"number_{number}")


def obey_answer(name: str, prompt: Prompt, answer: str) -> Outcome:
    """The same with what `verifiers.judge` takes: the answer is the order, the gold answer the number."""
    return obey(answer, int(prompt.answer or "0"))
