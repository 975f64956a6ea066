"""Near-duplicates among up to millions of traces: a signature of every text, then the rows that share a part of it.

`signature` reads one text, in any process; `NearDuplicates` keeps `BYTES` bytes of a trace and no text. Two traces are
near-duplicates when their word 5-grams are alike (MinHash in 14 bands of 8, as datatrove does: half of the pairs with a
Jaccard similarity of 0.68 meet, 92% of those with 0.8) and so are their 3-grams of numbers. The second condition is our
own: worked solutions that follow one template share most of their words, and what makes each of them another solution
is its numbers; datatrove, which writes 0 for every number, takes them for copies (docs/filter-speed.md).

MinHash is rensa's (R-MinHash, its algorithm version 2): 40 and 190 times as fast here as datasketch's for texts of
1,000 and 17,000 characters. Bands are sorted here in numpy, because the indexes of both libraries keep more than the
whole signature: 1.4 KB a trace with rensa's, 5 KB with datasketch's.

Knows nothing about prompts, verdicts or files.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.prompts.grams import Hashes, mixed, ngram_hashes
from distill.prompts.pairs import Rows, capped, distinct, neighbours, parted
from distill.records import Trace

WORDS = 5
BANDS = 14
ROWS_OF_BAND = 8
"""The three are datatrove's defaults (MinhashConfig), and FineWeb's: the curve is steep at (1/14)^(1/8) = 0.72."""
NUMBERS = 3
"""Numbers of a gram: single digits and pairs of them recur in all arithmetic."""
SKETCHED_WORDS = 16
SKETCHED_NUMBERS = 32
ALIKE = 0.5
"""Of the values in each of the two sketches so many must agree. Measured: docs/filter-speed.md."""
PER_KEY = 6
"""Rows with one band that a row is compared with: the first, and the nearest earlier ones."""
PER_ROW = 8
"""Rows that look alike, kept for each row: those with the lowest numbers."""
PAIRS_AT_ONCE = 65_536
SEED = 1

RECORD = np.dtype(
    [
        ("exact", "<u8", (2,)),
        ("bands", "<u4", (BANDS,)),
        ("words", "u1", (SKETCHED_WORDS,)),
        ("numbers", "u1", (SKETCHED_NUMBERS,)),
    ]
)
"""A signature. Zeros in `exact` say that there is no text, and in `bands` that the text has no words."""
BYTES = RECORD.itemsize

_SEPARATOR, _LETTER, _DIGIT, _ALONE, _UNKNOWN = range(5)
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0x20000, 0x3FFFF),
)  # fmt: skip
"""Thai, Lao, Burmese, Khmer, kana, Han: written without spaces, so each letter is a word."""
_LONGEST_WORD = 64
"""Letters of a word after which the multipliers of its hash begin anew."""
_MULTIPLIERS = mixed(np.arange(1, _LONGEST_WORD + 1, dtype=np.uint64)) | np.uint64(1)
_32, _56 = np.uint64(32), np.uint64(56)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Row `row` repeats the earlier row `of`, which stays; `exact`: the same text but for white space."""

    row: int
    of: int
    exact: bool


def compared(trace: Trace) -> str:
    """The text of a trace that is compared: its reasoning and its answer, or the reply as it came where it has none."""
    return trace.raw if trace.answer is None else f"{trace.reasoning or ''}\n</think>\n\n{trace.answer}"


def version() -> str:
    """Changes whenever signatures do: those of two versions must not meet."""
    import rensa

    return f"1-{rensa.RMinHash.ALGORITHM_VERSION}"


def signature(text: str, *, within: str = "") -> bytes:
    """That of `signatures` for one text."""
    return signatures([text], [within])[0]


