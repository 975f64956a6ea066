"""What one row of a foreign set of traces holds, and how conversations and loose values in it are read.

Knows nothing about files, nor about which set a row comes from: that is `layouts.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from distill.errors import InputError
from distill.prompts.rows import Row
from distill.records import Prompt, Sampling, Trace, Verdict, storable

NOTHING = frozenset(("", "n/a", "none", "null", "nan", "-"))
"""How sets spell that there is no value, beside null and NaN."""
ROLES: Mapping[str, str] = {
    **dict.fromkeys(("user", "human", "prompt"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "observation", "function_call", "function"), "tool"),
}
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message that hold its reasoning apart from the content."""

Ended: TypeAlias = Literal["stop", "length"] | None
"""How a reply ended, None where the set does not say."""


@dataclass(frozen=True, slots=True)
class Imported:
    """One trace as a set tells of it. `raw` and `raw_reasoning` are the set's own texts, tags and all.

    `teacher` and `finish_reason` are None where the set does not say; `tools` marks code and its output inside the
    reasoning, written by a program and not by the teacher.
    """

    prompt: Prompt
    raw: str
    raw_reasoning: str | None = None
    system: str | None = None
    teacher: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    finish_reason: Ended = None
    tools: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """A trace of ours, with its prompt and verdicts, as `distill export --format jsonl` wrote it.

    `prompt` is None where the run did not hold the question any more, `trace` where nobody had been asked it; one of
    them is there.
    """

    prompt: Prompt | None
    trace: Trace | None
    verdicts: tuple[Verdict, ...]


class UnreadableRow(InputError):
    """A row, or one trace of it, that cannot be taken over: `reason` is a short fixed name."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason


Item: TypeAlias = Imported | Exported | UnreadableRow


@dataclass(frozen=True, slots=True)
class Turns:
    """A conversation of one question and one reply."""

    question: str
    raw: str
    raw_reasoning: str | None
    system: str | None
    asking: Row
    """The user's message as it stands, for sets that keep facts in it."""
    replying: Row


def conversation(value: Any, system: Any = None) -> Turns:
    """One question and one reply from a list of messages, or its JSON text; `system` is a column beside it.

    Tags are looked for in the reply alone: system prompts describe them. Raises UnreadableRow for anything else.
    """
    turns = listed(value)
    if turns is None or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise UnreadableRow("not_messages", "there is no list of messages")
    roles = [_role(turn) for turn in turns]
    if "tool" in roles or any(turn.get("tool_calls") for turn in turns):
        raise UnreadableRow("tool_output", "the conversation calls tools")
    heads = next((place for place, role in enumerate(roles) if role != "system"), len(roles))
    spoken, told = turns[heads:], [content(turn) for turn in turns[:heads]]
    if roles[heads:] in (["assistant"], []) or (roles[heads] == "user" and blank(content(spoken[0]))):
        raise UnreadableRow("no_question", "the conversation asks nothing")
    if roles[heads:] != ["user", "assistant"]:
        what = f"the turns are {', '.join(roles[heads:][:6])}; training takes one question and one reply"
        raise UnreadableRow("no_reply" if roles[heads:] == ["user"] else "multi_turn", what)
    asking, replying = spoken
    thought = next((replying[key] for key in THOUGHTS if isinstance(replying.get(key), str)), None)
    raw = content(replying) or ""
    if blank(raw) and blank(thought):
        raise UnreadableRow("no_reply", "the reply is empty")
    systems = [*([system] if isinstance(system, str) and not blank(system) else []), *filter(None, told)]
    return Turns(content(asking) or "", raw, thought, "\n\n".join(systems) or None, asking, replying)


def _role(turn: Row) -> str:
    given = turn["role"] if turn.get("role") is not None else turn.get("from")
    role = ROLES.get(given.strip().lower()) if isinstance(given, str) else None
    if role is None:
        raise UnreadableRow("unknown_role", f"unknown role {given!r}")
    return role


def content(turn: Row) -> str | None:
    """The text of a message; parts of type text are joined. Raises UnreadableRow for anything but text."""
    value = turn["content"] if turn.get("content") is not None else turn.get("value")
    if isinstance(value, list):
        texts = [part.get("text") if isinstance(part, Mapping) else None for part in value]
        value = "".join(filter(None, texts)) if all(isinstance(text, str) for text in texts) else value
    if value is not None and not isinstance(value, str):
        raise UnreadableRow("not_text", f"a message holds {type(value).__name__}, not text")
    return value


def blank(value: str | None) -> bool:
    return value is None or not value.strip()


def listed(value: Any) -> list[Any] | None:
    """A list, also one that is written as JSON text; None for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return list(value) if isinstance(value, list | tuple) else None


def at(values: Sequence[Any] | None, place: int) -> Any:
    """The entry of a parallel list, None where the list is missing or shorter."""
    return values[place] if values is not None and place < len(values) else None


def cell(value: Any) -> str | None:
    """A value as text, None for every way of writing that there is none; whole floats lose their `.0`."""
    if isinstance(value, bool) or value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | float):
        return str(value)
    return value.strip() if isinstance(value, str) and value.strip().lower() not in NOTHING else None


def question_in(row: Row, column: str) -> str:
    """The text of a question's column. Raises UnreadableRow when there is none."""
    value = row.get(column)
    if not isinstance(value, str) or blank(value):
        raise UnreadableRow("no_question", f"the column '{column}' is empty")
    return value


def require_text(*texts: str | None) -> None:
    """Raises UnreadableRow for half a surrogate pair, which neither UTF-8 nor Parquet can hold."""
    if any(text is not None and storable(text) != text for text in texts):
        raise UnreadableRow("not_text", "the text holds half a surrogate pair")
