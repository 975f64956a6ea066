"""The values that a text may say: notations that concern the whole text, then `verify.statements`.

Times of day, numerals whose base is named in words, intervals as they are written in France; a text that can be read in
two ways gives two values. Knows nothing about comparing.
"""

from __future__ import annotations

import re
from functools import lru_cache

from distill.verify import spans
from distill.verify.evaluate import TooBigError, UndefinedError
from distill.verify.latex import LONGEST, ends_in_a_letter, tokens
from distill.verify.statements import Statements
from distill.verify.tidy import Unreadable, tidy, with_money
from distill.verify.values import Clock, Listing, Ratio, Real, Relation, Value, number

_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mbox) ?\{([^{}]*)\}")
_HALF = re.compile(r"[ap]\.? ?m\.$", re.IGNORECASE)
_COMMA = re.compile(r"\d,\d{3}")
_CLOCK = re.compile(
    r"(\d{1,2})(?:[:.](\d{2})(?::(\d{2}))?)? ?(?:\\(?:text|mathrm) ?\{ ?)?"
    r"(?:([apAP])\.? ?[mM]\.?|(noon|midnight))? ?\}?"
)
_ARTICLE = re.compile(r"^((?:\\text ?\{)? ?)(?:an?|the|An?|The) (?=[A-Za-z]{3})")
_BASE_SAID = re.compile(
    r"([0-9A-F]{1,40}) ?(?:\\(?:text|mathrm) ?\{)? ?\(? ?(?:in )?base[ -](\d{1,2}|[a-z]{3,8}) ?\)? ?\}? ?\)?"
)
_EXCEPT = re.compile(
    r"(?:\\text ?\{)? ?(?:all )?real(?:s| numbers) (?:except|other than|but)(?: for)? ?\}? ?"
    r"((?:[a-z] ?= ?)?[^{}]{1,80}?)\}?"
)
_HOURS = re.compile(r"(\d{1,3}) ?h(?:rs?)? ?(\d{1,2}) ?m(?:in)?")
_RATIO_WORDS = re.compile(r"(\d{1,6})\s*(?:\\text\s*\{)?\s*to\s*\}?\s*(\d{1,6})")
_INTEGERS = re.compile(
    r",? ?\(? ?(?:\\text ?\{)? ?,? ?(?:where|with|for(?: any| all| every| some)?)? ?(?:integers? ?\}? ?\$?([a-zA-Z])\$?"
    r"|\}? ?\$?([a-zA-Z])\$? ?(?:\\text ?\{)? ?(?:is |being )?(?:an|any) integer ?\}?) ?\)?$"
)


@lru_cache(maxsize=8_192)
def readings(text: str) -> tuple[Value, ...]:
    """The values that `text` may say: more than one where commas may separate thousands or numbers, or a last letter be
    a unit or a variable; none where it is unread."""
    if len(text) > LONGEST:
        return ()
    text = with_money(undressed(text))
    found: list[Value] = []
    ways = [(False, True)]
    ways += [(True, True)] * bool(_COMMA.search(text)) + [(False, False)] * ends_in_a_letter(text)
    for separate, units in ways:
        try:
            value = read(text, separate=separate, units=units)
        except Unreadable:
            continue
        if value not in found:
            found.append(value)
    return tuple(found)


def undressed(text: str) -> str:
    """`text` without a full stop at its end and without the mark of mathematics around all of it."""
    text = text.strip()
    if text.endswith(".") and not text.endswith("..") and _HALF.search(text) is None:
        text = text[:-1].rstrip()
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        inside = text[len(left) : -len(right)]
        if len(text) > len(left + right) and text == left + inside + right and left not in inside:
            return inside.strip()
    return text


def read(text: str, *, separate: bool = False, units: bool = True) -> Value:
    """The value that a text says; `separate` and `units` as in `latex.tokens`. Raises Unreadable."""
    text = tidy(text)
    wrapped = _WRAPPED.fullmatch(text)
    plain = wrapped[1].strip() if wrapped is not None else text
    clock = _CLOCK.fullmatch(plain)
    if clock is not None and int(clock[1]) < 25 and int(clock[2] or 0) < 60:
        half = {"a": "am", "p": "pm", "n": "pm", "m": "am"}.get((clock[4] or clock[5] or "")[:1].lower(), "")
        if half or (clock[2] and ":" in plain):
            return Clock(int(clock[1]), int(clock[2] or 0), int(clock[3] or 0), half)
    based = _BASE_SAID.fullmatch(plain)
    if based is not None:
        text = f"{based[1]}_{{{based[2]}}}"
    hours = _HOURS.fullmatch(plain)
    if hours is not None:
        text = f"{hours[1]} hours {hours[2]} minutes"
    text = _ARTICLE.sub(r"\1", text)
    ratio = _RATIO_WORDS.fullmatch(plain)
    if ratio is not None:
        return Ratio((number(int(ratio[1])), number(int(ratio[2]))))
    if text.startswith("]") or text.endswith("["):  # as intervals are written in France
        text = f"({text[1:]}" if text.startswith("]") else text
        text = f"{text[:-1]})" if text.endswith("[") else text
    excepted = _EXCEPT.fullmatch(text)
    if excepted is not None:
        points = spans.as_real(_as_set(read(excepted[1], separate=True)))
        if points is None:
            raise Unreadable("all numbers except something")
        return Real(spans.complement(points.spans))
    text = _INTEGERS.sub(lambda found: f", {found[1] or found[2]} \\in \\mathbb{{Z}}", text)
    try:
        return Statements(tokens(text, separate=separate, units=units)).statement()
    except (TooBigError, UndefinedError, RecursionError, KeyError, ValueError) as error:
        raise Unreadable(str(error)) from error


def _as_set(value: Value) -> Value:
    """`x = 2`, `2` or `2, 3` as the set of these numbers."""
    if isinstance(value, Relation) and value.operator == "=":
        value = value.right
    return Listing(value.items if isinstance(value, Listing) else (value,), braces=True)
