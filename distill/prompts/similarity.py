"""Whether two problems are the same one: what may differ, and what makes another problem of it.

Judged word by word on aligned texts, not by a share of equal words: a copy of a GSM8K question that asks for something
else ("in May" for "altogether") differs in fewer words than a copy with another name. So only these may differ:
instructions to the model around the problem, light words (articles, he and she), spelling, proper names exchanged
throughout where two numbers agree, and in long texts without numbers one word in a hundred. Numbers never. Names are
told by their capitals in one of the texts: in a script without capitals, and in two texts in lower case, they must
agree. Knows nothing about files and about finding pairs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from distill.prompts.words import numbers, words

_LIGHT = "a an the he she his her him hers himself herself please kindly also then now just so"
LIGHT = frozenset(_LIGHT.split())
"""Words whose change, loss or gain leaves the problem as it is."""
_FIXED = """
not no never none without neither nor cannot t more less fewer most least greater smaller larger bigger higher lower
highest lowest maximum minimum min before after above below under over up down increase decrease increasing
decreasing sum product difference quotient remainder ratio average mean median mode area perimeter volume radius
diameter length width height even odd prime positive negative first second third last all any some each every only
both either per total left how what which who when where why if find compute calculate determine solve prove show
evaluate simplify write express is are does do did can let suppose given in on at for from by to
"""
FIXED = frozenset(_FIXED.split())
"""Words that are never taken for a name, a slip of the pen or one word in a hundred."""
NUMBERS_FOR_NAMES = 2
"""So many numbers must agree before an exchanged name counts as the same problem."""
QUESTION_WORDS = 10
"""The last words of a problem, where it says what is asked: there only names, light words and spelling may differ."""
LEAST_SHARED = 0.5
"""Words in common, wherever they stand, before two texts are aligned: that costs ten times as much."""
MOST_ALIGNED = 1_000
"""Words of a differing middle part that are aligned; longer ones are compared place by place, in linear time."""

_ASK = r"(?:solve|answer|consider|complete|read)"
_PROBLEM = r"(?:problem|question|task|exercise|puzzle)s?"
_SUBJECT = r"(?:math|maths|mathematical|mathematics|word|reasoning|multiple choice)"
_OPENING = re.compile(
    rf"(?:please )?{_ASK} (?:the|this)(?: following| given| below)?(?: {_SUBJECT})* {_PROBLEM}"
    r"(?: below| carefully| step by step| efficiently and clearly)*(?: and [a-z ]{0,60}?boxed)? "
    r"|(?:question|problem|exercise|instruction|user) "
)
_STEPS = (
    r"(?:think|reason|work|solve|explain)(?: through| out)?(?: it| this| the problem| this problem)?(?: out)?"
    r" step by step"
)
_GIVE = r"(?:put|write|give|place|enclose|return|provide|output|state|box|present|express) (?:your|the|a)"
_CLOSING = re.compile(
    rf" (?:please )?(?:(?:let s |let us )?{_STEPS}"
    rf"|(?:and )?{_GIVE}(?: final| short)? (?:answer|response|result|solution)(?: (?:within|in|inside|into|using|with) "
    r"(?:a |the )?(?:latex )?boxed(?: format| notation| command)?| only| at the end)?"
    r"|(?:and )?(?:show|explain)(?: all)?(?: of)? your (?:work|working|steps|reasoning|answer|solution)"
    r"|answer|solution|response|assistant)$"
)
"""Instructions around a problem, as in the prompts of open-r1, Qwen2.5-Math and DeepSeek-R1's card."""
_LETTERS = re.compile(r"[^\W\d_]+")
_CAPITAL = re.compile(r"[A-Z](?<![A-Za-z][A-Z])[A-Za-z]*")
"""A word in ASCII that begins with a capital: a third of the time of looking at every word."""


def core(words: Sequence[str]) -> list[str]:
    """The words without labels and instructions to the model at either end; all of them when nothing else is there."""
    head, tail = " ".join(words[:30]) + " ", " " + " ".join(words[-30:])
    start, end = 0, len(words)
    while match := _OPENING.match(head):
        start, head = start + match[0].count(" "), head[match.end() :]
    while match := _CLOSING.search(tail):
        end, tail = end - match[0].count(" "), tail[: match.start()]
    return list(words[start:end]) if start < end else list(words)


@dataclass(frozen=True, slots=True)
class Read:
    """A problem as it is compared: its core words, and which of them are written with a capital."""

    words: list[str]
    names: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Read:
        return cls(core(words(text)), capitals(text))


def capitals(text: str) -> frozenset[str]:
    """The words of `text` that have a capital, but not all of them, as in a text all in capitals."""
    found = set((_CAPITAL if text.isascii() else _LETTERS).findall(text))
    return frozenset(word.casefold() for word in found if word[0].isupper() and not word[1:].isupper())


