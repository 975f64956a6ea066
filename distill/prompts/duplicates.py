"""Exact and near-duplicates among up to millions of prompts, in two passes: keys of every text, then the candidates.

`add` keeps 96 bytes of a prompt in numpy arrays and no text. `decide` sorts the keys, asks for the texts of rows that
share one, and judges pairs by `similarity`. Rows meet in one of three ways: equal words; the same sequence of three or
more numbers, which finds exchanged names however often they occur; or an equal band of MinHash values over single words
and word pairs. Every band key holds the sequence of numbers too, because a duplicate must agree in it: templates with
other numbers never meet.

MinHash is written here in 20 lines of numpy (Broder 1997; bands: Leskovec et al., Mining of Massive Datasets, ch. 3),
not taken from datasketch: its MinHashLSH keeps dicts of Python objects, measured (2.0.0, 16 bands of 4) at 440 MB for
100,000 short prompts, while this stage has to stay below 2 GB with 800,000. 16 bands of 4 meet at a Jaccard similarity
of 0.5 with probability 0.64, at 0.7 with 0.99.

The work is bounded: of the rows that share a key, a row meets the first one and the nearest earlier ones, `PER_KEY` in
all, and over all keys `PER_ROW`. Of 10,000 different prompts under one key, a duplicate further back is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distill.prompts.grams import Hashes, mixed, ngram_hashes, text_hash, word_hashes
from distill.prompts.pairs import Pairs, Rows, capped, distinct, neighbours, parted
from distill.prompts.similarity import Read, core, similarity
from distill.prompts.words import numbers, words

BANDS = 16
ROWS_OF_BAND = 4
NUMBERS_OF_KEY = 3
"""So many numbers in a row bring two problems together whatever their words are."""
PER_KEY = 6
PER_ROW = 32
LEAST_ALIKE = 4
"""Of `BANDS` single MinHash values, so many must agree before texts are read again: at a Jaccard similarity of 0.5, 99%
of pairs pass, of unlike questions (0.12) 12%."""
BATCH = 8_192
"""Pairs whose texts are in memory at once."""
FEATURES_AT_ONCE = 4_096

Texts = Callable[[Sequence[int]], Mapping[int, str]]
_Kind = TypeVar("_Kind", bound=np.generic)
_32 = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Row `row` repeats the earlier row `of`, which stays; `exact`: equal in all words, instructions included."""

    row: int
    of: int
    similarity: float
    exact: bool


class NearDuplicates:
    """Takes the prompts one by one, then tells which repeat an earlier one. The same texts give the same result."""

    def __init__(self) -> None:
        self._count = 0
        self.compared = 0
        """Pairs whose words the last `decide` compared."""
        self._exact = np.zeros(1_024, np.uint64)
        self._numbers = np.zeros(1_024, np.uint64)
        self._bands = np.zeros((1_024, BANDS), np.uint32)
        self._sketches = np.zeros((1_024, BANDS), np.uint8)
        generator = np.random.default_rng(0)
        self._factors = generator.integers(1, 2**64 - 1, (BANDS * ROWS_OF_BAND, 1), np.uint64) | np.uint64(1)

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> None:
        """The next row. A blank text repeats nothing; one without any word, such as 😀, only itself."""
        row = self._count
        if row == len(self._exact):
            self._exact, self._numbers = _longer(self._exact), _longer(self._numbers)
            self._bands, self._sketches = _longer(self._bands), _longer(self._sketches)
        self._count += 1
        found = words(text)
        if not found:
            self._exact[row] = text_hash(["", text.strip()]) if text.strip() else 0
            return
        self._exact[row] = text_hash(found)
        found = core(found)
        sequence = numbers(found)
        key = text_hash(sequence)
        if len(sequence) >= NUMBERS_OF_KEY:
            self._numbers[row] = key
        least = self._least(word_hashes(found))
        self._sketches[row] = least[:, 0] >> np.uint64(48) & np.uint64(255)
        self._bands[row] = ngram_hashes(least.ravel(), ROWS_OF_BAND)[::ROWS_OF_BAND] + np.uint64(key) >> _32

    def _least(self, hashes: Hashes) -> Hashes:
        """The MinHash values over words and word pairs, a row for each band; multiply-shift hashing."""
        features = np.concatenate([hashes, ngram_hashes(hashes, 2)])
        least = np.full(len(self._factors), 2**64 - 1, np.uint64)
        for start in range(0, len(features), FEATURES_AT_ONCE):
            permuted = self._factors * features[start : start + FEATURES_AT_ONCE]
            np.minimum(least, permuted.min(axis=1), out=least)
        return mixed(least).reshape(BANDS, ROWS_OF_BAND)

    def decide(self, texts: Texts) -> list[Duplicate]:
        """The rows to leave out, in order. `texts` gives the texts of up to some ten thousand rows again."""
        found = {int(row): Duplicate(int(row), int(of), 1.0, True) for row, of in self._equal()}
        alone = self._exact[: self._count] != 0
        alone[list(found)] = False
        pairs = self._pairs(np.flatnonzero(alone))
        self.compared = 0
        for start in range(0, len(pairs), BATCH):
            later, earlier_ones = parted(pairs[start : start + BATCH])
            batch = list(zip(later.tolist(), earlier_ones.tolist(), strict=True))
            read = _Reader(texts, sorted({row for pair in batch for row in pair}))
            for row, earlier in batch:
                first = found[earlier].of if earlier in found else earlier
                if row in found:
                    continue
                self.compared += 1
                share = similarity(read[first], read[row])
                if share > 0:
                    found[row] = Duplicate(row, first, share, False)
        for row, duplicate in found.items():  # a copy of a row that is to go itself: of the row that stays
            if (other := found.get(duplicate.of)) is not None:
                found[row] = Duplicate(row, other.of, other.similarity, False)
        return [found[row] for row in sorted(found)]

    def _equal(self) -> Iterator[tuple[int, int]]:
        """(row, first row with the same words)."""
        keys, firsts, places = np.unique(self._exact[: self._count], return_index=True, return_inverse=True)
        first_of = firsts[places]
        repeats = np.flatnonzero((first_of != np.arange(self._count)) & (keys[places] != 0))
        yield from zip(repeats, first_of[repeats], strict=True)

    def _pairs(self, rows: Rows) -> Pairs:
        """The pairs that share a key and look alike, the earliest partners of a row first."""
        pairs = np.empty(0, np.uint64)
        for column in (self._numbers, *self._bands.T):
            new = neighbours(column[rows], rows, PER_KEY)
            later, earlier = parted(new)
            alike = np.zeros(len(new), np.int64)
            for band in range(BANDS):
                alike += self._sketches[later, band] == self._sketches[earlier, band]
            pairs = capped(distinct([pairs, new[alike >= LEAST_ALIKE]]), PER_ROW)
        return pairs


class _Reader(dict[int, Read]):
    """Row → its text, read for comparing; texts that were not asked for at first come one by one."""

    def __init__(self, texts: Texts, rows: Sequence[int]) -> None:
        super().__init__()
        self._texts = texts
        self._found = dict(texts(rows))

    def __missing__(self, row: int) -> Read:
        text = self._found[row] if row in self._found else self._texts([row])[row]
        self[row] = read = Read.of(text)
        return read


def _longer(array: NDArray[_Kind]) -> NDArray[_Kind]:
    """Twice as many rows; the new ones are 0."""
    return np.concatenate([array, np.zeros_like(array)])
