"""When enough has been spent: tokens, money, hours. Knows nothing about how samples are drawn."""

from __future__ import annotations

import time
from dataclasses import dataclass

from distill.errors import UsageError
from distill.sampling.scheduler import Progress
from distill.teacher_specs import GenerateSettings, Price, TeacherSpec

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Spent:
    """What earlier starts paid for: tokens of prompts and replies, and how many replies those are."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    replies: int = 0


class Budget:
    """Says why nothing new may be asked for, counting what is in flight as if it came at the mean length so far.

    Raises UsageError for a limit of cost where nothing says what tokens cost.
    """

    def __init__(self, settings: GenerateSettings, teacher: TeacherSpec, before: Spent) -> None:
        self.settings, self.price, self.before = settings, teacher.price, before
        if settings.max_cost is not None and self.price is None:
            raise UsageError(
                f"--max-cost needs a price, and the spec of {teacher.name} has none",
                todo="set it: --set 'teacher_overrides.price={prompt: 0.55, completion: 2.19}' (per million tokens)",
            )
        self._begun = time.monotonic()

    def __call__(self, progress: Progress, in_flight: int) -> str | None:
        hours, tokens, cost = self.settings.max_hours, self.settings.max_tokens_total, self.settings.max_cost
        if hours is not None and time.monotonic() - self._begun >= hours * 3_600:
            return f"--max-hours {hours:g} are over"
        if tokens is None and cost is None:
            return None
        expected = in_flight * self._mean(progress)
        if tokens is not None and self.tokens(progress) + expected >= tokens:
            return f"--max-tokens-total {tokens:,} is reached"
        if cost is not None and self.price is not None:
            coming = _cost(self.price, in_flight * self._mean_prompt(progress), expected)
            if (self.cost(progress) or 0.0) + coming >= cost:
                return f"--max-cost {cost:g} is reached"
        return None

    def tokens(self, progress: Progress) -> int:
        """Completion tokens that this run has paid for in all."""
        return self.before.completion_tokens + progress.completion_tokens

    def cost(self, progress: Progress) -> float | None:
        """What this run has cost in all, None where no price is known."""
        if self.price is None:
            return None
        return _cost(self.price, self.before.prompt_tokens + progress.prompt_tokens, self.tokens(progress))

    def _mean(self, progress: Progress) -> float:
        return self.tokens(progress) / max(1, self.before.replies + progress.answered + progress.failed)

    def _mean_prompt(self, progress: Progress) -> float:
        paid = self.before.prompt_tokens + progress.prompt_tokens
        return paid / max(1, self.before.replies + progress.answered + progress.failed)


def _cost(price: Price, prompt_tokens: float, completion_tokens: float) -> float:
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) / MILLION
