"""From what was found about each trace to its fate: duplicates, the keep rule, the selection.

Reads RUN/judged/ a bucket at a time and keeps some numbers per trace. Of traces that repeat each other a right one
stays before a wrong one, and a whole one before a broken one; then the order of the run decides. Knows nothing about
texts.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill.filter import selection
from distill.filter.checks import OF_ALL
from distill.filter.gathered import RIGHT, AboutPrompts, AboutTraces, Numbers, about_prompts, about_traces
from distill.filter.judged import Judged
from distill.filter.near import BANDS, RECORD, NearDuplicates
from distill.filter.placing import Buckets
from distill.filter_specs import FilterSettings
from distill.keep_rule import Rule
from distill.prompts.table import PromptTable
from distill.records import KEPT
from distill.specs import Recipe
from distill.verify import BROKEN, Outcome

if TYPE_CHECKING:
    import pyarrow as pa

MOST_KNOWN = 2**16
"""Different sets of outcomes whose fate is remembered."""


@dataclass(slots=True)
class Decided:
    """What becomes of every trace."""

    settings: FilterSettings
    traces: int
    rejected: Counter[str]
    """Reason → traces that are not trained on."""
    lines: list[str]
    broken: int
    judged: int
    """Answers that a verifier has called right or wrong."""
    verifiers: tuple[str, ...]
    _rates: NDArray[np.float64]
    _draws: NDArray[np.float64]
    _prompt: Numbers
    _starts: dict[int, slice]
    _fates: NDArray[np.int32]
    """By place: 0 is kept, else one more than the place in `_reasons`."""
    _reasons: list[tuple[str, str]]
    _repeats: dict[int, tuple[int, bool]]
    """Place → (place that it repeats, exactly)."""
    _keys: NDArray[np.uint64]
    names: list[str] = field(default_factory=list)

    def kept_in(self, bucket: int) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = self._fates[self._starts[bucket]] == 0
        return kept

    def pass_rate(self, row: int) -> float | None:
        """Share of the prompt's judged answers that are right, None where none was judged."""
        rate = float(self._rates[row])
        return None if math.isnan(rate) else round(rate, 4)

    def may_hold_out(self, share: float) -> bool:
        """Whether something is left to train on; with a handful of prompts chance would hold out everything."""
        return bool((self._draws[self._prompt[self._fates == 0]] >= share).any())

    def verdicts(self, bucket: int, table: pa.Table) -> pa.Table:
        """The rows of verdicts.parquet for a bucket: the verdicts of a trace stand together, `kept` last."""
        import pyarrow as pa

        places = self._starts[bucket]
        names = [*self.settings.made, KEPT]
        columns: dict[str, list[Any]] = {"check": [], "outcome": [], "reason": [], "score": [], "detail": []}
        count = len(table)
        evidence = [json.loads(text) if text else {} for text in table.column("evidence").to_pylist()]
        for name in names:
            columns["check"].append(pa.array([name] * count))
            for part, found in zip(("outcome", "reason", "score"), self._columns(name, places, table), strict=True):
                columns[part].append(found)
            columns["detail"].append(pa.array(self._details(name, places, evidence)))
        order = np.arange(count * len(names)).reshape(len(names), count).T.ravel()
        stacked = {
            "trace_key": pa.concat_arrays([table.column("key").combine_chunks()] * len(names)),
            "content_hash": pa.concat_arrays([table.column("content").combine_chunks()] * len(names)),
            **{part: pa.concat_arrays(arrays) for part, arrays in columns.items()},
        }
        return pa.table(stacked).take(pa.array(order))

    def _details(self, name: str, places: slice, evidence: list[dict[str, str]]) -> list[str]:
        """What there is to see of each outcome: of a copy the key of what it repeats, its first 16 digits."""
        if name not in OF_ALL:
            return [shown.get(name, "") for shown in evidence]
        repeats = ((self._repeats.get(place)) for place in range(places.start, places.stop))
        exact = name == "duplicate"
        return [f"{self._keys[of[0]]:016x}" if of is not None and of[1] == exact else "" for of in repeats]

    def _columns(self, name: str, places: slice, table: pa.Table) -> Iterator[Any]:
        import pyarrow as pa

        if name not in OF_ALL and name != KEPT:
            for part in ("outcome", "reason", "score"):
                yield table.column(f"{name}.{part}").combine_chunks()
            return
        if name == KEPT:
            found = [self._reasons[fate - 1][1] if fate else "" for fate in self._fates[places].tolist()]
            yield pa.array(["fail" if fate else "pass" for fate in self._fates[places].tolist()], pa.string())
        else:
            found = _repeated(name, self._repeats, places)
            yield pa.array(["fail" if reason else "pass" for reason in found], pa.string())
        yield pa.array(found, pa.string())
        yield pa.nulls(places.stop - places.start, pa.float64())


def _repeated(name: str, repeats: dict[int, tuple[int, bool]], places: slice) -> list[str]:
    """By place within a bucket the reason of check `name`, one of OF_ALL: an exact copy is no near one besides."""
    found = []
    for place in range(places.start, places.stop):
        repeat = repeats.get(place)
        found.append(name if repeat is not None and repeat[1] == (name == "duplicate") else "")
    return found


