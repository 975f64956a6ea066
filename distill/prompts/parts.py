"""Does a question ask for more than one answer? Labelled parts that each ask something, or several questions.

Choices, conditions, statements and equations carry labels too; what tells parts from them is that parts ask.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_EN_VERBS = (
    r"find|determine|calculate|compute|evaluate|prove|show|write|express|solve|sketch|draw|state|give|explain|simplify|"
    r"factori[sz]e|factor|expand|convert|estimate|describe|discuss|verify|derive|list|graph|plot|identify|construct|"
    r"differentiate|integrate|what|which|how|who|when|where|why"
)
_ASK = re.compile(
    rf"\?|？|^\W*(?:{_EN_VERBS}|is|are|does|do|can|will)\b"
    rf"|[.,;:]\s*(?:and |then |hence |also )?(?:{_EN_VERBS})\b"
    r"|求|计算|证明|写出|是否|多少|什么|几[个种条次天]|判断|试[问说确]|说明理由|解方程|讨论",
    re.IGNORECASE,
)
"""A part asks when it holds a question mark, or an instruction at its start or at the start of a clause."""
_LEAD = re.compile(
    r"(?:^|[.!?,\n]\s*|\b(?:then|and)\s+)(?:find|calculate|compute|evaluate|solve|simplify|factori[sz]e|factor|determine|"
    r"expand|convert|write|express|differentiate|integrate|prove|show|sketch)\b([^.?!]{0,80}?)[:：]?\s*$"
    r"|(?:计算|求下列|解方程|解下列|化简|因式分解|分解因式|求值|求)[^。？?]{0,20}[:：]?\s*$",
    re.IGNORECASE,
)
"""What stands before parts that are bare expressions: `Calculate: (1) … (2) …`."""
_CONDITION = re.compile(
    r"\b(?:if|such that|satisf\w+|when|where|given|conditions?|propert\w+|for which|so that|system|statements?|that|"
    r"following is|which|one of)\b|equations?\s*$|条件|方程组",
    re.IGNORECASE,
)
_SEQUENCES = (
    re.compile(r"(?<![A-Za-z0-9_\\}])\(([a-h])\)"),
    re.compile(r"(?<![\w(\\$^])([a-h])\)(?=\s)"),
    re.compile(r"(?<![A-Za-z0-9_\\}])\((i|ii|iii|iv|v)\)"),
    re.compile(r"(?<![\w(\\$^])(i|ii|iii|iv|v)[.)](?=\s)"),
    re.compile(r"(?<![A-Za-z0-9_\\}])[(（]([1-9])[)）]"),
    re.compile(r"(?<![\w(（.\\$^+\-*/={,])([1-9])\)(?=[\s\u4e00-\u9fff])"),
    re.compile(r"(?:^|\n|[.:;?]\s+)([1-9])\.(?=\s)"),
    re.compile(r"\bpart\s+\(?([a-e1-5])\)?\s*[:.)]", re.IGNORECASE),
    re.compile(r"([①②③④⑤])"),
    re.compile(r"([ⅠⅡⅢⅣⅤ])"),
)
_RANK = {label: place for labels in ("abcdefgh", "123456789", "①②③④⑤", "ⅰⅱⅲⅳⅴ") for place, label in enumerate(labels)}
_RANK |= {label: place for place, label in enumerate(("i", "ii", "iii", "iv", "v"))}
_LABEL_SIGNS = (")", "）", "1. ", "1.\n", "i. ", "①", "ⅰ", "part ")
"""Without one of these a text has no labels: asked first, since it is quick."""
_SAYS_SO = re.compile(
    r"\b(?:(?:answer|for|in|solve) (?:both|all|these)|following) (?:the )?(?:two |three )?(?:parts|questions)\b"
    r"|\b(?:each|all) of the following (?:questions|problems|"
    r"parts|exercises|expressions|equations|integrals|limits|cases)\b|\bparts \(?a\)?(?: and|,)|回答下列问题|完成下列",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"\b(?:which|how many|none|one|two) of (?:these|the following)\b[^.]*\?", re.IGNORECASE)
_QUESTION = re.compile(r"[^.!?？。\n]*[?？]")
_ASKING = re.compile(
    r"(?<!guess )(?<!know )\b(?:how|what|which|who|when|where|why)\b"
    r"|(?:^|,)\s*(?:is|are|does|do|did|can|will|was|were)\b"
    r"|多少|什么|几|是否|哪",
    re.IGNORECASE,
)
_HOW_MUCH = re.compile(
    r"(?:^|[.!?,;:]\s+)(?:how (?:many|much|far|long|old)|what (?:is|are|was)) [^?.!]{0,1000}?,? (?:and|but) "
    r"(?:how (?:many|much|far|long|old)|what (?:is|are|was)|in how many)\b[^?.!]{0,1000}\?"
)
"""Two questions in one sentence, of a length that people write: without a limit the time grows with the square."""
_QUOTED = re.compile('"[^"]{0,200}"|“[^”]{0,200}”')
"""What somebody in the question says is not asked."""


def has_many(text: str, lower: str) -> bool:
    """Whether `text` (`lower` is its lower case) asks for several answers."""
    if lower.count("?") + text.count("？") > 1 and _asks_twice(text):
        return True
    if (" and how " in lower or " and what " in lower or "and in how" in lower) and _HOW_MUCH.search(lower):
        return True
    if ("part" in lower or "question" in lower or "of the following" in lower or "下列" in text) and _says_so(text):
        return True
    return any(sign in lower for sign in _LABEL_SIGNS) and any(_asks_in_parts(text, labels) for labels in _SEQUENCES)


def _says_so(text: str) -> bool:
    return _SAYS_SO.search(text) is not None and _COUNTED.search(text) is None


def _asks_twice(text: str) -> bool:
    """Two sentences that end in a question mark and ask: a rhetorical `Right?` is none."""
    return sum(_ASKING.search(match[0]) is not None for match in _QUESTION.finditer(_QUOTED.sub(" ", text))) > 1


def _asks_in_parts(text: str, labels: re.Pattern[str]) -> bool:
    found = list(_sequence(text, labels))
    if len(found) < 2:
        return False
    ends = [start for start, _ in found[1:]] + [len(text)]
    bodies = [text[after:end].strip() for (_, after), end in zip(found, ends, strict=True)]
    if sum(_ASK.search(body) is not None for body in bodies) > 1:
        return True
    lead = _LEAD.search(text[: found[0][0]][-160:])
    return lead is not None and _CONDITION.search(lead[0]) is None


def _sequence(text: str, labels: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """(start, end) of the labels a, b, c … or 1, 2, 3 … in their order, from the first on."""
    expected = 0
    for match in labels.finditer(text):
        if _RANK.get(match[1].lower()) == expected:
            yield match.start(), match.end()
            expected += 1
