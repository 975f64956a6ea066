"""Asks a language model about answers: every vote is a sample in a ledger of its own, so none is bought twice.

The votes on an answer are known by the hash of what was asked, question, reference and answer with it: two samples that
say the same share them, and a changed reference is another question. Knows nothing about which traces there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from distill import specs
from distill.engines.openai import is_url
from distill.errors import EndpointError, UsageError
from distill.filter.judge_votes import Counts, Poll, Votes
from distill.judge_specs import JudgeSettings
from distill.records import Prompt
from distill.rundir import RunDir
from distill.sampling.budget import Budget, Spent, spent_before
from distill.sampling.requests import Subject
from distill.sampling.scheduler import Limits, Progress, Watcher, sample
from distill.sampling.subjects import fleet_for, teacher_identity
from distill.teacher_specs import GenerateSettings, TeacherSpec
from distill.verify import Outcome, abstaining
from distill.verify.judge import message

UNASKED = abstaining("judge_unasked")
"""A limit of tokens or cost was reached before there were votes enough."""
TOO_LONG = abstaining("judge_too_long")
SHARED = {"api_key_env", "served_model", "max_tokens", "concurrency", "max_concurrency", "max_attempts"}
SHARED |= {"request_timeout", "patience", "max_tokens_total", "max_cost"}
"""Settings of a judge that are a teacher's as well."""


def judge_spec(settings: JudgeSettings) -> TeacherSpec:
    """The spec of whoever judges. Raises UsageError when the settings name nobody, or a URL without a model; SpecError
    for an unknown spec."""
    name = settings.teacher
    if name is None:
        raise UsageError("nothing says who judges", todo="set filter.judge.teacher to a teacher spec or a server's URL")
    if is_url(name):
        if settings.model is None:
            todo = "set filter.judge.model to the model's name at that server"
            raise UsageError("a judge at a URL needs a model", given=name, todo=todo)
        return specs.teacher("openai-compatible", {**settings.teacher_overrides, "model": settings.model})
    chosen = {} if settings.model is None else {"model": settings.model}
    return specs.teacher(name, {**settings.teacher_overrides, **chosen})


def judge_subject(settings: JudgeSettings, spec: TeacherSpec, seed: int) -> Subject:
    """The judge as it is asked: one user message; neither a system prompt nor the instruction of a teacher."""
    return Subject(
        teacher_identity(spec),
        lambda prompt: [{"role": "user", "content": prompt.question}],
        spec.reasoning_format,
        spec.forced_prefix,
        settings.sampling.over(spec.sampling).sampling(seed),
        settings.max_tokens,
    )


def _how(settings: JudgeSettings, spec: TeacherSpec) -> GenerateSettings:
    """How the judge is reached, in the words of a teacher's settings."""
    url = settings.teacher if settings.teacher is not None and is_url(settings.teacher) else settings.url
    engine = "local" if spec.is_folder and not url else "openai"
    return GenerateSettings.model_validate({"engine": engine, "url": url, **settings.model_dump(include=SHARED)})


