r"""Which part of a reply is its answer: the last box, else the final statement.

Linear in the length of the text. Knows nothing about mathematics.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from distill.verify.latex import LONGEST
from distill.verify.units import FRACTIONS, NUMBER_WORDS, SCALES, UNITS

_BOX = "\\boxed"
_OPENED = re.compile(r"\\boxed\s{0,9}\{")
_BRACE = re.compile(r"[{}]")
_BARE_BOX = re.compile(r"\\boxed\s{0,9}([0-9A-Za-z])(?![0-9A-Za-z{])")
_BETWEEN = 60
"""Characters between two boxes that are looked at for an `or` that makes them one answer."""
_NOTHING = re.compile(r"\\[,;:()\[\]! ]|\\q?quad|\\(?:text|mathrm|mbox)\s*\{|\*\*|[\s$}]")
_JOINTS = frozenset((",", ";", "or", "and", ",or", ",and"))
_AFTER = re.compile(
    r"(?:\s|\\[,; !]|~){0,9}(?:(?P<sign>\\?%|\^\s?\{?\\circ\s?\}?|°)|\\(?:text|mathrm|mbox|textrm)\s?\{\s{0,9}"
    r"(?P<text>[^{}]{1,40})\}(?P<power>\^\{?[23]\}?)?|(?:\\\)|\$)?\s{0,9}(?P<word>(?:square |cubic |sq )?[A-Za-z]{2,12}"
    r"(?:\s(?:per|an?)\s[A-Za-z]{1,12}|\s?/\s?[a-z]{1,6})?)(?![A-Za-z]))"
)
_SAID = re.compile(
    r"\b(?:answer|result|solution|option|choice)s?\**(?:\s?\([^()\n]{0,40}\))?"
    r"(?:\s?:\**|\s(?:is|are|was|=|equals|(?:should|would|must|will|has to|can only) be)(?!\w|n't):?)\s*\**|#{4}\s",
    re.IGNORECASE,
)
_RETRACTED = re.compile(r"\b(?:wait|actually|mistake|wrong|incorrect|instead|correction|not right)\b", re.IGNORECASE)
_FORMULA = re.compile(
    r"\$\$([^$]{1,600})\$\$|\\\[((?:[^\\]|\\(?!\])){1,600})\\\]|\\\(((?:[^\\]|\\(?!\))){1,600})\\\)"
    r"|(?<![\\\d])\$(?=[^\s$])((?:[^$\n\\]|\\.){1,300})(?<=\S)\$(?!\d)"
)
_LINE = re.compile(r"[^\n]+")
_SENTENCE_END = re.compile(r"(?<=[^\s\d][.!?])\s+(?=\S)|(?<=\d[.!?])\s+(?=[A-Z$\\*])")
_NUMBER = re.compile(
    r"(?<![\w.,/\\^{])[-−]?(?:\\?\$|€|£)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,400})(?:\.\d{1,400})?(?:\s?/\s?\d{1,400})?"
    r"(?:\s?\\?%)?(?![\w/]|[.,]\d)"
)
_UNSURE = re.compile(
    r"\b(?:of (?:the|these|those|his|her|their|all)|out of"
    r"|from|than|not|or|between|instead|without|before|after|if|per)\b"
)
_MARKUP = re.compile(r"^(?:#{1,6}\s|[-*•]\s)?\s*|\*\*|`")
_REJECTED = re.compile(
    r"\s?[,;(—–-]{0,3}\s?\b(?:(?:and|but)\s)?(?:not|rather than|instead of)\s"
    r"(?!(?:only|just|quite|more|less|exactly)\b)(?:(?!\bbut\b|\bit(?:'s| is)\b)[^,;]|,(?=\d)){1,80}$",
    re.IGNORECASE,
)
"""At the end of a statement, what it says not to be the answer: `72 clips, not 48`."""
_CORRECTED = re.compile(r"not\s[^,;]{1,60}?,?\sbut\s(?:rather\s)?(?=\S)", re.IGNORECASE)
_REASON = re.compile(
    r",?\s+(?:because|since|although|though|whereas|rather than|instead of|(?:but|and) not)\s"
    r"|,\s+(?:as|not|while|given)\s|;\s|\s[—–-]{1,3}\snot\s",
    re.IGNORECASE,
)
"""Behind the answer, in one statement, and without a bearing on it. `if`, `when` and `where` have one."""
_SEQUEL = re.compile(r",?\s+which\s|,\s+(?:so|thus|hence|leaving|making|giving|meaning)\s|\s[—–-]{1,3}\s(?=[A-Za-z])")
"""The same where a number that follows may be the answer."""
_REMARK = re.compile(r"(?<=[\w}$.])\s\((?![^()]*\\)[^()]*\)$")
_FILLER = re.compile(r"(?:,\s*of course,|it'?s|it is)\s+", re.IGNORECASE)
_DENIED = re.compile(
    r"(?:\b(?:not|cannot|never|neither|nor)\b(?! (?:hard|difficult))|n't\b)[^,;]{0,200}$"
    r"|\b(?:less|more|fewer|greater|smaller|larger|other) than\s*$",
    re.IGNORECASE,
)
_NUMBER_WORD = re.compile(rf"\d|\\[a-z]|\b(?:{'|'.join((*NUMBER_WORDS, *FRACTIONS, *SCALES))})\b", re.IGNORECASE)
_COMPARED = ("<", ">", "≤", "≥", "≠", "±", "~", "\\pm")
_FEW_WORDS = 12
"""Words of a last sentence that may be the answer itself, such as `There is no solution.`"""


@dataclass(frozen=True, slots=True)
class Final:
    """The answer's own text. `changed`: a word after the box changes its value and is in `text` as well.

    `others` are further numbers in the statement it was taken from, where there was no box: one may be the answer.
    """

    text: str
    boxed: bool
    changed: bool = False
    others: tuple[str, ...] = ()
    content: str = ""
    """Of the box alone."""


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` with balanced braces, or None."""
    found = _last_box(text, len(text))
    return None if found is None else text[found[1] : found[2]]


