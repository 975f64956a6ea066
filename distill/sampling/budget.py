"""When enough has been spent: tokens, money, hours. Knows nothing about how samples are drawn."""

from __future__ import annotations

import time
from dataclasses import dataclass

from distill.errors import UsageError
from distill.ledger import LedgerReader
from distill.sampling.scheduler import Progress
from distill.teacher_specs import GenerateSettings, Price, TeacherSpec

MILLION = 1_000_000
ROUNDING = 1e-9
"""Sums of money are floating-point numbers."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What earlier starts paid for: tokens of prompts and replies, and how many replies those are."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    replies: int = 0


class Budget:
    """What a run may spend in all, earlier starts included; hours are those of this start.

    Raises UsageError for a limit of cost where nothing says what tokens cost.
    """

    def __init__(self, settings: GenerateSettings, teacher: TeacherSpec, before: Spent, max_tokens: int) -> None:
        self.settings, self.price, self.before, self.max_tokens = settings, teacher.price, before, max_tokens
        if settings.max_cost is not None and self.price is None:
            raise UsageError(
                f"--max-cost needs a price, and the spec of {teacher.name} has none",
                todo="set it: --set 'teacher_overrides.price={prompt: 0.55, completion: 2.19}' (per million tokens)",
            )
        self._begun = time.monotonic()

    def used_up(self, progress: Progress) -> str | None:
        """Which limit one more reply of the mean length so far would exceed, None while none would be."""
        hours, tokens, cost = self.settings.max_hours, self.settings.max_tokens_total, self.settings.max_cost
        if hours is not None and time.monotonic() - self._begun >= hours * 3_600:
            return f"--max-hours {hours:g} are over"
        if tokens is not None and self.tokens(progress) + (self._mean(progress) or 1) > tokens:
            return f"--max-tokens-total {tokens:,} is reached"
        if cost is not None and self.price is not None:
            one = _cost(self.price, self._mean_prompt(progress), self._mean(progress) or 1)
            if (self.cost(progress) or 0.0) + one > cost * (1 + ROUNDING):
                return f"--max-cost {cost:g} is reached"
        return None

    def holds_back(self, progress: Progress, in_flight: int) -> bool:
        """Whether what is in flight and one more would exceed a limit, each coming at the mean length so far; before
        anything came, at the length that is allowed."""
        tokens, cost = self.settings.max_tokens_total, self.settings.max_cost
        if tokens is None and cost is None:
            return False
        partly = progress.completion_tokens - progress.finished_tokens  # paid already: slices of what is in flight
        coming = max(0.0, (in_flight + 1) * (self._mean(progress) or self.max_tokens) - max(0, partly))
        if tokens is not None and self.tokens(progress) + coming > tokens:
            return True
        if cost is None or self.price is None:
            return False
        more = _cost(self.price, (in_flight + 1) * self._mean_prompt(progress), coming)
        return (self.cost(progress) or 0.0) + more > cost * (1 + ROUNDING)

    def tokens(self, progress: Progress) -> int:
        """Completion tokens that this run has paid for in all."""
        return self.before.completion_tokens + progress.completion_tokens

    def cost(self, progress: Progress) -> float | None:
        """What this run has cost in all, None where no price is known."""
        if self.price is None:
            return None
        return _cost(self.price, self.before.prompt_tokens + progress.prompt_tokens, self.tokens(progress))

    def _mean(self, progress: Progress) -> float:
        """Completion tokens of a whole reply, 0 before the first."""
        replies = self.before.replies + progress.answered + progress.failed
        return (self.before.completion_tokens + progress.finished_tokens) / max(1, replies)

    def _mean_prompt(self, progress: Progress) -> float:
        paid = self.before.prompt_tokens + progress.prompt_tokens
        return paid / max(1, self.before.replies + progress.answered + progress.failed)


def spent_before(ledger: LedgerReader) -> Spent:
    """What the records of a ledger were paid for. A slice counts with what it added, a record that only says anew what
    another said (as `distill reparse` writes them) with nothing."""
    several = {key for key, entry in ledger.index().items() if entry.revision > 0 or entry.highest >= 0}
    before: dict[str, tuple[str, int]] = {}
    prompts = completions = replies = 0
    for key, finish, prompt_tokens, tokens in ledger.fields(
        "key", "finish_reason", "prompt_tokens", "completion_tokens"
    ):
        new = tokens or 0
        if key in several:
            earlier, known = before.get(key, ("", 0))
            if finish != "error" and (earlier == "length" or (earlier == finish and known == new)):
                new = max(0, new - known)
            if new or finish != "error":
                before[key] = finish, tokens or 0
        completions += new
        prompts += (prompt_tokens or 0) if new else 0
        replies += bool(new) and finish != "length"
    return Spent(prompts, completions, max(replies, 1 if completions else 0))


def _cost(price: Price, prompt_tokens: float, completion_tokens: float) -> float:
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) / MILLION