def signatures(texts: Sequence[str], within: Sequence[str] | None = None) -> list[bytes]:
    """For each text `BYTES` bytes that are the same in every process and on every machine; for `NearDuplicates.add`.

    Texts with different `within`, such as the ids of their prompts, are never duplicates of each other. Many texts at
    once take a third of the time of one by one: numpy's calls cost more than what they do to a thousand characters.
    """
    if not texts:
        return []
    found = np.zeros(len(texts), RECORD)
    groups = [_group(one) for one in within] if within is not None else [_group("")] * len(texts)
    for place, (text, group) in enumerate(zip(texts, groups, strict=True)):
        plain = " ".join(text.split()).encode("utf-8", "surrogatepass")
        if plain:
            found["exact"][place] = np.frombuffer(blake2b(plain, digest_size=16, person=group).digest(), "<u8")
    words, digits, ends = tokens(texts)
    told = np.flatnonzero(np.diff(ends, prepend=0))
    if len(told):
        least = _least(*_grams(words, ends, WORDS), BANDS * ROWS_OF_BAND)[told]
        heads = np.frombuffer(b"".join(groups[place] for place in told), "<u8").reshape(len(told), -1)[:, :1]
        bands = mixed(least.reshape(len(told), BANDS, -1) @ _MULTIPLIERS[:ROWS_OF_BAND] ^ heads) >> _32
        found["bands"][told] = np.maximum(bands, 1)
        found["words"][told] = _sketch(least[:, :: least.shape[1] // SKETCHED_WORDS])
        numbers = _grams(words[digits], np.append(0, np.cumsum(digits))[ends], NUMBERS)
        found["numbers"][told] = _sketch(_least(*numbers, SKETCHED_NUMBERS)[told])
    return [one.tobytes() for one in found]


def _group(within: str) -> bytes:
    return blake2b(within.encode("utf-8", "surrogatepass"), digest_size=16).digest()


Ends = NDArray[np.int64]
"""Where each text's words end among those of all texts."""


def _grams(hashes: Hashes, ends: Ends, n: int) -> tuple[Hashes, Ends]:
    """The n-grams of each text; of a shorter one, also of an empty one, a single gram for all of it."""
    grams = ngram_hashes(hashes, n)
    pieces, start = [], 0
    for end in ends.tolist():
        if end - start >= n:
            pieces.append(grams[start : end - n + 1])
        else:
            pieces.append(ngram_hashes(hashes[start:end], end - start) if end > start else np.ones(1, np.uint64))
        start = end
    return np.concatenate(pieces), np.cumsum([len(piece) for piece in pieces])


def _least(features: Hashes, ends: Ends, count: int) -> Hashes:
    """`count` MinHash values for each text."""
    from rensa import RMinHash

    offsets = np.append(0, ends).astype(np.uint64)
    rows: Any = RMinHash.digest_matrix_from_flat_token_hashes(features, offsets, count, SEED).to_rows()
    return np.array(rows, np.uint64)


def _sketch(least: Hashes) -> NDArray[np.uint8]:
    """Eight bits of each value: two different ones agree once in 256 times (Li and König 2010)."""
    found: NDArray[np.uint8] = (least * _MULTIPLIERS[0] >> _56).astype(np.uint8)
    return found


# --- words -----------------------------------------------------------------------------------------------------------


def tokens(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.bool_], Ends]:
    """A hash for each word and each run of digits in their order, which of them are digits, and each text's end.

    In lower case; punctuation and signs separate and say nothing, as in datatrove. In numpy over the code points, which
    takes half the time of a regular expression with a hash for each word.
    """
    lower = [(text if text.isascii() else unicodedata.normalize("NFKC", text)).lower() for text in texts]
    joined = "\n".join(lower)
    if joined.isascii():
        encoded = joined.encode()
        codes: NDArray[np.unsignedinteger[Any]] = np.frombuffer(encoded, np.uint8)
        kinds = np.frombuffer(encoded.translate(_ASCII_KINDS), np.uint8)
    else:
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
        kinds = _kinds(codes)
    begins = kinds != _SEPARATOR
    inside = np.flatnonzero(begins)
    begins[1:] &= (kinds[1:] != kinds[:-1]) | (kinds[1:] == _ALONE)
    starts = np.flatnonzero(begins[inside])
    if not len(starts):
        return np.empty(0, np.uint64), np.empty(0, np.bool_), np.zeros(len(texts), np.int64)
    lengths = np.diff(starts, append=len(inside))
    offsets = np.arange(len(inside)) - np.repeat(starts, lengths)
    values = codes[inside] * _MULTIPLIERS[offsets & (_LONGEST_WORD - 1)]
    at = inside[starts]
    ends = np.searchsorted(at, np.cumsum([len(text) + 1 for text in lower]))
    return np.add.reduceat(values, starts), kinds[at] == _DIGIT, ends


def _kinds(codes: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.uint8]:
    kinds: NDArray[np.uint8] = _KINDS[codes]
    unknown = kinds == _UNKNOWN
    if unknown.any():
        for code in np.unique(codes[unknown]).tolist():
            _KINDS[code] = _kind(code)
        kinds = _KINDS[codes]
    return kinds


def _kind(code: int) -> int:
    category = unicodedata.category(chr(code))
    if category == "Nd":
        return _DIGIT
    if category[0] in "LM":
        return _ALONE if any(low <= code <= high for low, high in _UNSPACED) else _LETTER
    return _SEPARATOR


_KINDS = np.full(0x110000, _UNKNOWN, np.uint8)
"""Code point → its kind; worked out when first met."""
_KINDS[:128] = [_kind(code) for code in range(128)]
_ASCII_KINDS = _KINDS[:256].tobytes()


# --- the rows --------------------------------------------------------------------------------------------------------


class NearDuplicates:
    """Takes the signatures of numbered rows in any order, then tells which rows repeat an earlier one.

    Only rows that are fit to stay belong in here: a wrong solution that comes first would speak for its right copies.
    """

    def __init__(self) -> None:
        self._rows = bytearray()

    def __len__(self) -> int:
        """One more than the highest row."""
        return len(self._rows) // BYTES

    def add(self, row: int, signature: bytes) -> None:
        """Rows that are left out repeat nothing. Raises ValueError for a row that is there and for another version."""
        if len(signature) != BYTES:
            raise ValueError(f"a signature has {BYTES} bytes, this one {len(signature)}")
        start = row * BYTES
        if start >= len(self._rows):
            self._rows.extend(bytes(start - len(self._rows)))
            self._rows.extend(signature)
            return
        if any(self._rows[start : start + BYTES]):
            raise ValueError(f"row {row} is there already")
        self._rows[start : start + BYTES] = signature

    def decide(self) -> list[Duplicate]:
        """The rows to leave out, in order; each is alike to the row named, which stays. No chains: a copy of a copy
        that is no longer like the first one stays as well."""
        records = np.frombuffer(self._rows, RECORD) if self._rows else np.empty(0, RECORD)
        found = {row: Duplicate(row, of, True) for row, of in _equal(records["exact"])}
        pairs = np.empty(0, np.uint64)
        alone: NDArray[np.bool_] = records["bands"][:, 0] != 0
        alone[list(found)] = False
        rows = np.flatnonzero(alone)
        for band in range(BANDS):
            new = neighbours(records["bands"][rows, band], rows, PER_KEY)
            pairs = capped(distinct([pairs, new[_alike(records, *parted(new))]]), PER_ROW)
        for pair in pairs.tolist():
            row, other = divmod(pair, 2**32)
            first = found[other].of if other in found else other
            if row not in found and (first == other or _alike(records, [row], [first])[0]):
                found[row] = Duplicate(row, first, False)
        for row, duplicate in found.items():  # an exact copy of a row that is to go itself
            if duplicate.of in found:
                found[row] = Duplicate(row, found[duplicate.of].of, False)
        return [found[row] for row in sorted(found)]


def _equal(keys: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """(row, the first row with the same key), without the first ones and without zeros."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: rows with one key stand in their order
    order = order[keys[order].any(axis=1)]
    if not len(order):
        return
    new = np.r_[True, (keys[order[1:]] != keys[order[:-1]]).any(axis=1)]
    firsts = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    yield from zip(order[~new].tolist(), firsts[~new].tolist(), strict=True)


def _alike(records: NDArray[Any], later: Rows | list[int], earlier: Rows | list[int]) -> NDArray[np.bool_]:
    """Which of the pairs agree in at least `ALIKE` of both sketches."""
    agreed = np.ones(len(later), np.bool_)
    for start in range(0, len(later), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        for sketch in ("words", "numbers"):
            same = records[sketch][later[some]] == records[sketch][earlier[some]]
            agreed[some] &= same.sum(axis=1, dtype=np.uint8) >= ALIKE * same.shape[1]
    return agreed
