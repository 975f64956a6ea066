"""Texts without what only changes their looks: Markdown, LaTeX's text and spacing, quotes around them.

Knows nothing about what a text says.
"""

from __future__ import annotations

import re

LONGEST = 2_000
"""Characters of a statement that are looked at."""
_MARKDOWN = re.compile(r"\*\*|__|`+|(?m:^[ \t]*(?:#{1,3}|#{5,6}|>(?![ \t]*[-\d.$\\])|[-*+])[ \t]+)")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])|(?<![\w_])_(?=\S)([^_\n]+?)(?<=\S)_(?![\w_])")
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|bb|cal)|mbox|operatorname\*?|bf|rm|emph|underline|textup)"
    r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_SPACING = re.compile(
    r"\\(?:[,;:!]|(?:q?quad|left|right|displaystyle|limits|bigl?|bigr|Bigl?|Bigr)(?![A-Za-z])|(?= ))|~"
)
_MATH = re.compile(r"\\[()\[\]]|(?<!\\)\$+")
_QUOTES = "\"'“”‘’«»„‚「」『』"


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
