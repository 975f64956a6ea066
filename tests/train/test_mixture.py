"""Which traces each step takes: epochs, weights per domain, phases, order, and any step without replaying."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import SpecError, TrainingError
from distill.train.mixture import Schedule, hardness
from distill.train_specs import Phase


def phase(name: str = "", epochs: float = 1, **changed: Any) -> Phase:
    return Phase(name, epochs, changed.pop("rate", 1e-4), **{"mixture": {}, "order": "shuffled", **changed})


def steps_in(examples: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of one domain at weight 1: every epoch ends with a smaller batch where numbers do not divide."""
    return max(1, round(-(-examples // batch_size) * epochs))


def schedule(
    count: int = 50,
    *phases: Phase,
    batch: int = 8,
    seed: int = 3,
    lengths: Sequence[int] | None = None,
    domains: Sequence[str | None] | None = None,
    difficulty: Sequence[str | None] | None = None,
    **changed: Any,
) -> Schedule:
    return Schedule(
        np.array(lengths if lengths is not None else range(10, 10 + count), np.int32),
        domains or [None] * count,
        difficulty or [None] * count,
        phases or (phase(),),
        batch,
        seed,
        **changed,
    )


def taken(found: Schedule, first: int = 0, end: int | None = None) -> list[int]:
    return [index for step in range(first, found.steps if end is None else end) for index in found.batch(step).tolist()]


# --- epochs ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 20), st.sampled_from([0.05, 0.5, 1, 1.5, 2, 2.25, 3]))
def test_steps_are_counted_as_ever_and_an_epoch_takes_each_trace_once(count: int, batch: int, epochs: float) -> None:
    found = schedule(count, phase(epochs=epochs), batch=batch)
    assert found.steps == steps_in(count, batch, epochs)
    per_epoch = -(-count // batch)
    for start in range(0, found.steps - per_epoch + 1, per_epoch):
        assert sorted(taken(found, start, start + per_epoch)) == list(range(count))
        sizes = [len(found.batch(step)) for step in range(start, start + per_epoch)]
        assert sizes == [batch] * (per_epoch - 1) + [count - batch * (per_epoch - 1)]
    over = found.steps % per_epoch
    rest = taken(found, found.steps - over)
    assert len(set(rest)) == len(rest) > 0 or not over


def test_every_epoch_has_a_new_order_and_the_seed_decides_it() -> None:
    found = schedule(50, phase(epochs=3))
    orders = [tuple(taken(found, start, start + 7)) for start in (0, 7, 14)]
    assert len(set(orders)) == 3
    assert all(order != tuple(sorted(order)) for order in orders)
    assert taken(schedule(50, phase(epochs=3))) == taken(found)
    assert taken(schedule(50, phase(epochs=3), seed=4)) != taken(found)
    two = schedule(50, phase("a"), phase("b"))
    assert taken(two, 0, 7) != taken(two, 7), "phases do not repeat each other"


def test_any_step_without_those_before_it() -> None:
    phases = (phase("a", 2.5, mixture={"x": 0.5, "y": 2}), phase("b", 1, order="short_first"))
    domains = ["x", "y", "z"] * 20
    whole = schedule(60, *phases, domains=domains)
    straight = [whole.batch(step).tolist() for step in range(whole.steps)]
    for step in (whole.steps - 1, 0, 5, 4, 9, 17, 3):
        assert whole.batch(step).tolist() == straight[step]
        assert schedule(60, *phases, domains=domains).batch(step).tolist() == straight[step]


def test_the_order_never_changes_between_versions() -> None:
    """A training is resumed by a later numpy too: these were drawn once and stay."""
    assert schedule(10, batch=5, seed=1).batch(0).tolist() == [1, 7, 2, 6, 3]


def test_there_is_no_step_beyond_the_last() -> None:
    found = schedule(10)
    for step in (-1, found.steps):
        with pytest.raises(IndexError):
            found.batch(step)


def test_only_the_traces_that_fit_take_part_under_their_own_indices() -> None:
    within = np.array([3, 7, 11, 40])
    found = schedule(50, phase(epochs=2), batch=3, within=within)
    assert Counter(taken(found)) == dict.fromkeys([3, 7, 11, 40], 2)


# --- mixtures --------------------------------------------------------------------------------------------------------

DOMAINS: list[str | None] = ["math"] * 10 + ["code"] * 7 + ["chat"] * 5 + [None] * 3
OF = {name: [i for i, domain in enumerate(DOMAINS) if domain == name] for name in ("math", "code", "chat", None)}


def by_epoch(mixture: dict[str, float], epochs: int, **changed: Any) -> list[Counter[int]]:
    found = schedule(25, phase(epochs=epochs, mixture=mixture), domains=DOMAINS, batch=1000, **changed)
    assert found.steps == epochs
    return [Counter(found.batch(step).tolist()) for step in range(epochs)]


def test_a_weight_of_two_is_twice_an_epoch_and_of_none_never() -> None:
    for epoch in by_epoch({"math": 2, "chat": 0}, 2):
        assert epoch == {i: 2 if DOMAINS[i] == "math" else 1 for i in range(25) if DOMAINS[i] != "chat"}


def test_half_a_domain_is_another_half_in_the_next_epoch() -> None:
    first, second, third, fourth = by_epoch({"math": 0.5, "code": 0.5}, 4)
    assert sum(first[i] for i in OF["math"]) == 5
    for domain in ("math", "code"):
        assert Counter({i: (first + second)[i] for i in OF[domain]}) == dict.fromkeys(OF[domain], 1)
        assert Counter({i: (third + fourth)[i] for i in OF[domain]}) == dict.fromkeys(OF[domain], 1)
    assert sorted(i for i in OF["math"] if first[i]) != OF["math"][:5], "which half is drawn"


@given(st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.75, 1.2, 2.5, 3.7]), st.integers(0, 99))
@settings(max_examples=30)
def test_over_enough_epochs_every_trace_is_seen_equally_often(weight: float, seed: int) -> None:
    epochs = by_epoch({"code": weight, "chat": 0}, 20, seed=seed)
    seen = sum(epochs, Counter())
    assert {seen[i] for i in OF["code"]} == {round(20 * weight)}
    assert {seen[i] for i in OF["math"]} == {20}
    for epoch in epochs:
        assert abs(sum(epoch[i] for i in OF["code"]) - 7 * weight) < 1
        assert max(epoch[i] for i in OF["code"]) - min(epoch[i] for i in OF["code"]) <= 1


def test_steps_follow_the_weights() -> None:
    assert schedule(25, phase(mixture={"math": 3}), domains=DOMAINS, batch=5).steps == 9
    assert schedule(25, phase(mixture={"math": 0, "code": 0, "chat": 0.2}), domains=DOMAINS, batch=1).steps == 4


def test_a_domain_that_no_trace_has() -> None:
    with pytest.raises(SpecError, match="no kept trace is of the domain 'maths'; did you mean 'math'") as caught:
        schedule(25, phase(), phase("late", mixture={"maths": 2}), domains=DOMAINS)
    assert caught.value.todo == "this run's domains: chat, code, math"
    assert caught.value.given == "the mixture of the phase 'late'"


# --- phases ----------------------------------------------------------------------------------------------------------


def test_phases_follow_each_other() -> None:
    first, second = phase("wide", 2), phase("narrow", 1, mixture={"math": 0}, rate=1e-5)
    found = schedule(25, first, second, domains=DOMAINS, batch=10)
    assert found.steps == 2 * 3 + 2
    places = [found.phase_at(step) for step in range(found.steps)]
    assert [place.phase for place in places] == [first] * 6 + [second] * 2
    assert [place.index for place in places] == [0] * 6 + [1] * 2
    assert [place.step_in_phase for place in places] == [*range(6), 0, 1]
    assert [place.steps_in_phase for place in places] == [6] * 6 + [2] * 2
    assert sorted(taken(found, 6)) == [i for i in range(25) if DOMAINS[i] != "math"]


def test_length_bounds_include_their_ends() -> None:
    lengths = [5, 10, 11, 20, 21]
    assert sorted(taken(schedule(5, phase(shortest=10, longest=20), lengths=lengths))) == [1, 2, 3]
    assert sorted(taken(schedule(5, phase(shortest=11), lengths=lengths))) == [2, 3, 4]


@pytest.mark.parametrize(
    ("changed", "within", "why"),
    [
        ({"shortest": 900}, None, "none of the 25 traces has at least 900 tokens"),
        ({"shortest": 1, "longest": 9}, None, "none of the 25 traces has at least 1 and at most 9 tokens"),
        (
            {"mixture": {"math": 0}, "longest": 19},
            None,
            "the mixture gives all of the 10 traces the weight 0: math",
        ),
        ({}, np.zeros(0, np.int64), "no trace fits the context"),
    ],
)
def test_a_phase_that_leaves_nothing_says_which_and_why(changed: dict[str, Any], within: Any, why: str) -> None:
    with pytest.raises(TrainingError, match="the phase 'late' has nothing to train on") as caught:
        schedule(
            25, *([phase("early")] if within is None else []), phase("late", **changed), domains=DOMAINS, within=within
        )
    assert caught.value.given == why


# --- order -----------------------------------------------------------------------------------------------------------


def test_short_first_in_every_epoch_anew() -> None:
    lengths = [30, 10, 20, 10, 30, 20, 10, 30] * 4
    found = schedule(32, phase(epochs=2, order="short_first"), batch=5, lengths=lengths)
    epochs = [taken(found, 0, 7), taken(found, 7)]
    for epoch in epochs:
        assert [lengths[i] for i in epoch] == sorted(lengths)
        assert sorted(epoch) == list(range(32))
    assert epochs[0] != epochs[1], "equals are shuffled"


def test_easy_first_by_the_number_in_the_label_and_those_without_last() -> None:
    labels = ["Level 5", "Level 10", "Level 1", None, "Level 2", "hard"]
    found = taken(schedule(6, phase(order="easy_first"), difficulty=labels))
    assert found[:4] == [2, 4, 0, 1], "10 is more than 5"
    assert sorted(found[4:]) == [3, 5]


def test_easy_first_needs_numbers() -> None:
    half = ["easy", "7", None, "3"]
    schedule(4, phase(order="easy_first"), difficulty=half)
    with pytest.raises(
        TrainingError, match="cannot go from easy to hard: most of its prompts have no number"
    ) as caught:
        schedule(5, phase(order="easy_first"), difficulty=[*half, "hard"])
    assert caught.value.given == "3 of 5 traces"
    only = phase(order="easy_first", mixture={"x": 0})
    schedule(5, only, difficulty=[*half, "hard"], domains=["x", None, None, None, None][::-1])


def test_hardness() -> None:
    inf = float("inf")
    assert hardness(["Level 5", "1500", "-2", "3.5 of 10", None, "", "medium"]).tolist() == [
        5,
        1500,
        -2,
        3.5,
        inf,
        inf,
        inf,
    ]
    assert hardness(["0", "1", "1"]).tolist() == [0, 1, 1], "levels"
    assert hardness(["0.25", "1", None, "0"]).tolist() == [-0.25, -1, inf, 0], "solve rates: often solved is easy"
    assert hardness(["0.5", "2"]).tolist() == [0.5, 2]
    assert hardness([]).tolist() == []
