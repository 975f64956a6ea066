"""Is a mathematical answer equal to the gold one? The answer in the last box, else the one stated last.

The text given is what follows the reasoning, never the reasoning itself. First the texts; then our own exact reading of
both; then math-verify, where that reads neither or finds a difference in an expression with variables. Two readings
that disagree are no verdict. Knows nothing about processes or limits: `verify.pool` runs it in workers that can be
killed.
"""

from __future__ import annotations

import re
from itertools import product

from distill.records import Prompt
from distill.verify import PASS, Outcome, abstaining, failing, second_opinion, wording
from distill.verify.compare import same
from distill.verify.final import Final, final, says_a_number
from distill.verify.latex import LONGEST, tokens
from distill.verify.literal import literal, same_digits
from distill.verify.numbers import value_of
from distill.verify.quantities import Told
from distill.verify.readings import readings, undressed
from distill.verify.stated import last_boxed
from distill.verify.tidy import Unreadable, tidy
from distill.verify.units import NUMBER_WORDS, SCALES, UNITS
from distill.verify.values import Group, Listing, Matrix, Quantity, Relation, Value, Words, symbols

_STAND_INS = frozenset({"proof", "notfound", "not found", "n/a", "nan", "null"})
"""What sources write where they have no answer: the first two are NuminaMath's."""
_CHOICE = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf)\s?\{)?\s{0,9}\(?([A-J])\s?(?:[).:]|\}\s?\)?)")
_LETTER = re.compile(r"\(?([A-J])\)?")
_YES_NO = re.compile(r"(yes|no|true|false)\.?", re.IGNORECASE)
_YES_NO_FIRST = re.compile(r"(?:\\(?:text|textbf) ?\{)? ?(yes|no|true|false) ?\}?[,.;:]", re.IGNORECASE)
_SEVERAL = re.compile(r"\b(?:or|and|yes|no|not|true|false|[A-J])\b", re.IGNORECASE)
"""After a letter or a yes, what may make it another answer."""
_UNWRAPPED = re.compile(r"^\\(?:text|textbf|mathrm)\s?\{\s?([^{}]{1,20}?)\s?\}$")
_SMALL_WORDS = frozenset(["per", "of", "or", "and", "is", "the", "a", "an", "for", "to"])
MOST_WORDS = 3
"""Words of a gold answer that a right answer may be expected to repeat: `no solution`, hardly a sentence."""
WRONG = failing("wrong_answer")
AMBIGUOUS = abstaining("ambiguous_answer")

__all__ = [
    "LONGEST", "check_math", "last_boxed", "literal", "prepare", "read_gold", "same_text", "told_by_text", "verify",
]  # fmt: skip


def verify(prompt: Prompt, answer: str) -> Outcome:
    """`check_math` by the prompt's gold answer."""
    return check_math(answer, prompt.answer)


def same_text(answer: str, gold: str) -> bool:
    """The fast path: whether the last box is literally the gold answer, and nothing after it changes it."""
    found = final(answer)
    return found is not None and _is_same_text(found, gold)


def _is_same_text(found: Final, gold: str) -> bool:
    if not found.boxed or found.changed:
        return False
    if len(found.content) > LONGEST:
        return found.content.strip() == gold.strip()
    return literal(found.content) == literal(gold) != ""


def told_by_text(answer: str | None, gold: str | None) -> Outcome | None:
    """What `check_math` says without reading any mathematics, None where it has to."""
    if not (gold or "").strip():
        return abstaining("no_gold")
    if not (answer or "").strip():
        return failing("no_answer")
    return PASS if same_text(answer or "", gold or "") else None