def similarity(problem: Read, other: Read, *, inside: bool = False) -> float:
    """The share of words that agree, 1.0 for equal ones; 0.0 when it is another problem.

    `inside`: `other` is a piece of a longer text, and what stands before and after the problem does not count.
    """
    a, b = problem.words, other.words
    if a == b:
        return 1.0 if a else 0.0
    found = numbers(a)
    if not inside and found != numbers(b):
        return 0.0
    if sum((Counter(a) & Counter(b)).values()) < LEAST_SHARED * (len(a) if inside else max(len(a), len(b))):
        return 0.0
    names = problem.names | other.names if len(found) >= NUMBERS_FOR_NAMES else frozenset()
    changes = list(_changes(a, b))
    if inside:
        changes = list(_within(changes, len(a)))
    renamed = _renamings(changes, a, b, names)
    allowed = len(a) // 100 if len(found) < NUMBERS_FOR_NAMES else 0  # in a calculation each word may decide
    differing = 0
    for change in changes:
        differing += max(len(change.old), len(change.new))
        if change in renamed or _slight(change):
            continue
        allowed -= max(len(change.old), len(change.new))
        changed = {*change.old, *change.new}
        if allowed < 0 or change.start >= len(a) - QUESTION_WORDS or changed & FIXED or numbers(list(changed)):
            return 0.0
    return max(0.0, 1 - differing / max(len(a), 1 if inside else len(b)))


@dataclass(frozen=True, slots=True)
class _Change:
    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]


def _changes(a: Sequence[str], b: Sequence[str]) -> Iterator[_Change]:
    """Where `a` and `b` differ; a stretch that has the same length in both is told word by word."""
    first = 0
    while first < min(len(a), len(b)) and a[first] == b[first]:
        first += 1
    end_a, end_b = len(a), len(b)
    while min(end_a, end_b) > first and a[end_a - 1] == b[end_b - 1]:
        end_a, end_b = end_a - 1, end_b - 1
    middle_a, middle_b = a[first:end_a], b[first:end_b]
    in_place = sum(x == y for x, y in zip(middle_a, middle_b, strict=False))
    longest = max(len(middle_a), len(middle_b))
    if longest > MOST_ALIGNED or (len(middle_a) == len(middle_b) and in_place >= 0.5 * longest):
        parts = [("replace", 0, len(middle_a), 0, len(middle_b))]
        if len(middle_a) != len(middle_b):  # too long to align: one change, which is too much
            yield _Change(first, tuple(middle_a), tuple(middle_b))
            return
    else:
        parts = list(SequenceMatcher(None, middle_a, middle_b, autojunk=False).get_opcodes())
    for kind, a1, a2, b1, b2 in parts:
        if kind == "equal":
            continue
        if a2 - a1 == b2 - b1:
            pairs = zip(range(a1, a2), range(b1, b2), strict=True)
            yield from (
                _Change(first + i, (middle_a[i],), (middle_b[j],)) for i, j in pairs if middle_a[i] != middle_b[j]
            )
        else:
            yield _Change(first + a1, tuple(middle_a[a1:a2]), tuple(middle_b[b1:b2]))


def _within(changes: Sequence[_Change], length: int) -> Iterator[_Change]:
    """The changes without the words that stand before and after a problem of `length` words."""
    sizes = {change.old: len(change.new) for change in changes if 0 < change.start < length - len(change.old)}
    for change in changes:
        old = change.old
        size = sizes.get(old, len(old))  # a name at the edge has as many words as elsewhere
        if change.start == 0 and len(old) < len(change.new):
            change = _Change(0, old, change.new[len(change.new) - size :])
        elif change.start + len(old) == length and len(old) < len(change.new):
            change = _Change(change.start, old, change.new[:size])
        if change.old != change.new:
            yield change


def _renamings(changes: Sequence[_Change], a: Sequence[str], b: Sequence[str], names: frozenset[str]) -> set[_Change]:
    """The changes that exchange a proper name for another one, each throughout both texts."""
    if not names:
        return set()
    in_a, in_b = set(a), set(b)
    forward: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    backward: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for change in changes:
        forward.setdefault(change.old, set()).add(change.new)
        backward.setdefault(change.new, set()).add(change.old)
    return {
        change
        for change in changes
        if 0 < len(change.old) <= 3
        and 0 < len(change.new) <= 3
        and (names.issuperset(change.old) or names.issuperset(change.new))
        and not numbers([*change.old, *change.new])
        and FIXED.isdisjoint((*change.old, *change.new))
        and len(forward[change.old]) == len(backward[change.new]) == 1
        and not in_b.intersection(change.old)
        and not in_a.intersection(change.new)
    }


def _slight(change: _Change) -> bool:
    """Light words on both sides, another spelling of one word, or a word written in two."""
    if LIGHT.issuperset(change.old) and LIGHT.issuperset(change.new):
        return True
    if "".join(change.old) == "".join(change.new) and not numbers(change.old):
        return True
    if len(change.old) != 1 or len(change.new) != 1:
        return False
    old, new = change.old[0], change.new[0]
    return not (FIXED & {old, new} or numbers([old, new])) and _misspelt(old, new)


def _misspelt(old: str, new: str) -> bool:
    """One letter too many, missing, wrong or exchanged with its neighbour, in words of at least five letters."""
    if min(len(old), len(new)) < 5 or abs(len(old) - len(new)) > 1 or not (old[0] == new[0] and old.isalpha()):
        return False
    start = next((i for i, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), min(len(old), len(new)))
    rest_old, rest_new = old[start:], new[start:]
    swapped = rest_old[:2] == rest_new[1::-1] and rest_old[2:] == rest_new[2:]
    return swapped or rest_new[1:] in (rest_old[1:], rest_old) or rest_old[1:] == rest_new
