"""A verifier of one's own that passes the gold answer, and does what other answers order it to."""

from __future__ import annotations

import os
import time
from typing import Any

from distill.filter import looking
from distill.filter.looking import Looked
from distill.records import Prompt
from distill.verify import PASS, Outcome, failing


def judge(prompt: Prompt, answer: str) -> Outcome:
    if answer == "hang":
        time.sleep(3600)
    if answer == "die":
        os._exit(3)
    if answer == "raise":
        raise ValueError("a bug in the verifier")
    return PASS if answer == prompt.answer else failing("wrong_answer")


def seconds(*given: object) -> float:
    return 2.0


def prepare(*lens: Any) -> None:
    if lens:
        looking.prepare(*lens)


def look(prompt: Prompt, row: dict[str, Any], *given: Any) -> Looked:
    """A check of form that hangs."""
    if row["answer"] == "hang":
        time.sleep(3600)
    return looking.look(prompt, row, *given)
