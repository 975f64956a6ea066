"""Is a number equal to the gold one within a tolerance? For measured and computed quantities, units aside.

The last box first, then what stands behind "the answer is", then the last sentence. Knows nothing about how a number is
written, processes or limits.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from distill.records import Prompt
from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.conversions import ratios, reduced, temperature, temperatures
from distill.verify.final import without_rejected
from distill.verify.plain import LONGEST, without_latex
from distill.verify.quantities import RADIANS, UNIT_OF_ANGLE
from distill.verify.quantity import Quantity, numbers_in, read, value_behind
from distill.verify.stated import last_sentence, short_box, told

REL_TOL = 0.01
"""Gold and answer may both be rounded to three significant digits, and each is then off by at most 0.5%. Evaluations
allow more, 5% (SciBench, eval/) and 4% (TheoremQA); a trace that is trained on should be right, not nearly so."""
ABS_TOL = 0.0
"""None: a gold such as 1.6e-19 leaves no room for any that suits all."""
LOOSE = 0.05
"""SciBench's: within it, an answer that a coarsely written gold may be the rounding of is not called wrong."""
NOISE = Decimal("1e-9")
"""What double precision adds to a result that is whole or zero; the relative default of `math.isclose`."""
_NUMBER_WORD = re.compile(
    r"(?i)\d|\b(?:zero|half|third|quarter|(?:one|two|three|four|five|six|seven|eight|nine)(?:ty|teen)?|ten|eleven|"
    r"twelve|thirteen|fifteen|twenty|thirty|forty|fifty|eighty|hundred|thousand)\b|[零一二三四五六七八九十百千万]|\\(?:pi|sqrt|infty)"
)
_NEGATED = re.compile(
    r"(?i)\b(?:not|isn't|never|cannot|neither|nor|at (?:least|most)|out of)\b"
    r"|\b(?:less|more|fewer|greater|smaller|larger) than\b|n't\b|[不非]是"
)
_DEGREE = Decimal(math.pi) / 180
_VERB = re.compile(r"\b(?:is|are|be|was|equals|has|have|costs|gets?|becomes|[Aa]nswer:)(?!\w)[: ]*(?:equal to)?")
_CLAUSE = re.compile(r"[,;，；。]\s|[.!?]\s|\s(?:because|since|which|where|as|when)\s")
Match = Literal["equal", "coarse", "scale", "different"]


def verify(prompt: Prompt, answer: str) -> Outcome:
    """Reasons as in `check_numeric`."""
    return check_numeric(answer, prompt.answer)


def check_numeric(
    answer: str | None, gold: str | None, *, rel_tol: float = REL_TOL, abs_tol: float = ABS_TOL
) -> Outcome:
    """Pass, `wrong_answer`, `no_answer`, or abstain with `no_gold`, `unparseable_gold`, `ambiguous_answer`,
    `different_unit`, or `coarse_gold`: the gold may be the answer rounded, but is farther away than the tolerance.

    A gold written as a whole number is exact: no tolerance applies.
    """
    if gold is None or not gold.strip():
        return abstaining("no_gold")
    if answer is None or not answer.strip():
        return failing("no_answer")
    wanted = read(gold) if len(gold) <= LONGEST else None
    if wanted is None:
        return abstaining("unparseable_gold")
    box = short_box(answer)
    found = read(box.text) or _at_end(box.text) if box is not None else None
    if found is not None:
        return _judged(found, wanted, rel_tol, abs_tol)
    marked = told(answer if box is None else box.rest)  # behind a box without a number, such as a formula on the way
    if marked is not None:
        return _sentence(marked.line, wanted, rel_tol, abs_tol, marked=True)
    if box is None:
        return _sentence(last_sentence(answer), wanted, rel_tol, abs_tol, marked=False)
    return abstaining("ambiguous_answer") if _NUMBER_WORD.search(box.text) else failing("wrong_answer")


def read_gold(gold: str | None) -> Outcome:
    """Whether `check_numeric` can judge by this gold: pass, or abstain with `no_gold` or `unparseable_gold`."""
    if gold is None or not gold.strip():
        return abstaining("no_gold")
    return PASS if len(gold) <= LONGEST and read(gold) is not None else abstaining("unparseable_gold")


def prepare() -> None:
    """Loads what the first expression would otherwise wait for; the pool calls this before its clock starts."""
    check_numeric("\\boxed{\\sqrt{2}}", "1.41")


