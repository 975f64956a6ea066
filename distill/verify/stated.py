r"""Where an answer states its result: the last box, what stands behind "the answer is", its last sentence.

Text only, for the verifiers of all kinds. Linear in the length of the answer. Knows nothing about any gold answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

from distill.verify.plain import LONGEST, without_markdown
from distill.verify.units import SCALES, UNITS

_BOX = "\\boxed"
_OPENED = re.compile(r"\\boxed\s{0,9}\{")
_BRACE = re.compile(r"[{}]")
_BARE_BOX = re.compile(r"\\boxed\s{0,9}([0-9A-Za-z])(?![0-9A-Za-z{])")
_BETWEEN = 60
"""Characters between two boxes that are looked at for an `or` that makes them one answer."""
_NOTHING = re.compile(r"\\[,;:()\[\]! ]|\\q?quad|\\(?:text|mathrm|mbox)\s*\{|\*\*|[\s$}]")
_JOINTS = frozenset((",", ";", "or", "and", ",or", ",and"))
_AFTER = re.compile(
    r"(?:\s|\\[,; !]|~|\*\*){0,9}(?:(?P<sign>\\?%|\^\s?\{?\\circ\s?\}?|°)|\\(?:text|mathrm|mbox|textrm)\s?\{\s{0,9}"
    r"(?P<text>[^{}]{1,40})\}(?P<power>\^\{?[23]\}?)?|(?:\\\)|\$)?\s{0,9}(?P<word>(?:square |cubic |sq )?[A-Za-z]{2,12}"
    r"(?:\s(?:per|an?)\s[A-Za-z]{1,12}|\s?/\s?[a-z]{1,6})?)(?![A-Za-z]))"
)
_MARKER = re.compile(
    r"(?:(?<![A-Za-z])(?:answers?(?![A-Za-z])[^\n.:：=?]{0,80}?"
    r"|(?:result|solution|option|choice)s?(?![A-Za-z])(?:\s?\([^()\n]{0,40}\))?\s?)"
    r"(?:\b(?:is|are|was|(?:would|must|should|will|has to|can only) be|equals)\b(?:\s+(?:is|are)\b)?|[:：=])"
    r"|\#{4}|答案(?:应?该?[是为])?)"
    r"[ \t]*[:：]?[ \t]*",
    re.IGNORECASE,
)
"""English and Chinese, as the prompts' marks; `####` is GSM8K's."""
_MARKER_WORDS = ("answer", "####", "答案")
"""What `_MARKER` begins with: looked for from the end, as a regular expression cannot."""
_WEAK_WORDS = ("result", "solution", "option", "choice")
"""The same on the last line alone: earlier they may head a step on the way."""
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
"""Unlike `lower`, which makes two characters of some, this leaves places as they are."""
_RETRACTED = re.compile(
    r"\b(?:wait|actually|mistake|instead|correction|not right"
    r"|(?:that|this|it|which)(?:'s| is| was) (?:wrong|incorrect))\b",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"(?:(?m:^)|(?<=[.!?:。！？]))[\s*_>#-]{0,9}+(?:"
    r"(?:(?:i|we) )?(?:(?:really|do) )?hope (?:this|that|it|these)[^.!?\n\d]{0,80}"
    r"|(?:please )?(?:let me know|feel free|don't hesitate|do not hesitate)[^.!?\n\d]{0,120}"
    r"|if you (?:have|need) (?:any|more|further|another|other|additional)[^.!?\n\d]{0,120}"
    r"|(?:is there anything else|would you like|does (?:this|that) (?:help|make sense))[^.!?\n\d]{0,120}"
    r"|(?:i'm )?(?:always )?(?:happy|glad) to help[^.!?\n\d]{0,60}|good luck[^.!?\n\d]{0,60}"
    r"|(?:thanks|thank you)[^.!?\n\d]{0,60}|you're welcome[^.!?\n\d]{0,40}"
    r"|希望[^。\n\d]{0,20}(?:帮助|有用)[^。\n\d]{0,10}|(?:如果|如有)[^。\n\d]{0,30}(?:问题|疑问)[^。\n\d]{0,30}"
    r")[\W_]*\Z",
    re.IGNORECASE,
)
"""With which a reply may end behind its answer."""
MOST_COURTESIES = 3
_SENTENCE_END = re.compile(r"(?<=[^\s\d][.!?])\s+(?=\S)|(?<=\d[.!?])\s+(?=[A-Z$\\*])|(?<=[。！？])\s*(?=\S)")


@dataclass(frozen=True, slots=True)
class Box:
    """The last box: `content` with that of others that one "or" joins to it, `text` with a unit right behind it as
    well. `joined` says that there are others, `changed` that what is not in the box changes its value. `rest` is what
    follows it."""

    text: str
    content: str
    joined: bool = False
    changed: bool = False
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What stands behind "the answer is": the rest of that line, or the next one, and all that follows; without
    Markdown."""

    line: str
    rest: str


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


