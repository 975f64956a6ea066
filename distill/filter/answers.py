"""Does a trace answer at all? What stands where the answer should be is judged by its form, not by its truth."""

from __future__ import annotations

import re

from distill.filter_specs import AnswerSettings
from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome, failing

_ALNUM = re.compile(r"[^\W_]")
_WORDS_FOR_NONE = (
    r"(?:(?:your|insert|the|final|put)\s+)*(?:final\s+)?(?:answer|solution|result)(?:\s+(?:here|goes here))?|"
    r"tbd|todo|xxx+|n/a|null|nan|undefined|to be determined|placeholder|此处填写答案|答案"
)
_EMPTY_BOX = re.compile(rf"(?:{_WORDS_FOR_NONE}|[\s\W_]*)", re.IGNORECASE)
_PLACEHOLDER = re.compile(rf"[\s\[<(*]*(?:{_WORDS_FOR_NONE})\s*[:：]?[\s\])>*]*[.。]?\s*", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|displaystyle)\b|[\s{}$*,.;:!?~_…-]+|\\[ ,;!]")
_READABLE = re.compile(
    r"\d|\\[a-zA-Z]|[π∞√∅±°∈∪∩≤≥<>=+^%ℝℤℕ]|(?<![^\W_])[a-zA-Z](?![^\W_])|[〇零一二三四五六七八九十百千万亿两半无不是否对错]|"
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty|hundred|thousand|million|half|"
    r"twice|third|quarter|dozen|none|no|not|never|yes|true|false|infinit\w+|undefined|empty|impossible|all|both|neither|"
    r"nothing|diverges?|exists?|equal|even|odd|positive|negative|increasing|decreasing|monday|tuesday|wednesday|thursday|"
    r"friday|saturday|sunday|january|february|march|april|may|june|july|august|september|october|november|december)\b",
    re.IGNORECASE,
)
SHORT = 60
"""Characters of an answer that is taken at its word: a name or a word is a readable answer, a whole text without a
number is none."""


def answer_present(prompt: Prompt, trace: Trace, settings: AnswerSettings) -> Outcome:
    """`no_answer`: nothing but white space or punctuation. `placeholder`: an empty box, a row of dots, "your answer
    here". `repeats_question`: the question and no more. `nothing_to_read`: a task with an exact answer, and no number,
    formula, letter or name in sight."""
    answer = (trace.answer or "").strip()
    if not _ALNUM.search(answer) and not _READABLE.search(answer):
        return failing("no_answer")
    if _PLACEHOLDER.fullmatch(answer[:200]) or _last_box_is_empty(answer):
        return failing("placeholder")
    if _same_words(answer, prompt):
        return failing("repeats_question")
    if settings.readable and prompt.kind in ("math", "numeric", "choice") and not _readable(prompt, answer):
        return failing("nothing_to_read")
    return PASS


def _last_box_is_empty(answer: str) -> bool:
    """Whether the last box, which a verifier reads first, holds nothing that could be an answer."""
    start = max(answer.rfind("\\boxed"), answer.rfind("\\fbox"))
    match = _BOX.match(answer, start) if start >= 0 else None
    if match is None:
        return False
    inside = answer[match.end() : match.end() + 100]
    depth, end = 1, 0
    for end, char in enumerate(inside):  # noqa: B007 - where it ended is what is wanted
        depth += (char == "{") - (char == "}")
        if depth == 0:
            break
    else:
        return not inside.strip()
    return _EMPTY_BOX.fullmatch(_WRAPPED.sub(" ", inside[:end]).strip()) is not None


def _same_words(answer: str, prompt: Prompt) -> bool:
    for asked in (prompt.question, prompt.text):
        if len(asked) / 2 < len(answer) < 2 * len(asked):
            words = _WORD.findall(answer.lower())
            if words and words == _WORD.findall(asked.lower()):
                return True
    return False


def _readable(prompt: Prompt, answer: str) -> bool:
    if len(answer) <= SHORT or _BOX.search(answer) or _READABLE.search(answer):
        return True
    return any(choice.strip() and choice.strip() in answer for choice in prompt.choices or ())
