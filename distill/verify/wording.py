"""Answers in words: phrases that mean a set or nothing, and words that are equal.

Knows nothing about expressions.
"""

from __future__ import annotations

import re

from distill.verify.units import split, stem
from distill.verify.values import ALL, Listing, NamedSet, Quantity, Real, Value, Words

_NOTHING = re.compile(
    r"(?:there (?:is|are|exists?|exist) )?(?:has )?no (?:such )?(?:solutions?|roots?|values?|answers?|integers?|"
    r"numbers?|functions?|pairs?|triples?|zeros?|zeroes)(?: exists?| at all)?|(?:the )?empty set|none(?: exists?"
    r"| of them)?|(?:has )?no solutions?|null set|no such \w+(?: exists?)?"
)
_NOTHING_REAL = re.compile(
    r"(?:there (?:is|are|exists?) )?(?:has )?no real (?:solutions?|roots?|values?|numbers?|zeros?)(?: exists?)?"
)
_ENDLESS = re.compile(
    r"(?:there (?:is|are) )?(?:has )?(?:an )?infinite(?:ly)?(?: many| number of)?"
    r"(?: (?:solutions?|values?|roots?|answers?|points?))?"
)
_EVERYTHING = re.compile(r"(?:for )?(?:the set of )?(?:all|any|every) reals?(?: (?:numbers?|values?|[a-z]))?")
_NOWHERE = re.compile(r"(?:the )?(?:limit )?(?:does not|doesn t|doesn't) exist|dne")
_YES = re.compile(r"yes(?: it (?:is|does|can|will))?|true")
_NO = re.compile(r"no(?: it (?:is not|does not|can not|cannot))?|false")
_NOISE = split("the a an of is are it be will")
_KINDS = (
    (re.compile("none"), "none"), (_NOTHING_REAL, "no real solution"), (_NOTHING, "no solution"),
    (_ENDLESS, "infinitely many"), (_NOWHERE, "does not exist"),
)  # fmt: skip
MOST_WORDS = 3


def meaning(words: Words) -> Value:
    """One text for phrases that mean the same; the set of all reals and the empty set where a phrase says so."""
    text = re.sub(r"\s+", " ", words.text.strip(" .'\"").lower())
    if _EVERYTHING.fullmatch(text):
        return ALL
    if text in ("all integers", "any integer", "every integer"):
        return NamedSet("Z")
    for pattern, name in _KINDS:
        if pattern.fullmatch(text):
            return Words(name)
    return Words(text)


def same_words(gold: Value, answer: Value) -> bool | None:
    """One of the two is Words. None for phrases of which one holds the other: `increasing`, `strictly increasing`."""
    if isinstance(gold, Words) and isinstance(answer, Words):
        return _two(gold.text, answer.text)
    words, other = (gold, answer) if isinstance(gold, Words) else (answer, gold)
    assert isinstance(words, Words)
    if isinstance(other, Listing) and not other.items:
        return {"no solution": True, "no real solution": True, "none": True, "does not exist": None}.get(
            words.text, False
        )
    if words.text == "infinitely many" and isinstance(other, Quantity) and other.node == ("inf",):
        return True
    if isinstance(other, Real | NamedSet) and len(words.text.split()) > 1:
        return None
    if isinstance(other, Quantity) and other.node[0] == "num":
        return None if words.text == "none" and other.node[1] == 0 else False
    if isinstance(other, Quantity) and other.node in (("inf",), ("neg", ("inf",))):
        return None if words.text in ("does not exist", "undefined", "no limit", "diverges") else False
    if isinstance(other, Quantity) and other.node[0] in ("sym", "mul"):  # letters that one of the two took for a word
        return None if _letters(other) == words.text.replace(" ", "") else False
    return False


def _letters(quantity: Quantity) -> str:
    node = quantity.node
    parts = (node,) if node[0] == "sym" else node[1]
    return "".join(str(part[1]) for part in parts if part[0] == "sym").lower()


def _two(gold: str, answer: str) -> bool | None:
    if gold == answer or {gold, answer} == {"none", "no solution"}:
        return True
    if {gold, answer} in (
        {"no solution", "no real solution"},
        {"none", "no real solution"},
        {"does not exist", "undefined"},
    ):
        return None
    for pattern in (_YES, _NO):
        if pattern.fullmatch(gold) and pattern.fullmatch(answer):
            return True
    ordered = [[stem(word) for word in text.split() if word not in _NOISE] for text in (gold, answer)]
    first, second = map(set, ordered)
    if ordered[0] == ordered[1]:
        return None if len(gold.split()) > MOST_WORDS else True
    if first == second:
        return None
    if not ({"not", "no", "never"} & (first ^ second)) and (first <= second or second <= first):
        return None
    return False if len(gold.split()) <= MOST_WORDS and len(answer.split()) <= 2 * MOST_WORDS else None
