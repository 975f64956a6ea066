r"""A mathematical text, LaTeX or plain, as a list of tokens: one notation for what is written in many ways.

Linear in the length of the text. Knows nothing about what the tokens mean together: that is `verify.reading`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from distill.verify.tidy import NEW_ROW, Unreadable
from distill.verify.units import COMPOUND, GLUED, NUMBER_WORDS, SHORT_UNITS, SHORT_WORDS, SYMBOLS, UNITS, split

LONGEST = 2_000
"""Characters of an answer's box, or of the end of an answer without one, that are looked at."""
DEEPEST = 40
"""Brackets inside brackets that are read: far more than a person writes, far less than Python's stack."""
LONGEST_NUMBER = 1_600
"""Digits of a number: Python itself refuses to read more than 4,300."""


class Token(NamedTuple):
    """`kind` is num, based, name, word, fn, cmd, set or op; `spaced` whether white space stands before it."""

    kind: str
    text: str
    spaced: bool = False


FUNCTIONS = split(
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot asin acos atan ln log lg exp sqrt cbrt "
    "abs floor ceil"
)
_GREEK = split(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell"
)
_TEXT = split(
    "text textbf textit textrm textnormal texttt mathrm mathbf mathit mathsf mathtt boldsymbol bm mbox hbox "
    "operatorname rm bf it mathcal mathscr mathfrak emph"
)
_DECORATED = split("overline bar vec hat overrightarrow widehat tilde widetilde underline dot")
_SAME: dict[str, str] = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "le": "leq", "ge": "geq",
    "leqslant": "leq", "geqslant": "geq", "lt": "<", "gt": ">", "ne": "neq", "times": "*", "cdot": "*", "ast": "*",
    "div": "/", "approx": "approx", "simeq": "approx", "sim": "approx", "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[",
    "rbrack": "]", "lparen": "(", "rparen": ")", "vert": "|", "lvert": "|", "rvert": "|", "mid": "|", "colon": ":",
    "varnothing": "emptyset", "lor": ";or", "vee": ";or", "land": ";and", "wedge": ";and", "smallsetminus": "setminus",
    "backslash": "setminus", "arccos": "arccos", "infin": "infty", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots",
    "langle": "<<", "rangle": ">>", "percnt": "%", "degree": "deg", "Longrightarrow": "rightarrow", "to": "rightarrow",
    "implies": "rightarrow", "Rightarrow": "rightarrow", "cosec": "csc", "arctg": "arctan", "tg": "tan", "ctg": "cot",
}  # fmt: skip
_OPERATORS = frozenset(("*", "/", "<", ">", "|", "[", "]", "(", ")", ":", "%", "<<", ">>"))
_PIECE = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<based>(?:[0-9][0-9A-F]*|[A-F][0-9A-F]+)(?:\.[0-9A-F]+)?)_(?=[\\{0-9])"
    r"(?:\{\s*(?:\\(?:text|mathrm)\s*\{)?\s*(?P<base1>\d{1,2}|[a-z]{3,8})\s*\}{1,2}|(?P<base2>\d{1,2})(?!\d)"
    r"|\\(?:text|mathrm)\s*\{\s*(?P<base3>\d{1,2}|[a-z]{3,8})\s*\})"
    r"|(?P<num>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?:\ \d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?P<power>[eE][+-]?\d{1,9}(?![A-Za-z0-9.]))?"
    r"|(?P<cmd>\\(?:[A-Za-z]+\*?|.))"
    r"|(?P<letters>[A-Za-z]+|[^\W\d_A-Za-z]+)"
    r"|(?P<op>\*\*|<=|>=|!=|\.\.\.|.)",
    re.DOTALL,
)
_SEPARATE = re.compile(r"(?<=\d),(?=\d{3})")
_WORD = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z][a-z]{2,}")
_ONE_UNIT = re.compile(
    r"(?<=[\d}]) +([mshgLldNJWVA])(?=(?: ?\^ ?\{?[23]\}?)?(?: ?/ ?(?:s|h|min|mol|m?L|cm|kg)(?:\^\{?[23]\}?)?)?\s*$)"
)
"""A unit of one letter, after white space and at the end, with no variable before it: `5 m`."""
_COMMAND = re.compile(r"\\(?:[dt]?frac|pi|sqrt|times|cdot|approx)(?![A-Za-z])")
_LETTER = re.compile(r"[A-Za-z]")


