"""What a sample is, what is asked for it, and what a reply becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distill.engines import Reply
from distill.records import Prompt, Sampling, TeacherIdentity, request_seed
from distill.sampling.requests import Subject, answered, derive, failed, task_for, wanted
from sampling.scripted import prompts, subject

PROMPT = Prompt("2 + 2?", id="a", kind="math", answer="4")


def test_a_task_carries_its_identity_and_its_own_seed() -> None:
    one, other = task_for(PROMPT, subject(), 0), task_for(PROMPT, subject(), 1)
    assert one.key != other.key
    assert one.request.id == one.key
    assert one.request.seed == request_seed(Sampling(temperature=0.6, seed=1), one.key) != other.request.seed
    assert one.request.messages == [{"role": "user", "content": "2 + 2?"}]
    assert (one.request.max_tokens, one.prompt_id, one.sample) == (100, "a", 0)
    assert task_for(PROMPT, subject(sampling=Sampling(temperature=0.6)), 0).request.seed is None


@pytest.mark.parametrize(
    ("prompt", "who", "same"),
    [
        (replace(PROMPT, id="b"), subject(), True),
        (replace(PROMPT, answer="5", domain="math"), subject(), True),
        (PROMPT, subject(max_tokens=7), True),
        (PROMPT, subject(reasoning_format="plain"), True),
        (replace(PROMPT, question="2 + 3?"), subject(), False),
        (PROMPT, subject(sampling=Sampling(temperature=0.7, seed=1)), False),
        (PROMPT, subject(sampling=Sampling(temperature=0.6, seed=2)), False),
        (PROMPT, subject(identity=TeacherIdentity("scripted", "2")), False),
        (PROMPT, subject(forced_prefix="<think>\n"), False),
        (PROMPT, subject(messages=lambda p: [{"role": "user", "content": f"{p.question} Think."}]), False),
    ],
)
def test_the_key_is_what_was_asked_of_whom_and_how(prompt: Prompt, who: Subject, same: bool) -> None:
    assert (task_for(prompt, who, 0).key == task_for(PROMPT, subject(), 0).key) is same


def test_what_is_there_is_not_wanted() -> None:
    have = {task_for(prompts(3)[1], subject(), 0).key}
    assert [task.prompt_id for task in wanted(prompts(3), subject(), 1, have)] == ["p0", "p2"]


def test_a_reply_becomes_a_trace() -> None:
    task = task_for(PROMPT, subject(), 2)
    honoured = Sampling(temperature=0.6)
    reply = Reply("<think>\nadd\n</think>\n\n4", "stop", "here", None, 3, 9, 5, honoured)
    trace = answered(task, reply, subject(), 4, 2)
    assert (trace.key, trace.revision, trace.attempts, trace.sample) == (task.key, 4, 2, 2)
    assert (trace.raw, trace.reasoning, trace.answer, trace.fault) == (reply.text, "add", "4", None)
    assert (trace.prompt_tokens, trace.completion_tokens, trace.reasoning_tokens) == (3, 9, 5)
    assert (trace.sampling.requested, trace.sampling.honoured) == (subject().sampling, honoured)
    assert trace.seed == task.request.seed
    assert trace.created


def test_a_reasoning_field_is_kept_apart_in_the_raw_reply() -> None:
    trace = answered(task_for(PROMPT, subject(), 0), Reply("4", "stop", "here", "add"), subject(), 0, 1)
    assert (trace.raw, trace.raw_reasoning, trace.reasoning, trace.answer) == ("4", "add", "add", "4")


def test_a_cut_reply_has_no_answer() -> None:
    who = subject(forced_prefix="<think>\n")
    trace = answered(task_for(PROMPT, who, 0), Reply("2 and 2 are", "length", "here"), who, 0, 1)
    assert (trace.reasoning, trace.answer, trace.fault) == ("2 and 2 are", None, "missing_close")


def test_a_failure_is_recorded_without_a_text_and_is_never_parsed() -> None:
    trace = failed(task_for(PROMPT, subject(), 0), subject(), "here", "HTTP 503", 1, 6)
    assert (trace.finish_reason, trace.raw, trace.error, trace.attempts, trace.revision) == (
        "error",
        "",
        "HTTP 503",
        6,
        1,
    )
    assert derive(trace, "tags", "") is trace


def test_another_style_reads_the_same_raw_reply_anew() -> None:
    task = task_for(PROMPT, subject(), 0)
    trace = answered(task, Reply("add\n</think>\n\n4", "stop", "here"), subject(reasoning_format="plain"), 0, 1)
    assert trace.fault == "leaked_tag"
    again = derive(trace, "tags", "<think>\n")
    assert (again.reasoning, again.answer, again.fault, again.raw) == ("add", "4", None, trace.raw)
