"""What to ask for next when a prompt needs K right answers and no more: `--until-correct K --samples N`.

Breadth first, first samples of all prompts before further ones; of a prompt at most as many samples out (in flight or
not judged yet) as right answers are missing. So of every prompt the samples 0 to m are asked for, m being the first
with which K are right, or all N: the same ones whatever the order in which replies come, and wherever a run is
interrupted. Some numbers per prompt stay in memory, no text. Knows nothing about requests in flight or retries.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Self

import numpy as np

from distill.records import Prompt, Trace, asked_hash, trace_key
from distill.sampling.backlog import Backlog, Places
from distill.sampling.requests import Subject, Task, samples_of, task_for
from distill.sampling.rightness import Rightness
from distill.sampling.tasks import LATER, Later, Outlook
from distill.sampling.verdict_cache import Head, judged_by
from distill.verify import BROKEN, Outcome, failing, verifiers

MOST_UNJUDGED = 4_096
"""Answers that may wait for their verdict before nothing further is asked: a teacher that answers faster than the
verifiers judge (some hundreds a second and core) must not fill the memory."""
EXISTS, IN_LINE = 1, 2


@dataclass(frozen=True, slots=True)
class Saved:
    """What asking until enough are right has come to, over all starts of the run."""

    prompts: int
    solved: int
    """Prompts with K right answers or more."""
    exhausted: int
    """Prompts with all N samples asked and judged, and fewer right."""
    asked: int
    """Samples that were asked for and recorded."""
    right: int
    failed: int
    """Samples that ended in an error: asked, and not right."""
    broken: int
    """Answers on which the verifier broke: neither right nor wrong, their prompts wait for the next start."""
    samples_saved: int
    """Samples of solved prompts that plain N would have asked for besides."""
    tokens_saved: int
    """An estimate: samples saved × mean completion tokens of the same prompt's samples, or of all where it has none."""


