"""Whether a text holds a problem of an evaluation set: the same rule for prompts before sampling and for traces after.

A problem is found in one of three ways, all on normalised words (`words`), in time linear in the text:
1. At least `SHARE` of its 8-grams stand in the text, and `NUMBERS_SHARE` of its numbers. The length is that of open-r1
   and s1, where a single shared 8-gram is a hit, as a single 13-gram is in GPT-3 (Brown et al. 2020, appendix C): on
   normalised words both hit problems that share no more than their template (docs/overlap.md). Also a hit: a text of 13
   words or more that is to `SHARE` a part of one problem.
2. Its sequence of numbers stands in the text, and the words around them are the same but for names (`similarity`).
3. It is shorter than 8 words, or made of common 8-grams only, and the text as a whole is the same problem.

8-grams that more than ten problems share are templates and count for nothing, as in GPT-3. Missed: rewordings,
translations, and exchanged names in problems with fewer than two numbers or where a name is in every eight words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from distill.prompts.grams import Hashes, ngram_hashes, text_hash, word_hashes
from distill.prompts.similarity import NUMBERS_FOR_NAMES, Read, capitals, core, similarity
from distill.prompts.words import number_places, numbers, words

WORDS = 8
SHARE = 0.5
NUMBERS_SHARE = 0.75
"""Of the problem's numbers, so many must be in the text. 1.0 lets copies with a single number changed pass; they are
taken out on purpose, since a prompt costs little and an evaluation that was trained on is worth nothing."""
LEAST_OF_TEXT = 6
"""8-grams of a text, 13 words, from which on it may be a part of a problem."""
MOST_PROBLEMS = 10
"""More problems with one 8-gram make it a template."""
LONGEST_KEY = 8
"""Numbers of a problem that are looked up; `similarity` compares all of them."""
PER_KEY = 4
"""Problems with one sequence of numbers that are compared, and places of a text for each."""
SPARSE = 4
"""Bits of the table of 8-grams beyond those that tell them apart: 16 to 32 bytes for each, of which one is set."""
PER_TEXT = 64
"""Problems and places that are compared for one text."""
MOST_AROUND = 60
"""Words that `core` leaves out at the two ends of a text, at most."""
MARGIN = 4
"""Words around a place, with a fourth of the problem's own: for names of more words than the problem's."""


@dataclass(frozen=True, slots=True)
class Hit:
    """The problem a text holds: `share` of its 8-grams or words, and words found in both as an example."""

    benchmark: str
    problem: int
    """Place among this benchmark's problems, from 0."""
    share: float
    ngram: str


