"""How long the longest training text is, so that a tool's limit can be set where it cuts nothing.

Exact where the student's tokenizer lies on this machine; else a bound that no byte-level tokenizer exceeds, one token
a byte, with the teacher's own count beside it. Downloads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.contract import CLOSE, OPEN, Contract
from distill.records import Message
from distill.student_specs import StudentSpec

HEADERS = 64
"""Bytes that a chat template puts around the messages, where the template is not known."""


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of the longest text. `exact` says that the student's tokenizer counted, otherwise it is an upper bound;
    `teacher` is the longest reply by the teacher's count, None where it told none."""

    tokens: int
    exact: bool
    teacher: int | None = None

    @property
    def limit(self) -> int:
        """The next multiple of 64, with room for the few tokens that a tool adds: nothing is cut at it."""
        return -(-(self.tokens + 8) // 64) * 64

    def told(self) -> str:
        if self.exact:
            return f"the longest text has {self.tokens:,} tokens, counted with the student's tokenizer"
        counted = f"; the teacher counted up to {self.teacher:,} tokens in a reply" if self.teacher else ""
        return f"no text has more than {self.tokens:,} tokens: its bytes, as no tokenizer was at hand{counted}"


class Lengths:
    """Takes text after text; a text of fewer bytes than the longest has tokens need not be counted."""

    def __init__(self, contract: Contract | None, tokenizer: Any = None) -> None:
        self._contract, self._tokenizer = contract, tokenizer
        self._longest = 0
        self._teacher: int | None = None

    def add(self, messages: Sequence[Message], completion_tokens: int | None) -> None:
        if completion_tokens is not None:
            self._teacher = max(self._teacher or 0, completion_tokens)
        text = self._text(messages)
        size = len(text.encode())
        if size > self._longest and self._tokenizer is not None:
            size = len(self._tokenizer.encode(text, add_special_tokens=False))
        self._longest = max(self._longest, size)

    def _text(self, messages: Sequence[Message]) -> str:
        if self._contract is None:
            return "".join(message["content"] for message in messages) + " " * HEADERS
        prompt = self._contract.render_prompt(messages[:-1])
        return prompt + messages[-1]["content"].removeprefix(self._contract.forced_prefix) + self._contract.stop

    def found(self) -> Length:
        return Length(self._longest, self._tokenizer is not None, self._teacher)


def tokenizer_at_hand(spec: StudentSpec) -> Any:
    """The student's tokenizer with its think tags, None when it is not on this machine."""
    from transformers import AutoTokenizer

    place = spec.tokenizer or spec.base
    revision = None if spec.tokenizer else spec.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    if spec.thinks:
        tags = [tag for tag in (OPEN, CLOSE) if len(tokenizer.encode(tag, add_special_tokens=False)) != 1]
        tokenizer.add_tokens(tags, special_tokens=False)
    return tokenizer
