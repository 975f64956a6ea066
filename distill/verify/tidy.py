"""One notation for what LaTeX and Unicode write in many ways: a text goes in, a plainer text comes out.

Every pattern is linear in the length of the text. Knows nothing about tokens.
"""

from __future__ import annotations

import re
import unicodedata


class Unreadable(ValueError):
    """The text is no mathematics that this package reads; the message says where it stopped, for debugging only."""


_SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "‒": "-", "—": "-", "﹣": "-", "－": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ",
        "∙": r"\cdot ", "•": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "√": r"\sqrt ", "∛": r"\sqrt[3]", "π": r"\pi ",
        "∞": r"\infty ", "≤": r"\leq ", "≥": r"\geq ", "≦": r"\leq ", "≧": r"\geq ", "⩽": r"\leq ", "⩾": r"\geq ",
        "≠": r"\neq ", "≈": r"\approx ", "≃": r"\approx ", "≡": r"\equiv ", "∪": r"\cup ", "∩": r"\cap ",
        "∈": r"\in ", "∖": r"\setminus ", "∅": r"\emptyset ", "Ø": r"\emptyset ", "ø": r"\emptyset ",
        "°": r"^\circ ", "º": r"^\circ ", "±": r"\pm ", "∓": r"\mp ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
        "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "⟨": r"\langle ", "⟩": r"\rangle ",
        "〈": r"\langle ", "〉": r"\rangle ", "…": r"\ldots ", "⋯": r"\ldots ", "′": "'", "’": "'", "∨": r"\lor ",
        "∧": r"\land ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "→": r"\to ",
        "⇒": r"\to ", "∶": ":", "¢": " cents", "\u200b": "", "\u2061": "", "\u2062": r"\cdot ", "\ufeff": "",
        "“": '"', "”": '"', "„": '"', "∠": r"\angle ", "△": r"\triangle ",
        "℃": r"^\circ C", "℉": r"^\circ F", "Ω": r"\Omega ", "\u2126": r"\Omega ",
        "万": r"\text{ wan}", "亿": r"\text{ yi}",
    }
    | {sign: f"^{{{digit}}}" for sign, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True)}
    | {"⁻": "^{-}", "ⁿ": "^{n}", "⁺": "^{+}"}
    | {sign: f"_{{{digit}}}" for sign, digit in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)}
    | {"½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅕": " 1/5", "⅖": " 2/5", "⅗": " 3/5"}
    | {"⅘": " 4/5", "⅙": " 1/6", "⅚": " 5/6", "⅛": " 1/8", "⅜": " 3/8", "⅝": " 5/8", "⅞": " 7/8"}
    | {sign: f"\\{name} " for sign, name in zip("αβγδεθλμξρστφχψω", (
        "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "xi", "rho", "sigma", "tau", "phi",
        "chi", "psi", "omega"), strict=True)}
)  # fmt: skip
_DOLLARS = re.compile(r"(?<!\\)\$")
_AMOUNT = re.compile(r"(?<!\\)\$(?=\s*-?[\d.])")
_ROOT = re.compile(r"√\s?(\d+(?:\.\d+)?)")
_PERCENT = re.compile(r"\bper cent\b")
_DOLLAR_NAMED = re.compile(r"\bUSD\s?(?=-?[\d.])")
_SPECIAL = re.compile(r"[\\{}~^_\t\n\r\f\v]|\.\.\.")
_HYPHEN = re.compile(r"(?<=[a-z]{3})-(?=[a-z]{3})")
_JOINED_SCRIPTS = re.compile(r"\}[\^_]\{(?=[0-9+\-n]\})")
"""Between two raised digits of Unicode, which are one number: `10⁻¹²`."""

NEW_ROW = "\x01"
"""Stands for two backslashes, of which a pattern could take the second for the beginning of a command."""

