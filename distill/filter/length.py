"""Is a trace neither too short nor too long for the student? Counts nothing itself: a tokenizer is not its business."""

from __future__ import annotations

from distill.filter_specs import LengthSettings
from distill.records import Prompt, Trace
from distill.verify import Outcome, abstaining


def length(prompt: Prompt, trace: Trace, settings: LengthSettings, tokens: int | None) -> Outcome:
    """`too_short`, `too_long`, or `unknown_length` where nobody counted. `tokens`: of the canonical text of the reply,
    in the student's vocabulary (`trace.completion_tokens` are the teacher's). The score is that number."""
    if tokens is None:
        return abstaining("unknown_length")
    if settings.min_tokens is not None and tokens < settings.min_tokens:
        return Outcome("fail", "too_short", float(tokens))
    if settings.max_tokens is not None and tokens > settings.max_tokens:
        return Outcome("fail", "too_long", float(tokens))
    return Outcome("pass", "", float(tokens))
