"""Does a text repeat itself as a model does that is caught in a loop? Repeated pieces, paragraphs, sentences, a cycle
at the end, and how far the whole can be compressed.

Work that is repetitive by nature has to pass: tables, matrices, long divisions, cases, code. So what holds no word
(numbers, signs, single letters) is no loop until it fills thousands of words, mathematics may repeat more often than
prose, and most of what stands between two repetitions must be old. Takes linear time; for the loop of a reply that is
still being written see sampling/cycles.py.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass
from itertools import count, groupby
from typing import TYPE_CHECKING, Literal

from distill.filter_specs import LoopSettings
from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rule = Literal["gram", "paragraph", "sentence", "consecutive", "cycle", "compressible"]

GRAM, GRAM_LETTERS = 15, 30
"""Words of a piece, about the 20 tokens of AM-team's (arXiv 2504.17565), an English token being about 0.75 words; and
letters of one where they are written without spaces, a Chinese token being about 1.5."""
UNSPACED = 15
"""Letters for each space from which a text is written without spaces; English has about 6, formulas up to 10."""
LEAST_WORDS = 300
"""Words from which pieces are counted: 20 of GRAM words."""
CYCLE_TAIL, LEAST_CYCLE, LONGEST_CYCLE, MOST_PERIODS = 40, 400, 6_000, 64
"""Characters at the end that have to occur before, that a cycle must cover, and of one round of it: about the 1,024
tokens of sampling/cycles.py; and how many places are tried for them."""
GRID_WORDS, LEAST_GRID = 2_000, 8_000
"""Words and characters from which what holds no word is a loop as well: more than a matrix of 40 by 40 numbers."""
LEAST_PARAGRAPH, LEAST_SENTENCE = 20, 10
"""Characters of a paragraph and a sentence that count (open-instruct)."""
MATH_FACTOR, MATH_CONSECUTIVE = 2, 4
"""How much more often a sentence with mathematics or code may occur, and follow itself."""
MOST_NEW = 0.5
"""Share of different sentences, between the first and the last time of a repeated one, up to which it is a loop: in
proofs by cases and enumerations most is new. In a loop of N rounds it is 1/N."""

MOST_CANDIDATES = 16
"""Repeated sentences that are looked at, the most frequent first."""

_ENDS = (". ", "! ", "? ")
_ALL_ENDS = (*_ENDS, "。", "！", "？", "；")
_WORD = re.compile(r"[^\W\d_]{2,}")
_MATH = re.compile(r"[\d=+*/^<>\\{}\[\]()|&$_×÷]")


@dataclass(frozen=True, slots=True)
class Loop:
    """What repeats: by which rule, how often (for `compressible` the ratio), and the beginning of the piece."""

    rule: Rule
    times: float
    excerpt: str = ""


def loop(prompt: Prompt, trace: Trace, settings: LoopSettings) -> Outcome:
    """`loop` where reasoning or answer repeats itself; the score is how often, or how many times smaller zlib made it.
    Which rule it was and what repeats, `find_loop` tells."""
    for text in (trace.reasoning, trace.answer):
        found = find_loop(text, settings) if text else None
        if found is not None:
            return Outcome("fail", "loop", float(found.times))
    return PASS


def find_loop(text: str, settings: LoopSettings) -> Loop | None:
    """The first loop found in `text`, None where there is none."""
    return _repeated_lines(text, settings) or _repeated_pieces(text, settings)


def _repeated_lines(text: str, settings: LoopSettings) -> Loop | None:
    """Paragraphs and sentences that occur too often, or follow themselves too often."""
    if settings.paragraph_times and text.count("\n\n") + 1 >= settings.paragraph_times:
        found = _too_often("paragraph", text.split("\n\n"), settings.paragraph_times, LEAST_PARAGRAPH)
        if found:
            return found
    sentences = _sentences(text)
    repeated = len(sentences) - len(set(sentences))
    if settings.sentence_times and repeated >= settings.sentence_times - 1:
        found = _too_often("sentence", sentences, settings.sentence_times, LEAST_SENTENCE)
        if found:
            return found
    if settings.consecutive_times and repeated >= settings.consecutive_times - 1:
        return _in_a_row(sentences, settings.consecutive_times)
    return None


def _sentences(text: str) -> list[str]:
    for end in _ENDS if text.isascii() else _ALL_ENDS:
        text = text.replace(end, f"{end[0]}\n")
    return text.split("\n")


def _too_often(rule: Rule, parts: list[str], times: int, least: int) -> Loop | None:
    for part, found in Counter(parts).most_common(MOST_CANDIDATES):
        if found < times:
            return None
        piece = part.strip()
        enough = found >= times * (MATH_FACTOR if _MATH.search(piece) else 1)
        if enough and len(piece) >= least and _WORD.search(piece):
            first = parts.index(part)
            span = parts[first : len(parts) - parts[::-1].index(part)]
            if len(set(span)) <= MOST_NEW * len(span):
                return Loop(rule, found, piece[:80])
    return None


def _in_a_row(sentences: list[str], times: int) -> Loop | None:
    for sentence, group in groupby(part.strip() for part in sentences if part):
        found = sum(1 for _ in group)
        enough = found >= times and found >= times * (MATH_CONSECUTIVE if _MATH.search(sentence) else 1)
        if enough and len(sentence) >= LEAST_SENTENCE and _WORD.search(sentence):
            return Loop("consecutive", found, sentence[:80])
    return None


def _repeated_pieces(text: str, settings: LoopSettings) -> Loop | None:
    """Pieces of GRAM words that occur too often, a cycle at the end, and compression of the whole."""
    words, gap, gram = text.split(), " ", GRAM
    if len(words) < len(text) / UNSPACED:
        words, gap, gram = list("".join(words)), "", GRAM_LETTERS
    found = _cycle(words, gap, settings.cycle_times) if settings.cycle_times else None
    if found or len(words) < LEAST_WORDS:
        return found
    import numpy as np

    hashes = _hashes(words, gram)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    if settings.gram_times:
        found = _gram(words, gap, gram, order, starts, settings.gram_times)
    if found or not settings.most_compressible or len(starts) > MOST_NEW * len(order):
        return found
    return _compressible(text, len(words), settings.most_compressible)


def _hashes(words: list[str], gram: int) -> NDArray[np.uint64]:
    """One number for each `gram` words in a row: a polynomial in their ids, modulo 2**64, with an odd factor."""
    import numpy as np

    first: dict[str, int] = {}
    ids = np.fromiter(map(first.setdefault, words, count()), dtype=np.uint64, count=len(words))
    mixed = (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    total = len(ids) - gram + 1
    found = np.zeros(total, dtype=np.uint64)
    for place in range(gram):
        found *= np.uint64(0xD1342543DE82EF95)
        found += mixed[place : place + total]
    return found


def _gram(
    words: list[str], gap: str, gram: int, order: NDArray[np.int64], starts: NDArray[np.int64], times: int
) -> Loop | None:
    """A piece that begins in too many different stretches of its own length: one that overlaps itself, as in a row of
    equal words, counts once for each stretch.

    `order`: places in the text, those of equal pieces together and ascending; `starts`: where a new piece begins in it.
    """
    import numpy as np

    ends = np.append(starts[1:], len(order))
    for group in np.flatnonzero(ends - starts > times):
        places = order[starts[group] : ends[group]]
        found = 1 + int(np.count_nonzero(np.diff(places // gram)))
        if found > times:
            piece = gap.join(words[places[0] : places[0] + gram])
            if found * gram >= GRID_WORDS or _WORD.search(piece):
                return Loop("gram", found, piece[:80])
    return None


def _cycle(words: list[str], gap: str, times: int) -> Loop | None:
    """The shortest cycle that the text ends in and has gone through often enough."""
    text = gap.join(words)
    reach = text[-LONGEST_CYCLE * (times + 1) :]
    tail, before = reach[-CYCLE_TAIL:], len(reach) - 1
    for _ in range(MOST_PERIODS):
        place = reach.rfind(tail, max(0, len(reach) - len(tail) - LONGEST_CYCLE), before)
        if place < 0 or len(tail) < CYCLE_TAIL:
            return None
        period = len(reach) - len(tail) - place
        piece = reach[-period:]
        needed = max(LEAST_CYCLE, period * times * (MATH_CONSECUTIVE if _MATH.search(piece) else 1))
        needed = needed if _WORD.search(piece) else max(needed, LEAST_GRID)
        if needed <= len(text) and text[-needed + period :] == text[-needed:-period]:
            return Loop("cycle", needed // period, piece[:80])
        before = place + len(tail) - 1
    return None


def _compressible(text: str, words: int, most: float) -> Loop | None:
    raw = text.encode("utf-8", "surrogatepass")
    ratio = len(raw) / len(zlib.compress(raw, 1))
    wordless = words < GRID_WORDS and not _WORD.search(text, len(text) // 4, 3 * len(text) // 4)
    return Loop("compressible", round(ratio, 1), text[:80]) if ratio > most and not wordless else None
