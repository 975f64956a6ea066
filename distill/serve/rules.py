"""What a rule is by which a line of a log names a cause. Knows no cause."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Final = Literal["always", "loading", "no"]
"""Whether another start would end the same way; `loading`: yes, unless the server had been ready before."""
ROOT, PEER, FOLLOW = 0, 1, 2
"""PEER: what a process says when another one has died, so any ROOT explains more; FOLLOW: explains nothing."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern` is searched in one line; its named groups, all of which take part in every match, fill `what` and
    `todo`, and so does {place}: where the exception was raised."""

    cause: str
    pattern: re.Pattern[str]
    what: str
    todo: str
    final: Final = "loading"
    rank: int = ROOT


def rule(cause: str, pattern: str, what: str, todo: str, final: Final = "loading", rank: int = ROOT) -> Rule:
    return Rule(cause, re.compile(pattern), what, todo, final, rank)