def _last_box(text: str, end: int) -> tuple[int, int, int] | None:
    """Where the last box before `end` begins, where its content begins and ends."""
    start = text.rfind(_BOX, 0, end)
    if start < 0:
        return None
    opened = _OPENED.match(text, start, end)
    if opened is not None:
        depth = 0
        for brace in _BRACE.finditer(text, opened.end() - 1, end):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                return start, opened.end(), brace.start()
    return _last_that_closes(text, end)


def _last_that_closes(text: str, end: int) -> tuple[int, int, int] | None:
    """The same where the very last one does not close: all braces are paired in one pass."""
    opened = {box.end() - 1: box.start() for box in _OPENED.finditer(text, 0, end)}
    found: tuple[int, int, int] | None = None
    stack: list[int] = []
    for brace in _BRACE.finditer(text, 0, end):
        if brace[0] == "{":
            stack.append(brace.start())
        elif stack:
            begin = stack.pop()
            start = opened.get(begin)
            if start is not None and (found is None or start > found[0]):
                found = start, begin + 1, brace.start()
    return found


def final(answer: str) -> Final | None:
    """The answer in a reply; None where there is no statement at all."""
    box = _last_box(answer, len(answer))
    if box is None:
        return _statement(answer[-LONGEST:])
    start, begin, end = box
    content = answer[begin:end]
    if len(content) > LONGEST:
        return Final(content, True)
    before = _last_box(answer, start) if _BOX in answer[max(0, start - LONGEST - _BETWEEN) : start] else None
    joined = False
    while before is not None and before[2] < start and _is_joint(answer[before[2] + 1 : start]):
        content, joined = f"{answer[before[1] : before[2]]}, {content}", True
        if len(content) > LONGEST:
            return Final(content, True)
        start = before[0]
        before = _last_box(answer, start)
    after = "" if joined else _following(answer, end + 1)
    return Final(content + after, True, changed=joined or _changes(after), content=content)


def _is_joint(between: str) -> bool:
    return len(between) <= _BETWEEN and _NOTHING.sub("", between).lower() in _JOINTS


def _following(answer: str, at: int) -> str:
    """A unit, a percent sign or a scale word right after the box."""
    after = _AFTER.match(answer, at, at + 80)
    if after is None:
        return ""
    if after["sign"]:
        return after["sign"]
    words = (after["text"] or after["word"]).strip()
    first = re.sub(r"^(?:square|cubic|sq) |[ /.,].*", "", words).lower()
    if (
        first in SCALES
        or first == "percent"
        or (first in UNITS and (len(first) > 2 or after["text"] or first in _PLAIN))
    ):
        return f" \\text{{ {words}}}{after['power'] or ''}"
    return ""


_PLAIN = frozenset(("cm", "mm", "km", "kg", "ml", "ft"))
"""Units of two letters that are no other word."""


def _changes(after: str) -> bool:
    words = after.lower()
    return bool(after) and ("%" in words or "percent" in words or any(word in words for word in SCALES))


