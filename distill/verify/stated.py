"""What an answer states as its result, in words: the last box, what stands behind "the answer is", its last sentence.

Text only, for the verifiers of numbers, choices and texts. Knows nothing about mathematics or about any gold answer.
"""

from __future__ import annotations

import re
from string import ascii_lowercase, ascii_uppercase

from distill.verify.math import last_boxed

LONGEST = 2_000
"""Characters of a box, or of the end of an answer, that are looked at."""

_MARKER = re.compile(
    r"(?:(?<![A-Za-z])answers?(?![A-Za-z])[^\n.:：=?]{0,80}?"
    r"(?:\b(?:is|are|was|(?:would|must|should|will|has to) be|equals)\b(?:\s+(?:is|are)\b)?|[:：=])"
    r"|\#{4}|答案(?:应?该?[是为])?)"
    r"[ \t]*[:：]?[ \t]*",
    re.IGNORECASE,
)
"""English and Chinese, as the prompts' marks; `####` is GSM8K's."""
_MARKER_WORDS = ("answer", "####", "答案")
"""What `_MARKER` begins with: looked for from the end, as a regular expression cannot."""
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
"""Unlike `lower`, which makes two characters of some, this leaves places as they are."""
_MARKDOWN = re.compile(r"\*\*|__|`+|(?m:^[ \t]*(?:#{1,3}|#{5,6}|>|[-*+])[ \t]+)")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])|(?<![\w_])_(?=\S)([^_\n]+?)(?<=\S)_(?![\w_])")
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|bb|cal)|mbox|operatorname\*?|bf|rm|emph|underline|textup)"
    r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_SPACING = re.compile(
    r"\\(?:[,;:!]|(?:q?quad|left|right|displaystyle|limits|bigl?|bigr|Bigl?|Bigr)(?![A-Za-z])|(?= ))|~"
)
_MATH = re.compile(r"\\[()\[\]]|(?<!\\)\$+")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")
_QUOTES = "\"'“”‘’«»„‚「」『』"


def boxed(answer: str) -> str | None:
    """The content of the last box, None where there is none or it is longer than LONGEST."""
    return box_and_rest(answer)[0]


def box_and_rest(answer: str) -> tuple[str | None, str]:
    """The content of the last box as `boxed` has it, and what follows it; all of the answer where there is none."""
    text = answer.replace("\\fbox{", "\\boxed{")
    found = last_boxed(text)
    if found is None or len(found) > LONGEST:
        return None, answer
    start = text.rfind(f"\\boxed{{{found}}}")
    return found.strip(), text[start + len(found) + len("\\boxed{}") :]


def marked(answer: str) -> str | None:
    """The rest of the line behind the last "answer is", "Answer:" or `####` that something follows, else None."""
    text = without_markdown(answer[-LONGEST:])
    lower, ends = text.translate(_LOWER), len(text)
    while ends > 0:
        start = max(lower.rfind(word, 0, ends) for word in _MARKER_WORDS)
        if start < 0:
            return None
        match = _MARKER.match(text, start)
        rest = "" if match is None else text[match.end() :].lstrip()
        if rest:
            return rest.split("\n", 1)[0].strip()
        ends = start + len("答案") - 1  # so that what begins at `start` does not fit in
    return None


def last_line(answer: str) -> str:
    """The last line that is not empty, without Markdown; empty for a blank answer."""
    return without_markdown(answer[-LONGEST:]).strip().rsplit("\n", 1)[-1].strip()


def last_sentence(answer: str) -> str:
    """The last sentence of the last line."""
    return _SENTENCE.split(last_line(answer))[-1].strip()


def without_markdown(text: str) -> str:
    """`text` without emphasis, code marks, headings, quotes and list marks; `####` stays."""
    text = _MARKDOWN.sub("", text)
    if "*" in text or "_" in text:
        text = _EMPHASIS.sub(lambda match: match[1] or match[2], text)
    return text


def without_latex(text: str) -> str:
    """`text` without what only changes the looks of LaTeX: `\\text{}` and its like, spacing, math mode."""
    if "\\" in text:
        previous = None
        while previous != text and len(text) <= LONGEST:  # wrappers within wrappers
            previous, text = text, _TEXT.sub(r" \1 ", text)
    text = _MATH.sub(" ", _SPACING.sub(" ", text.replace("{,}", ",")))
    return " ".join(text.split())


def unquoted(text: str) -> str:
    """`text` without white space, quotes and full stops around it."""
    previous = None
    while previous != text:
        previous = text
        text = text.strip().strip(_QUOTES).rstrip(".。").strip()
    return text
