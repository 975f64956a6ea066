"""The layouts of published sets of traces: how each is recognised, and by which reader its rows are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from distill.errors import InputError, UsageError, near
from distill.exchange import layout_readers as read
from distill.exchange.foreign import Imported, Item, UnreadableRow, require_text
from distill.prompts.rows import Row
from distill.records import Prompt


@dataclass(frozen=True, slots=True)
class Layout:
    """A form of rows. `columns` have to be there, and some row among the first has to pass `probe`."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Row], Iterator[Item]]
    probe: Callable[[Row], bool] = lambda row: True

    def fits(self, first: Sequence[Row]) -> bool:
        return any(all(name in row for name in self.columns) and self.probe(row) for row in first)


def items(layout: Layout, row: Row) -> list[Item]:
    """Every trace of a row, and an UnreadableRow in place of each that cannot be taken over."""
    found: list[Item] = []
    try:
        for item in layout.read(row):
            if isinstance(item, Imported):
                Prompt.from_json(item.prompt.to_json())  # every field can be written, whatever the set holds
                require_text(item.raw, item.raw_reasoning, item.teacher)
            found.append(item)
    except UnreadableRow as error:
        found.append(error)
    except InputError as error:
        found.append(UnreadableRow("bad_record", error.what))
    return found


def detect(first: Sequence[Row], place: str, asked: str | None = None) -> Layout:
    """The layout of a file's first rows: the one asked for, else the most special that fits.

    Layouts that share their columns are told apart by the file's address. Raises InputError naming the columns.
    """
    columns = ", ".join(dict.fromkeys(name for row in first for name in row)) or "none"
    if asked is not None:
        chosen = named(asked)
        if not chosen.fits(first):
            what = f"{place} is not of the layout {asked}, which has the columns {', '.join(chosen.columns)}"
            raise InputError(what, given=f"columns {columns}", todo=f"leave --layout out, or use one of {_names()}")
        return chosen
    fitting = [layout for layout in LAYOUTS if layout.fits(first)]
    if not fitting:
        raise InputError(
            f"{place}: no known layout has these columns",
            given=f"columns {columns}",
            todo=f"known layouts: {_names()}; bring the rows into one, such as `messages`, and import them again",
        )
    twins = [layout for layout in fitting if layout.columns == fitting[0].columns and layout.probe is fitting[0].probe]
    told = [layout for layout in twins if _letters(layout.name) in _letters(place)]
    if len(twins) > 1 and len(told) != 1:
        raise InputError(
            f"{place} may be of the layout {' or '.join(layout.name for layout in twins)}: their columns are the same",
            given=f"columns {columns}",
            todo=f"say which: --layout {twins[0].name}",
        )
    return told[0] if len(twins) > 1 else fitting[0]


def named(name: str) -> Layout:
    known = {layout.name: layout for layout in LAYOUTS}
    if name not in known:
        raise UsageError(f"unknown layout '{name}'{near(name, list(known))}", todo=f"one of: {_names()}")
    return known[name]


def _names() -> str:
    return ", ".join(layout.name for layout in LAYOUTS)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


LAYOUTS: tuple[Layout, ...] = (
    Layout("distill", ("prompt", "trace"), read.exported),
    Layout("openr1-math", ("problem", "generations"), read.openr1),
    Layout(
        "openthoughts-114k-metadata", ("problem", "deepseek_reasoning", "deepseek_solution"), read.openthoughts_metadata
    ),
    Layout("openmathreasoning", ("problem", "generated_solution"), read.openmathreasoning),
    Layout("openthoughts-114k", ("system", "conversations"), read.sky("openthoughts-114k"), read.sky_text),
    Layout("bespoke-stratos", ("system", "conversations"), read.sky("bespoke-stratos-17k"), read.sky_text),
    Layout("openthoughts3", ("conversations", "difficulty", "domain"), read.openthoughts3),
    Layout("openthoughts2", ("conversations", "question", "source", "id"), read.openthoughts2),
    Layout("mixture-of-thoughts", ("messages", "num_tokens", "source"), read.mixture_of_thoughts),
    Layout("am-deepseek-r1-distilled", ("messages",), read.am, read.am_info),
    Layout("messages", ("messages",), read.plain_form("messages")),
    Layout("sharegpt", ("conversations",), read.plain_form("conversations")),
)
"""From the most special to the plainest."""
