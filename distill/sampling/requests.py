"""From prompts to the samples that are wanted: identity, seeds, what a reply means. Knows nothing about transport."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from distill.contract import Parsed, ReasoningFormat, parse_reply
from distill.engines import Reply, Request, TokenIds
from distill.files import now, sha256_of
from distill.records import (
    FinishReason,
    Message,
    Prompt,
    Sampling,
    SamplingRecord,
    TeacherIdentity,
    Trace,
    asked_hash,
    request_seed,
    trace_key,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is sampled and how it is asked: a teacher, or a student being examined as if it were one.

    `messages` builds the messages of a prompt; `forced_prefix` is what the model's chat template puts before replies.
    """

    identity: TeacherIdentity
    messages: Callable[[Prompt], list[Message]]
    reasoning_format: ReasoningFormat
    forced_prefix: str
    sampling: Sampling
    max_tokens: int
    reasons: bool = False
    """It always reasons first: a reply without is a failure of that sample, but for prompts that want no reasoning."""
    common_numbers: bool = False
    """The same question and sample index gets the same seed whoever answers: common random numbers, which take much
    of the chance out of the difference of two models (Glasserman and Yao, doi:10.1287/mnsc.38.6.884)."""


@dataclass(frozen=True, slots=True)
class Task:
    """One sample that is wanted: its identity, and the request that would get it, or the rest of it."""

    key: str
    asked: str
    prompt_id: str
    sample: int
    request: Request
    reasoning: bool = False
    """Whether the prompt leaves room for reasoning in the reply: all but those that want none."""
    place: int | None = None
    """Which of the wanted prompts it belongs to, where that is known."""
    cut: Trace | None = None
    """The trace that it goes on with."""

    @property
    def max_tokens(self) -> int:
        """Tokens that the whole reply may have."""
        before = self.request.goes_on_from
        return self.request.max_tokens + (len(before.output) if before is not None else 0)


def wanted(prompts: Iterable[Prompt], subject: Subject, samples: int, have: Container[str]) -> Iterator[Task]:
    """Samples that no answer exists for yet, breadth first: sample 0 of every prompt before sample 1 of any.

    `prompts` is gone through once per sample index, so it has to be a collection or build itself anew each time.
    """
    sample, going_on = 0, samples > 0
    while going_on:
        going_on = False
        for prompt in prompts:
            if sample < samples_of(prompt, samples):
                going_on = True
                task = task_for(prompt, subject, sample)
                if task.key not in have:
                    yield task
        sample += 1


def samples_of(prompt: Prompt, samples: int) -> int:
    """How many samples are wanted of a prompt, `samples` being what the recipe says of each."""
    return samples * (prompt.repeats or 1)


def tasks_by_key(prompts: Iterable[Prompt], subject: Subject, samples: int) -> dict[str, Prompt]:
    """Key of every sample that a job wants → its prompt, in the order of prompts, then samples."""
    return {
        task_for(prompt, subject, sample).key: prompt
        for prompt in prompts
        for sample in range(samples_of(prompt, samples))
    }


def prompts_by_asked(
    prompts: Iterable[Prompt], subject: Subject, texts: Mapping[str, str] | None = None
) -> dict[str, Prompt]:
    """Hash of what is asked → its prompt: finds the prompt of a trace whoever wrote it, as imported ones need.

    `texts` (hash of what was asked → hash of the question's text) does so where its teacher was told more.
    """
    prompts = list(prompts)
    found = {asked_hash(subject.messages(prompt), subject.forced_prefix): prompt for prompt in prompts}
    by_text = {sha256_of(prompt.text): prompt for prompt in prompts} if texts else {}
    return {**found, **{asked: by_text[text] for asked, text in (texts or {}).items() if text in by_text}}


def task_for(
    prompt: Prompt, subject: Subject, sample: int, *, again: int = 0, place: int | None = None, asked: str | None = None
) -> Task:
    """`again` counts replies to this very sample that were failures: the next is drawn with another seed. `asked` is
    the hash of what is asked, where it is known already."""
    messages = subject.messages(prompt)
    asked = asked or asked_hash(messages, subject.forced_prefix)
    key = trace_key(asked, sample, subject.identity, subject.sampling)
    drawn_by = sha256_of([asked, sample]) if subject.common_numbers else key
    seed = request_seed(subject.sampling, drawn_by, again=again)
    request = Request(key, messages, subject.sampling, subject.max_tokens, seed)
    return Task(key, asked, prompt.id, sample, request, prompt.reasoning != "none", place)


