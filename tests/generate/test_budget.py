"""When enough has been spent, counting earlier starts and what is in flight."""

from __future__ import annotations

import pytest

from distill.errors import UsageError
from distill.generate import budget as budgets
from distill.generate.budget import Budget, Spent
from distill.sampling.scheduler import Progress
from distill.teacher_specs import GenerateSettings, Price, TeacherSpec

PRICED = TeacherSpec(name="t", model="m", price=Price(prompt=1.0, completion=2.0))


def progress(answered: int, tokens: int, prompt_tokens: int = 0) -> Progress:
    return Progress(100, answered=answered, completion_tokens=tokens, prompt_tokens=prompt_tokens)


def test_without_limits_nothing_ends() -> None:
    assert Budget(GenerateSettings(), PRICED, Spent())(progress(10**6, 10**9), 1_000) is None


def test_tokens_of_earlier_starts_count() -> None:
    budget = Budget(GenerateSettings(max_tokens_total=1_000), PRICED, Spent(0, 600, 6))
    assert budget(progress(3, 300), 0) is None
    assert budget(progress(4, 400), 0) == "--max-tokens-total 1,000 is reached"
    assert budget.tokens(progress(3, 300)) == 900


def test_what_is_in_flight_counts_at_the_mean_so_far() -> None:
    budget = Budget(GenerateSettings(max_tokens_total=1_000), PRICED, Spent(0, 500, 5))
    assert budget(progress(0, 0), 4) is None
    assert budget(progress(0, 0), 5) is not None


def test_cost_is_prompt_and_completion_tokens_at_their_prices() -> None:
    budget = Budget(GenerateSettings(max_cost=5.0), PRICED, Spent(1_000_000, 1_000_000, 10))
    assert budget.cost(progress(0, 0)) == 3.0
    assert budget(progress(10, 500_000, 500_000), 0) is None
    assert budget(progress(10, 1_000_000, 500_000), 0) == "--max-cost 5 is reached"
    assert budget(progress(0, 0), 7) is not None, "seven more at 0.3 each"
    assert budget(progress(0, 0), 6) is None


def test_a_limit_of_cost_needs_a_price() -> None:
    with pytest.raises(UsageError, match="--max-cost needs a price, and the spec of t has none") as caught:
        Budget(GenerateSettings(max_cost=5.0), TeacherSpec(name="t", model="m"), Spent())
    assert "teacher_overrides.price" in str(caught.value)


def test_hours_are_those_of_this_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(budgets.time, "monotonic", lambda: now)
    budget = Budget(GenerateSettings(max_hours=0.5), PRICED, Spent())
    now += 1_799
    assert budget(progress(0, 0), 0) is None
    now += 1
    assert budget(progress(0, 0), 0) == "--max-hours 0.5 are over"