def decide(
    buckets: Buckets, judged: Judged, prompts: PromptTable, recipe: Recipe, verifiers: tuple[str, ...]
) -> Decided:
    """Decides about every trace of the run."""
    settings = recipe.filter
    about = about_prompts(prompts, recipe.seed)
    traces = about_traces(buckets, judged)
    repeats = _repeats(traces, judged, settings) if set(OF_ALL) & set(settings.made) else {}
    right, told = (traces.correct == RIGHT) & traces.whole, traces.correct > 0
    rates = selection.pass_rates(traces.prompt, right, told, len(about.domain))
    fates, reasons, broken = _apply_rule(traces, judged, repeats, settings.rule, settings)
    lines = _select(traces, about, judged, fates, reasons, rates, settings, recipe.seed)
    rejected: Counter[str] = Counter()
    for code, count in zip(*np.unique(fates[fates > 0], return_counts=True), strict=True):
        rejected[reasons[int(code) - 1][1]] += int(count)
    return Decided(
        settings,
        len(traces.prompt),
        rejected,
        lines,
        broken,
        int(told.sum()),
        verifiers,
        rates,
        about.draw,
        traces.prompt,
        traces.starts,
        fates,
        reasons,
        repeats,
        traces.key,
    )


def _repeats(traces: AboutTraces, judged: Judged, settings: FilterSettings) -> dict[int, tuple[int, bool]]:
    """Place → (place that it repeats, exactly); near ones only where the check is made."""
    worth = np.where(traces.whole, np.where(traces.correct == RIGHT, 0, 1), 2)
    order = np.argsort(worth, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    near = NearDuplicates()
    for bucket, places in traces.starts.items():
        signatures = judged.read(bucket, "signature").column("signature").to_pylist()
        for place, signature in zip(range(places.start, places.stop), signatures, strict=True):
            near.add(int(rank[place]), signature)
    wanted = {"duplicate": True, "near_duplicate": False}
    exactness = {wanted[name] for name in OF_ALL if name in settings.made}
    return {int(order[one.row]): (int(order[one.of]), one.exact) for one in near.decide() if one.exact in exactness}


def _apply_rule(
    traces: AboutTraces, judged: Judged, repeats: dict[int, tuple[int, bool]], rule: Rule, settings: FilterSettings
) -> tuple[NDArray[np.int32], list[tuple[str, str]], int]:
    """(fate of each place, reasons, outcomes of a verifier that broke). Traces with the same outcomes share a fate, so
    the rule is asked some hundred times, not once a trace."""
    fates = np.zeros(len(traces.prompt), np.int32)
    numbers: dict[tuple[str, str], int] = {}
    known: dict[tuple[Any, ...], int] = {}
    broken = 0
    names = list(settings.made)
    scored = rule.scored
    parts = ("outcome", "reason", "score")
    for bucket, places in traces.starts.items():
        wanted = [(name, part) for name in names if name not in OF_ALL for part in parts]
        columns = [f"{name}.{part}" for name, part in wanted if part != "score" or name in scored]
        table = judged.read(bucket, "key", *columns)
        told: list[Any] = []
        for name in names:
            if name in OF_ALL:
                reasons = _repeated(name, repeats, places)
                told += [["fail" if reason else "pass" for reason in reasons], reasons]
            else:
                told += [table.column(f"{name}.{part}").to_pylist() for part in parts[:2]]
                broken += sum(reason in BROKEN for reason in told[-1])
            told.append(table.column(f"{name}.score").to_pylist() if name in scored else [None] * len(table))
        for place, values in zip(range(places.start, places.stop), zip(*told, strict=True), strict=True):
            if len(known) > MOST_KNOWN:  # scores that a rule asks for seldom come twice
                known.clear()
            code = known.get(values)
            if code is None:
                grouped = (values[at : at + len(parts)] for at in range(0, len(values), len(parts)))
                outcomes = {name: Outcome(*one) for name, one in zip(names, grouped, strict=True)}
                decided = rule.decides(outcomes)
                code = known[values] = numbers.setdefault(decided, len(numbers) + 1) if decided[0] else 0
            fates[place] = code
    return fates, list(numbers), broken


def _select(
    traces: AboutTraces,
    about: AboutPrompts,
    judged: Judged,
    fates: NDArray[np.int32],
    reasons: list[tuple[str, str]],
    rates: NDArray[np.float64],
    settings: FilterSettings,
    seed: int,
) -> list[str]:
    """Marks in `fates` what is not chosen; says where a domain has fewer traces than are wanted."""
    chosen = np.flatnonzero(fates == 0)
    select = settings.select
    bands = _bands(traces, judged)[chosen] if select.prefer == "diverse" else None
    prompt = traces.prompt[chosen]
    candidates = selection.Candidates(prompt, traces.tokens[chosen], about.domain[prompt], bands, about.domains)
    codes = selection.select(candidates, rates, select, seed)
    for code in np.unique(codes[codes > 0]).tolist():
        reasons.append(("select", selection.REASONS[code]))
        fates[chosen[codes == code]] = len(reasons)
    return _shortfalls(candidates, codes, select.domains)


def _bands(traces: AboutTraces, judged: Judged) -> NDArray[np.uint32]:
    found = np.zeros((len(traces.prompt), BANDS), np.uint32)
    for bucket, places in traces.starts.items():
        signatures = judged.read(bucket, "signature").column("signature").to_pylist()
        found[places] = np.frombuffer(b"".join(signatures), RECORD)["bands"]
    return found


def _shortfalls(found: selection.Candidates, codes: NDArray[np.uint8], counts: dict[str, int]) -> list[str]:
    lines = []
    for name, count in counts.items():
        if name != selection.OTHERS:
            number = found.domains.index(name) if name in found.domains else -1
            there = int(((found.domain == number) & (codes == 0)).sum())
            if there < count:
                lines.append(f"{there} of the {count} traces wanted of {name} could be kept")
    return lines
