"""Can the verifier judge by a prompt's gold answer? Every gold is read before anything is paid for.

Golds that are plainly numbers or small expressions are told by their form; all others are read by the verifier itself
in workers that can be killed. Knows nothing about questions.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice

from distill.prompts.marks import Mark
from distill.records import Kind
from distill.verify import PASS, READ_GOLD, Outcome, abstaining
from distill.verify.pool import SECONDS_PER_ITEM, VerifierPool

Gold = tuple[Kind, str | None]
REMEMBERED = 100_000
"""Golds whose outcome is kept: most of a large set are the same few thousand texts."""
AT_ONCE = 4_096
"""Golds that are looked at before the first outcome is given back."""

_WHOLE = r"[0-9]{1,100}"
_NUMBER = rf"(?:[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,10}}|{_WHOLE})(?:\.{_WHOLE})?"
_DIVISOR = r"0{0,9}[1-9][0-9]{0,90}"
_FRACTION = rf"(?:{_WHOLE}/{_DIVISOR}|\\[dt]?frac\{{{_WHOLE}\}}\{{{_DIVISOR}\}})"
_ROOT = rf"(?:{_WHOLE})?(?:\\sqrt\{{[1-9][0-9]{{0,5}}\}}|\\pi)"
_DECIMAL = rf"-?{_WHOLE}(?:\.{_WHOLE})?"
_TERM = rf"-?(?:{_FRACTION}|{_ROOT}|{_WHOLE}(?:\.{_WHOLE})?)"
_PLAIN = re.compile(
    rf"-?{_NUMBER}|\\?\$ ?{_NUMBER}|{_DECIMAL}\\?%|{_DECIMAL}\^(?:\\circ|\{{\\circ\}})|{_TERM}"
    rf"|[A-E]|[xyk] ?= ?{_TERM}|\({_TERM}, ?{_TERM}(?:, ?{_TERM})?\)|[\[(]{_WHOLE}, ?{_WHOLE}[\])]"
    rf"|{_WHOLE} ?\\(?:text|mathrm)\{{ ?(?:cm|mm|m|km|kg|g|s|hours|minutes|days|dollars|degrees|units)\}}"
)
"""Forms of which `verify.math.read_gold` is known to pass every member; a test draws members and holds it to that."""


def plain(gold: str) -> bool:
    """The fast path: whether the form alone says that `read_gold` passes."""
    return _PLAIN.fullmatch(gold) is not None


def gold_mark(outcome: Outcome) -> Mark | None:
    """The mark of a prompt whose gold had this outcome; None for a gold that can be used or was never wanted."""
    if outcome.outcome == "pass":
        return None
    return "no_gold" if outcome.reason == "no_gold" else "unparseable_gold"


class GoldReader:
    """Reads golds in order; a context manager that owns the workers, which start at the first gold that needs one."""

    def __init__(self, *, workers: int | None = None, seconds: float = SECONDS_PER_ITEM) -> None:
        self._pool = VerifierPool(READ_GOLD, workers=workers, seconds=seconds)
        self._known: OrderedDict[str, Outcome] = OrderedDict()

    def __enter__(self) -> GoldReader:
        self._pool.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.__exit__(*exception)

    def readable(self, golds: Iterable[Gold]) -> Iterator[Outcome]:
        """Per gold, in order: pass, or abstain with `no_gold`, a reason of `read_gold` or of the pool
        (`verifier_timeout`, …). A prompt of kind open passes: it wants no gold."""
        source = iter(golds)
        while batch := list(islice(source, AT_ONCE)):
            found = [_told_by_form(kind, gold) for kind, gold in batch]
            unknown = dict.fromkeys(gold for (_, gold), told in zip(batch, found, strict=True) if told is None and gold)
            read = {gold: self._known[gold] for gold in unknown if gold in self._known}
            for gold in read:
                self._known.move_to_end(gold)
            slow = [gold for gold in unknown if gold not in read]
            read.update(zip(slow, self._pool.map((gold,) for gold in slow), strict=True))
            for gold in slow:
                self._known[gold] = read[gold]
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            for (_, asked), told in zip(batch, found, strict=True):
                yield told if told is not None else read[asked or ""]


def _told_by_form(kind: Kind, gold: str | None) -> Outcome | None:
    if kind == "open":
        return PASS
    if gold is None or not gold.strip():
        return abstaining("no_gold")
    if kind not in ("math", "numeric"):
        return PASS
    return PASS if plain(gold) else None
