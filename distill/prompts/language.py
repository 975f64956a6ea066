"""The language of a question, judged by its prose: formulas, code, addresses and numbers are left out.

A script that one language writes decides alone. For Latin, Cyrillic, Arabic and Devanagari letters py3langid (BSD;
Lui & Baldwin 2012) decides among the languages that questions come in: with all of its 130, "Find x." is Danish and
"Solve for" Norwegian. None where too little prose is left or the model is unsure, and no English word decides. A text
with many common words of English is not shown to the model, which takes 0.2 ms.
"""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from distill.prompts.function_words import FUNCTION_WORDS

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LEAST_LETTERS = 10
"""Letters of prose; an ideograph or a syllable counts as `WEIGHT` of them."""
LEAST_SURE = 0.55
"""py3langid's probability. Over the 1,000 GSM8K questions its least is 0.99, over short exercises such as "Factor
completely." 0.69; a list of names and units has less."""
LEAST_COMMON, COMMON_SHARE = 5, 0.15
"""Different common words of English, and the share of all of them among the words, that settle it: 833 of 1,000 GSM8K
questions have as many. Some are words of other languages too (`had` in Dutch, `are` in Romanian), but hardly five."""
MOST_LETTERS = 600
"""So much of the prose is judged: 40 words are enough, and the time is linear."""
WEIGHT = 5

LATIN = "en de fr es it pt nl sv da no fi is pl cs sk sl hr hu ro sq et lv lt tr az vi id ca eu gl sw tl"


_ENGLISH = "solve simplify evaluate compute calculate determine find the what which how many much"
ENGLISH = frozenset(_ENGLISH.split())
"""Words that tell a short exercise, such as "Simplify: 3(x+2)", from the model's guesses."""


class Script(NamedTuple):
    letters: re.Pattern[str]
    languages: tuple[str, ...]
    weight: int = 1


def _script(ranges: str, languages: str, weight: int = 1) -> Script:
    return Script(re.compile(f"[{ranges}]"), tuple(languages.split()), weight)


_KANA = re.compile("[\u3041-\u30ff\uff66-\uff9f]")
SCRIPTS = (
    _script("a-zA-Z\u00aa-\u02af\u1e00-\u1eff", LATIN),
    _script("\u0400-\u052f", "ru uk bg sr mk be kk"),
    _script("\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff", "ar fa ur"),
    _script("\u0900-\u097f", "hi mr ne"),
    _script("\u3400-\u9fff\uf900-\ufaff\u3041-\u30ff\uff66-\uff9f", "zh", WEIGHT),
    _script("\uac00-\ud7af\u1100-\u11ff", "ko", WEIGHT),
    _script("\u0370-\u03ff\u1f00-\u1fff", "el"),
    _script("\u0530-\u058f", "hy"),
    _script("\u0590-\u05ff", "he"),
    _script("\u0980-\u09ff", "bn"),
    _script("\u0a00-\u0a7f", "pa"),
    _script("\u0a80-\u0aff", "gu"),
    _script("\u0b80-\u0bff", "ta"),
    _script("\u0c00-\u0c7f", "te"),
    _script("\u0c80-\u0cff", "kn"),
    _script("\u0d00-\u0d7f", "ml"),
    _script("\u0d80-\u0dff", "si"),
    _script("\u0e00-\u0e7f", "th"),
    _script("\u0e80-\u0eff", "lo"),
    _script("\u1000-\u109f", "my"),
    _script("\u10a0-\u10ff", "ka"),
    _script("\u1200-\u137f", "am"),
    _script("\u1780-\u17ff", "km"),
)

_MATH = re.compile(
    r"\$\$[^$]{1,2000}+\$\$"
    r"|\\\[[^\\]*+(?:\\(?![\[\]])[^\\]*+)*+\\\]"
    r"|\\\([^\\]*+(?:\\(?![()])[^\\]*+)*+\\\)"
    r"|\$([^$\n]{1,200}+)\$"
)
_OTHER = re.compile(
    r"```[^`]*+(?:`(?!``)[^`]*+)*+(?:```|\Z)"
    r"|`[^`\n]{1,200}+`"
    r"|https?://\S++|www\.\S++"
    r"|\\begin\{\w{1,20}+\*?\}[^\\]*+(?:\\(?!begin\b|end\b)[^\\]*+)*+\\end\{\w{1,20}+\*?\}"
    r"|\\[a-zA-Z]++"
    r"|</?[a-zA-Z][^<>\n]{0,200}+>"
)
_SIGNS_OF_OTHER = ("\\", "`", "<", "://", "www.")
_ADDRESS = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}+@\S++")
_PROSE = re.compile(r"[^\W\d_]{3,} [^\W\d_]{3,}")
_NO_LETTER = re.compile(r"[\W\d_]+")
_SINGLE = re.compile(r"(?<![^ ])[a-zA-Zα-ωΑ-Ω](?![^ ])")


def language(text: str) -> str | None:
    """ISO 639-1 code, or None."""
    prose = _prose(text)
    if prose.isascii():
        script, letters = SCRIPTS[0], len(prose) - prose.count(" ")
    else:
        found = [len(script.letters.findall(prose)) * script.weight for script in SCRIPTS]
        letters = max(found)
        script = SCRIPTS[found.index(letters)]
    words = prose.lower().split() if script is SCRIPTS[0] else []
    english = "en" if not ENGLISH.isdisjoint(words) else None
    if letters < LEAST_LETTERS:
        return english
    if len(FUNCTION_WORDS["en"].intersection(words)) >= LEAST_COMMON:
        share = sum(map(FUNCTION_WORDS["en"].__contains__, words)) / len(words)
        if share >= COMMON_SHARE:
            return "en"
    if len(script.languages) > 1:
        name, sure = identifier(script.languages).classify(prose)
        return str(name) if sure >= LEAST_SURE else english
    if script.languages == ("zh",) and 10 * len(_KANA.findall(prose)) * WEIGHT >= letters:
        return "ja"
    return script.languages[0]


def _prose(text: str) -> str:
    """Words of more than a letter, with single spaces between them."""
    text = _NO_LETTER.sub(" ", without_formulas(text[: 20 * MOST_LETTERS]))
    return _SINGLE.sub("", text)[:MOST_LETTERS]


def without_formulas(text: str) -> str:
    """`text` with a space in place of each formula, LaTeX command, code block, address and tag; in linear time."""
    if "$" in text or "\\" in text:
        text = _MATH.sub(_no_formula, text)
    if "@" in text:
        text = _ADDRESS.sub(" ", text)
    return _OTHER.sub(" ", text) if any(sign in text for sign in _SIGNS_OF_OTHER) else text


def _no_formula(match: re.Match[str]) -> str:
    """Nothing, unless it is prose between two prices."""
    return match[0] if match[1] and _PROSE.search(match[1]) else " "


@cache
def identifier(languages: tuple[str, ...]) -> LanguageIdentifier:
    """The model, loaded once (0.7 s, 100 MB), for some of its languages only."""
    if not languages:
        from py3langid.langid import LanguageIdentifier

        return LanguageIdentifier.from_model_file("data/model.npz.xz", norm_probs=True)
    limited = copy.copy(identifier(()))
    limited.set_languages(languages)
    return limited