def continuation(trace: Trace, max_tokens: int, prompt: Prompt, place: int | None = None) -> Task:
    """The task of going on with a cut trace whose token ids are known, up to `max_tokens` in all."""
    assert trace.prompt_ids is not None
    assert trace.output_ids is not None
    before = TokenIds(trace.prompt_ids, trace.output_ids)
    sampling, left = trace.sampling.requested, max_tokens - len(before.output)
    seed = request_seed(sampling, trace.key, after=len(before.output)) if trace.seed is not None else None
    request = Request(trace.key, [], sampling, left, seed, token_ids=True, goes_on_from=before)
    wants = prompt.reasoning != "none"
    return Task(trace.key, trace.asked, trace.prompt_id, trace.sample, request, wants, place, cut=trace)


NO_REASONING = "the reply holds no reasoning, which this teacher always gives"


def answered(
    task: Task,
    reply: Reply,
    subject: Subject,
    revision: int,
    attempts: int,
    *,
    goes_on: bool = False,
    looping: bool = False,
) -> Trace:
    """The trace of a reply that came back: whole, cut where it can go on (`goes_on`), or given up as a loop.

    One without the reasoning that its teacher always gives is a failure; its text is kept all the same.
    """
    ids = reply.token_ids if goes_on and not looping else None
    finish: FinishReason = "loop" if looping else reply.finish_reason
    parsed = _parsed(reply.text, reply.reasoning, finish, subject.reasoning_format, subject.forced_prefix)
    bare = subject.reasons and task.reasoning and parsed.reasoning is None and finish == "stop"
    return Trace(
        key=task.key,
        asked=task.asked,
        revision=revision,
        prompt_id=task.prompt_id,
        sample=task.sample,
        raw=reply.text,
        raw_reasoning=reply.reasoning,
        reasoning=parsed.reasoning,
        answer=None if bare else parsed.answer,
        fault=None if bare else parsed.fault,
        error=NO_REASONING if bare else None,
        finish_reason="error" if bare else finish,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        reasoning_tokens=reply.reasoning_tokens,
        max_tokens=task.max_tokens,
        seed=task.request.seed,
        teacher=subject.identity,
        sampling=_drawn_by(subject.sampling, reply.honoured),
        endpoint=reply.endpoint,
        attempts=attempts,
        created=now(),
        prompt_ids=ids.prompt if ids is not None else None,
        output_ids=ids.output if ids is not None else None,
    )


@functools.lru_cache(maxsize=64)
def _drawn_by(requested: Sampling, honoured: Sampling | None) -> SamplingRecord:
    """One record for all traces that are drawn alike."""
    return SamplingRecord(requested, honoured)


def failed(task: Task, subject: Subject, endpoint: str, error: str, revision: int, attempts: int) -> Trace:
    """The record of a sample that could not be had: kept, so that nobody has to guess, and tried again when asked."""
    return Trace(
        key=task.key,
        asked=task.asked,
        revision=revision,
        prompt_id=task.prompt_id,
        sample=task.sample,
        raw="",
        finish_reason="error",
        max_tokens=task.max_tokens,
        seed=task.request.seed,
        teacher=subject.identity,
        sampling=SamplingRecord(subject.sampling),
        endpoint=endpoint,
        attempts=attempts,
        error=error,
        created=now(),
    )


def derive(trace: Trace, style: ReasoningFormat, forced_prefix: str) -> Trace:
    """`reasoning`, `answer` and `fault` of a trace, derived from its raw reply; a failure has none."""
    if trace.finish_reason == "error":
        return trace
    parsed = _parsed(trace.raw, trace.raw_reasoning, trace.finish_reason, style, forced_prefix)
    return replace(trace, reasoning=parsed.reasoning, answer=parsed.answer, fault=parsed.fault)


def _parsed(
    raw: str, raw_reasoning: str | None, finish: FinishReason, style: ReasoningFormat, forced_prefix: str
) -> Parsed:
    """A reply taken apart; one that was stopped, by its limit or as a loop, is cut."""
    return parse_reply(raw, raw_reasoning, style, forced_prefix=forced_prefix, cut=finish in ("length", "loop"))