class Judge:
    """Votes on answers, from the ledger in `folder` or newly asked for; a context manager.

    The ledger is opened, and the judge's spec read, at the first answer. `watch` is called often while votes are drawn.
    In memory: 1.4 KB for an answer with three votes, most of it the ledger's index, and no text.
    """

    def __init__(
        self, settings: JudgeSettings, folder: Path, seed: int, watch: Watcher = lambda progress: None
    ) -> None:
        self.settings, self.folder, self.seed, self._watch = settings, folder, seed, watch
        self.counts = Counts()
        self.progress = Progress(0)
        self.stopped_by: str | None = None
        """The limit that was reached, after which nothing more is asked."""
        self._open: Votes | None = None
        self._seen: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.ledger.close()
            self._open = None

    @property
    def complete(self) -> bool:
        """Whether no later start has anything to ask again: every vote came, within the limits."""
        return not (self.counts.failed or self.counts.unasked)

    def outcomes(self, items: Iterable[tuple[Prompt, str]]) -> list[Outcome]:
        """The judge's outcome on each (prompt with a reference answer, answer), in order; asks for what is missing.

        Raises what `sampling.scheduler.sample` raises, in the words of the judge's settings: EndpointError when the
        judge cannot be reached, Interrupted. Every vote that came is kept for the next start.
        """
        asked: list[bytes | None] = []
        missing: dict[bytes, Prompt] = {}
        votes: Votes | None = None
        for prompt, answer in items:
            votes = votes or self._votes()
            question = self._question(prompt, answer)
            found = votes.asked(question) if question is not None else None
            asked.append(found)
            self._count(found)
            if found is not None and question is not None and votes.outcome(found) is None:
                missing[found] = question
        if votes is None:
            return []
        if missing and self.stopped_by is None:
            self._sample(votes, missing)
        outcomes = [TOO_LONG if one is None else votes.outcome(one) or UNASKED for one in asked]
        self.counts.unasked += sum(outcome is UNASKED for outcome in outcomes)
        return outcomes

    def lines(self) -> list[str]:
        """What the reader of a report should know."""
        counts, progress = self.counts, self.progress
        if not counts.answers:
            return []
        said = [
            f"judge: {counts.answers} answers, {counts.questions} different; {counts.votes} votes asked for, "
            f"{progress.prompt_tokens:,} + {progress.completion_tokens:,} tokens"
        ]
        if counts.unreadable or counts.failed:
            said.append(f"judge: {counts.unreadable} replies could not be read, {counts.failed} votes failed")
        if self.stopped_by is not None:
            said.append(f"judge: {self.stopped_by}; {counts.unasked} answers have no verdict of it")
        return said

    def _question(self, prompt: Prompt, answer: str) -> Prompt | None:
        """What the judge is asked, as a prompt; None where that is too long."""
        if len(prompt.text) + len(prompt.answer or "") + len(answer) > self.settings.max_characters:
            return None
        return Prompt(message(prompt, answer), id=prompt.id, reasoning="optional")

    def _count(self, asked: bytes | None) -> None:
        self.counts.answers += 1
        self.counts.too_long += asked is None
        if asked is not None and asked not in self._seen:
            self._seen.add(asked)
            self.counts.questions += 1

    def _votes(self) -> Votes:
        if self._open is None:
            spec = judge_spec(self.settings)
            if self.settings.max_cost is not None and spec.price is None:
                todo = "set filter.judge.teacher_overrides={price: {prompt: …, completion: …}}, per million tokens"
                raise UsageError(f"filter.judge.max_cost needs a price, and {spec.name} has none", todo=todo)
            self._open = Votes(self.settings, judge_subject(self.settings, spec, self.seed), self.folder)
            self._spec, self._how = spec, _how(self.settings, spec)
            limited = self.settings.max_tokens_total is not None or self.settings.max_cost is not None
            before = spent_before(self._open.ledger) if limited else Spent()
            self._budget = Budget(self._how, spec, before, self.settings.max_tokens)
            self.progress.already = self.progress.total = self._open.found
        return self._open

    def _sample(self, votes: Votes, missing: dict[bytes, Prompt]) -> None:
        """Draws votes until each of these questions has an outcome or a limit is reached."""
        source = Poll(votes, missing, self.progress, self.counts)
        limits = Limits(self.settings.concurrency, self.settings.max_attempts)
        with self._in_its_words():
            fleet = fleet_for(self._spec, self._how, RunDir(self.folder), votes.ledger)
            try:
                sample(source, votes.subject, fleet, votes.ledger, limits, self.progress, self._watch, self._budget)
            except EndpointError:  # also where the last few votes failed, which may be the fault of what was asked
                if not source.ended or not (self.progress.answered or self.progress.already):
                    raise
        if self.progress.stopped_by is not None:
            told = self.progress.stopped_by.replace("--max-tokens-total", "filter.judge.max_tokens_total")
            self.stopped_by = told.replace("--max-cost", "filter.judge.max_cost")

    @contextmanager
    def _in_its_words(self) -> Iterator[None]:
        """Errors name the judge, and its settings instead of a teacher's."""
        at_url = is_url(self.settings.teacher or "")
        try:
            yield
        except (EndpointError, UsageError) as error:
            todo = (error.todo or "").replace("generate.url", "filter.judge.teacher" if at_url else "filter.judge.url")
            todo = todo.replace("generate.", "filter.judge.")
            raise type(error)(f"the judge: {error.what}", given=error.given, todo=todo or None) from error
