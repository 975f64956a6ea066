"""How long the traces are, and what each context size would leave out. Told before a training, kept in the manifest.

Knows nothing about where the lengths come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

CONTEXTS = tuple(4_096 * 2**power for power in range(9))
"""4,096 to a million tokens: Qwen2.5-Math's context, and its doublings to beyond any student's."""
PERCENTILES = (50, 90, 99)
DOMAINS_SHOWN = 12
NAMED, KEPT = 8, 100
"""Traces left out for a special token: told at most per token, and in the manifest per split."""

Lengths = npt.NDArray[np.int32]


class Measured(Protocol):
    """What the census asks of a set of traces."""

    @property
    def lengths(self) -> Lengths: ...

    @property
    def domains(self) -> Sequence[str | None]: ...

    @property
    def special(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Spread:
    """Traces, their tokens, and how many of each a context leaves out. `percentiles` are those of PERCENTILES."""

    traces: int
    tokens: int
    percentiles: tuple[int, ...]
    longest: int
    lost_traces: int
    lost_tokens: int

    @classmethod
    def of(cls, lengths: Lengths, context: int) -> Spread:
        beyond = lengths[lengths > context]
        found = tuple(int(n) for n in np.percentile(lengths, PERCENTILES, method="higher")) if len(lengths) else ()
        longest = int(lengths.max(initial=0))
        return cls(len(lengths), _sum(lengths), found, longest, len(beyond), _sum(beyond))

    @property
    def lost(self) -> str:
        """`12 traces (1.5%) with 8.1% of the tokens`."""
        if not self.lost_traces:
            return "nothing"
        share, of_tokens = _share(self.lost_traces, self.traces), _share(self.lost_tokens, self.tokens)
        return f"{_traces(self.lost_traces)} ({share}) with {of_tokens} of the tokens"

    @property
    def told(self) -> str:
        if not self.traces:
            return "no traces"
        named = ", ".join(f"{p}% have at most {n:,}" for p, n in zip(PERCENTILES, self.percentiles, strict=True))
        return f"{_traces(self.traces)}, {self.tokens:,} tokens; {named}, the longest {self.longest:,}"


@dataclass(frozen=True, slots=True)
class Census:
    """`splits` and `domains` are measured against the chosen context; `contexts` are all traces against each size."""

    context: int
    splits: Mapping[str, Spread]
    contexts: Mapping[int, Spread]
    domains: Mapping[str, Spread]
    """Empty where there is one domain only."""
    special: Mapping[str, Mapping[str, str]]
    """Split → trace → the special token because of which it is left out; none of them is counted above."""

    def lines(self) -> tuple[str, ...]:
        """For the reader, before a training starts."""
        splits = [f"{split}: {spread.told}" for split, spread in self.splits.items()]
        others = [
            (size, spread) for size, spread in self.contexts.items() if size != self.context or spread.lost_traces
        ]
        sizes = [f"a context of {size:,} leaves out {spread.lost}" for size, spread in others]
        shown = sorted(self.domains.items(), key=lambda item: -item[1].tokens)
        domains = [f"domain {name}: {spread.told}; left out {spread.lost}" for name, spread in shown[:DOMAINS_SHOWN]]
        if len(shown) > DOMAINS_SHOWN:
            domains.append(f"and {len(shown) - DOMAINS_SHOWN} smaller domains")
        return (*splits, *sizes, *domains, *self._special(), *self._chosen())

    def _special(self) -> list[str]:
        lines = []
        for split, traces in self.special.items():
            for token in sorted({*traces.values()}):
                ids = [trace[:12] for trace, held in traces.items() if held == token]
                more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
                lines.append(
                    f"{split}: {_traces(len(ids))} left out, for {token} in the reply: a special token of this "
                    f"student, which servers drop ({', '.join(ids[:NAMED])}{more})"
                )
        return lines

    def _chosen(self) -> list[str]:
        lost = [f"{spread.lost} of {split}" for split, spread in self.splits.items() if spread.lost_traces]
        if not lost:
            return [f"the context of {self.context:,} tokens leaves out nothing"]
        return [f"the context of {self.context:,} tokens leaves out " + ", ".join(lost) + "; none is cut"]

    def counts(self) -> dict[str, Any]:
        """For the manifest: per split, per context size and per domain."""
        return {
            "context": self.context,
            "splits": {split: _counted(spread) for split, spread in self.splits.items()},
            "lost_at": {str(size): [spread.lost_traces, spread.lost_tokens] for size, spread in self.contexts.items()},
            "domains": {domain: _counted(spread) for domain, spread in self.domains.items()},
            "special": {split: dict(islice(traces.items(), KEPT)) for split, traces in self.special.items()},
        }


def census(sets: Mapping[str, Measured], context: int, contexts: Sequence[int] = CONTEXTS) -> Census:
    """Over the sets by split; `contexts` count up to the first that loses nothing, beside the chosen one."""
    empty = np.zeros(0, np.int32)
    everything = np.concatenate([empty, *(measured.lengths for measured in sets.values())])
    longest = int(everything.max(initial=0))
    enough = min((size for size in contexts if size >= longest), default=0)
    useful = (size for size in contexts if size < longest or (size == enough and context < longest))
    sizes = sorted({context, *useful})
    names = np.array([domain or "none" for measured in sets.values() for domain in measured.domains])
    known = sorted(set(names.tolist()))
    return Census(
        context,
        {split: Spread.of(measured.lengths, context) for split, measured in sets.items()},
        {size: Spread.of(everything, size) for size in sizes},
        {name: Spread.of(everything[names == name], context) for name in known} if len(known) > 1 else {},
        {split: measured.special for split, measured in sets.items()},
    )


def _counted(spread: Spread) -> dict[str, Any]:
    return {
        "traces": spread.traces,
        "tokens": spread.tokens,
        "percentiles": dict(zip(map(str, PERCENTILES), spread.percentiles, strict=False)),
        "longest": spread.longest,
        "too_long": spread.lost_traces,
        "too_long_tokens": spread.lost_tokens,
    }


def _sum(lengths: Lengths) -> int:
    return int(lengths.sum(dtype=np.int64))


def _traces(count: int) -> str:
    return f"{count:,} trace{'' if count == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    """In percent; a part that is not nothing is never told as 0.0%, nor one that is not all as 100.0%."""
    percent = 100 * part / whole
    return f"{min(max(percent, 0.1), 99.9 if part < whole else 100.0):.1f}%"