def _at_end(text: str) -> Quantity | None:
    """The quantity that a sentence ends with, behind its verb: `the area is 90 square metres`."""
    parts = _VERB.split(without_latex(text))
    return read(parts[-1]) if len(parts) > 1 and _NEGATED.search(text) is None else None


def _sentence(text: str, wanted: Quantity, rel_tol: float, abs_tol: float, *, marked: bool) -> Outcome:
    """The number that all of a sentence's first clause is, that an equation in it ends with, or its last one: `leaving
    15 apples`. That an earlier number is the gold proves nothing, nor does a later one that is not."""
    text = without_rejected(text)
    found = None
    if marked:
        found = read(text) or read(_CLAUSE.split(text + " ", maxsplit=1)[0])
    negated = _NEGATED.search(text) is not None
    if found is None and not negated:
        found = value_behind(text) or _at_end(text)
    if found is not None:
        outcome = _judged(found, wanted, rel_tol, abs_tol)
        said = read(text.rstrip("! ")) if text.endswith("!") else None  # a factorial, or said aloud
        aloud = said is not None and outcome != PASS and _judged(said, wanted, rel_tol, abs_tol) == PASS
        return abstaining("ambiguous_answer") if aloud else outcome
    numbers = numbers_in(text)
    if numbers is None or (not numbers and _NUMBER_WORD.search(text)) or (numbers and negated):
        return abstaining("ambiguous_answer")
    if not numbers:
        return failing("no_answer")
    outcomes = [_judged(number, wanted, rel_tol, abs_tol) for number in numbers]
    if all(outcome.outcome == "fail" for outcome in outcomes[:-1]):
        return outcomes[-1]
    return abstaining("ambiguous_answer")


def _judged(found: Quantity, wanted: Quantity, rel_tol: float, abs_tol: float) -> Outcome:
    if found.unit and wanted.unit and reduced(found.unit) != reduced(wanted.unit):
        return abstaining("different_unit")
    matches = {_match(found, wanted, rel_tol, abs_tol)}
    if found.percent != wanted.percent:  # 50% is written as 50 and as 0.5
        shares = [number.hundredth() if number.percent else number for number in (found, wanted)]
        matches.add(_match(shares[0], shares[1], rel_tol, abs_tol))
    if "equal" in matches:
        return PASS
    if "coarse" in matches:
        return abstaining("coarse_gold")
    if found.scale != wanted.scale and found.value / found.scale == wanted.value / wanted.scale:
        return abstaining("ambiguous_answer")  # `3 million` for a 3: the question may ask for millions
    if bool(found.unit) != bool(wanted.unit):
        measured, bare = (found, wanted) if found.unit else (wanted, found)
        matches = {_match(other, bare, rel_tol, abs_tol) for other in _converted(measured)}
        if matches & {"equal", "coarse"}:  # the question may ask for that unit
            return abstaining("different_unit")
    return failing("wrong_answer")


def _converted(measured: Quantity) -> list[Quantity]:
    """The same amount in the other units of its kind: 1.5 hours in minutes, seconds and days."""
    value, unit = measured.value, measured.unit
    assert unit is not None
    degree = temperature(unit)
    if degree is not None:
        others = temperatures(*degree, Fraction(value))
        values = [Decimal(other.numerator) / other.denominator for other in others]
    elif unit.dimensions in (UNIT_OF_ANGLE, RADIANS):
        values = [value * _DEGREE if unit.dimensions == UNIT_OF_ANGLE else value / _DEGREE]
    else:
        values = [value * ratio.denominator / ratio.numerator for ratio in ratios(unit)]
    return [replace(measured, value=other, place=None, whole=False) for other in values]


def _match(found: Quantity, wanted: Quantity, rel_tol: float, abs_tol: float) -> Match:
    one, other = found.value, wanted.value
    if one == other:
        return "equal"
    off, size = abs(one - other), max(abs(one), abs(other))
    whole = wanted.whole and abs_tol == 0
    allowed = max(Decimal(rel_tol) * size, Decimal(abs_tol))
    noise = NOISE if other == 0 else NOISE * size
    if off <= noise and one != one.to_integral_value():
        return "equal"
    if whole:
        return "coarse" if not found.whole and off <= allowed else "different"
    if off <= allowed:
        return "equal"
    if wanted.place is not None and off <= wanted.place / 2 and off <= Decimal(LOOSE) * size:
        return "coarse"
    return "different"
