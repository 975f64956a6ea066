"""Checks that are made when all traces of a bucket were looked at: scores from a file, a judge's votes, majorities.

Also the prompts whose gold answer is suspect. A bucket holds all samples of its prompts. Knows nothing about how
buckets come about or where outcomes are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any, Self

from distill.filter.judging import Judge, judge_spec
from distill.filter.scores import Scores, read_scores, score_column
from distill.filter.suspects import Suspect, decided, may_be_suspect
from distill.filter_specs import FilterSettings
from distill.keep_rule import ALWAYS
from distill.records import Prompt, Trace
from distill.specs import Recipe
from distill.verify import Outcome, abstaining
from distill.verify.judge import asks
from distill.verify.majority import Votes, comparison, decide, votes
from distill.verify.pool import VerifierPool
from distill.verify.verifiers import JUDGE

NOT_ASKED = abstaining("not_asked")
PAIRS = 1_024
"""Of answers that a worker compares at a time: fewer are not worth the start of another."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A trace of a bucket: its prompt, its row, and the outcomes so far."""

    prompt: Prompt
    trace: Mapping[str, Any]
    outcomes: dict[str, Outcome]


class BucketChecks:
    """Makes those of the checks that these settings run; a context manager.

    The judge's ledger lies in `judge_folder`. Entering it raises what `judge_spec` raises, and InputError for a file of
    scores that cannot be used: before anything is looked at.
    """

    def __init__(self, recipe: Recipe, judge_folder: Path) -> None:
        self.settings: FilterSettings = recipe.filter
        self.judge = Judge(self.settings.judge, judge_folder, recipe.seed)
        self._pool: VerifierPool | None = None
        self._one_at_a_time = Lock()
        self._beside = ThreadPoolExecutor(1)
        """Where suspects are looked for: their comparisons take seconds, in which workers would wait for traces."""
        self._looked_for: list[Future[list[Suspect]]] = []
        self._stopped = False
        self._stack = ExitStack()
        self._scores: Scores | None = None

    def __enter__(self) -> Self:
        self._stack.enter_context(self.judge)
        if "judge" in self.settings.made:
            judge_spec(self.settings.judge)
        if "score" in self.settings.made:
            self._scores = read_scores(self.settings.score)
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        """After an error nobody waits for what is still being compared."""
        self._stopped = failed is not None
        if self._stopped and self._pool is not None:
            self._pool.stop()
        self._beside.shutdown(cancel_futures=True)
        self._stack.close()

    def make(self, samples: Sequence[Sample]) -> None:
        """Adds to the outcomes of each sample those that are missing."""
        checks = self.settings.made
        if self._scores is not None:
            for sample in samples:
                if "score" not in sample.outcomes:
                    found = self._scores.of(sample.trace["key"])
                    trace = Trace.from_json(sample.trace)
                    sample.outcomes["score"] = score_column(sample.prompt, trace, self.settings.score, found)
        if "judge" in checks:
            self._ask(samples)
        if "majority" in checks:
            self._count(samples)

    def look_for_suspects(self, samples: Sequence[Sample]) -> None:
        """Begins to look, beside all else, for prompts whose samples agree with each other and not with the gold; each
        needs its `correct` outcomes."""
        if self._looked_for:
            self._looked_for[-1].result()  # else buckets would pile up where comparing takes longer than looking
        self._looked_for.append(self._beside.submit(self._suspects, samples))

    def suspects(self) -> list[Suspect]:
        """Those that were looked for, in the order of their prompts."""
        return [suspect for found in self._looked_for for suspect in found.result()]

    def _suspects(self, samples: Sequence[Sample]) -> list[Suspect]:
        found: list[tuple[list[Sample], Votes]] = []
        for group in _by_prompt(samples):
            outcomes = [sample.outcomes["correct"] for sample in group]
            if may_be_suspect(group[0].prompt, outcomes, self.settings.majority):
                found.append((group, votes(group[0].prompt, [sample.trace["answer"] for sample in group])))
        equal = self._equal([(group[0].prompt, cast) for group, cast in found])
        told = (
            decided(group[0].prompt, cast, [s.outcomes["correct"] for s in group], pairs, self.settings.majority)
            for (group, cast), pairs in zip(found, equal, strict=True)
        )
        return [suspect for suspect in told if suspect is not None]

    def _ask(self, samples: Sequence[Sample]) -> None:
        asked = []
        for sample in samples:
            if "judge" not in sample.outcomes:
                sample.outcomes["judge"] = NOT_ASKED
                if self._is_for_judge(sample):
                    asked.append(sample)
        found = self.judge.outcomes((sample.prompt, str(sample.trace["answer"])) for sample in asked)
        for sample, outcome in zip(asked, found, strict=True):
            sample.outcomes["judge"] = outcome

    def _is_for_judge(self, sample: Sample) -> bool:
        trace = Trace.from_json(sample.trace)
        return asks(self.settings.judge.on, sample.prompt, trace, sample.outcomes.get("correct"))

    def _count(self, samples: Sequence[Sample]) -> None:
        """Only whole replies vote: what a cut one says last is no answer."""
        groups = list(_by_prompt(samples))
        cast = [
            votes(group[0].prompt, [sample.trace["answer"] if _is_whole(sample) else None for sample in group])
            for group in groups
        ]
        unknown = [not (group[0].prompt.answer or "").strip() for group in groups]
        asked = [(group[0].prompt, one) for group, one, no_gold in zip(groups, cast, unknown, strict=True) if no_gold]
        equal = iter(self._equal(asked))
        for group, one, no_gold in zip(groups, cast, unknown, strict=True):
            if no_gold:
                outcomes: Iterable[Outcome] = decide(one, next(equal), self.settings.majority).outcomes
            else:
                outcomes = (abstaining("has_gold"),) * len(group)
            for sample, outcome in zip(group, outcomes, strict=True):
                sample.outcomes["majority"] = outcome

    def _equal(self, asked: Sequence[tuple[Prompt, Votes]]) -> list[set[tuple[str, str]]]:
        """Of each the pairs of answers that the verifier of mathematics finds equal, in workers that can be killed."""
        pairs = [(place, prompt, pair) for place, (prompt, cast) in enumerate(asked) for pair in cast.comparisons]
        found: list[set[tuple[str, str]]] = [set() for _ in asked]
        if not pairs:
            return found
        with self._one_at_a_time:
            if self._pool is None:
                pool = VerifierPool(JUDGE, workers=self.settings.workers, chunk=PAIRS, setup=("math",))
                self._pool = self._stack.enter_context(pool)
            if self._stopped:
                self._pool.stop()
            outcomes = list(self._pool.map((("math", *comparison(prompt, pair)) for _, prompt, pair in pairs)))
        for (place, _, pair), outcome in zip(pairs, outcomes, strict=True):
            if outcome.outcome == "pass":
                found[place].add(pair)
        return found


def _by_prompt(samples: Sequence[Sample]) -> Iterable[list[Sample]]:
    for _, group in groupby(samples, lambda sample: id(sample.prompt)):
        yield list(group)


def _is_whole(sample: Sample) -> bool:
    return all(sample.outcomes[name].outcome == "pass" for name in ALWAYS)