def ends_in_a_letter(text: str) -> bool:
    """Whether a text may be a number with a unit of one letter, or that many times a variable: `5 m`."""
    lone = _ONE_UNIT.search(text)
    return lone is not None and not _LETTER.search(_COMMAND.sub("", text[: lone.start()]))


def tokens(text: str, *, separate: bool = False, units: bool = True, measured: bool = False) -> list[Token]:
    """The tokens of a tidied text. With `separate` a comma before three digits separates too: `100,200` is two numbers.
    Without `units` the letter of `5 m` is a variable; in a `measured` text all letters are units and words but for
    functions and constants. Raises Unreadable."""
    if len(text) > LONGEST:
        raise Unreadable("too long")
    if units and not measured and ends_in_a_letter(text):
        text = _ONE_UNIT.sub(r" \\text{\1}", text)
    if separate:
        text = _SEPARATE.sub(", ", text)
    found: list[Token] = []
    _scan(text, 0, found, in_text=False, depth=0, measured=measured)
    return found


def _scan(text: str, start: int, found: list[Token], *, in_text: bool, depth: int, measured: bool = False) -> int:
    """Appends the tokens from `start`; in text mode up to the brace that closes it, whose end is returned."""
    if depth > DEEPEST:
        raise Unreadable("too deep")
    position, spaced, level = start, False, 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        assert piece is not None  # the last alternative matches any character
        position, kind = piece.end(), piece.lastgroup
        if kind == "space":
            spaced = True
            continue
        if kind in ("num", "power"):
            found.append(_number(piece, spaced))
        elif kind in ("based", "base1", "base2", "base3"):
            position = _based(piece, spaced, found)
        elif kind == "letters":
            _letters(piece["letters"], spaced, found, in_text=in_text or measured, measured=measured)
        elif kind == "cmd":
            position = _command(text, position, piece["cmd"], spaced, found, in_text=in_text, depth=depth)
        else:
            sign = piece["op"]
            if in_text and sign in "{}":
                level += 1 if sign == "{" else -1
                if level < 0:
                    return position
            elif sign not in '$"' and not (in_text and sign in "'\"`"):
                found.append(_sign(sign, spaced))
        spaced = False
    if in_text:
        raise Unreadable("a text that does not end")
    return position


def _number(piece: re.Match[str], spaced: bool) -> Token:
    digits = piece["num"].replace(",", "").replace(" ", "")
    if len(digits) > LONGEST_NUMBER:
        raise Unreadable("a number of too many digits")
    return Token("num", digits + (piece["power"] or ""), spaced)


def _based(piece: re.Match[str], spaced: bool, found: list[Token]) -> int:
    """A numeral with its base, such as `1010_2`, where the digits exist in that base; else the digits alone."""
    named = piece["base1"] or piece["base2"] or piece["base3"]
    base = int(named) if named.isdigit() else int(NUMBER_WORDS.get(named, 0))
    digits = piece["based"]
    if 2 <= base <= 16 and all(int(digit, 16) < base for digit in digits if digit != ".") and "." not in digits:
        found.append(Token("based", f"{digits}_{base}", spaced))
        return piece.end()
    plain = re.match(r"\d+(?:\.\d+)?|[A-F]", digits)
    assert plain is not None
    found.append(Token("num" if plain[0][0].isdigit() else "name", plain[0], spaced))
    return piece.start() + plain.end()


def _letters(run: str, spaced: bool, found: list[Token], *, in_text: bool, measured: bool) -> None:
    if not run.isascii():
        found.append(Token("word" if measured else "op", run, spaced))
    elif run == "sec" and in_text and found and _ends_a_number(found[-1]):
        found.append(Token("word", run, spaced))
    elif run in FUNCTIONS or (lower := run.lower()) in FUNCTIONS:
        found.append(Token("fn", run.lower(), spaced))
    elif lower in ("pi", "infinity", "infty", "inf", "oo") and len(run) > 1:
        found.append(Token("cmd", "pi" if lower == "pi" else "infty", spaced))
    elif len(run) == 1:
        if run == "a" and spaced and found and found[-1].kind == "word":
            found.append(Token("word", run, spaced))
            return
        units = SYMBOLS if measured else SHORT_UNITS
        known_unit = in_text and run in units and bool(found) and (_ends_a_number(found[-1]) or _opens_a_unit(found))
        found.append(Token("word" if known_unit else "name", run, spaced))
    elif (
        in_text
        or (spaced and bool(found) and found[-1].kind == "word")
        or lower in SHORT_WORDS
        or _is_word(run, found, spaced)
    ):
        found.append(Token("word", run, spaced))
    elif run in _GREEK or run.isupper():
        found.append(Token("name", run, spaced))
    elif run[:-1] in FUNCTIONS:
        found += [Token("fn", run[:-1], spaced), Token("name", run[-1])]
    else:
        found += [Token("name", letter, spaced and not at) for at, letter in enumerate(run)]


