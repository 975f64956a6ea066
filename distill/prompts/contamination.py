"""Whether a text holds a problem of an evaluation set: the same rule for prompts before sampling and for traces after.

A problem is found in one of three ways, all on normalised words (`words`), in time linear in the text:
1. At least `SHARE` of its 8-grams stand in the text, and half of its numbers. 8 words as in open-r1 and s1, where a
   single shared 8-gram is a hit; 13 as in GPT-3 (Brown et al. 2020, appendix C) misses more and finds no less falsely:
   docs/overlap.md has both. Also a hit: a text of 13 words or more that is to `SHARE` a part of one problem.
2. Its sequence of numbers stands in the text, and the words around them are the same but for names (`similarity`).
3. It is shorter than 8 words, or made of common 8-grams only, and the text as a whole is the same problem.

8-grams that more than ten problems share are templates and count for nothing, as in GPT-3. Missed: rewordings,
translations, and exchanged names in problems with fewer than two numbers or where a name is in every eight words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from distill.prompts.grams import Hashes, ngram_hashes, text_hash, word_hashes
from distill.prompts.similarity import NUMBERS_FOR_NAMES, Read, capitals, core, similarity
from distill.prompts.words import number_places, numbers, words

WORDS = 8
SHARE = 0.5
NUMBERS_SHARE = 0.5
LEAST_OF_TEXT = 6
"""8-grams of a text, 13 words, from which on it may be a part of a problem."""
MOST_PROBLEMS = 10
"""More problems with one 8-gram make it a template."""
LONGEST_KEY = 8
"""Numbers of a problem that are looked up; `similarity` compares all of them."""
PER_KEY = 4
"""Problems with one sequence of numbers that are compared, and places of a text for each."""
PER_TEXT = 64
"""Problems and places that are compared for one text."""
MARGIN = 4
"""Words around a place, for names of more words than the problem's."""


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

    Keeps the words of the problems: about 10 KB for each.
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
        self._whole: dict[int, int] = {}
        self._by_numbers: dict[int, list[int]] = {}
        counts: Counter[str] = Counter()
        grams = []
        for benchmark, text in problems:
            self._places.append((benchmark, counts[benchmark]))
            counts[benchmark] += 1
            grams.append(np.unique(self._read(len(self._problems), text)))
        self._index(grams)

    def _read(self, place: int, text: str) -> Hashes:
        """Notes everything but the 8-grams, and returns those."""
        read = Read.of(text)
        found = numbers(read.words)
        self._problems.append(read)
        self._numbers.append(found)
        if read.words:
            self._whole.setdefault(text_hash(read.words), place)
        if len(found) >= NUMBERS_FOR_NAMES:
            key = _number_keys(found[:LONGEST_KEY], min(len(found), LONGEST_KEY))
            self._by_numbers.setdefault(int(key[0]), []).append(place)
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

    def __len__(self) -> int:
        return len(self._problems)

    def hit(self, text: str) -> Hit | None:
        """The problem that most of is found in `text`, the first of equals; None for a clean text."""
        if not self._problems:
            return None
        found = words(text)
        inner = core(found)
        place = self._whole.get(text_hash(inner)) if inner else None
        if place is not None:
            return self._hit(place, 1.0, inner[:WORDS])
        sequence = numbers(found)
        return self._shared(found, sequence) or self._renamed(text, found)

    def _hit(self, place: int, share: float, example: Sequence[str]) -> Hit:
        return Hit(*self._places[place], round(share, 3), " ".join(example))

    def _shared(self, found: list[str], sequence: tuple[str, ...]) -> Hit | None:
        """By 8-grams. A gram of the index counts once for its problem, however often the text has it."""
        hashes = ngram_hashes(word_hashes(found), self._n)
        if not len(hashes) or not len(self._grams):
            return None
        distinct, at = np.unique(hashes, return_index=True)
        left = np.searchsorted(self._grams, distinct, "left")
        known = left < len(self._grams)
        known[known] = self._grams[left[known]] == distinct[known]
        if not known.any():
            return None
        count = len(distinct)
        left, at, distinct = left[known], at[known], distinct[known]
        runs = np.searchsorted(self._grams, distinct, "right") - left
        entries = np.repeat(left - np.cumsum(runs) + runs, runs) + np.arange(runs.sum())
        owners = self._owners[entries]
        candidates, times = np.unique(owners, return_counts=True)
        shares = times / self._sizes[candidates]
        inside = times / count
        shares = np.maximum(shares, np.where(times >= LEAST_OF_TEXT, inside, 0.0))
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
        """Half of the numbers of the problem, or of a text that is a part of it: else it is a variant of its own."""
        wanted = Counter(self._numbers[place])
        common = (wanted & have).total()
        if common >= self._numbers_share * wanted.total():
            return True
        return inside and common >= self._numbers_share * len(sequence)

    def _renamed(self, text: str, found: list[str]) -> Hit | None:
        """By the sequence of numbers, then word by word around them."""
        at = number_places(found)
        names: frozenset[str] | None = None
        for start, place in islice(self._same_numbers([found[i] for i in at]), PER_TEXT):
            problem = self._problems[place]
            begin = at[start] - number_places(problem.words)[0]
            piece = found[max(0, begin - MARGIN) : begin + len(problem.words) + MARGIN]
            names = capitals(text) if names is None else names
            share = similarity(problem, Read(piece, names), inside=True)
            if share:
                return self._hit(place, share, found[max(0, begin) : begin + WORDS])
        return None

    def _same_numbers(self, sequence: Sequence[str]) -> Iterator[tuple[int, int]]:
        """(place among the text's numbers, problem) where all numbers of a problem stand in a row, longest first."""
        if not self._by_numbers:
            return
        met: Counter[int] = Counter()
        for count in range(min(LONGEST_KEY, len(sequence)), NUMBERS_FOR_NAMES - 1, -1):
            for start, key in enumerate(_number_keys(sequence, count).tolist()):
                for place in self._by_numbers.get(key, ())[:PER_KEY]:
                    if met[place] < PER_KEY:
                        met[place] += 1
                        yield start, place


def _number_keys(sequence: Sequence[str], count: int) -> NDArray[np.uint64]:
    """A key for each `count` numbers in a row."""
    return ngram_hashes(word_hashes(numbers(list(sequence))), count)
