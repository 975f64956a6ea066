"""What a start of sampling asks for, from what the ledger holds: missing samples, failed ones, replies to go on with.

Knows nothing about servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from distill.errors import UsageError
from distill.generate.glance import Glance
from distill.ledger import Entry, Ledger
from distill.rundir import RunDir
from distill.sampling.listed import Listed
from distill.sampling.requests import Task, continuation
from distill.sampling.rightness import Rightness
from distill.sampling.tasks import TaskSource
from distill.sampling.until_correct import UntilCorrect
from distill.sampling.verdict_cache import Head
from distill.sampling.wanted import ABSENT, Wanted
from distill.teacher_specs import GenerateSettings, TeacherSpec
from distill.verify.verifiers import Chosen

Right = Callable[[], tuple[int, int] | None]
"""(right, judged) of the replies so far, None where nobody looked."""


@dataclass(frozen=True, slots=True)
class Source:
    """The tasks of one round of sampling, and what they tell beside the scheduler's own numbers."""

    tasks: TaskSource
    right: Right
    until_correct: UntilCorrect | None = None

    @property
    def spared(self) -> int:
        """Samples that are certain not to be wanted any more."""
        return self.tasks.outlook().spared

    @property
    def broken(self) -> int:
        """Answers whose verdict is open, because the verifier broke on them."""
        return self.until_correct.saved().broken if self.until_correct is not None else 0

    def counts(self) -> dict[str, Any]:
        if self.until_correct is None:
            return {}
        saved = self.until_correct.saved()
        names = ("prompts", "solved", "exhausted", "asked", "right", "samples_saved", "tokens_saved")
        return {"until_correct": {name: getattr(saved, name) for name in names}}

    def lines(self) -> list[str]:
        """What asking until enough are right has come to."""
        if self.until_correct is None:
            return []
        saved = self.until_correct.saved()
        lines = [
            f"{saved.solved} of {saved.prompts} prompts solved, {saved.exhausted} asked as often as they may be; "
            f"{saved.samples_saved} samples saved, about {saved.tokens_saved:,} tokens"
        ]
        if saved.broken:
            lines.append(f"the verifier broke on {saved.broken} answers; the next start judges them again")
        return lines


def require_continuation(settings: GenerateSettings, teacher: TeacherSpec) -> None:
    """Raises UsageError where replies are to be continued and the teacher's endpoint cannot do so by token ids."""
    options = {"--slice-tokens": settings.slice_tokens, "--continue-truncated": settings.continue_truncated}
    asked = next((name for name, value in options.items() if value), None)
    if asked is not None and settings.engine == "batch":
        raise UsageError(f"{asked}: a batch API goes on with no reply", todo="leave the option out")
    if asked is None or teacher.continuation == "token_ids":
        return
    reason = {
        "prefix": "goes on from a text (`continuation: prefix`), tokenized anew: no longer what the model wrote",
        "none": "cannot go on with a reply (`continuation: none`)",
    }[teacher.continuation]
    raise UsageError(
        f"{asked} goes on by token ids, and the endpoint of {teacher.name} {reason}",
        todo="leave the option out; where it is vLLM after all: --set teacher_overrides.continuation=token_ids",
    )


def open_ends(
    wanted: Wanted, index: Mapping[str, Entry], settings: GenerateSettings, teacher: TeacherSpec
) -> dict[str, int]:
    """Cut traces that more is wanted of, key → place of the prompt: those between two slices, and with
    --continue-truncated all others."""
    if teacher.continuation != "token_ids" or settings.retry_failed:
        return {}

    def goes_on(entry: Entry) -> bool:
        longer = settings.continue_truncated and entry.can_go_on and entry.tokens < wanted.subject.max_tokens
        return entry.unfinished or longer

    return wanted.cut(index, goes_on)


def continuations(ledger: Ledger, wanted: Wanted, keys: Mapping[str, int]) -> Iterator[Task]:
    """The tasks of going on with these traces; those whose token ids are not known, or whose context is full, stay."""
    if not keys:
        return
    most = wanted.subject.max_tokens
    for trace in ledger.traces():
        place = keys.get(trace.key)
        if place is not None and trace.can_go_on and len(trace.output_ids or ()) < most:
            yield continuation(trace, most, wanted.prompt(place), place)


@contextmanager
def missing_ones(
    wanted: Wanted,
    ledger: Ledger,
    index: Mapping[str, Entry],
    going_on: Mapping[str, int],
    chosen: Chosen,
    *,
    only_failed: bool,
) -> Iterator[Source]:
    """Replies to go on with, then samples that are missing or failed; with `only_failed` the latter alone."""
    tasks = chain(continuations(ledger, wanted, going_on), wanted.tasks(index, only_failed=only_failed))
    with Glance(Listed(tasks, len(wanted)), wanted.prompt, chosen) as glance:
        yield Source(glance, glance.right)


@contextmanager
def until_correct(
    wanted: Wanted, ledger: Ledger, settings: GenerateSettings, run: RunDir, chosen: Chosen
) -> Iterator[Source]:
    """Samples of prompts that have fewer than `needed` right answers; failed ones are asked for again."""
    index = ledger.index()
    with (
        Rightness(run.early_verdicts, chosen=chosen) as rightness,
        UntilCorrect(
            wanted,
            wanted.prompt,
            wanted.subject,
            rightness,
            right=settings.until_correct or 1,
            samples=settings.samples,
            existing=_heads(ledger, index),
            reread=ledger.traces,
            again=lambda key: wanted.replies_lost(index.get(key)),
        ) as source,
    ):

        def right() -> tuple[int, int] | None:
            outlook = source.outlook()
            return (outlook.right or 0, outlook.settled) if outlook.settled else None

        yield Source(source, right, source)


def _heads(ledger: Ledger, index: Mapping[str, Entry]) -> Iterator[Head]:
    """What counts of every answered trace, without its text."""
    names = ("key", "asked", "sample", "revision", "created", "finish_reason", "completion_tokens")
    for values in ledger.fields(*names):
        head = Head(*values)
        entry = index.get(head.key)
        if entry is not None and entry.answered and (entry.revision, entry.finish_reason) == values[3:6:2]:
            yield head


def left_to_ask(found: Counter[str], going_on: int, *, only_failed: bool) -> int:
    """Samples of this tally that a start asks for."""
    return found["error"] if only_failed else found["error"] + found[ABSENT] + going_on
