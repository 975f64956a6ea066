"""A prompt and a right, well-formed trace of it, for tests that change one thing about them."""

from __future__ import annotations

from distill.records import Prompt, Sampling, SamplingRecord, TeacherIdentity, Trace

PROMPT = Prompt("2 + 2?", kind="math", answer="4")
TRACE = Trace(
    key="k",
    asked="a",
    prompt_id=PROMPT.id,
    sample=0,
    raw="<think>\nadd\n</think>\n\n4",
    reasoning="add",
    answer="4",
    finish_reason="stop",
    teacher=TeacherIdentity("t", "1"),
    sampling=SamplingRecord(Sampling()),
)
