"""Checks of a trace by its form alone: ended by itself, and well-formed.

With the verifier of the prompt's kind they make up what counts as right, for `filter` and for sampling until enough
answers are. Small pure functions that return a named reason; they know nothing about processes, files or what a verdict
is used for.
"""

from __future__ import annotations

from distill.contract import Response
from distill.errors import ContractError
from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome, failing


def finished(prompt: Prompt, trace: Trace) -> Outcome:
    """The reply ended by itself: not cut at the token limit (`truncated`), no loop, no error."""
    reasons = {"length": "truncated", "loop": "loop", "error": "error"}
    return PASS if trace.finish_reason == "stop" else failing(reasons[trace.finish_reason])


def think_format(prompt: Prompt, trace: Trace) -> Outcome:
    """The reply has the form its prompt asks for: a whole answer, reasoning where required, no stray tags."""
    if trace.fault is not None:
        return failing(trace.fault)
    if trace.answer is None:
        return failing("missing_answer")
    if prompt.reasoning == "required" and trace.reasoning is None:
        return failing("empty_reasoning")
    if prompt.reasoning == "none" and trace.reasoning is not None:
        return failing("unwanted_reasoning")
    try:
        Response(trace.reasoning, trace.answer)
    except ContractError:
        return failing("leaked_tag")
    return PASS