def check_math(answer: str | None, gold: str | None, *, fast: bool = True) -> Outcome:
    """Pass; fail with `wrong_answer` or `no_answer`; or abstain with `no_gold`, `unparseable_gold`,
    `unparseable_answer` or `ambiguous_answer`. Without `fast` equal texts are read as well."""
    if gold is None or not gold.strip():
        return abstaining("no_gold")
    if answer is None or not answer.strip():
        return failing("no_answer")
    found = final(answer)
    if fast and found is not None and _is_same_text(found, gold):
        return PASS
    if found is not None:
        told = same_digits(gold, found.text)
        if told is not None:
            return _with_others(told, found, gold)
    golds = readings(gold)
    if found is None or not found.text.strip():
        return failing("no_answer") if golds or _is_read(gold) else abstaining("unparseable_gold")
    if len(found.text) > LONGEST:
        return abstaining("unparseable_answer")
    answers = readings(found.text)
    if not found.boxed and not _is_stated(answers, golds):
        return _unread(found, golds)
    return _judged(gold, golds, found, answers)


def _judged(gold: str, golds: tuple[Value, ...], found: Final, answers: tuple[Value, ...]) -> Outcome:
    if golds and answers:
        told = _any(golds, answers)
        if told is False and not found.boxed and _holds(answers, golds):
            return AMBIGUOUS
        if told is not True and (chosen := _chosen(gold, found.text)) is not None:
            told = chosen
        if told is False and not _is_firm(golds, answers):
            opinion = second_opinion.ask(gold, found.text)
            told = None if opinion is not None and opinion.equal else False
        return _with_others(told, found, gold)
    if literal(found.text) == literal(gold) or _chosen(gold, found.text) is True:
        return PASS
    if _chosen(gold, found.text) is False:
        return WRONG
    opinion = second_opinion.ask(gold, found.text)
    if opinion is not None and opinion.whole:
        return PASS if opinion.equal else WRONG
    if not golds and (opinion is None or not _is_read(gold)):
        return abstaining("unparseable_gold")
    if opinion is not None and opinion.equal:
        return AMBIGUOUS
    return abstaining("unparseable_answer") if not answers else abstaining("unparseable_gold")


def _any(golds: tuple[Value, ...], answers: tuple[Value, ...]) -> Told:
    """Over the ways to read both: the same in one of them, or in none for certain."""
    told: list[Told] = []
    alike = len(golds) == len(answers)  # both have the same doubt, and it is settled for both in the same way
    for gold, answer in zip(golds, answers, strict=True) if alike else product(golds, answers):
        try:
            told.append(same(gold, answer))
        except (Unreadable, RecursionError):
            told.append(None)
        if told[-1] is True:
            return True
    return None if None in told else False


def _with_others(told: Told, found: Final, gold: str) -> Outcome:
    """No verdict where the statement holds another number than the last and the gold is among them."""
    if told is None:
        return AMBIGUOUS
    if found.others and (found.text in found.others) if told else _is_among(gold, found.others):
        return AMBIGUOUS
    return PASS if told else WRONG


def _is_among(gold: str, others: tuple[str, ...]) -> bool:
    golds = readings(gold)
    return any(_any(golds, readings(other)) is True for other in dict.fromkeys(others[-20:]) if len(other) <= LONGEST)


def _unread(found: Final, golds: tuple[Value, ...]) -> Outcome:
    """A statement that is not read as an answer. Of an equation that does not hold, the right side is one, and wrong
    where it differs; where there is a number at all, it may be the answer."""
    results = readings(found.text.rpartition("=")[2]) if "=" in found.text else ()
    if results and golds and _any(golds, results) is False and not found.others:
        return WRONG
    return abstaining("unparseable_answer") if says_a_number(found.text) else failing("no_answer")


def _is_stated(answers: tuple[Value, ...], golds: tuple[Value, ...]) -> bool:
    """Whether a text outside a box is an answer: words only where the gold is words."""
    if not answers:
        return False
    said = answers[0]
    if not isinstance(said, Words) or not isinstance(wording.meaning(said), Words):
        return True
    return any(isinstance(gold, Words) or gold == Listing((), braces=True) for gold in golds)


