"""Is the right one of several choices chosen? By its letter, by its text, or by both, however they are written.

Where a prompt has its choices inside the question's text, they are taken from there if they can be told apart; else a
letter is compared with a letter and a text with a text. Knows nothing about how prompts are made.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from distill.records import Prompt
from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.exact import folded
from distill.verify.options import form, inside
from distill.verify.plain import unquoted, without_latex, without_markdown
from distill.verify.quantity import Quantity, read
from distill.verify.stated import last_line, last_sentence, short_box, told

MOST = 10
"""Letters that are known where the number of choices is not: A to J, as NeMo-Skills reads them (MMLU-Pro has ten)."""

_ONE = r"[(\[{（【]?\s*([A-Za-z])\s*[)\]}）】]?"
_WITH_TEXT = re.compile(
    rf"(?:(?:option|choice|answer|选项?)\s*)?{_ONE}(?:\s*[.):：、,，;。-]+\s*|\s+|$)(.*)", re.IGNORECASE | re.DOTALL
)
_LETTER_ALONE = re.compile(
    rf"(?:(?:the\s+)?(?:option|choice|answer|letter|选项?)\s*:?\s*)?{_ONE}\s*[.:。,]?", re.IGNORECASE
)
_SEVERAL = re.compile(r"\s*(?:[,;、/&和与]|\b(?:and|or)\b)\s*|\s+")
_LEADING = re.compile(r"(?:both\s+)?(?:options?|choices?|answers?)?\s*", re.IGNORECASE)
_LETTER_RUN = re.compile(r"[A-J]{2,10}")
_SENTENCE = re.compile(
    r"\b(?:option|choice|answer|select|choose|pick)(?:\s+(?:is|would be|must be|should be))?\s*:?\s*"
    r"[(\[]?([A-Z])\b[)\]]?|[(（\[]([A-Z])[)）\]]|\bis\s+([A-Z])\s*[.!]?$"
    r"|\b([A-Z])[).]?\s+(?:is|are|would be|must be|seems)\s+(?:the\s+|therefore\s+)?"
    r"(?:correct|right|true|best|answer|most)|(?:故?选(?:择)?|选项)\s*[:：]?\s*[(（]?([A-Z])"
)
_NEGATED = re.compile(
    r"(?i)\b(?:not|isn't|wrong|incorrect|neither|eliminate|except|rather than|instead)\b|n't\b|[不非错误]"
)
_MENTIONED = re.compile(
    r"(?<![\w\\^_{'’-])(?:[(（\[]([A-J])[)）\]]|([B-HJ])|([AI])(?=\s*[.,;:!?)]|\s(?:and|or|nor|is|are|was|but|seems|as)\b|\s*$))"
    r"(?![\w'’-]|\s*[=+*/^_<>≤≥≈\\])"
)
"""Letters of choices in running text: A and I are words as well."""
_CONCLUDED = re.compile(
    r"(?i:\b(?:so|hence|thus|therefore|leav(?:es|ing)(?: only)?|(?:must|has to|can only|should) be|go(?:ing)? with|"
    r"it'?s|is|answer|choose|pick|select),?|:)\s+(?i:option |choice |only )?[(\[]?([A-J])[)\]]?\s*[.!]?$"
)
"""The letter that a sentence ends with, behind a word or sign that concludes: `A is wrong, so B`."""
_REJECTED = re.compile(
    r"[,;(]?\s{0,3}(?:and |but )?(?:not|rather than|instead of|over)\s(?:option |choice )?[(\[]?[A-J][)\]]?\s*[.)!]*$"
)
_GROUNDS = re.compile(r"\b(?:because|since|as|whereas|while)\b|[;(]")
_CLAUSE = re.compile(r"[,;:]\s|\b(?:so|hence|thus|therefore|but|which)\b", re.IGNORECASE)
_OPERATOR = re.compile(r"[=+*/^_<>≤≥≈|-]|\\(?:[lg]e|[lg]eq|ll|gg|times|cdot|approx|in|to)(?![A-Za-z])")
_NUMBERS = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a statement chooses: `places` counts from 0. `doubt` says that it cannot be told, as where letter and text
    contradict each other; `text` is what it says where that is no choice."""

    places: frozenset[int] = frozenset()
    doubt: bool = False
    text: str = ""


