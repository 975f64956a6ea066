"""When enough has been spent, counting earlier starts and what is in flight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ledger_material import trace

from distill.errors import UsageError
from distill.ledger import Ledger, LedgerReader
from distill.records import Trace
from distill.sampling import budget as budgets
from distill.sampling.budget import Budget, Spent, spent_before
from distill.sampling.scheduler import Progress
from distill.teacher_specs import GenerateSettings, Price, TeacherSpec

PRICED = TeacherSpec(name="t", model="m", price=Price(prompt=1.0, completion=2.0))


LONGEST = 1_000


def progress(answered: int, tokens: int, prompt_tokens: int = 0, *, partly: int = 0) -> Progress:
    """So many replies of so many tokens together, and `partly` tokens of replies that are not whole yet."""
    found = Progress(100, answered=answered, completion_tokens=tokens + partly, prompt_tokens=prompt_tokens)
    found.finished_tokens = tokens
    return found


def budget_of(settings: GenerateSettings, before: Spent, teacher: TeacherSpec = PRICED) -> Budget:
    return Budget(settings, teacher, before, LONGEST)


def test_without_limits_nothing_ends() -> None:
    budget = budget_of(GenerateSettings(), Spent())
    assert budget.used_up(progress(10**6, 10**9)) is None
    assert not budget.holds_back(progress(10**6, 10**9), 1_000)


def test_tokens_of_earlier_starts_count() -> None:
    budget = budget_of(GenerateSettings(max_tokens_total=1_000), Spent(0, 600, 6))
    assert budget.used_up(progress(3, 300)) is None, "one more of 100 fits"
    assert budget.used_up(progress(4, 400)) == "--max-tokens-total 1,000 is reached"
    assert budget.tokens(progress(3, 300)) == 900


def test_what_is_in_flight_counts_at_the_mean_so_far_and_only_holds_back() -> None:
    budget = budget_of(GenerateSettings(max_tokens_total=1_000), Spent(0, 500, 5))
    assert not budget.holds_back(progress(0, 0), 4)
    assert budget.holds_back(progress(0, 0), 5)
    assert budget.used_up(progress(0, 0)) is None


def test_before_the_first_reply_each_may_be_as_long_as_it_is_allowed() -> None:
    budget = budget_of(GenerateSettings(max_tokens_total=4 * LONGEST), Spent())
    assert not budget.holds_back(progress(0, 0), 3)
    assert budget.holds_back(progress(0, 0), 4)


def test_slices_of_what_is_in_flight_are_no_longer_replies() -> None:
    """64 replies in slices, none whole yet: what they have is paid for, not expected once more for each."""
    budget = budget_of(GenerateSettings(max_tokens_total=10_000_000), Spent())
    sliced = progress(0, 0, partly=64 * 500)
    assert budget.used_up(sliced) is None
    assert not budget.holds_back(sliced, 64)


def test_cost_is_prompt_and_completion_tokens_at_their_prices() -> None:
    budget = budget_of(GenerateSettings(max_cost=5.0), Spent(1_000_000, 1_000_000, 10))
    assert budget.cost(progress(0, 0)) == 3.0
    assert budget.used_up(progress(10, 500_000, 500_000)) is None
    assert budget.used_up(progress(10, 1_000_000, 500_000)) == "--max-cost 5 is reached"
    assert budget.holds_back(progress(0, 0), 6), "seven more at 0.3 each"
    assert not budget.holds_back(progress(0, 0), 5)


def test_a_limit_of_cost_needs_a_price() -> None:
    with pytest.raises(UsageError, match="--max-cost needs a price, and the spec of t has none") as caught:
        budget_of(GenerateSettings(max_cost=5.0), Spent(), TeacherSpec(name="t", model="m"))
    assert "teacher_overrides.price" in str(caught.value)


def test_hours_are_those_of_this_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(budgets.time, "monotonic", lambda: now)
    budget = budget_of(GenerateSettings(max_hours=0.5), Spent())
    now += 1_799
    assert budget.used_up(progress(0, 0)) is None
    now += 1
    assert budget.used_up(progress(0, 0)) == "--max-hours 0.5 are over"


def record(key: str, finish: str, tokens: int | None, revision: int = 0) -> Trace:
    made = trace(key, revision=revision, finish=finish)
    ids = {"prompt_ids": (1,), "output_ids": (2,)} if finish == "length" else {}
    return replace(made, completion_tokens=tokens, prompt_tokens=10 if tokens else None, max_tokens=1_000, **ids)


def test_what_was_paid_before_is_every_token_once(tmp_path: Path) -> None:
    written = [
        record("whole", "stop", 100),
        record("failed", "error", 50),  # a reply came, and was a failure
        record("failed", "stop", 60, 1),
        record("lost", "error", None),
        record("lost", "stop", 70, 1),
        record("sliced", "length", 40),
        record("sliced", "length", 80, 1),
        record("sliced", "stop", 95, 2),
        record("left", "length", 30),
        record("left", "length", 30, 1),  # no room for more: said anew
        record("reparsed", "stop", 20),
        record("reparsed", "stop", 20, 1),
    ]
    with Ledger(tmp_path) as ledger:
        for one in written:
            ledger.append(one)
    found = spent_before(LedgerReader(tmp_path))
    assert found.completion_tokens == 100 + 50 + 60 + 70 + 95 + 30 + 20
    assert found.replies == 6, "whole, failed twice, lost, sliced, reparsed; `left` is no whole reply"
    assert found.prompt_tokens == 10 * (1 + 2 + 1 + 3 + 1 + 1)