def _is_word(run: str, found: list[Token], spaced: bool) -> bool:
    if run in _GREEK:
        return False
    known = run in UNITS or run.lower() in UNITS or run.lower() in COMPOUND
    if (
        known
        and (len(run) > 2 or spaced or run in GLUED)
        and len(run) > 1
        and bool(found)
        and _ends_a_number(found[-1])
    ):
        return True
    return run.lower() in NUMBER_WORDS or (
        (len(run) >= 4 or run[0].isupper()) and _WORD.fullmatch(run) is not None and run[:-1] not in FUNCTIONS
    )


def _opens_a_unit(found: list[Token]) -> bool:
    """Whether a bracket was opened behind a unit's slash: `W/(m K)`."""
    return len(found) > 1 and found[-1].text == "(" and found[-2].text == "/"


def _ends_a_number(token: Token) -> bool:
    return token.kind in ("num", "word") or token.text in ("}", ")", "/", "*", "!", "%", "pi")


def _command(
    text: str, position: int, command: str, spaced: bool, found: list[Token], *, in_text: bool, depth: int
) -> int:
    name = command[1:].rstrip("*")
    if name in _TEXT:
        opening = re.compile(r"\s*\{").match(text, position)
        return _scan(text, opening.end(), found, in_text=True, depth=depth + 1) if opening else position
    if name in ("mathbb", "Bbb"):
        letter = re.compile(r"\s*(?:\{\s*([A-Z])\s*\}|([A-Z]))").match(text, position)
        if letter is None:
            raise Unreadable(command)
        found.append(Token("set", letter[1] or letter[2], spaced))
        return letter.end()
    if name.startswith("pos") and name[3:] in ("R", "Z", "Q"):
        found.append(Token("set", name[3:] + "+", spaced))
    elif name in ("begin", "end"):
        kind = re.compile(r"\s*\{\s*([a-z]+)\*?\s*\}(?:\s*\{[lcr|\s]*\})?").match(text, position)
        if kind is None:
            raise Unreadable(command)
        found.append(Token("cmd", f"{name} {kind[1]}", spaced))
        return kind.end()
    elif name in _DECORATED and (
        inner := re.compile(r"\s*\{\s*([A-Za-z]{1,4})\s*\}|\s*([A-Za-z])").match(text, position)
    ):
        found.append(Token("name", f"{name}:{inner[1] or inner[2]}", spaced))
        return inner.end()
    elif name in ("boxed", "fbox", "framebox"):
        pass
    elif name in _GREEK:
        found.append(Token("name", name, spaced))
    else:
        name = _SAME.get(name, name if name not in ("{", "}", "|") else f"\\{name}")
        if name in FUNCTIONS and name != "sqrt":
            found.append(Token("fn", name, spaced))
        elif name.startswith(";"):
            found.append(Token("word", name[1:], spaced))
        elif name in ("%", "$", "#"):
            found.append(Token("op", "dollar" if name == "$" else name, spaced))
        else:
            found.append(Token("op" if name in _OPERATORS else "cmd", name, spaced))
    return position


def _sign(sign: str, spaced: bool) -> Token:
    if sign == "**":
        return Token("op", "^", spaced)
    if sign in ("<=", ">=", "!="):
        return Token("cmd", {"<=": "leq", ">=": "geq", "!=": "neq"}[sign], spaced)
    if sign == NEW_ROW:
        return Token("cmd", "\\", spaced)
    if sign == "...":
        return Token("cmd", "ldots", spaced)
    return Token("op", sign, spaced)