def verify(prompt: Prompt, answer: str) -> Outcome:
    """Pass, `wrong_answer`, `no_answer` (no letter, or none of the choices), or abstain with `no_gold`,
    `unparseable_gold` (none of the choices, or two) or `ambiguous_answer`.

    An answer that chooses two where one is right is wrong: a hedge that passed or was overlooked would teach hedging.
    """
    gold = (prompt.answer or "").strip()
    if not gold:
        return abstaining("no_gold")
    if not answer.strip():
        return failing("no_answer")
    choices = options(prompt)
    wanted = _gold(gold, choices)
    if wanted is None:
        return abstaining("unparseable_gold")
    return _judged(chosen(answer, choices), wanted, folded(gold), choices)


def read_gold(prompt: Prompt) -> Outcome:
    """Whether `verify` can judge by the prompt's gold: pass, or abstain with `no_gold` or `unparseable_gold`."""
    gold = (prompt.answer or "").strip()
    if not gold:
        return abstaining("no_gold")
    return PASS if _gold(gold, options(prompt)) is not None else abstaining("unparseable_gold")


def options(prompt: Prompt) -> tuple[str, ...]:
    """The choices in the order of their letters: the prompt's own, else those that its question ends with."""
    return prompt.choices or inside(prompt.question)


def chosen(answer: str, choices: Sequence[str]) -> Chosen:
    """What the answer chooses: the last box, else what stands behind "the answer is", else its last sentence. A box
    that holds no choice, such as a formula on the way, gives way to a statement behind it."""
    behind = None
    box = short_box(answer)
    if box is not None:
        found = _running(box.content, choices)
        marked = told(box.rest)
        behind = None if marked is None else _running(marked.line, choices)
        if behind is None or not behind.places:
            return found
        return behind if not found.places or found.places == behind.places else Chosen(doubt=True)
    marked = told(answer)
    if marked is not None:
        behind = _running(marked.line, choices)
        if behind.places or behind.doubt:
            return behind
    line = last_line(answer)
    found = _statement(line, choices)
    if not (found.places or found.doubt) or len(_mentioned(line, choices)) > 1:
        found = _sentence(last_sentence(answer), choices)
    return found if found.places or found.doubt or behind is None else behind


def _judged(found: Chosen, wanted: frozenset[int], gold: str, choices: Sequence[str]) -> Outcome:
    if found.doubt:
        return abstaining("ambiguous_answer")
    if found.places:
        known = len(choices) or MOST
        if any(place >= known for place in found.places):
            return failing("no_answer")
        if not wanted:
            return abstaining("ambiguous_answer")  # a letter, where the gold is a text and the choices are unknown
        return PASS if found.places == wanted else failing("wrong_answer")
    if not found.text:
        return failing("no_answer")
    if not choices:
        if folded(found.text) == gold:
            return PASS
        return abstaining("ambiguous_answer") if wanted else failing("wrong_answer")
    return failing("no_answer")


def _gold(gold: str, choices: Sequence[str]) -> frozenset[int] | None:
    """The right places: empty for a text whose letter is not known, None where the gold is none of the choices."""
    found = _statement(gold, choices)
    if choices:
        fits = not found.doubt and all(place < len(choices) for place in found.places)
        return found.places if fits and found.places else None
    if found.doubt or any(place >= MOST for place in found.places):
        return None
    return found.places


def _statement(text: str, choices: Sequence[str]) -> Chosen:
    """What a box, a gold or the words behind a marker choose."""
    text = without_latex(without_markdown(text)).strip()
    text = unquoted(text) or text
    by_text = _places_of(text, choices)
    letter = _LETTER_ALONE.fullmatch(text)
    if letter is not None and (letter[1].isupper() or not by_text):
        place = _place(letter[1])
        if place < len(choices) or not by_text:  # beyond the choices it can only be a text
            return Chosen(doubt=True) if by_text - {place} else Chosen(frozenset({place}))
    if by_text:
        return Chosen(by_text) if len(by_text) == 1 else Chosen(doubt=True)
    several = _several(text)
    if several:
        return Chosen(several)
    return _letter_with_text(text, choices)


def _running(text: str, choices: Sequence[str]) -> Chosen:
    """The same for a statement that may be part of a sentence: a letter that it only mentions leaves it open."""
    kept = _REJECTED.sub("", text)
    found = _concluded(kept, choices) or _statement(kept, choices)
    if found.places or found.doubt or not _mentioned(text, choices):
        return found
    return Chosen(doubt=True)


def _concluded(text: str, choices: Sequence[str]) -> Chosen | None:
    """What a sentence ends with behind a word that concludes, None where it does not."""
    plain = without_latex(without_markdown(text))
    letter = _CONCLUDED.search(plain)
    if letter is None or _place(letter[1]) >= (len(choices) or MOST):
        return None
    negated = _NEGATED.search(_CLAUSE.split(plain)[-1]) is not None
    return Chosen(doubt=True) if negated else Chosen(frozenset({_place(letter[1])}))


