r"""The mathematical answer in what a reply states: the box, or of a sentence the formula or the number it says.

Linear in the length of the text. Of what a formula means it knows no more than whether it can be read.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from distill.verify import stated
from distill.verify.latex import FUNCTIONS
from distill.verify.readings import readings
from distill.verify.units import COUNTED, FRACTIONS, NUMBER_WORDS, SCALES, UNITS, split

_FORMULA = re.compile(
    r"\$\$([^$]{1,600})\$\$|\\\[((?:[^\\]|\\(?!\])){1,600})\\\]|\\\(((?:[^\\]|\\(?!\))){1,600})\\\)"
    r"|(?<![\\\d])\$(?=[^\s$])((?:[^$\n\\]|\\.){1,300})(?<=\S)\$(?!\d)"
)
_NUMBER = re.compile(
    r"(?<![\w.,/\\^{])[-−]?(?:\\?\$|€|£)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,400})(?:\.\d{1,400})?(?:\s?/\s?\d{1,400})?"
    r"(?:\s?\\?%)?" + rf"(?!\w|/(?!(?:{'|'.join(COUNTED)})s?\b)|[.,]\d)"
)
_UNSURE = re.compile(
    r"\b(?:of (?:the|these|those|his|her|their|all)|out of"
    r"|from|than|not|or|between|instead|without|before|after|if|per)\b"
)
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
LONGEST_LINE = 200
"""Characters of a last line that may be mathematics without a mark."""
_WORD = re.compile(r"[^\W\d_²³¹\u2070-\u209f]{2,}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_MATHEMATICAL = frozenset((*FUNCTIONS, *NUMBER_WORDS, *SCALES, *UNITS)) | split(
    "or and pi am pm noon midnight infinity mod base per square cubic squared cubed"
)
"""Words that stand in mathematics as well as in a sentence."""
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


def final(answer: str) -> Final | None:
    """The answer in a reply; None where there is no statement at all."""
    box = stated.box(answer)
    if box is not None:
        return Final(box.text, True, changed=box.changed, content=box.content)
    told = stated.told(answer)
    if told is not None:
        shown = _FORMULA.match(told.rest)
        if shown is not None and "\n" in shown[0]:
            return Final(_inside(shown), False)
        found = _introduced(stated.first_sentence(told.line))
        if found is not None:
            return found
    text = stated.without_courtesy(answer)
    line = stated.last_line(text)
    if _is_bare(line) and readings(line):
        numbers = tuple(number[0] for number in _NUMBER.finditer(line))
        return Final(line, False, others=numbers if len(numbers) > 1 else ())
    sentence = stated.last_sentence(text)
    formula = None if _FORMULA.search(sentence) else deque(_FORMULA.finditer(text), maxlen=1)
    if formula and formula[0].end() >= len(text.rstrip().rstrip(".*")) - 1:
        return Final(_inside(formula[0]), False)
    return _of_sentence(sentence) if sentence else None


def _is_bare(line: str) -> bool:
    """Whether a line is mathematics alone, without a mark that says so: `x = 3, y = 4`, `2 hours 30 minutes`."""
    if not 0 < len(line) <= LONGEST_LINE or "$" in line or "\\(" in line or line.endswith("!"):
        return False
    words = _WORD.findall(_COMMAND.sub(" ", line))
    return any(map(str.isalnum, line)) and all(word.lower() in _MATHEMATICAL or word in UNITS for word in words)


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None)


def _of_sentence(sentence: str) -> Final | None:
    """The answer in one sentence: its last formula, else its last number, else, where it is short, itself."""
    kept = without_rejected(sentence)
    sentence = kept if says_a_number(kept) else sentence
    formulas = list(_FORMULA.finditer(sentence))
    if formulas:
        last = formulas.pop()
        text, start = _inside(last), last.start()
        while formulas and stated.is_joint(sentence[formulas[-1].end() : start]):
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
        unit = stated.following(sentence, last.end())
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