def _statement(text: str) -> Final | None:
    bare = _BARE_BOX.search(text)
    if bare is not None:
        return Final(bare[1], True)
    said = _last(_SAID, text)
    if said is not None and not _RETRACTED.search(text, said.end()):
        shown = _FORMULA.match(text, said.end() + len(text[said.end() :]) - len(text[said.end() :].lstrip()))
        if shown is not None and "\n" in shown[0]:
            return Final(_inside(shown), False)
        line = _LINE.search(text, said.end())
        if line is not None:
            found = _of_sentence(_MARKUP.sub("", _first_sentence(line[0])), introduced=True)
            if found is not None:
                return found
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    sentence = _MARKUP.sub("", _last_sentence(lines[-1])) if lines else ""
    formula = None if _FORMULA.search(sentence) else _last(_FORMULA, text)
    if formula is not None and formula.end() >= len(text.rstrip().rstrip(".*")) - 1:
        return Final(_inside(formula), False)
    if not lines:
        return None
    return _of_sentence(sentence, introduced=False)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return deque(pattern.finditer(text), maxlen=1).pop() if pattern.search(text) else None


def _first_sentence(line: str) -> str:
    end = _SENTENCE_END.search(line)
    return line[: end.start()] if end else line


def _last_sentence(line: str) -> str:
    start = 0
    for end in _SENTENCE_END.finditer(line):
        start = end.end()
    return line[start:]


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None)


def _of_sentence(sentence: str, *, introduced: bool) -> Final | None:
    """The answer in one sentence: its last formula, else its last number, else, where it is short, itself."""
    sentence = sentence.strip()
    if introduced:
        return _introduced(sentence)
    kept = without_rejected(sentence)
    sentence = kept if says_a_number(kept) else sentence
    formulas = list(_FORMULA.finditer(sentence))
    if formulas:
        last = formulas.pop()
        text, start = _inside(last), last.start()
        while formulas and _is_joint(sentence[formulas[-1].end() : start]):
            before = formulas.pop()
            text, start = f"{_inside(before)}, {text}", before.start()
        return Final(text, False, others=tuple(map(_inside, formulas)))
    numbers = list(_NUMBER.finditer(sentence))
    if numbers:
        last = numbers[-1]
        if sentence[: last.start()].rstrip().endswith(_COMPARED):
            return Final(sentence.rstrip(" ."), False)
        others = tuple(number[0] for number in numbers[:-1])
        unsure = bool(others) and _UNSURE.search(sentence, numbers[-2].end(), last.start()) is not None
        if unsure or _DENIED.search(sentence[: last.start()]):
            return Final(last[0], False, others=(*others, last[0]))
        unit = _following(sentence, last.end())
        return Final(last[0] + unit, False, others=others)
    short = len(sentence.split()) <= _FEW_WORDS or says_a_number(sentence)
    return Final(sentence.rstrip(" ."), False) if short and sentence else None


def _introduced(sentence: str) -> Final | None:
    """What stands behind "the answer is", without the reasons and remarks behind it."""
    if not sentence:
        return None
    filler, corrected = _FILLER.match(sentence), _CORRECTED.match(sentence)
    if filler is not None or corrected is not None:
        sentence = sentence[(filler or corrected).end() :]  # type: ignore[union-attr]  # one of the two it is
    sentence, others = _without_comment(sentence.rstrip(" .:"))
    if re.search(r"\d!$", sentence):  # a factorial, or said aloud
        others = (*others, sentence[:-1])
    formulas = list(_FORMULA.finditer(sentence))
    if len(formulas) == 1 and not says_a_number(sentence[: formulas[0].start()] + sentence[formulas[0].end() :]):
        return Final(_inside(formulas[0]), False, others=others)
    return Final(sentence, False, others=others)


def _without_comment(sentence: str) -> tuple[str, tuple[str, ...]]:
    """A statement up to where it gives reasons, and the numbers behind that of which one may be the answer."""
    comments = [found for pattern in (_REASON, _SEQUEL, _REMARK) if (found := pattern.search(sentence, 1))]
    comments = [found for found in comments if not _cuts_a_formula(sentence[: found.start()])]
    if not comments:
        return sentence, ()
    comment = min(comments, key=lambda found: found.start())
    head, rest = sentence[: comment.start()].rstrip(" ,"), sentence[comment.start() :]
    if _REJECTED.fullmatch(rest):
        return head, ()
    numbers = tuple(number[0] for number in _NUMBER.finditer(rest))
    return head, (*numbers, head) if numbers and comment.re is _SEQUEL else numbers


def _cuts_a_formula(head: str) -> bool:
    return head.count("$") % 2 == 1 or head.count("{") != head.count("}") or head.count("(") != head.count(")")


def without_rejected(sentence: str) -> str:
    """A statement without what it ends with and says not to be the answer: `72 clips, not 48` is `72 clips`."""
    found = _REJECTED.search(sentence, 1)
    return sentence[: found.start()] if found is not None else sentence


def says_a_number(text: str) -> bool:
    """Whether digits, LaTeX or a number in words stand anywhere in it."""
    return _NUMBER_WORD.search(text) is not None
