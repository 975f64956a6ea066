"""How many prompts can be verified, by which verifier, per domain; and why the others cannot. Needs memory per domain,
not per prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from distill.prompts.marks import UNVERIFIABLE
from distill.records import Kind
from distill.verify.verifiers import OF_KIND

MOST_DOMAINS = 200
"""Domains counted by name; those that come later are counted together, as OTHERS."""
OTHERS = "(other domains)"
NO_DOMAIN = "(no domain)"


class Counted(Protocol):
    """What the census looks at, of a Prompt or of what is remembered of one."""

    @property
    def domain(self) -> str | None: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def marks(self) -> tuple[str, ...] | None: ...


@dataclass(slots=True)
class Row:
    """The counts of one domain: `prompts` is the sum of `verifiable`, `unverifiable`, `open` and `unmarked`."""

    prompts: int = 0
    verifiable: Counter[str] = field(default_factory=Counter)
    """Verifier → prompts."""
    unverifiable: Counter[str] = field(default_factory=Counter)
    """Mark → prompts, each under the first of its marks in the order of UNVERIFIABLE."""
    open: int = 0
    """Prompts that want no verdict."""
    unmarked: int = 0
    """Prompts that nobody looked at."""
    guessable: int = 0
    """Of the verifiable ones, those that a guess answers half of the time."""


class Census:
    """Counts prompts as they pass."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def add(self, prompt: Counted, times: int = 1) -> None:
        """Counts a prompt, or `times` prompts that are alike in what the census looks at."""
        row = self._row(prompt.domain or NO_DOMAIN)
        row.prompts += times
        if prompt.kind == "open":
            row.open += times
        elif prompt.marks is None:
            row.unmarked += times
        else:
            mark = next((mark for mark in UNVERIFIABLE if mark in prompt.marks), None)
            if mark is not None:
                row.unverifiable[mark] += times
            else:
                row.verifiable[OF_KIND[prompt.kind]] += times
                row.guessable += times * ("guessable" in prompt.marks)

    def _row(self, domain: str) -> Row:
        if domain not in self._rows and len(self._rows) >= MOST_DOMAINS:
            domain = OTHERS
        return self._rows.setdefault(domain, Row())

    def table(self) -> dict[str, Row]:
        """Domain → its counts, the largest first, and `all` at the end."""
        ordered = sorted(self._rows.items(), key=lambda item: (-item[1].prompts, item[0]))
        return {**dict(ordered), "all": _sum(row for _, row in ordered)}

    def to_json(self) -> dict[str, Any]:
        return {
            domain: {
                "prompts": row.prompts,
                "verifiable": dict(row.verifiable.most_common()),
                "unverifiable": dict(row.unverifiable.most_common()),
                "open": row.open,
                "unmarked": row.unmarked,
                "guessable": row.guessable,
            }
            for domain, row in self.table().items()
        }

    def lines(self) -> list[str]:
        """One line a domain, to be read by people."""
        return [f"{domain}: {_words(row)}" for domain, row in self.table().items()]


def _sum(rows: Iterator[Row]) -> Row:
    total = Row()
    for row in rows:
        total.prompts += row.prompts
        total.verifiable.update(row.verifiable)
        total.unverifiable.update(row.unverifiable)
        total.open += row.open
        total.unmarked += row.unmarked
        total.guessable += row.guessable
    return total


def _words(row: Row) -> str:
    parts = [f"{count:,} by {name}" for name, count in row.verifiable.most_common()]
    if row.guessable:
        parts.append(f"of these {row.guessable:,} guessable")
    parts += [f"{count:,} {mark}" for mark, count in row.unverifiable.most_common()]
    parts += [f"{count:,} {name}" for name, count in (("open", row.open), ("not looked at", row.unmarked)) if count]
    return f"{row.prompts:,} prompts: {', '.join(parts)}" if parts else f"{row.prompts:,} prompts"
