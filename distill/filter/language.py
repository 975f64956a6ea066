"""Is a trace written in the language of its question? By scripts first, then by a detector, formulas and code aside.

Where one alphabet serves many languages, a sentence is suspected when no common word of the expected ones is in it, and
only suspects are shown to the detector of prompts/language.py. Cyrillic, Arabic and Devanagari languages are not told
from each other. Takes linear time; knows nothing about files or what a verdict is used for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from typing import NamedTuple

from distill.filter_specs import LanguageSettings
from distill.prompts.function_words import FUNCTION_WORDS, NAMED
from distill.prompts.language import LATIN, MOST_LETTERS, SCRIPTS, identifier, without_formulas
from distill.prompts.language import language as language_of
from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome, abstaining

LATIN_LANGUAGES = frozenset(LATIN.split())
SENTENCE_WORDS = 6
"""Words of more than a letter from which the language of a sentence can be told; shorter ones are left alone."""
SURE, SUPPORTED = 0.95, 0.8
"""py3langid's probability from which a suspected sentence counts as foreign, and from which it does with a common word
of that language in it. Of 389 suspects in English traces (docs/checks.md) the highest for another language was 0.53."""
TRUSTED = 80
"""Characters of a question from which its language is believed without a common word."""
FEW_COMMON = 0.05
"""Share of common words under which the detector is asked about a part as a whole. In the 128 replies of a 0.5B model,
full of formulas as they are, the least is 0.13; in a line or two of arithmetic it may be 0."""
MOST_ASKED = 12
"""Suspects shown to the detector (0.1 ms each); of more, so many spread over the part."""
MOSTLY = 0.8
"""Share of foreign words from which a part is written in the other language, not just mixed with it."""
HAN_PER_WORD = 2
"""Ideographs that count as a word: the mean length of a Chinese word in running text lies between 1.5 and 2."""

LONG_WORD = 8
"""Letters from which a word counts as more than one: Thai, Lao and Khmer put no spaces between theirs."""

_ZH, _JA, _KO = "\u3400-\u9fff\uf900-\ufaff", "\u3041-\u30ff\uff66-\uff9f", "\uac00-\ud7af\u1100-\u11ff"
_RANGES = {"zh": _ZH, "ja": _JA, "ko": _KO}
"""Ranges of letters by the name of a script: that of the first language that is written in it."""
for _script in SCRIPTS[1:]:
    if _script.languages[0] not in _RANGES:
        _RANGES[_script.languages[0]] = _script.letters.pattern[1:-1]
_SCRIPTS_OF: dict[str, tuple[str, ...]] = {
    code: (script.languages[0],) for script in SCRIPTS for code in script.languages
}
_SCRIPTS_OF |= {"ja": ("zh", "ja"), "ko": ("ko", "zh"), **dict.fromkeys(LATIN_LANGUAGES, ("latin",))}
_HAN = re.compile(f"[{_ZH}{_JA}]")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_LATIN_LETTER = "a-zA-Z\u00c0-\u02af\u1e00-\u1eff"
_LATIN_WORD = re.compile(f"[{_LATIN_LETTER}]{{2,}}")
_PHRASE = re.compile(rf"(?<![{_LATIN_LETTER}])[{_LATIN_LETTER}]{{2,}}+(?:[ ,]{{1,2}}+[{_LATIN_LETTER}'’-]++){{2,}}+")
"""Three Latin words in a row: less are names and terms in any language."""
_QUOTED = re.compile(r"[“\"「『《〈‘][^“”\"「」『』《》〈〉‘’\n]{1,80}+[”\"」』》〉’]")
_ENDS = (". ", "! ", "? ", ": ", "; ", "。", "！", "？", "；", " = ", " | ")


def prepare() -> None:
    """Loads the detector (0.7 s, 100 MB): once for each worker, before it forks others where it can."""
    identifier(SCRIPTS[0].languages)


@dataclass(frozen=True, slots=True)
class Expected:
    """Languages that a trace may be written in (ISO 639-1), and the scripts that may occur in it."""

    languages: frozenset[str]
    scripts: frozenset[str]


@dataclass(frozen=True, slots=True)
class Foreign:
    """What is foreign in a text: words of how many in all, the longest stretch of such words, and that stretch."""

    words: float = 0.0
    of: float = 0.0
    longest: float = 0.0
    excerpt: str = ""
    mostly: bool = False
    """Whether the text is written in the other language, not just mixed with it."""

    @property
    def share(self) -> float:
        return min(1.0, self.words / self.of) if self.of else 0.0


def language(prompt: Prompt, trace: Trace, settings: LanguageSettings) -> Outcome:
    """`wrong_language`: all that can be told is in another language than the question. `mixed_language`: a stretch or
    a share of it is. The score is the share of words in an expected language, the lowest of reasoning and answer."""
    parts = [without_formulas(part) for part in (trace.reasoning, trace.answer) if part]
    expected = expected_of(prompt.question, prompt.language)
    if not expected.languages and parts:
        code = language_of(max(parts, key=len))
        expected = Expected(frozenset({code} if code else ()), frozenset(_SCRIPTS_OF.get(code or "", ())))
    found = [foreign(part, expected) for part in parts] if expected.languages else []
    told = [item for item in found if item.of >= settings.least_words or item.longest >= settings.stretch]
    if not told:
        return abstaining("too_little_prose")
    score = 1 - max(item.share for item in told)
    if all(item.mostly for item in told):
        return Outcome("fail", "wrong_language", score)
    mixed = any(_is_mixed(item, settings) for item in told)
    return Outcome("fail", "mixed_language", score) if mixed else Outcome(PASS.outcome, PASS.reason, score)


def _is_mixed(item: Foreign, settings: LanguageSettings) -> bool:
    if item.longest >= settings.stretch:
        return True
    return item.of >= settings.least_words and item.words >= 2 and item.share > settings.most_foreign


@lru_cache(maxsize=64)
def expected_of(question: str, given: str | None) -> Expected:
    """`given` or the question's own language, and every other one that the question names or holds itself."""
    plain = without_formulas(question)
    code = re.split("[-_]", given)[0].lower() if given else ""
    found = code if code in _SCRIPTS_OF else language_of(question)
    codes = {found} if found and _trusted(found, plain) else set()
    lower = question.lower()
    codes |= {named for name, named in NAMED.items() if name in lower}
    scripts = {script for known in codes for script in _SCRIPTS_OF.get(known, ())}
    scripts |= {
        name for name, ranges in _RANGES.items() if not plain.isascii() and re.search(f"[{ranges}]{{2}}", plain)
    }
    if codes and "latin" not in scripts and _PHRASE.search(plain):
        scripts.add("latin")
        codes.add("en")
    elif codes & LATIN_LANGUAGES:
        codes |= set(_latin_suspects(plain, frozenset(codes & LATIN_LANGUAGES)).languages)
    return Expected(frozenset(codes), frozenset(scripts))


