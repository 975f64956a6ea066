"""A text as a list of normalised words, equal for copies that differ in line breaks, case, LaTeX or Unicode forms.

What makes a formula another formula stays a word of its own: numbers, operators, parentheses. Dropped are formatting
and sentence punctuation. Two things are left alone because they cannot be told apart without a dictionary: a word
hyphenated over a line break (`mul-\\ntiply` reads like `well-\\nknown`) becomes two words, and digit groups divided by
plain spaces stay apart. Knows nothing about prompts; takes time linear in the text.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from itertools import chain

from distill.prompts.memo import Memo

_COMMANDS = {
    "left right big Big bigl bigr Bigl Bigr middle displaystyle textstyle limits nolimits mathop mathstrut": "",
    "cdot times ast": "*",
    "div": "/",
    "le leq leqslant": "<=",
    "ge geq geqslant": ">=",
    "ne neq": "≠",
    "to rightarrow": "→",
    "dfrac tfrac cfrac frac": "\\frac",
    "circ degree": "degrees",
    "lbrace lbrack": "(",
    "rbrace rbrack": ")",
    "text mathrm mathbf mathit mathsf mathtt textbf textit textrm texttt emph operatorname mbox hbox boldsymbol": " ",
    "quad qquad hspace vspace newline par begin end": " ",
    "varepsilon": "epsilon",
    "varphi": "phi",
}
_LATEX = {name: f" {new} " if new else " " for names, new in _COMMANDS.items() for name in names.split()}
_LATEX |= {" ": " ", "%": "%"}
"""LaTeX command → what it reads as; any other is its own name, any other escaped sign is a space."""

_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon"
_SIGNS = {
    **dict.fromkeys("−‐‑‒–﹣－", "-"),
    **dict.fromkeys("’‘ʼ′`´", "'"),
    **dict.fromkeys("×⋅∗·•∙", "*"),
    "÷": "/", "⁄": "/", "∕": "/", "≤": "<=", "≥": ">=", "≦": "<=", "≧": ">=", "°": " degrees ", "√": " sqrt ",
    "≠": "≠", "→": "→", "∞": " infty ", "∑": " sum ", "∏": " prod ", "∫": " int ", "π": " pi ", "∈": " in ",
    "（": "(", "）": ")",
}  # fmt: skip
_SIGNS |= {chr(ord("α") + place + (place > 16)): f" {name} " for place, name in enumerate(_GREEK.split())}
_SIGNS |= {"φ": " phi ", "χ": " chi ", "ψ": " psi ", "ω": " omega ", "∆": " delta ", "ε": " epsilon ", "\u00b5": " mu "}

_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0x20000, 0x3FFFF),
)  # fmt: skip
"""Thai, Lao, Burmese, Khmer, kana, Han: written without spaces, so each letter is a word."""

_LATEX_TOKEN = re.compile(r"\\(?:([a-zA-Z]+)\*?|(.)|$)", re.DOTALL)
_LATEX_THOUSANDS = re.compile(r"(\d)(?:\{,\}|\\,)(?=\d{3}(?!\d))")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_FRACTION = re.compile(r"\\frac\s*\{([^{}]{0,200})\}\s*\{([^{}]{0,200})\}")
_SHORT_FRACTION = re.compile(r"\\frac\s*(\w)\s*(\w)")
_BRACED_TERM = re.compile(
    r"\{(?<=[\^_]\{)([^{}]{0,200}[-+*/][^{}]{0,200})\}|(?<=sqrt) *\{([^{}]{0,200}[-+*/][^{}]{0,200})\}"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,10});")
_BOLD = re.compile(r"\*\*(?<![\w)*]\*\*)(?! )([^*\n]{1,200})(?<! )\*\*(?![\w(*])")
"""Bold in Markdown; stars between operands are a power. Like others here it looks back after its first sign, not before
it: a pattern that begins with a sign is looked for in C, one that begins by looking back is tried at every place."""
_QUOTED = re.compile(r"^[ \t]*>[> \t]*", re.MULTILINE)
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
_NO_ZERO = re.compile(r"\.(?<= \.)(?=\d)")
_ZEROS = re.compile(r"(\d)\.0+(?!\d)")
_OPERAND = r"(?=\s*(?:\d|\(|[a-z](?![a-z])))"
_WORD = re.compile(
    r"[a-z\x80-\U0010ffff]+"
    r"|\d+(?:\.\d+)?|\.\d+"
    rf"|[-*/]{_OPERAND}"  # a hyphen, a slash between words and Markdown's stars are no operators
    r"|[+^%|]|[<>]=?|="
    r"|!(?<=[\d)]!)"  # a factorial
    r"|'(?=\()"  # a derivative
    r"|\((?!\w\))|\)(?<!\(\w\))"  # the parentheses of (a), as in a list of choices, say nothing
)


_GAP = re.compile(r"([-*/])\s+")
"""After an operator, which alone looks beyond white space."""
_PIECES = Memo(_WORD.findall)
"""What stands between white space → its words."""


class _Reading(dict[int, str]):
    """Code point → what it reads as; worked out when first met."""

    def __missing__(self, code: int) -> str:
        self[code] = new = _reading(code)
        return new


def _reading(code: int) -> str:
    char = chr(code)
    category = unicodedata.category(char)
    if code < 0x80:
        return char
    if char in _SIGNS:
        return _SIGNS[char]
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Cf":  # soft hyphens, zero-width characters, marks of direction
        return ""
    if any(low <= code <= high for low, high in _UNSPACED):
        return char if category.startswith("M") else f" {char} " if category.startswith("L") else " "
    return char if category[0] in "LM" else " "


def _raised(text: str) -> str:
    """Superscripts written as powers and vulgar fractions set apart, before NFKC makes both plain digits."""

    def spelled(match: re.Match[str]) -> str:
        plain = unicodedata.normalize("NFKC", match[0])
        return f" {plain} " if "⁄" in plain else f"^{plain}"

    return _RAISED.sub(spelled, text)


_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+|[¼½¾⅐-⅞]")
_READING = _Reading()


def words(text: str) -> list[str]:
    """The words of `text` in their order: letters in lower case, numbers in ASCII, operators, parentheses."""
    if "&" in text and ";" in text:  # left over from a web page
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    if "**" in text:
        text = _BOLD.sub(r"\1", text)
    if ">" in text:  # Markdown's mark of a quoted line
        text = _QUOTED.sub("", text)
    if "\\" in text or "^{" in text or "_{" in text:
        text = _without_latex(text)
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKC", _raised(text)).casefold()
        text = unicodedata.normalize("NFC", text).translate(_READING)
    if "$" in text:
        text = text.replace("$", " ")
    if "," in text:
        text = _THOUSANDS.sub("", text)
    if " ." in text:
        text = _NO_ZERO.sub("0.", text)
    if ".0" in text:
        text = _ZEROS.sub(r"\1", text)
    return list(chain.from_iterable(map(_PIECES.__getitem__, _GAP.sub(r"\1", text).split())))


def _without_latex(text: str) -> str:
    """LaTeX commands as the words, signs and spaces that they read as."""
    if "{,}" in text or "\\," in text:
        text = _LATEX_THOUSANDS.sub(r"\1", text)
    if "\\circ" in text:
        text = _DEGREES.sub(" degrees ", text)
    text = _LATEX_TOKEN.sub(lambda match: _LATEX.get(match[1] or match[2], f" {match[1] or ''} "), text)
    if "\\frac" in text:
        for _ in range(4):  # from the inside out; deeper ones stay as the word frac
            text, found = _FRACTION.subn(lambda match: f" {_term(match[1])}/{_term(match[2])} ", text)
            if not found:
                break
        text = _SHORT_FRACTION.sub(r" \1/\2 ", text)
    if "^{" in text or "_{" in text or "sqrt" in text:
        text = _BRACED_TERM.sub(lambda match: f"({match[1] or match[2]})", text)
    return text


def _term(text: str) -> str:
    return f"({text})" if re.search(r"[-+*/]", text) else text


_NAMES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
half twice double triple thrice third quarter dozen
"""
_VALUES = """
0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17
18 19 20 30 40 50 60 70 80 90 100 1000 1000000
1/2 2* 2* 3* 3* 1/3 1/4 12
"""
_SPELLED = dict(zip(_NAMES.split(), _VALUES.split(), strict=True))


def _number(word: str) -> str:
    """The number that a word is, empty for any other."""
    return _SPELLED.get(word) or (word if word[0] in "0123456789." else "")


_NUMBERS = Memo(_number)


def numbers(words: Sequence[str]) -> tuple[str, ...]:
    """The numbers among normalised words in their order; English number words count as numbers too."""
    return tuple(filter(None, map(_NUMBERS.__getitem__, words)))


def number_places(words: Sequence[str]) -> list[int]:
    """Where the numbers of `numbers` stand."""
    return [place for place, number in enumerate(map(_NUMBERS.__getitem__, words)) if number]
