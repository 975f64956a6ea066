"""The choices that stand inside a question's text, and the form in which the texts of choices are compared.

Knows nothing about answers or letters that are chosen.
"""

from __future__ import annotations

import functools
import re
from string import ascii_uppercase

from distill.verify.exact import folded

_STYLE = r"\\(?:textbf|mathrm|text|mathbf|rm|bf)\s*\{?"
_IN_QUESTION = re.compile(
    rf"(?:(?<=[\s$}}{{~,;，；。？?:：])|^)(?:{_STYLE})?(?:[(（]\s*([A-J])\s*[)）]|([A-J])\s*[)）.．、:：])\s*\}}?"
)
_BEFORE_OPTION = re.compile(r"^(?:[\s$~}]|\\(?:[ ,;:]|q?quad(?![A-Za-z])))+")
_BEHIND_OPTION = re.compile(
    rf"(?:[\s$~;；]|\\(?:[ ,;:\\]|q?quad|hspace\{{[^}}]*\}})|{_STYLE}|(?<=\s)[{{(]|\\q?quad\{{?)+$"
)
_FRAC = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)\s*(\d))")


def form(text: str) -> str:
    """A text as choices are compared: folded, fractions in one form, no spaces next to signs."""
    text = folded(_FRAC.sub(lambda match: f"({match[1] or match[3]})/({match[2] or match[4]})", text))
    text = re.sub(r"\((\w+)\)/\((\w+)\)", r"\1/\2", text)
    return re.sub(r"\s*([^\w\s'])\s*", r"\1", re.sub(r"\{(\w)\}", r"\1", text))


@functools.lru_cache(maxsize=1_024)
def inside(question: str) -> tuple[str, ...]:
    """The choices that a question ends with, lettered from A in order; empty where they cannot be told apart."""
    found = [(match[1] or match[2], match) for match in _IN_QUESTION.finditer(question)]
    for start in reversed([place for place, (letter, _) in enumerate(found) if letter == "A"]):
        run = found[start:]
        if [letter for letter, _ in run] != list(ascii_uppercase[: len(run)]) or len(run) < 2:
            continue
        at_line = all(match.start() == 0 or question[: match.start()].rstrip(" $").endswith("\n") for _, match in run)
        if len(run) == 2 and not at_line:
            return ()  # `triangles (A) and (B)`
        ends = [match.start() for _, match in run[1:]] + [len(question)]
        texts = [question[match.end() : end] for (_, match), end in zip(run, ends, strict=True)]
        texts = [_BEHIND_OPTION.sub("", _BEFORE_OPTION.sub("", text)).strip() for text in texts]
        return tuple(texts) if all(texts) and len(set(map(form, texts))) == len(texts) else ()
    return ()