class Contamination:
    """Built once from evaluation problems, as (benchmark, text); then asked about any number of texts.

    Keeps the words of the problems: 5 KB for each of GSM8K's. Most 8-grams of a text are told to be in no problem by
    one look into a table, and most of its numbers by their neighbours.
    """

    def __init__(
        self,
        problems: Iterable[tuple[str, str]],
        *,
        ngram: int = WORDS,
        share: float = SHARE,
        numbers_share: float = NUMBERS_SHARE,
    ) -> None:
        self._n, self._share, self._numbers_share = ngram, share, numbers_share
        self._places: list[tuple[str, int]] = []
        self._problems: list[Read] = []
        self._numbers: list[tuple[str, ...]] = []
        self._first: list[int] = []
        """Where the first number of each problem stands."""
        self._whole: dict[int, int] = {}
        self._by_numbers: dict[tuple[str, ...], list[int]] = {}
        self._beginnings: dict[int, set[tuple[str, ...]]] = {
            count: set() for count in range(NUMBERS_FOR_NAMES, LONGEST_KEY + 1)
        }
        """Count → the first so many of each sequence of numbers that is looked up."""
        counts: Counter[str] = Counter()
        grams = []
        for benchmark, text in problems:
            self._places.append((benchmark, counts[benchmark]))
            counts[benchmark] += 1
            grams.append(np.unique(self._read(len(self._problems), text)))
        self._longest = max((len(problem.words) for problem in self._problems), default=0)
        self._index(grams)

    def _read(self, place: int, text: str) -> Hashes:
        """Notes everything but the 8-grams, and returns those."""
        read = Read.of(text)
        found = numbers(read.words)
        self._problems.append(read)
        self._numbers.append(found)
        self._first.append(next(iter(number_places(read.words)), 0))
        if read.words:
            self._whole.setdefault(text_hash(read.words), place)
        if len(found) >= NUMBERS_FOR_NAMES and len(read.words) >= WORDS:
            self._by_numbers.setdefault(found[:LONGEST_KEY], []).append(place)
            for count in range(NUMBERS_FOR_NAMES, min(LONGEST_KEY, len(found)) + 1):
                self._beginnings[count].add(found[:count])
        return ngram_hashes(word_hashes(read.words), self._n)

    def _index(self, grams: Sequence[Hashes]) -> None:
        """The 8-grams sorted, with the problem of each; templates left out."""
        sizes = np.array([len(each) for each in grams], np.int64)
        hashes = np.concatenate([*grams, np.empty(0, np.uint64)])
        owners = np.repeat(np.arange(len(grams), dtype=np.int32), sizes)
        order = np.argsort(hashes, kind="stable")
        hashes, owners = hashes[order], owners[order]
        _, places, times = np.unique(hashes, return_inverse=True, return_counts=True)
        rare = times[places] <= MOST_PROBLEMS
        self._grams, self._owners = hashes[rare], owners[rare]
        self._sizes = np.bincount(self._owners, minlength=len(grams))
        bits = max(8, len(self._grams).bit_length() + SPARSE)
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(2**bits, np.bool_)
        self._maybe[self._grams >> self._shift] = True
        smallest = min((size for size in self._sizes.tolist() if size), default=0)
        self._least = min(LEAST_OF_TEXT, math.ceil(self._share * smallest))
        """8-grams of problems that a text must have to hold any of them."""

    def __len__(self) -> int:
        return len(self._problems)

    def hit(self, text: str) -> Hit | None:
        """The problem that most of is found in `text`, the first of equals; None for a clean text."""
        return self.hits([text])[0]

    def hits(self, texts: Sequence[str]) -> list[Hit | None]:
        """`hit` of each text; many at once take less time than one by one."""
        if not self._problems:
            return [None] * len(texts)
        found = [words(text) for text in texts]
        near = self._near(found)
        return [
            self._copy(each) or (self._shared(each, grams) if grams is not None else None) or self._renamed(text, each)
            for text, each, grams in zip(texts, found, near, strict=True)
        ]

    def _copy(self, found: Sequence[str]) -> Hit | None:
        """By the text as a whole, but for what `core` leaves out at its ends."""
        if len(found) > self._longest + MOST_AROUND:
            return None
        inner = core(found)
        place = self._whole.get(text_hash(inner)) if inner else None
        return None if place is None else self._hit(place, 1.0, inner[:WORDS])

    def _near(self, found: Sequence[Sequence[str]]) -> list[Hashes | None]:
        """The 8-grams of each text that may hold a problem by them; None for any other."""
        ends = np.cumsum([len(each) for each in found])
        hashes = ngram_hashes(word_hashes(list(chain.from_iterable(found))), self._n)
        near: list[Hashes | None] = [None] * len(found)
        if not len(hashes) or not len(self._grams):
            return near
        maybe = np.flatnonzero(self._maybe[hashes >> self._shift])
        left = np.searchsorted(self._grams, hashes[maybe], "left")
        left[left == len(self._grams)] = 0
        known = np.searchsorted(ends, maybe[self._grams[left] == hashes[maybe]], "right")
        for place in np.flatnonzero(np.bincount(known) >= self._least).tolist():
            start = int(ends[place - 1]) if place else 0
            near[place] = hashes[start : max(start, int(ends[place]) - self._n + 1)]  # others reach into the next text
        return near

    def _hit(self, place: int, share: float, example: Sequence[str]) -> Hit:
        return Hit(*self._places[place], round(share, 3), " ".join(example))

    def _shared(self, found: Sequence[str], hashes: Hashes) -> Hit | None:
        """By 8-grams. A gram of the index counts once for its problem, however often the text has it."""
        left = np.searchsorted(self._grams, hashes, "left")
        left[left == len(self._grams)] = 0
        there = self._grams[left] == hashes
        known = np.flatnonzero(there)
        if not len(known):
            return None
        left, first = np.unique(left[there], return_index=True)
        at, count = known[first], len(np.unique(hashes))
        distinct = self._grams[left]
        runs = np.searchsorted(self._grams, distinct, "right") - left
        entries = np.repeat(left - np.cumsum(runs) + runs, runs) + np.arange(runs.sum())
        owners = self._owners[entries]
        candidates, times = np.unique(owners, return_counts=True)
        shares = times / self._sizes[candidates]
        inside = times / count
        shares = np.maximum(shares, np.where(times >= LEAST_OF_TEXT, inside, 0.0))
        sequence = numbers(found)
        have = Counter(sequence)
        for index in np.argsort(-shares, kind="stable"):
            if shares[index] < self._share:
                return None
            place = int(candidates[index])
            if self._numbers_agree(place, have, sequence, inside=inside[index] >= self._share):
                start = int(np.repeat(at, runs)[owners == place].min())
                return self._hit(place, float(shares[index]), found[start : start + WORDS])
        return None

    def _numbers_agree(self, place: int, have: Counter[str], sequence: Sequence[str], *, inside: bool) -> bool:
        """Most of the numbers of the problem, or of a text that is a part of it: else it is a variant of its own."""
        wanted = Counter(self._numbers[place])
        common = (wanted & have).total()
        if common >= self._numbers_share * wanted.total():
            return True
        return inside and common >= self._numbers_share * len(sequence)

    def _renamed(self, text: str, found: list[str]) -> Hit | None:
        """By the sequence of numbers, then word by word around them."""
        names: frozenset[str] | None = None
        for begin, place in islice(self._same_numbers(found, numbers(found)), PER_TEXT):
            problem = self._problems[place]
            margin = MARGIN + len(problem.words) // 4
            piece = found[max(0, begin - margin) : begin + len(problem.words) + margin]
            names = capitals(text) if names is None else names
            share = similarity(problem, Read(piece, names), inside=True)
            if share:
                return self._hit(place, share, found[max(0, begin) : begin + WORDS])
        return None

    def _same_numbers(self, found: Sequence[str], sequence: tuple[str, ...]) -> Iterator[tuple[int, int]]:
        """(where it would begin in the text, problem), for problems whose numbers stand in the text in a row, the most
        numbers first, and a word beside the first of them too."""
        starts: dict[int, list[int]] = {NUMBERS_FOR_NAMES - 1: list(range(len(sequence)))}
        """Count → where so many numbers begin some problem's."""
        for count in range(NUMBERS_FOR_NAMES, LONGEST_KEY + 1):
            known, before_it = self._beginnings[count], starts[count - 1]
            starts[count] = [start for start in before_it if sequence[start : start + count] in known]
        if not starts[NUMBERS_FOR_NAMES]:
            return
        at = number_places(found)
        met: Counter[int] = Counter()
        for count in range(LONGEST_KEY, NUMBERS_FOR_NAMES - 1, -1):
            for start in starts[count]:
                for place in self._by_numbers.get(sequence[start : start + count], ())[:PER_KEY]:
                    of_problem, first = self._problems[place].words, self._first[place]
                    before, after = at[start] - 1, at[start] + 1
                    beside = (first and before >= 0 and of_problem[first - 1] == found[before]) or (
                        first + 1 < len(of_problem) and after < len(found) and of_problem[first + 1] == found[after]
                    )
                    if beside and met[place] < PER_KEY:
                        met[place] += 1
                        yield at[start] - first, place
