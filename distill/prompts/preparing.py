"""Which prompts of all that the sources hold are worth paying for, and in what order: decided in one streamed pass
over the prompts and one over what is known of them.

Per prompt some numbers stay in memory (hashes, a code for its properties, a reason), never its text. Knows nothing
about run directories or stages.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import InputError
from distill.prompts.contamination import Contamination
from distill.prompts.duplicates import NearDuplicates
from distill.prompts.gold import GoldReader, gold_mark
from distill.prompts.language import language
from distill.prompts.marks import question_marks
from distill.prompts.sources import Sourced
from distill.prompts.spool import Spool
from distill.prompts.validation import FAILED, Validation
from distill.records import Kind, Prompt
from distill.source_specs import PrepareSettings, Selection

READ_BY_MATH = ("math", "numeric")
"""Kinds whose gold answers the math verifier has to be able to read."""
BATCH = 1_000
KEPT = ""
FILTERS = {
    "too_short": "prepare.min_chars",
    "too_long": "prepare.max_chars",
    "license": "prepare.licenses",
    "language": "prepare.languages",
    "contaminated": "prepare.decontaminate and evaluate.prompts",
    FAILED: "prepare.validate_tests",
    "duplicate": "exact duplicates",
    "near_duplicate": "prepare.near_duplicates",
    "not_selected": "prepare.select",
}
"""Reason → the setting behind it; a mark is a reason too, and its setting is prepare.drop."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Properties:
    """What selection and census look at: prompts alike in these are one and the same to them."""

    domain: str | None
    difficulty: str | None
    license: str | None
    language: str | None
    kind: Kind
    source: str | None
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The numbers of the prompts that are kept, in their order; how often each is to be sampled (by number, 0 for
    those left out); why the others are left out, with a detail where there is one, and the number of the prompt that a
    duplicate repeats; and properties → kept prompts."""

    order: Numbers
    repeats: Numbers
    reasons: dict[int, str]
    details: dict[int, str]
    same_as: dict[int, int]
    properties: Counter[Properties]
    lines: tuple[str, ...]

    @property
    def left_out(self) -> Counter[str]:
        return Counter(self.reasons.values())


def prepare(
    items: Iterable[Sourced], settings: PrepareSettings, contamination: Contamination | None, seed: int, spool: Spool
) -> Prepared:
    """Fills `spool` with the prompts, language and marks added, and decides which stay.

    Raises InputError for an id that two different questions have, MissingError where tests are to be validated and no
    program can be run.
    """
    facts = _Facts(seed)
    with GoldReader() as reader, Validation(wanted=settings.validate_tests) as validation:
        for batch in _batches(items):
            for item, reason, detail in validation.over(_looked_at(batch, settings, contamination, reader)):
                facts.add(item.prompt, reason, detail)
                spool.add(item)
    spool.close()
    _refuse_doubled_ids(facts, spool)
    lines = _leave_out_duplicates(facts, settings, spool)
    repeats, more = _select(facts, settings.select)
    order = np.flatnonzero(repeats)
    if settings.shuffle:
        order = order[np.argsort(np.frombuffer(facts.rank, dtype=np.uint64)[order], kind="stable")]
    codes = np.frombuffer(facts.code, dtype=np.int32)[order]
    kinds, times = np.unique(codes, return_counts=True)
    properties = Counter({facts.properties[code]: int(n) for code, n in zip(kinds, times, strict=True)})
    told = (*validation.lines(), *lines, *more)
    return Prepared(order, repeats, facts.reasons, facts.details, facts.same_as, properties, told)


class _Facts:
    """What is remembered of every prompt, by its number."""

    def __init__(self, seed: int) -> None:
        self._seed = f"{seed}:"
        self.id, self.text, self.gold, self.rank = (array("Q") for _ in range(4))
        self.code = array("i")
        self.properties: list[Properties] = []
        self._codes: dict[Properties, int] = {}
        self.reasons: dict[int, str] = {}
        self.details: dict[int, str] = {}
        self.same_as: dict[int, int] = {}

    def add(self, prompt: Prompt, reason: str, detail: str) -> None:
        number = len(self.code)
        if reason != KEPT:
            self.reasons[number] = reason
        if detail:
            self.details[number] = detail
        self.id.append(_hash(prompt.id))
        self.text.append(_hash(prompt.text))
        self.gold.append(_hash(prompt.answer or ""))
        self.rank.append(_hash(self._seed + prompt.id))
        found = Properties(
            prompt.domain, prompt.difficulty, prompt.license, prompt.language, prompt.kind, prompt.source,
            prompt.marks or (),
        )  # fmt: skip
        if found not in self._codes:
            self._codes[found] = len(self.properties)
            self.properties.append(found)
        self.code.append(self._codes[found])

    def leave_out(self, numbers: Iterable[int], reason: str) -> None:
        self.reasons.update((int(number), reason) for number in numbers)

    def kept(self) -> Numbers:
        mask = np.ones(len(self.code), dtype=bool)
        mask[np.fromiter(self.reasons, dtype=np.int64, count=len(self.reasons))] = False
        return np.flatnonzero(mask)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _batches(items: Iterable[Sourced]) -> Iterator[list[Sourced]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


def _looked_at(
    batch: Sequence[Sourced], settings: PrepareSettings, contamination: Contamination | None, reader: GoldReader
) -> Iterator[tuple[Sourced, str, str]]:
    """Each with its language and marks filled in, the reason to leave it out (empty to keep it) and a detail."""
    to_read = [item.prompt for item in batch if _has_gold(item.prompt)]
    outcomes = reader.readable([(prompt.kind, prompt.answer or "") for prompt in to_read])
    for item in batch:
        prompt = item.prompt
        length = len(prompt.question)
        marks = [*(prompt.marks or ())]
        if length <= settings.max_chars:
            marks += question_marks(prompt)
            prompt = replace(prompt, language=prompt.language or language(prompt.question))
        if _has_gold(item.prompt):
            mark = gold_mark(next(outcomes))
            marks += [mark] if mark is not None else []
        prompt = replace(prompt, marks=tuple(dict.fromkeys(marks)))
        reason = _reason(prompt, settings)
        detail = ""
        if reason == KEPT and contamination is not None:
            hit = contamination.hit(prompt.text)
            if hit is not None:
                reason = "contaminated"
                detail = f'{hit.benchmark}, problem {hit.problem + 1}: {hit.share:.0%} of it, "{hit.ngram}"'
        yield Sourced(prompt, item.place), reason, detail


def _has_gold(prompt: Prompt) -> bool:
    return prompt.kind in READ_BY_MATH and bool((prompt.answer or "").strip())


def _reason(prompt: Prompt, settings: PrepareSettings) -> str:
    """Why a prompt is left out on its own account."""
    if len(prompt.question) < settings.min_chars:
        return "too_short"
    if len(prompt.question) > settings.max_chars:
        return "too_long"
    if settings.licenses and (prompt.license or "").lower() not in map(str.lower, settings.licenses):
        return "license"
    spoken = prompt.language and prompt.language.partition("-")[0]  # some sources say pt-BR
    if settings.languages and spoken is not None and spoken not in settings.languages:
        return "language"
    return next((mark for mark in prompt.marks or () if mark in settings.drop), KEPT)


def _refuse_doubled_ids(facts: _Facts, spool: Spool) -> None:
    """The same id for two different questions would mix up their results."""
    ids, texts = np.frombuffer(facts.id, dtype=np.uint64), np.frombuffer(facts.text, dtype=np.uint64)
    order = np.argsort(ids, kind="stable")
    same = np.flatnonzero((ids[order][1:] == ids[order][:-1]) & (texts[order][1:] != texts[order][:-1]))
    if not len(same):
        return
    pair = sorted(int(number) for number in order[same[0] : same[0] + 2])
    first, second = spool.rows_at(pair, ["id", "question", "place"])
    raise InputError(
        f"two different questions have the id '{first['id']}'",
        given=f"{first['place']}: {first['question'][:60]!r} and {second['place']}: {second['question'][:60]!r}",
        todo="give each its own id, or none at all: then it is derived from the question",
    )


def _leave_out_duplicates(facts: _Facts, settings: PrepareSettings, spool: Spool) -> list[str]:
    """Of questions that say the same the first one stays. Returns what a reader should know."""
    kept = facts.kept()
    texts = np.frombuffer(facts.text, dtype=np.uint64)[kept]
    _, first, group = np.unique(texts, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[group] != np.arange(len(kept)))
    facts.leave_out(kept[again], "duplicate")
    facts.same_as.update(zip(kept[again].tolist(), kept[first[group[again]]].tolist(), strict=True))
    if settings.near_duplicates:
        _leave_out_near_duplicates(facts, spool)
    conflicts = sum(facts.gold[number] != facts.gold[first] for number, first in facts.same_as.items())
    what = "repeated questions have another gold answer than the first of them, which stays"
    return [f"{conflicts} {what}"] if conflicts else []


def _leave_out_near_duplicates(facts: _Facts, spool: Spool) -> None:
    kept = facts.kept()
    near = NearDuplicates()
    for first in range(0, len(kept), BATCH * 8):
        numbers = kept[first : first + BATCH * 8]
        texts = spool.texts(numbers.tolist())
        for number in numbers:
            near.add(texts[int(number)])

    def again(rows: Sequence[int]) -> dict[int, str]:
        numbers = kept[np.asarray(rows, dtype=np.int64)]
        texts = spool.texts(numbers.tolist())
        return {row: texts[int(number)] for row, number in zip(rows, numbers, strict=True)}

    for found in near.decide(again):
        number = int(kept[found.row])
        facts.reasons[number] = "duplicate" if found.exact else "near_duplicate"
        facts.details[number] = f"similarity {found.similarity:.2f}"
        facts.same_as[number] = int(kept[found.of])


def _select(facts: _Facts, rules: Sequence[Selection]) -> tuple[Numbers, list[str]]:
    """How often each prompt is to be sampled, by number; which rules found none or fewer than they ask for."""
    repeats = np.zeros(len(facts.code), dtype=np.int64)
    kept = facts.kept()
    if not rules:
        repeats[kept] = 1
        return repeats, []
    rule_of = np.array([_rule_of(found, rules) for found in facts.properties] or [-1], dtype=np.int64)
    belongs = rule_of[np.frombuffer(facts.code, dtype=np.int32)[kept]]
    rank = np.frombuffer(facts.rank, dtype=np.uint64)
    lines = []
    for place, rule in enumerate(rules):
        numbers = kept[belongs == place]
        drawn = numbers[np.argsort(rank[numbers], kind="stable")][: rule.count]
        repeats[drawn] = 1
        if rule.count is not None and len(drawn):
            whole, rest = divmod(rule.count, len(drawn))
            repeats[drawn] = min(whole, rule.max_repeats)
            repeats[drawn[: rest if whole < rule.max_repeats else 0]] += 1
        samples = int(repeats[drawn].sum())
        if not len(drawn) or (rule.count is not None and samples < rule.count):
            asked = f", {rule.count:,} are asked for" if rule.count is not None else ""
            lines.append(f"{_described(rule)}: {samples:,} from {len(drawn):,} prompts{asked}")
    facts.leave_out(kept[repeats[kept] == 0], "not_selected")
    return repeats, lines


def _rule_of(found: Properties, rules: Sequence[Selection]) -> int:
    """The place of the first rule that these properties fit, -1 when there is none."""
    fields = ("domain", "difficulty", "license", "language", "kind", "source")

    def fits(rule: Selection) -> bool:
        named: Any = ((getattr(rule, field), getattr(found, field)) for field in fields)
        return all(not wanted or value in wanted for wanted, value in named)

    return next((place for place, rule in enumerate(rules) if fits(rule)), -1)


def _described(rule: Selection) -> str:
    named = rule.model_dump(exclude={"count", "max_repeats"})
    return "prepare.select, " + (", ".join(f"{key} {' or '.join(v)}" for key, v in named.items() if v) or "any prompt")
