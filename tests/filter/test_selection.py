"""Which traces are chosen of those that may be kept: by difficulty, per prompt, by domain; and the same every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.filter.selection import REASONS, Candidates, pass_rates, select
from distill.filter_specs import SelectSettings


def candidates(
    prompts: list[int],
    tokens: list[int] | None = None,
    domains: list[str] | None = None,
    bands: list[list[int]] | None = None,
) -> Candidates:
    names = list(dict.fromkeys(domains or [""]))
    return Candidates(
        np.array(prompts, np.int64),
        np.array(tokens if tokens is not None else [10] * len(prompts), np.int64),
        np.array([names.index(name) for name in domains] if domains else [0] * len(prompts), np.int32),
        np.array(bands, np.uint32) if bands is not None else None,
        names,
    )


def chosen(found: Candidates, rates: list[float] | None = None, seed: int = 0, **settings: Any) -> list[str]:
    """The reason of each candidate, empty for one that is chosen."""
    prompts = int(found.prompt.max(initial=0)) + 1
    of_prompt = np.array(rates if rates is not None else [0.5] * prompts)
    return [REASONS[code] for code in select(found, of_prompt, SelectSettings(**settings), seed)]


def test_a_pass_rate_is_over_what_could_be_judged() -> None:
    prompt = np.array([0, 0, 0, 1, 1, 3])
    right = np.array([True, False, False, True, True, False])
    judged = np.array([True, True, False, True, True, False])
    rates = pass_rates(prompt, right, judged, 4)
    assert rates[0] == 0.5
    assert rates[1] == 1.0
    assert np.isnan(rates[2:]).all()


def test_nothing_is_left_out_unasked() -> None:
    assert chosen(candidates([0, 0, 1]), rates=[float("nan"), 1.0]) == ["", "", ""]


def test_a_band_of_difficulty_holds_its_ends() -> None:
    rates = [0.0, 0.1, 0.5, 0.9, 1.0, float("nan")]
    found = chosen(candidates([0, 1, 2, 3, 4, 5]), rates, difficulty=(0.1, 0.9))
    assert found == ["too_hard", "", "", "", "too_easy", "unknown_difficulty"]


@pytest.mark.parametrize(
    ("prefer", "kept"),
    [("first", [0, 1, 4]), ("short", [1, 2, 4]), ("long", [0, 3, 4])],
)
def test_at_most_so_many_of_a_prompt_the_preferred_ones(prefer: str, kept: list[int]) -> None:
    found = candidates([0, 0, 0, 0, 1], [30, 10, 20, 40, 5])
    reasons = chosen(found, per_prompt=2, prefer=prefer)
    assert [place for place, reason in enumerate(reasons) if not reason] == kept
    assert set(reasons) == {"", "beyond_per_prompt"}


@pytest.mark.parametrize("prefer", ["short", "long"])
def test_a_trace_of_unknown_length_comes_last(prefer: str) -> None:
    assert chosen(candidates([0, 0], [-1, 10]), per_prompt=1, prefer=prefer) == ["beyond_per_prompt", ""]


def test_diverse_takes_the_least_alike_next() -> None:
    bands = [[1, 2, 3, 4], [1, 2, 3, 5], [9, 8, 7, 6], [1, 2, 7, 6]]
    found = candidates([0] * 4, bands=bands)
    assert chosen(found, per_prompt=2, prefer="diverse") == ["", *["beyond_per_prompt"] * 1, "", "beyond_per_prompt"]
    assert chosen(found, per_prompt=3, prefer="diverse") == ["", "beyond_per_prompt", "", ""]


def test_a_domain_gets_one_of_every_prompt_before_a_second_of_any() -> None:
    prompts = [place // 3 for place in range(30)]
    found = candidates(prompts, domains=["math"] * 30)
    reasons = chosen(found, domains={"math": 12})
    kept = [prompts[place] for place, reason in enumerate(reasons) if not reason]
    assert len(kept) == 12
    assert set(kept) == set(range(10))
    assert next(place for place, reason in enumerate(reasons) if not reason) % 3 == 0
    others = chosen(found, domains={"math": 5})
    again = chosen(found, domains={"math": 5}, seed=2)
    assert others.count("") == again.count("") == 5
    assert others != again, "drawn by the seed"
    assert chosen(found, domains={"math": 5}) == others


def test_domains_that_are_not_named_are_free_or_share_what_the_star_says() -> None:
    found = candidates([0, 1, 2, 3, 4, 5], domains=["math", "math", "code", "law", "law", "chat"])
    assert chosen(found, domains={"math": 1}).count("beyond_domain_count") == 1
    reasons = chosen(found, domains={"math": 0, "*": 2})
    assert reasons[:2] == ["beyond_domain_count"] * 2
    assert reasons[2:].count("") == 2
    assert chosen(found, domains={"physics": 3}) == [""] * 6, "there is nothing of it"


def test_difficulty_comes_before_counts() -> None:
    found = candidates([0, 1, 2], domains=["math"] * 3)
    assert chosen(found, [1.0, 0.5, 0.5], difficulty=(0.1, 0.9), domains={"math": 2}) == ["too_easy", "", ""]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 99), st.sampled_from("ab")), max_size=40), st.data())
def test_limits_hold_and_are_used_up(rows: list[tuple[int, int, str]], data: st.DataObject) -> None:
    rows.sort(key=lambda row: row[0])
    domain_of = {row[0]: row[2] for row in rows}
    per_prompt = data.draw(st.integers(1, 3))
    count = data.draw(st.integers(0, 9))
    found = candidates([r[0] for r in rows], [r[1] for r in rows], [domain_of[r[0]] for r in rows] or None)
    settings = {
        "per_prompt": per_prompt,
        "domains": {"a": count},
        "prefer": data.draw(st.sampled_from(["first", "short"])),
    }
    reasons = chosen(found, [0.5] * 6, **settings)
    kept = [row[0] for row, reason in zip(rows, reasons, strict=True) if not reason]
    assert all(kept.count(prompt) <= per_prompt for prompt in set(kept))
    available = sum(min(per_prompt, sum(r[0] == p for r in rows)) for p, name in domain_of.items() if name == "a")
    assert sum(domain_of[prompt] == "a" for prompt in kept) == min(count, available)
    free = [row[0] for row in rows if domain_of[row[0]] == "b"]
    assert sum(domain_of[prompt] == "b" for prompt in kept) == sum(min(per_prompt, free.count(p)) for p in set(free))


@pytest.mark.parametrize("settings", [{"difficulty": (0.9, 0.1)}, {"difficulty": (0, 2)}, {"domains": {"a": -1}}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"difficulty is a band|no negative"):
        SelectSettings(**settings)