def _trusted(code: str, question: str) -> bool:
    """Whether a question says so much that its language can be held against the trace: in the Latin alphabet, a common
    word of it, or `TRUSTED` characters. Short exercises are taken for other languages now and then."""
    if code not in LATIN_LANGUAGES or code == "en" or len(question) >= TRUSTED:
        return True
    return not FUNCTION_WORDS.get(code, frozenset()).isdisjoint(_LETTERS.findall(question.lower()))


def foreign(text: str, expected: Expected) -> Foreign:
    """What of `text`, whose formulas are gone, is in none of the expected languages. Quoted terms are left alone."""
    latin_expected = "latin" in expected.scripts
    plain = text.isascii() and latin_expected
    found = Foreign(of=_ascii_words(text)) if plain else _other_scripts(_QUOTED.sub(" ", text), expected)
    if not latin_expected:
        return found
    latin = _latin_suspects(text, expected.languages & LATIN_LANGUAGES).found
    worst = max(found, latin, key=lambda item: item.longest)
    mostly = found.mostly or latin.mostly
    return Foreign(found.words + latin.words, found.of, worst.longest, worst.excerpt, mostly)


def _ascii_words(text: str) -> int:
    """How many words of more than a letter; in a tenth of the time of a regular expression."""
    return (b" " + text.encode().translate(_TO_LETTERS)).count(b" aa")


_TO_LETTERS = bytes(ord("a") if chr(code).isalpha() and code < 128 else ord(" ") for code in range(256))


