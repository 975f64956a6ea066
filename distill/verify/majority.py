"""What most of a prompt's samples answer, in the place of a gold answer that there is none of: a pseudo-gold.

Its verdicts belong to a check of their own, `majority`, and a prompt with a gold gets none, so that what the samples
think is never taken for what is known. Answers are grouped by their normal form first; of the groups that are left
only the largest are compared with each other. Knows nothing about processes: whoever calls compares two answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from distill.filter_specs import MajoritySettings
from distill.records import Prompt
from distill.verify import Outcome, abstaining, choice, exact, failing
from distill.verify.plain import unquoted, without_latex, without_markdown

MOST_GROUPS = 16
"""Answers of one prompt, told apart by their normal form, that are compared in pairs: 120 comparisons at most. As many
as NeMo-Skills takes samples of a prompt; with more samples than that, rarer answers only count for themselves."""

_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")

Equal = Callable[[str, str], bool]
"""Whether two answers, as `Votes.answers` has them, are the same in another form. Symmetric."""


DEFAULT = MajoritySettings()


@dataclass(frozen=True, slots=True)
class Votes:
    """The answers of one prompt's samples in their normal form, None where a sample states none; `answers` are those
    that differ, the most frequent first. The order of the samples does not change `answers`."""

    kind: str
    cast: tuple[str | None, ...]
    answers: tuple[str, ...]

    @property
    def comparisons(self) -> tuple[tuple[str, str], ...]:
        """The pairs of answers that have to be compared, at most 120; none where equal answers are equal texts."""
        if self.kind not in ("math", "numeric"):
            return ()
        return tuple(combinations(self.answers[:MOST_GROUPS], 2))


@dataclass(frozen=True, slots=True)
class Majority:
    """`answer` is the pseudo-gold, None where too few agree; `votes` of all samples are for it, or for the most
    frequent answer. `outcomes` has one for each sample, in their order."""

    answer: str | None
    votes: int
    outcomes: tuple[Outcome, ...]


def majority(
    prompt: Prompt, answers: Sequence[str | None], equal: Equal, settings: MajoritySettings = DEFAULT
) -> Majority:
    """The outcome of each of one prompt's samples: pass, fail with `minority` or `no_answer`, or abstain with
    `has_gold` or `no_majority`; the score is the share of all samples that answer the same.

    `answers` are what follows the reasoning, None for a sample that has no answer; `equal` is asked about no more
    than `Votes.comparisons`.
    """
    cast = votes(prompt, answers)
    if (prompt.answer or "").strip():
        return Majority(None, 0, (abstaining("has_gold"),) * len(answers))
    return decide(cast, {pair for pair in cast.comparisons if equal(*pair)}, settings)


def votes(prompt: Prompt, answers: Sequence[str | None]) -> Votes:
    """Groups the answers of one prompt's samples by their normal form."""
    cast = tuple(None if answer is None else normal_form(prompt, answer) for answer in answers)
    counts = Counter(vote for vote in cast if vote is not None)
    return Votes(prompt.kind, cast, tuple(sorted(counts, key=lambda vote: (-counts[vote], vote))))


def decide(cast: Votes, equal: set[tuple[str, str]], settings: MajoritySettings = DEFAULT) -> Majority:
    """Counts the votes, those for equal answers as one: `equal` holds the pairs of `cast.comparisons` that are."""
    leader = _merged(cast.answers, equal)
    groups = [None if vote is None else leader[vote] for vote in cast.cast]
    counts = Counter(group for group in groups if group is not None)
    if not counts:
        return Majority(None, 0, (abstaining("no_majority"),) * len(groups))
    first = max(counts, key=lambda group: (counts[group], -cast.answers.index(group)))
    most, total = counts[first], len(groups)
    if most < settings.votes or most <= settings.share * total:
        return Majority(None, most, (abstaining("no_majority"),) * total)
    outcomes = tuple(
        failing("no_answer")
        if group is None
        else Outcome("pass" if group == first else "fail", "" if group == first else "minority", counts[group] / total)
        for group in groups
    )
    return Majority(first, most, outcomes)


def normal_form(prompt: Prompt, answer: str) -> str | None:
    """What the answer states, as far as equal answers can be made equal texts; None where it states nothing.

    A choice is its letter, where it has one. Programs have none: that two are the same cannot be seen by looking.
    """
    if prompt.kind == "code" or not answer.strip():
        return None
    if prompt.kind == "choice":
        found = choice.chosen(answer, choice.options(prompt))
        if found.doubt:
            return None
        return "".join(sorted(chr(ord("A") + place) for place in found.places)) or exact.folded(found.text) or None
    said = exact.statement(answer) or ""
    return (_mathematics(said) if prompt.kind in ("math", "numeric") else exact.folded(said)) or None


def _mathematics(text: str) -> str:
    """Without dollars, LaTeX's text and spacing, thousands separators, and spaces other than between digits."""
    text = unquoted(without_latex(without_markdown(text.replace("\\$", "").replace("{,}", ","))))
    text = _SPACE.sub("", text)
    return text.replace(",", "").replace(" ", "") if _THOUSANDS.fullmatch(text) else text


def comparison(prompt: Prompt, pair: tuple[str, str]) -> tuple[Prompt, str]:
    """A pair of `Votes.comparisons` as what a verifier of gold answers takes: they are equal where that passes."""
    return replace(prompt, answer=pair[0]), f"\\boxed{{{pair[1]}}}"


def _merged(answers: Sequence[str], equal: set[tuple[str, str]]) -> dict[str, str]:
    """Answer → the most frequent of those that it is equal to. Directly: within a tolerance, what is equal to an equal
    answer need not be equal."""
    leader: dict[str, str] = {}
    for answer in answers:
        known = (other for other in dict.fromkeys(leader.values()) if (other, answer) in equal)
        leader[answer] = next(known, answer)
    return leader
