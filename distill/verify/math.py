"""Is a mathematical answer equal to the gold one? The last box first, then what math-verify finds in the text.

The text given is what follows the reasoning, never the reasoning itself. Knows nothing about processes or limits: a
hostile answer can keep this busy for ever, which is why `verify.pool` runs it in workers that can be killed.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from distill.verify import PASS, Outcome, abstaining, failing

_THOUSANDS = re.compile(r"-?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_TRAILING_ZEROS = re.compile(r"(-?\d+)\.0+")
_DECORATION = ("\\$", "$", "\\!", "\\,", "\\left", "\\right")
_WIDE = ("\\;", "\\ ", "~")
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
"""White space that means nothing; between two digits it does: `1 1/2` is not `11/2`."""
_MIXED = re.compile(r"(?<![\d./])(\d+)\s+(\d+)/(\d+)(?![\d./])")
_WITH_UNIT = re.compile(
    r"(?:\\(?:text|mathrm|mbox|textbf)\s*\{)?\s*((?:\\?\$)?\s*-?[\d.,]*\d)\s+([A-Za-z]{3,}(?: [A-Za-z]{2,})*)\.?\s*\}?"
)
"""`15 dollars`, with or without LaTeX's text around it: the letters would be read as a product of variables."""
_BASE = re.compile(r"\d_")
_READ_PAST = (
    re.compile(
        r"(?<!\\)\b(?:dozen|hundred|thousand|million|billion|trillion|squared|cubed|plus|minus|times)s?\b",
        re.IGNORECASE,
    ),
    re.compile(r"\d\s*(?:\\[,; ]\s*)*\\(?:text|mathrm|mbox|textbf)\s*\{[^{}]*\}[^\w{}^]*\d"),
    re.compile(r"^\s*(?:[<>≤≥]|\\(?:le|ge|lt|gt|leq|geq)\b)"),
    _BASE,
)
"""What math-verify leaves out when it reads a number: scale words, a second quantity (`15 \\text{ minutes } 30 …`), an
inequality sign in front, the base of a numeral. A box with one of them that the gold answer lacks is not compared."""
_AROUND = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox|operatorname)\*?\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{\w+\*?\}|\\[A-Za-z]+")
_BARE_WORD = re.compile(
    r"(?<![A-Za-z])(?:"
    r"(?!(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?[a-z]?(?![a-z])|(?:sqrt|frac|sgn|floor|ceil)(?![a-z]))[A-Za-z][a-z]{3,}"
    r"|(?:[Yy]es|YES|[Nn]o|NO|[Nn]ot|[Aa]ll|any|[Oo]dd|[Oo]ne|[Tt]wo|[Ss]ix|[Tt]en|[Tt]he|is|of|if|it|to)(?![A-Za-z]))"
)
"""A word outside LaTeX's text, of which a parser makes a product of variables; no function, and no `ab` or `xyz`."""
_WORD = re.compile(r"[^\W\d_]{2,}")
MOST_WORDS = 3
"""Words of a gold answer that a right answer may be expected to repeat: `no solution`, hardly a sentence."""
_STAND_INS = frozenset({"proof", "notfound", "not found", "n/a", "nan", "null"})
"""What sources write where they have no answer: the first two are NuminaMath's."""
_JOINED = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[\s,]*(?:or|and)?[\s,]*\}")
_MISREAD = re.compile(
    r"\\neq?(?![A-Za-z])|≠|\\forall|\bfor (?:all|any|every|each)\b|\bsuch that\b|\b(?:where|unless)\b|"
    r"\d[eE][+-]?\d|\b0[xX][0-9a-fA-F]"
)
"""Of these math-verify keeps something else than what is written: `k \\ne 0` is read as 0, `1e5` as 5e."""
LONGEST = 2_000
"""Characters of an answer's box, or of the end of an answer without one, that are looked at."""


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` with balanced braces, or None."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth = 0
        for position in range(start + len("\\boxed"), len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[start + len("\\boxed{") : position]
        start = text.rfind("\\boxed{", 0, start)
    return None


def literal(text: str) -> str:
    """A form in which equal answers written the same way are equal texts: no spaces, dollars or thousands commas."""
    text = undecorated(text).rstrip(".")
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "").replace(" ", "")
    whole = _TRAILING_ZEROS.fullmatch(text)
    return whole.group(1) if whole else text


def undecorated(text: str) -> str:
    """`text` without dollar signs, LaTeX's spacing, and spaces other than between digits; commas left in."""
    for decoration in _DECORATION:
        text = text.replace(decoration, "")
    for wide in _WIDE:
        text = text.replace(wide, " ")
    return _SPACE.sub("", text.strip())


def same_text(answer: str, gold: str) -> bool:
    """The fast path: whether the last box is literally the gold answer."""
    boxed = last_boxed(answer)
    return boxed is not None and literal(boxed) == literal(gold) != ""


def told_by_text(answer: str | None, gold: str | None) -> Outcome | None:
    """What `check_math` says without reading any mathematics, None where it has to. An answer with many boxes that
    never close can still keep this busy."""
    if not (gold or "").strip():
        return abstaining("no_gold")
    if not (answer or "").strip():
        return failing("no_answer")
    return PASS if same_text(answer or "", gold or "") else None


def check_math(answer: str | None, gold: str | None) -> Outcome:
    """Pass, `wrong_answer`, `no_answer`, or abstain with `no_gold`, `unparseable_gold` or `ambiguous_answer`."""
    told = told_by_text(answer, gold)
    if told is not None:
        return told
    assert answer is not None
    assert gold is not None
    golds = _parse_gold(gold)
    if not golds:
        return abstaining("unparseable_gold")
    boxed = last_boxed(answer)
    if boxed is not None and any(mark.search(boxed) and not mark.search(gold) for mark in _READ_PAST):
        return abstaining("ambiguous_answer")
    found = _parse(answer[-LONGEST:]) if boxed is None else _parse_boxed(boxed)
    if not found:
        return failing("no_answer")
    import math_verify

    return PASS if math_verify.verify(golds, found, timeout_seconds=None) else failing("wrong_answer")


def read_gold(gold: str | None) -> Outcome:
    """Whether `check_math` can judge by this gold answer: pass, or abstain with `no_gold`, `unparseable_gold` or
    `ambiguous_gold`.

    It has to be read as an expression or a few words, and the same answer in a box has to be found equal by what was
    read. That the two are the same text, which `check_math` looks at first, says nothing: a whole proof is, too.
    """
    if gold is None or gold.strip().lower() in ("", *_STAND_INS):
        return abstaining("no_gold")
    if len(gold) > LONGEST or _is_prose(gold):
        return abstaining("unparseable_gold")
    joined = _JOINED.sub(",", gold)
    if _MISREAD.search(gold) or any(mark.search(joined) for mark in _READ_PAST if mark is not _BASE):
        return abstaining("ambiguous_gold")
    golds, found = _parse_gold(gold), _parse_boxed(gold)
    if not golds or not found or isinstance(golds[0], str) or _is_nothing(golds[0]):
        return abstaining("unparseable_gold")
    import math_verify

    return PASS if math_verify.verify(golds, found, timeout_seconds=None) else abstaining("unparseable_gold")


def _is_prose(gold: str) -> bool:
    """More words than a right answer would repeat to the letter; half a surrogate pair too, which is no text."""
    if any("\ud800" <= sign <= "\udfff" for sign in gold):
        return True
    if _WITH_UNIT.fullmatch(gold) is not None:
        return False
    quoted = sum(len(_WORD.findall(match[1])) for match in _AROUND.finditer(gold))
    bare = len(_BARE_WORD.findall(_COMMAND.sub(" ", _AROUND.sub(" ", gold))))
    return quoted + bare > MOST_WORDS


def _is_nothing(read: Any) -> bool:
    """A division by zero, which sympy reads without complaint."""
    import sympy  # type: ignore[import-untyped]  # it ships no types

    return isinstance(read, sympy.Basic) and bool(read.has(sympy.zoo, sympy.nan))


def prepare() -> None:
    """Loads what the first answer would otherwise wait for; the pool calls this before its clock starts."""
    check_math("\\boxed{\\frac{1}{2}}", "2")


def _parse_gold(gold: str) -> list[Any]:
    text = _number(gold)
    return _parse(f"${text}$") or _parse(text)


def _parse_boxed(boxed: str) -> list[Any]:
    """Nothing for a box over LONGEST: half an answer is another answer."""
    return _parse(f"\\boxed{{{_number(boxed)}}}") if len(boxed) <= LONGEST else []


def _number(text: str) -> str:
    """`text` with thousands separators taken out, a mixed number and a unit made plain to a parser of LaTeX."""
    if _THOUSANDS.fullmatch(undecorated(text)):
        return literal(text)
    with_unit = _WITH_UNIT.fullmatch(text)
    if with_unit:
        return f"{_number(with_unit[1])} \\text{{ {with_unit[2]}}}"
    return _MIXED.sub(r"\1\\frac{\2}{\3}", text.strip())


def _parse(text: str) -> list[Any]:
    import math_verify

    # Time limits are the pool's: math-verify's rest on an alarm, which does not interrupt a long multiplication.
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns at every call without a limit
    found: list[Any] = math_verify.parse(text, parsing_timeout=None)
    return found