def _mentioned(text: str, choices: Sequence[str]) -> frozenset[int]:
    """The places of the letters that stand in a text as words of their own."""
    plain = without_latex(without_markdown(text))
    letters = {_place(next(filter(None, match.groups()))) for match in _MENTIONED.finditer(plain)}
    return frozenset(place for place in letters if place < (len(choices) or MOST))


def _letter_with_text(text: str, choices: Sequence[str]) -> Chosen:
    match = _WITH_TEXT.match(text)
    if match is None or not match[2]:
        return Chosen(text=text)
    letter, rest = match[1], unquoted(match[2])
    place, named = _place(letter), _places_of(rest, choices)
    bare = match.start(1) == 0 and not text[match.end(1) : match.start(2)].strip()
    if bare and not named and (letter in "AI" or place >= (len(choices) or MOST)):
        return Chosen(text=text)  # `A body at rest`, `I think`: a word, no letter
    if _OPERATOR.match(rest) or (letter.islower() and not text.startswith(("(", "["))):
        return Chosen(text=text)  # `E = mc^2`, `a body at rest`
    if place in named:
        return Chosen(frozenset({place}))
    contradicted = bool(named) or (place < len(choices) and _other_numbers(rest, choices[place]))
    others = {_place(found) for found in re.findall(r"\(([A-Z])\)", rest)} - {place}
    if not text[match.end(1) : match.start(2)].strip(", "):  # `A, C and D are wrong`, where `A. Vitamin C` is a text
        others |= _mentioned(_GROUNDS.split(rest)[0], choices) - {place}
    doubt = contradicted or bool(others) or _NEGATED.match(rest.removeprefix("is").strip()) is not None
    return Chosen(doubt=True) if doubt else Chosen(frozenset({place}))


def _sentence(text: str, choices: Sequence[str]) -> Chosen:
    """What running text chooses: the one letter or the one choice that it names; two of them, or a negation, leave it
    open, for the reading may be at fault."""
    found = _running(text, choices)
    if found.places:
        return found
    plain = without_latex(text)
    letters = {_place(next(filter(None, match.groups()))) for match in _SENTENCE.finditer(plain)}
    if letters:
        doubt = len(letters) > 1 or _NEGATED.search(plain) is not None
        return Chosen(doubt=True) if doubt else Chosen(frozenset(letters))
    words = f" {form(plain)} "
    named = [place for place, choice in enumerate(choices) if form(choice) and form(choice) in words]
    return Chosen(doubt=True) if named or found.doubt else Chosen()


def _several(text: str) -> frozenset[int]:
    """Two letters or more, listed (`A, C`, `(A) and (C)`) or as a word in their order (`AC`)."""
    if len(text) > MOST * 10:
        return frozenset()
    parts = [part.strip("()[].。") for part in _SEVERAL.split(text[_LEADING.match(text).end() :]) if part]  # type: ignore[union-attr]  # it matches the empty text
    if len(parts) > 1 and all(len(part) == 1 and "A" <= part <= "Z" for part in parts):
        return frozenset(map(_place, parts))
    run = text.strip("()[]. ")
    if _LETTER_RUN.fullmatch(run) is not None and list(run) == sorted(set(run)):
        return frozenset(map(_place, run))
    return frozenset()


def _place(letter: str) -> int:
    return ascii_uppercase.index(letter.upper())


def _other_numbers(text: str, choice: str) -> bool:
    """Whether both hold numbers and share none: `(B) 43` where B is 42."""
    one, other = set(_NUMBERS.findall(text)), set(_NUMBERS.findall(choice))
    return bool(one) and bool(other) and not one & other


def _places_of(text: str, choices: Sequence[str]) -> frozenset[int]:
    """The choices that `text` is, by their text or as the same number in another form."""
    wanted = form(text)
    if not wanted or not choices:
        return frozenset()
    forms = _forms(tuple(choices))
    same = frozenset(place for place, form in enumerate(forms) if form == wanted)
    if same:
        return same
    number = _quantity(text)
    if number is None:
        return frozenset()
    values = [_quantity(choice) for choice in choices]
    return frozenset(place for place, value in enumerate(values) if value is not None and _equal(number, value))


def _equal(one: Quantity, other: Quantity) -> bool:
    if one.unit and other.unit and one.unit != other.unit:
        return False
    return one.value == other.value and one.percent == other.percent


@functools.lru_cache(maxsize=4_096)
def _quantity(text: str) -> Quantity | None:
    return read(text) if len(text) <= 100 and any(map(str.isdigit, text)) else None


@functools.lru_cache(maxsize=1_024)
def _forms(choices: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(form, choices))
