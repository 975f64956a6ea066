"""Prompts whose gold answer may be wrong: most samples agree with each other, and not with it.

A list for people to look at, which changes no verdict. What is on it is a bad gold (NeMo-Skills#1092), a verifier that
calls right wrong, or a question that this teacher gets wrong the same way every time. Knows nothing about files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.files import write_text
from distill.filter_specs import MajoritySettings
from distill.records import Prompt
from distill.verify import Outcome
from distill.verify.majority import DEFAULT, Equal, Votes, decide, votes


@dataclass(frozen=True, slots=True)
class Suspect:
    """`agreeing` of `samples` samples answer `answer`; `passed` agree with the gold."""

    prompt_id: str
    kind: str
    question: str
    gold: str
    answer: str
    agreeing: int
    passed: int
    samples: int

    def row(self) -> dict[str, Any]:
        """A line of suspects.jsonl."""
        return asdict(self)


def suspect(
    prompt: Prompt,
    answers: Sequence[str | None],
    outcomes: Sequence[Outcome],
    equal: Equal | None = None,
    settings: MajoritySettings = DEFAULT,
) -> Suspect | None:
    """The prompt with what its samples agree on, or None where they do not or where that is right.

    `outcomes` are the gold verifier's, in the order of `answers`. The thresholds are those of a majority that would
    stand in for a gold: had there been none, another answer would have been believed. Without `equal` only answers of
    the same normal form agree.
    """
    if not may_be_suspect(prompt, outcomes, settings):
        return None
    cast = votes(prompt, answers)
    return decided(prompt, cast, outcomes, {pair for pair in cast.comparisons if equal and equal(*pair)}, settings)


def may_be_suspect(prompt: Prompt, outcomes: Sequence[Outcome], settings: MajoritySettings = DEFAULT) -> bool:
    """Whether enough samples were called wrong for it: of most prompts this says no before any answer is read."""
    wrong = sum(_is_wrong(outcome) for outcome in outcomes)
    return bool((prompt.answer or "").strip()) and wrong >= settings.votes and wrong > settings.share * len(outcomes)


def decided(
    prompt: Prompt,
    cast: Votes,
    outcomes: Sequence[Outcome],
    equal: set[tuple[str, str]],
    settings: MajoritySettings = DEFAULT,
) -> Suspect | None:
    """As `suspect`, where the comparisons of `cast` have been made: `equal` holds the pairs that are."""
    found = decide(cast, equal, settings)
    agreeing = [own for own, voted in zip(outcomes, found.outcomes, strict=True) if voted.outcome == "pass"]
    passed = sum(outcome.outcome == "pass" for outcome in outcomes)
    if found.answer is None or sum(map(_is_wrong, agreeing)) < settings.votes:
        return None
    if any(outcome.outcome == "pass" for outcome in agreeing):
        return None
    gold = prompt.answer or ""
    return Suspect(prompt.id, prompt.kind, prompt.text, gold, found.answer, found.votes, passed, len(outcomes))


def _is_wrong(outcome: Outcome) -> bool:
    """Called wrong against the gold. An abstention says nothing against a gold that cannot be read: a mark says so."""
    return outcome.outcome == "fail" and outcome.reason == "wrong_answer"


def write_suspects(path: Path, found: Iterable[Suspect]) -> None:
    """The list for people to look at, one JSON object a line."""
    write_text(path, "".join(json.dumps(suspect.row(), ensure_ascii=False) + "\n" for suspect in found))