def _other_scripts(text: str, expected: Expected) -> Foreign:
    """Foreign stretches by their letters alone; capitals of Latin ones aside, so that names and titles do not count."""
    stretches = [(_words(match[0]), match[0]) for match in _stretches(expected.scripts).finditer(text)]
    total = _words(text)
    own = total - sum(count for count, _ in stretches)
    if "latin" not in expected.scripts:
        own -= len(_LATIN_WORD.findall(text))
        phrases = [match[0] for match in _PHRASE.finditer(text)]
        stretches += [(sum(word[0].islower() for word in phrase.split()), phrase) for phrase in phrases]
    words = sum(count for count, _ in stretches)
    longest, excerpt = max(stretches, default=(0.0, ""))
    return Foreign(words, total, longest, excerpt[:80], own <= (1 - MOSTLY) * total and words > 0)


def _words(text: str) -> float:
    """Words of more than a letter; of what is written without spaces, so many letters each."""
    han = len(_HAN.findall(text))
    rest = _HAN.sub(" ", text).split() if han else text.split()
    return han / HAN_PER_WORD + sum(max(1, len(word) / LONG_WORD) for word in rest if len(word) > 1)


@cache
def _stretches(scripts: frozenset[str]) -> re.Pattern[str]:
    """Runs of letters of any script but Latin and these, with spaces, digits and punctuation between them."""
    letters = "".join(ranges for name, ranges in _RANGES.items() if name not in scripts)
    return re.compile(
        f"[{letters}]++(?:[\\s\\d,.;:、，。；：！？（）()%+=-]{{0,3}}+[{letters}]++)*+" if letters else r"(?!)"
    )


class _Latin(NamedTuple):
    """What is foreign among the sentences in Latin letters, and the languages of it."""

    found: Foreign
    languages: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def _common(languages: frozenset[str]) -> frozenset[str]:
    """Common words of all these languages; none where one of them has no list: then every sentence is suspected."""
    lists = [FUNCTION_WORDS.get(code) for code in languages]
    return frozenset().union(*(words for words in lists if words)) if all(lists) else frozenset()


def _latin_suspects(text: str, languages: frozenset[str]) -> _Latin:
    """Foreign sentences among those in Latin letters; the whole text where hardly a common word is in it."""
    common = _common(languages)
    for end in _ENDS:
        text = text.replace(end, "\n")
    text = text.lower()
    sentences = [line.split() for line in text.split("\n")]
    words = sum(map(len, sentences))
    if sum(map(common.__contains__, chain.from_iterable(sentences))) < FEW_COMMON * words:
        prose = _LETTERS.findall(text[: MOST_LETTERS * 4])
        code = _foreign_language(" ".join(prose)[:MOST_LETTERS], languages) if len(prose) >= SENTENCE_WORDS else None
        if code:
            every = len(_LETTERS.findall(text))
            return _Latin(Foreign(every, every, every, " ".join(prose)[:80], mostly=True), (code,))
    suspects, told = [], 0
    for sentence in sentences:
        if len(sentence) >= SENTENCE_WORDS:
            if not common.isdisjoint(sentence):
                told += len(sentence)
            elif len(letters := _LETTERS.findall(" ".join(sentence))) >= SENTENCE_WORDS:
                told += len(letters)
                suspects.append(letters)
    asked = suspects[:: max(1, -(-len(suspects) // MOST_ASKED))]
    found = [(letters, code) for letters in asked if (code := _foreign_language(" ".join(letters), languages))]
    if not found:
        return _Latin(Foreign())
    longest = max((letters for letters, _ in found), key=len)
    count = sum(len(letters) for letters, _ in found) * len(suspects) / len(asked)
    mostly = count >= MOSTLY * told
    return _Latin(Foreign(count, told, len(longest), " ".join(longest)[:80], mostly), tuple(code for _, code in found))


def _foreign_language(sentence: str, expected: frozenset[str]) -> str | None:
    """The language of a sentence where it surely is none of the expected ones."""
    code, sure = identifier(SCRIPTS[0].languages).classify(sentence)
    if code in expected or sure < SUPPORTED:
        return None
    if sure < SURE and FUNCTION_WORDS.get(str(code), frozenset()).isdisjoint(sentence.split()):
        return None
    return str(code)