def _holds(answers: tuple[Value, ...], golds: tuple[Value, ...]) -> bool:
    """Whether running text was read as a list of unlike things, and one is the gold: `72 clips, 48 in April`."""
    for answer in answers:
        if isinstance(answer, Listing) and not answer.braces:
            kinds = {(type(item), item.unit if isinstance(item, Quantity) else None) for item in answer.items}
            if len(kinds) > 1 and any(_any(golds, (item,)) is True for item in answer.items):
                return True
    return False


def _is_firm(golds: tuple[Value, ...], answers: tuple[Value, ...]) -> bool:
    """Whether a difference needs no second look: one of the two is words or without variables, read exactly."""
    if isinstance(golds[0], Relation) and isinstance(answers[0], Relation):
        return True  # a point of one curve is none of the other's; math-verify solves both, which takes seconds
    return _is_constant(golds[0]) or _is_constant(answers[0])


def _is_constant(value: Value) -> bool:
    if isinstance(value, Quantity):
        return not symbols(value.node)
    if isinstance(value, Group | Listing):
        return all(map(_is_constant, value.items))
    if isinstance(value, Relation):
        return _is_constant(value.right)
    return not isinstance(value, Matrix) or not any(symbols(node) for row in value.rows for node in row)


def _chosen(gold: str, text: str) -> bool | None:
    """For a letter, yes or no as gold: whether an answer that begins with one, and goes on, begins with that one."""
    for asked, said in ((_LETTER, _CHOICE), (_YES_NO, _YES_NO_FIRST)):
        wanted, given = asked.fullmatch(_UNWRAPPED.sub(r"\1", undressed(gold))), said.match(text)
        if wanted is not None and given is not None and not _SEVERAL.search(text, given.end()):
            return wanted[1].lower() == given[1].lower()
    return None


# --- golds ------------------------------------------------------------------------------------------------------------


def read_gold(gold: str | None) -> Outcome:
    """Whether `check_math` can judge by this gold answer: pass, or abstain with `no_gold`, `unparseable_gold` or
    `ambiguous_gold`.

    It has to be read as a value or a few words. That an answer may be the same text, which `check_math` looks at
    first, says nothing: a whole proof may be, too.
    """
    if gold is None or gold.strip().lower() in ("", *_STAND_INS):
        return abstaining("no_gold")
    if len(gold) > LONGEST or _is_prose(gold):
        return abstaining("unparseable_gold")
    values = readings(gold)
    if values:
        return abstaining("unparseable_gold") if any(map(_is_nothing, values)) else PASS
    opinion = second_opinion.ask(gold, gold)
    if opinion is None or not opinion.equal:
        return abstaining("unparseable_gold")
    return PASS if opinion.whole else abstaining("ambiguous_gold")


def _is_read(gold: str) -> bool:
    return read_gold(gold).outcome == "pass"


def _is_prose(gold: str) -> bool:
    """More words than a right answer would repeat to the letter, unless they are a known phrase."""
    try:
        found = tokens(tidy(gold))
    except Unreadable:
        return True
    words = [token.text.lower() for token in found if token.kind == "word"]
    counted = [word for word in words if word not in UNITS and word not in NUMBER_WORDS and word not in SCALES]
    phrase = Words(" ".join(words))
    known = len(words) == len(found) and wording.meaning(phrase) != phrase
    return sum(word not in _SMALL_WORDS for word in counted) > MOST_WORDS and not known


def _is_nothing(value: Value) -> bool:
    """A constant without a value, such as a division by zero."""
    if isinstance(value, Quantity):
        return not symbols(value.node) and value_of(value.node, strict=True) is None
    return isinstance(value, Words) and not value.text


def prepare() -> None:
    """Loads what the first answer would otherwise wait for; the pool calls this before its clock starts."""
    check_math(r"\boxed{\sqrt{x^2+1} - x}", "y")
    second_opinion.ask("(x+1)^2", r"x^2+\frac{1}{2}x")
