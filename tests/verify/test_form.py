"""Each check of a trace's form and the reasons it gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from checked_trace import PROMPT, TRACE

from distill.verify.form import finished, think_format


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", ""), ("length", "truncated"), ("loop", "loop"), ("error", "error")]
)
def test_finished(finish: Any, reason: str) -> None:
    found = finished(PROMPT, replace(TRACE, finish_reason=finish))
    assert (found.outcome, found.reason) == ("fail" if reason else "pass", reason)


@pytest.mark.parametrize(
    ("reasoning", "changed", "reason"),
    [
        ("required", {}, ""),
        ("required", {"reasoning": None}, "empty_reasoning"),
        ("optional", {"reasoning": None}, ""),
        ("optional", {}, ""),
        ("none", {"reasoning": None}, ""),
        ("none", {}, "unwanted_reasoning"),
        ("required", {"answer": None}, "missing_answer"),
        ("required", {"fault": "missing_close", "answer": None}, "missing_close"),
        ("required", {"fault": "doubled_tag"}, "doubled_tag"),
        ("none", {"fault": "leaked_tag"}, "leaked_tag"),
        ("required", {"answer": "4</think>"}, "leaked_tag"),
        ("required", {"reasoning": "add<|im_end|>"}, "leaked_tag"),
    ],
)
def test_think_format(reasoning: Any, changed: dict[str, Any], reason: str) -> None:
    found = think_format(replace(PROMPT, reasoning=reasoning), replace(TRACE, **changed))
    assert (found.outcome, found.reason) == ("fail" if reason else "pass", reason)
