"""Is a short text the gold one? Equal but for case, white space, quotes, Markdown and LaTeX's text around it.

Nothing fuzzy: another spelling, an article more or half a name is another text. Knows nothing about what texts mean.
"""

from __future__ import annotations

import re
import unicodedata

from distill.records import Prompt
from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.plain import unquoted, without_latex, without_markdown
from distill.verify.stated import last_sentence, short_box, told, without_courtesy

SHORT = 200
"""Characters of an answer that may as a whole be the text that was asked for, where it neither boxes nor names one."""
_CLAUSE = re.compile(r"[.!?]\s|[,;，；。！？]\s*|\s[—–-]\s|\s(?:because|since|which|who|as)\s|\s\(")
_LINES = re.compile(r"\\\\(?:\[[^\]]*\])?")


def verify(prompt: Prompt, answer: str) -> Outcome:
    """Reasons as in `check_exact`."""
    return check_exact(answer, prompt.answer)


def check_exact(answer: str | None, gold: str | None) -> Outcome:
    """Pass, `wrong_answer`, `no_answer`, or abstain with `no_gold`, `unparseable_gold` (nothing but signs that mean
    nothing), or `ambiguous_answer`: the gold stands in the answer's last sentence, beside other words."""
    if gold is None or not gold.strip():
        return abstaining("no_gold")
    if answer is None or not answer.strip():
        return failing("no_answer")
    wanted = folded(gold)
    if not wanted:
        return abstaining("unparseable_gold")
    text = statement(answer)
    if len(answer) <= SHORT and folded(answer) == wanted:
        return PASS
    if text is None:
        text = last_sentence(answer)
        return abstaining("ambiguous_answer") if _mentions(text, wanted) else failing("no_answer")
    if folded(text) == wanted:
        return PASS
    if short_box(answer) is not None:
        return failing("wrong_answer")
    if folded(_CLAUSE.split(text, maxsplit=1)[0]) == wanted:
        return PASS
    return abstaining("ambiguous_answer") if _mentions(text, wanted) else failing("wrong_answer")


def statement(answer: str) -> str | None:
    """What the answer says in words: the last box, what stands behind "the answer is", or the whole where it is short
    and one line; else None."""
    box = short_box(answer)
    if box is not None:
        return box.content.strip()
    marked = told(answer)
    if marked is not None:
        return marked.line
    text = without_courtesy(answer).strip()
    return text if len(text) <= SHORT and "\n" not in text else None


def folded(text: str) -> str:
    """The form in which equal texts are equal: NFKC, case folded, one space for any white space, nothing around it."""
    text = without_latex(_LINES.sub(" ", without_markdown(text)))
    text = unicodedata.normalize("NFKC", text).casefold()
    text = text.translate(_ALIKE).replace("\\_", "_").replace("\\&", "&").replace("\\%", "%").replace("\\#", "#")
    return unquoted(" ".join(unicodedata.normalize("NFKC", text).split()))


_ALIKE = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "−": "-", "–": "-", "‐": "-", "‑": "-", "\u00ad": None})
"""Signs that word processors put in the place of plain ones, the soft hyphen in the place of none."""


def _mentions(text: str, wanted: str) -> bool:
    """Whether the folded `text` has `wanted` in it as whole words."""
    text = f" {folded(text)} "
    start = text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        if not ((text[start - 1].isalnum() and wanted[0].isalnum()) or (text[end].isalnum() and wanted[-1].isalnum())):
            return True
        start = text.find(wanted, start + 1)
    return False