_TIDY: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\\(?:left|right|middle)\s*\.|\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|"
                r"mathstrut|allowbreak|nolimits|bf|rm|boldmath)(?![A-Za-z])|\\!|\\phantom\s*\{[^{}]*\}"), ""),
    (re.compile(r"\\[,;:> ]|~|\\(?:qquad|quad|enspace|thinspace|medspace|thickspace|space|newline|hfill)(?![A-Za-z])|"
                r"\\[hv]space\*?\s*\{[^{}]*\}|[\t\n\r\f\v]"), " "),
    (re.compile(r"(\d)\s*\{\s*,\s*\}\s*(?=\d{3}(?!\d))"), r"\1,"),
    (re.compile(r"(\d)\{[,.]\}(?=\d)"), r"\1."),
    (re.compile(r"\x01\s?\[\s?-?[\d.]{1,5}\s?(?:pt|em|ex|cm|mm|in)\s?\]"), NEW_ROW),
    (re.compile(r"\\(?:text)?color\s?\{[A-Za-z]{1,20}\}|\\underline(?=\s?\{)"), ""),
    (re.compile(r"\^\s?\{?(\d{1,9})\}?\s?/\s?_\s?\{?(\d{1,9})\}?"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\[dt]?frac\s?\{\s?\\(?:text|mathrm)\s?\{([^{}\\]{1,20})\}\s?\}\s?\{\s?\\(?:text|mathrm)\s?\{([^{}\\]{1,20})\}\s?\}"),
     r"\\text{\1}/\\text{\2}"),
    (re.compile(r"=\s?(-?\d{1,40}\.\d{1,40})\s?(?:\\(?:l?dots|cdots)(?![A-Za-z])|\.\.\.)"), r"\\approx \1"),
    (re.compile(r"\\(?:begin|end)\s?\{(?:aligned|align|gathered|gather|split|equation)\*?\}"), ""),
    (re.compile(r"\\text\s?\{\s?([:,;])\s?\}"), r"\1"),
    (re.compile(r"(?:\(|\\overline\s?\{)\s?([0-9A-F]{1,40})\s?[)}](?=\s?_)"), r"\1"),
    (re.compile(r"_\s?\{\s?\(\s?(\d{1,2})\s?\)\s?\}"), r"_{\1}"),
    (re.compile(r"(?:\{\})?[_^]\s?\{?(\d{1,9})\}?\s?C\s?_\s?\{?(\d{1,9})\}?"), r"\\binom{\1}{\2}"),
    (re.compile(r"\{\s?([:=<>+-])\s?\}"), r"\1"),
    (re.compile(r"\\(?:text|mathrm|mathtt|texttt)\s?\{\s?([0-9A-F]{1,40})\s?\}(?=\s?_)"), r"\1"),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))\s*(?:\\(?:text|mathrm)\s*\{\s*C\s*\}|C(?![A-Za-z]))"),
     " celsius "),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))\s*(?:\\(?:text|mathrm)\s*\{\s*F\s*\}|F(?![A-Za-z]))"),
     " fahrenheit "),
    (re.compile(r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))"), r"\\deg "),
    (re.compile(r"\\(?:text)?degrees?(?![A-Za-z])"), r"\\deg "),
    (re.compile(r"(?<=\d) ?(?:\\ )?\\Omega ?$"), " ohm"),
    (re.compile(r"\\textdollar(?![A-Za-z])(?:\{\})?"), r"\\$"),
    (re.compile(r"\\(?:pounds|textsterling)(?![A-Za-z])"), "£"),
    (re.compile(r"\\(?:texteuro|euro)(?![A-Za-z])(?:\{\})?"), "€"),
    (re.compile(r"\\mathbb\s*\{?\s*([RZQ])\s*\}?\s*\^\s*\{?\s*\+\s*\}?"), r"\\pos\1 "),
)  # fmt: skip


def tidy(text: str) -> str:
    """`text` with Unicode's signs as LaTeX, spacing as white space and sizes of brackets left out."""
    if not text.isascii():
        text = _ROOT.sub(r"\\sqrt{\1}", text)
        text = _JOINED_SCRIPTS.sub("", text.translate(_SIGNS))
        text = unicodedata.normalize("NFKC", text)
        if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
            raise Unreadable("half a surrogate pair")
    if "USD" in text:
        text = _DOLLAR_NAMED.sub(r"\\$", text)
    if "per cent" in text:
        text = _PERCENT.sub("percent", text)
    text = _HYPHEN.sub(" ", text) if "-" in text else text
    if _SPECIAL.search(text):
        aligned = "aligned" in text or "{align" in text or "{split" in text or "{gather" in text
        text = text.replace("\\\\", NEW_ROW)
        if aligned:
            text = text.replace("&", "").replace(NEW_ROW, ", ")
        for pattern, put in _TIDY:
            text = pattern.sub(put, text)
    text = " ".join(text.split())
    while len(text) > 2 and text[0] == text[-1] and text[0] in '*`"_':
        text = text[1:-1].strip()
    return text


def with_money(text: str) -> str:
    """`text` with dollar signs before a number escaped where one has no partner: it is money, and no math mode."""
    return _AMOUNT.sub(r"\\$", text) if len(_DOLLARS.findall(text)) % 2 else text