class UntilCorrect:
    """A TaskSource that stops asking a prompt once `right` answers to it are right.

    `prompts` is gone through twice, in the order in which first samples are asked for; `fetch` gives the prompt at a
    place in that order again. `existing` are the settled records of earlier starts (those to be tried again or gone on
    with left out); `reread` gives the ledger's traces anew, for those of them that have no verdict yet; `again` says
    how many replies to a sample came and were failures.
    """

    def __init__(
        self,
        prompts: Iterable[Prompt],
        fetch: Callable[[int], Prompt],
        subject: Subject,
        rightness: Rightness,
        *,
        right: int,
        samples: int,
        existing: Iterable[Head] = (),
        reread: Callable[[], Iterable[Trace]] = tuple,
        again: Callable[[str], int] = lambda key: 0,
    ) -> None:
        """Raises what `verifiers.require` raises, before anything is asked."""
        self.wake: Callable[[], None] = lambda: None
        self.subject, self.rightness, self.needed, self._fetch = subject, rightness, right, fetch
        heads = iter(existing)
        first = next(heads, None)
        self._limit = array("I")
        """Samples of a prompt at most; like the numbers below by its place in `prompts`."""
        places = self._first_look(prompts, samples, first is not None)
        zeros = bytes(4 * len(self._limit))
        self._right, self._asked, self._counted = array("I", zeros), array("I", zeros), array("I", zeros)
        """Right answers; samples recorded; those of them whose tokens are known."""
        self._out, self._next = array("I", zeros), array("I", zeros)
        """Samples that are out; the lowest that was not asked for."""
        self._tokens = array("Q", bytes(8 * len(self._limit)))
        self._state = bytearray(len(self._limit))
        """Bit EXISTS: has records of earlier starts. Bit IN_LINE: waits in `_further`."""
        self._ahead: dict[int, set[int]] = {}
        """Place → samples of earlier starts above `_next`: those between were in flight when it ended."""
        self._further: deque[int] = deque()
        self._flying: dict[str, tuple[int, Prompt]] = {}
        self._unjudged = self._waiting = self._spared = 0
        self._totals: Counter[str] = Counter()
        self._most, self._held_back = sum(self._limit), False
        self._again = again
        self._backlog = Backlog(reread, self._judge_existing, self._look_up)
        if first is not None:
            self._resume(chain((first,), heads), places)
        fresh = (row for row in enumerate(prompts) if not self._state[row[0]] & EXISTS)
        self._fresh: Iterator[tuple[int, Prompt]] | None = fresh

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._backlog.close()

    def take(self) -> Task | Later | None:
        self._backlog.start()
        if self._unjudged >= MOST_UNJUDGED:
            self._held_back = True
            return LATER
        following = next(self._fresh, None) if self._fresh is not None else None
        if following is not None:
            return self._ask(*following)
        self._fresh = None
        if self._further:
            row = self._further.popleft()
            self._state[row] &= ~IN_LINE
            return self._ask(row, self._fetch(row))
        return LATER if self._waiting else None

    def settled(self, task: Task, trace: Trace | None) -> None:
        row, prompt = self._flying.pop(task.key)
        if trace is None:  # it stays wanted, by the next start: nothing takes its place now
            self._waiting -= 1
            self._look_up()
            return
        self._record(row, trace.completion_tokens)
        if trace.finish_reason == "error":
            self._verdict(row, failing("error"))
            return
        self._unjudged += 1
        self.rightness.judge(prompt, trace, partial(self._judged, row))

    def outlook(self) -> Outlook:
        totals = self._totals
        return Outlook(totals["asked"], self._most, self._spared, totals["right"], totals["solved"])

    def saved(self) -> Saved:
        limit, right, asked = _numbers(self._limit), _numbers(self._right), _numbers(self._asked)
        counted, tokens = _numbers(self._counted), np.frombuffer(self._tokens, np.uint64).astype(np.float64)
        solved = right >= self.needed
        spare = np.where(solved, np.maximum(limit - asked, 0), 0)
        overall = tokens.sum() / max(1, counted.sum())
        mean = np.where(counted > 0, tokens / np.maximum(counted, 1), overall)
        over = ~solved & (asked >= limit) & (_numbers(self._out) == 0)
        names = ("asked", "right", "failed", "broken")
        return Saved(
            prompts=len(limit),
            solved=int(solved.sum()),
            exhausted=int(over.sum()),
            **{name: self._totals[name] for name in names},
            samples_saved=int(spare.sum()),
            tokens_saved=round(float((spare * mean).sum())),
        )

    # --- one prompt ----------------------------------------------------------------------------------------------

    def _ask(self, row: int, prompt: Prompt) -> Task:
        sample = self._next[row]
        self._pass_over(row)
        self._out[row] += 1
        self._waiting += 1
        self._offer(row)
        task = task_for(prompt, self.subject, sample, place=row)
        lost = self._again(task.key)
        if lost:
            task = task_for(prompt, self.subject, sample, again=lost, place=row)
        self._flying[task.key] = row, prompt
        return task

    def _pass_over(self, row: int) -> None:
        """One more sample of this prompt is asked for: `_next` is the lowest that is not."""
        self._next[row] += 1
        ahead = self._ahead.get(row)
        while ahead and self._next[row] in ahead:
            ahead.remove(self._next[row])
            self._next[row] += 1
        if ahead is not None and not ahead:
            del self._ahead[row]

    def _offer(self, row: int) -> None:
        """Puts the prompt in line where another sample of it may be asked for."""
        open_ = self._right[row] + self._out[row] < self.needed and self._next[row] < self._limit[row]
        if open_ and not self._state[row] & IN_LINE:
            self._state[row] |= IN_LINE
            self._further.append(row)

    def _record(self, row: int, tokens: int | None) -> None:
        self._asked[row] += 1
        self._totals["asked"] += 1
        if tokens is not None:
            self._counted[row] += 1
            self._tokens[row] += tokens

    def _judged(self, row: int, outcome: Outcome) -> None:
        self._unjudged -= 1
        self._verdict(row, outcome)

    def _verdict(self, row: int, outcome: Outcome) -> None:
        """Of a sample that was out; one that the verifier broke on stays so, and nothing takes its place."""
        self._waiting -= 1
        if outcome.reason in BROKEN:
            self._totals["broken"] += 1
        else:
            self._out[row] -= 1
            self._count(row, outcome)
            self._offer(row)
        self._look_up()

    def _count(self, row: int, outcome: Outcome) -> None:
        self._totals["failed"] += outcome.reason == "error"
        if outcome.outcome == "pass":
            self._totals["right"] += 1
            self._right[row] += 1
            if self._right[row] == self.needed:
                self._totals["solved"] += 1
                self._spared += self._limit[row] - self._asked[row]

    def _look_up(self) -> None:
        """Wakes the scheduler where `take` has something else to say than LATER."""
        if self._held_back and self._unjudged < MOST_UNJUDGED:
            self._held_back = False
            self.wake()
        elif self._further or not self._waiting or self._backlog.failure is not None:
            self.wake()

    # --- earlier starts ------------------------------------------------------------------------------------------

    def _first_look(self, prompts: Iterable[Prompt], samples: int, existing: bool) -> Places:
        """How many samples each prompt may have, and, where there are traces, how to find its place by them."""
        kinds: set[str] = set()
        chosen = self.rightness.chosen
        places = Places()
        for prompt in prompts:
            kinds.add(prompt.kind)
            self._limit.append(samples_of(prompt, samples))
            if existing:
                asked = asked_hash(self.subject.messages(prompt), self.subject.forced_prefix)
                places.add(asked, judged_by(prompt, verifiers.verifier_of(prompt.kind, chosen)))
        verifiers.require(verifiers.names_of(kinds, chosen))
        return places

    def _resume(self, existing: Iterable[Head], places: Places) -> None:
        """Takes over what earlier starts asked for, with the verdicts that are kept; others are judged as time goes."""
        for head in existing:
            row = places.find(head.asked)
            if row is None or not self._is_new(row, head):
                continue
            self._state[row] |= EXISTS
            self._record(row, head.completion_tokens)
            error = head.finish_reason == "error"
            outcome = failing("error") if error else self.rightness.cache.find(head, places.wants(row))
            if outcome is None:
                self._out[row] += 1
                self._waiting += 1
                self._backlog.add(head.key, row)
            else:
                self._count(row, outcome)
        self.rightness.cache.forget()
        for row, state in enumerate(self._state):
            if state:
                self._offer(row)

    def _is_new(self, row: int, head: Head) -> bool:
        """Notes the sample as asked for; false when it is none of this recipe's, or was noted before."""
        sample = head.sample
        if sample >= self._limit[row] or head.key != self._key_of(head.asked, sample):
            return False
        if sample == self._next[row]:
            self._pass_over(row)
            return True
        ahead = self._ahead.setdefault(row, set())
        if sample < self._next[row] or sample in ahead:
            return False
        ahead.add(sample)
        return True

    def _key_of(self, asked: str, sample: int) -> str:
        return trace_key(asked, sample, self.subject.identity, self.subject.sampling)

    def _judge_existing(self, row: int, trace: Trace, done: Callable[[], None]) -> None:
        def judged(outcome: Outcome) -> None:
            done()
            self._judged(row, outcome)

        self._unjudged += 1
        self.rightness.judge(self._fetch(row), trace, judged)


def _numbers(values: array[int]) -> Any:
    return np.frombuffer(values, np.uint32).astype(np.int64)
