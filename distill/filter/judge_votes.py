"""The votes on answers: which are there, which are still needed, and what each of them says. Kept by hashes alone.

Knows nothing about who judges or where that is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from distill.judge_specs import JudgeSettings
from distill.ledger import Ledger
from distill.progress import say
from distill.records import Prompt, Trace, asked_hash, trace_key
from distill.sampling.requests import Subject, Task, task_for
from distill.sampling.scheduler import Progress
from distill.sampling.tasks import LATER, Later, Outlook
from distill.verify import Outcome
from distill.verify.judge import RESPONSE_FORMAT, Ballot, Rules, needed, outcome_of, read_vote


@dataclass(slots=True)
class Counts:
    """What came of the answers given to a judge, over one start."""

    answers: int = 0
    questions: int = 0
    """Different ones among them: equal answers to a question share their votes."""
    too_long: int = 0
    unasked: int = 0
    votes: int = 0
    """Newly asked for and recorded; those that an earlier start had are not among them."""
    unreadable: int = 0
    """Replies that said nothing that could be read, each asked for again or given up."""
    failed: int = 0
    """Votes that no reply came to."""


class Votes:
    """The ballots that are known of every question, by 16 bytes of its hash, and the ledger that they are in."""

    def __init__(self, settings: JudgeSettings, subject: Subject, folder: Path) -> None:
        self.settings, self.subject = settings, subject
        self.rules = Rules(settings.votes, settings.unanimous, settings.stop_early)
        self.found = 0
        """Votes of this judge that were there."""
        self._none: tuple[Ballot | None, ...] = (None,) * settings.votes
        self._ballots: dict[bytes, tuple[Ballot | None, ...]] = {}
        self._alike: dict[tuple[Ballot | None, ...], tuple[Ballot | None, ...]] = {}
        self._unread: Counter[tuple[bytes, int]] = Counter()
        """Replies to a vote that could not be read."""
        self.ledger = Ledger(folder)
        try:
            self._load()
        except BaseException:
            self.ledger.close()
            raise

    def asked(self, question: Prompt) -> bytes:
        return bytes.fromhex(asked_hash(self.subject.messages(question), self.subject.forced_prefix))[:16]

    def outcome(self, asked: bytes) -> Outcome | None:
        return outcome_of(self._ballots.get(asked, self._none), self.rules)

    def needed(self, asked: bytes) -> tuple[int, ...]:
        return needed(self._ballots.get(asked, self._none), self.rules)

    def task(self, asked: bytes, question: Prompt, vote: int) -> Task:
        """What is asked for one vote: with another seed where an earlier reply could not be read."""
        task = task_for(question, self.subject, vote, again=self._unread[asked, vote])
        if not self.settings.structured:
            return task
        return replace(task, request=replace(task.request, response_format=RESPONSE_FORMAT))

    def note(self, asked: bytes, vote: int, ballot: Ballot) -> None:
        """Takes a vote into account. One that cannot be read stays wanted as often as it may be asked for again."""
        if ballot == "unreadable":
            self._unread[asked, vote] += 1
            if self._unread[asked, vote] <= self.settings.again:
                return
        ballots = [*self._ballots.get(asked, self._none)]
        ballots[vote] = ballot
        now = tuple(ballots)
        self._ballots[asked] = self._alike.setdefault(now, now)

    def _load(self) -> None:
        """The votes of this judge among the records, told by their keys; failed ones are wanted again."""
        names = ("key", "asked", "sample", "raw", "answer", "finish_reason", "max_tokens")
        identity, sampling = self.subject.identity, self.subject.sampling
        others = 0
        for key, asked, vote, raw, answer, finish, limit in self.ledger.fields(*names):
            if key != trace_key(asked, vote, identity, sampling):
                others += 1
            elif finish != "error" and vote < self.settings.votes:
                if finish == "length" and (limit or 0) < self.settings.max_tokens:
                    continue
                self.found += 1
                self.note(bytes.fromhex(asked)[:16], vote, ballot_in(raw, answer, finish))
        if others:
            say(f"judge: {others} votes in {self.ledger.folder} are of another judge or sampling and do not count")


def ballot_in(raw: str, answer: str | None, finish: str) -> Ballot:
    """What a reply says. Of one that only begins to reason nothing counts, but it may be the object alone: a server
    that holds replies to a form may leave no room for the reasoning that the template opened."""
    if finish == "error":
        return "failed"
    text = answer if answer is not None else raw if raw.lstrip().startswith("{") else ""
    return (read_vote(text) if finish == "stop" else None) or "unreadable"


class Poll:
    """A TaskSource of the votes that some questions still need, each question's next ones when those before are in."""

    def __init__(self, votes: Votes, questions: dict[bytes, Prompt], progress: Progress, counts: Counts) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._votes, self._questions, self._progress, self._counts = votes, questions, progress, counts
        self._ready: deque[tuple[bytes, int]] = deque()
        self._out: Counter[bytes] = Counter()
        """Votes of a question that are ready or on their way."""
        for asked in questions:
            self._want(asked)

    @property
    def ended(self) -> bool:
        """Whether every vote that was wanted came or failed."""
        return not self._out

    def take(self) -> Task | Later | None:
        if not self._ready:
            return LATER if self._out else None
        asked, vote = self._ready.popleft()
        return self._votes.task(asked, self._questions[asked], vote)

    def settled(self, task: Task, trace: Trace | None) -> None:
        asked = bytes.fromhex(task.asked)[:16]
        if trace is not None:
            ballot = ballot_in(trace.raw, trace.answer, trace.finish_reason)
            self._counts.votes += 1
            self._counts.unreadable += ballot == "unreadable"
            self._counts.failed += ballot == "failed"
            self._votes.note(asked, task.sample, ballot)
        self._out[asked] -= 1
        if not self._out[asked]:
            del self._out[asked]
            if trace is not None:
                self._want(asked)
        self.wake()

    def outlook(self) -> Outlook:
        return Outlook(self._progress.done, self._progress.total)

    def _want(self, asked: bytes) -> None:
        votes = self._votes.needed(asked)
        self._ready.extend((asked, vote) for vote in votes)
        if votes:
            self._out[asked] += len(votes)
            self._progress.total += len(votes)