def box(answer: str) -> Box | None:
    """The last box that closes, else a `\\boxed 7` without braces; `\\fbox` is one as well."""
    answer = answer.replace("\\fbox{", "\\boxed{")
    found = _last_box(answer, len(answer))
    if found is None:
        bare = _BARE_BOX.search(answer, max(0, len(answer) - LONGEST))
        return None if bare is None else Box(bare[1], bare[1], rest=answer[bare.end() :])
    start, begin, end = found
    content, rest = answer[begin:end], answer[end + 1 :]
    if len(content) > LONGEST:
        return Box(content, content, rest=rest)
    before = _last_box(answer, start) if _BOX in answer[max(0, start - LONGEST - _BETWEEN) : start] else None
    joined = False
    while before is not None and before[2] < start and is_joint(answer[before[2] + 1 : start]):
        content, joined = f"{answer[before[1] : before[2]]}, {content}", True
        if len(content) > LONGEST:
            return Box(content, content, joined=True, rest=rest)
        start = before[0]
        before = _last_box(answer, start)
    after = "" if joined else following(answer, end + 1)
    return Box(content + after, content, joined, joined or _changes(after), rest)


def short_box(answer: str) -> Box | None:
    """`box` where it holds something of at most LONGEST characters."""
    found = box(answer)
    return found if found is not None and found.content.strip() and len(found.content) <= LONGEST else None


def is_joint(between: str) -> bool:
    """Whether no more than an "or", an "and" or a comma stands between two boxes or formulas."""
    return len(between) <= _BETWEEN and _NOTHING.sub("", between).lower() in _JOINTS


def following(answer: str, at: int) -> str:
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


def told(answer: str) -> Told | None:
    """What stands behind the last "answer is", "Answer:" or `####` that something follows, unless it is taken back."""
    text = without_markdown(without_courtesy(answer))
    lower, ends = text.translate(_LOWER), len(text)
    last = len(text.rstrip()[: text.rstrip().rfind("\n") + 1])
    while ends > 0:
        start = max(lower.rfind(word, 0, ends) for word in _MARKER_WORDS)
        start = max(start, *(lower.rfind(word, last, ends) for word in _WEAK_WORDS))
        if start < 0:
            return None
        match = _MARKER.match(text, start)
        rest = "" if match is None else text[match.end() :].lstrip()
        if rest:
            line = rest.split("\n", 1)[0]
            taken_back = _RETRACTED.search(rest, len(first_sentence(line))) is not None
            return None if taken_back else Told(line.strip(), rest)
        ends = start + len("答案") - 1  # so that what begins at `start` does not fit in
    return None


def without_courtesy(answer: str) -> str:
    """The end of an answer, up to where it hopes to have helped."""
    text = answer[-LONGEST:]
    for _ in range(MOST_COURTESIES):
        found = _COURTESY.search(text)
        if found is None or not text[: found.start()].strip():
            break
        text = text[: found.start()]
    return text


def last_line(answer: str) -> str:
    """The last line that is not empty, without Markdown and courtesies; empty for a blank answer."""
    return without_markdown(without_courtesy(answer)).strip().rsplit("\n", 1)[-1].strip()


def first_sentence(line: str) -> str:
    end = _SENTENCE_END.search(line)
    return line[: end.start()] if end else line


def last_sentence(answer: str) -> str:
    """The last sentence of the last line."""
    line, start = last_line(answer), 0
    for end in _SENTENCE_END.finditer(line):
        start = end.end()
    return line[start:].strip()
