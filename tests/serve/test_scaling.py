"""The number of replicas follows the queue: late enough to be sure, by one at a time, within bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.serve.scaling import SCALE_DOWN_SECONDS, SCALE_UP_SECONDS, Load, Scaling, Wanted, no_room, wanted

BUSY = Load(ready=2, starting=0, waiting=51, running=200, most_running=100)
IDLE = Load(ready=2, starting=0, waiting=0, running=59, most_running=100)
CALM = Load(ready=2, starting=0, waiting=50, running=200, most_running=100)


def over(load: Load, *seconds: float, least: int = 1, most: int = 4, before: Scaling = Scaling()) -> Wanted:  # noqa: B008
    """The last of several looks at the same load."""
    scaling = before
    for now in seconds:
        found = wanted(now, load, scaling, least=least, most=most)
        scaling = found.scaling
    return found


@pytest.mark.parametrize(
    ("load", "seconds", "replicas"),
    [
        (BUSY, SCALE_UP_SECONDS, 3),
        (BUSY, SCALE_UP_SECONDS - 0.1, 2),
        (CALM, 9_999.0, 2),
        (IDLE, SCALE_DOWN_SECONDS, 1),
        (IDLE, SCALE_DOWN_SECONDS - 0.1, 2),
        (replace(IDLE, running=60), 9_999.0, 2),
        (replace(IDLE, running=50, waiting=1), 9_999.0, 2),
        (replace(BUSY, starting=1), 9_999.0, 3),
        (replace(IDLE, starting=1), 9_999.0, 3),
        (replace(IDLE, ready=0, starting=1), 9_999.0, 1),
        (replace(IDLE, ready=0), 9_999.0, 1),
        (replace(IDLE, ready=1, running=0), 9_999.0, 1),
    ],
)
def test_after_so_long(load: Load, seconds: float, replicas: int) -> None:
    assert over(load, 1_000.0, 1_000.0 + seconds).replicas == replicas


def test_the_first_look_changes_nothing_and_remembers() -> None:
    assert wanted(7.0, BUSY, Scaling(), least=1, most=4) == Wanted(2, None, Scaling(long_since=7.0, full=100.0))
    assert wanted(7.0, IDLE, Scaling(), least=1, most=4) == Wanted(2, None, Scaling(low_since=7.0))


def test_a_moment_of_calm_begins_the_waiting_anew() -> None:
    scaling = wanted(0.0, BUSY, Scaling(), least=1, most=4).scaling
    scaling = wanted(50.0, CALM, scaling, least=1, most=4).scaling
    assert scaling == Scaling(full=100.0)
    scaling = wanted(55.0, BUSY, scaling, least=1, most=4).scaling
    assert wanted(100.0, BUSY, scaling, least=1, most=4).replicas == 2
    assert wanted(115.0, BUSY, scaling, least=1, most=4).replicas == 3


def test_each_change_says_why_and_begins_anew() -> None:
    up, down = over(BUSY, 0.0, 60.0), over(IDLE, 0.0, 300.0)
    assert up.why == "51 requests wait, more than 25% of 200 places, for 60 s"
    assert down.why == "59 requests run, less than 60% of the 100 places of one replica fewer, for 300 s"
    assert up.scaling == Scaling(full=100.0)
    assert down.scaling == Scaling()


def test_a_full_cache_counts_as_full() -> None:
    """Two replicas that may run 1,024 requests each, and have cache for 32."""
    full = Load(ready=2, starting=0, waiting=20, running=64, most_running=1_024)
    looks = [replace(full, running=0, waiting=84), full, full, replace(full, running=50)]
    scaling = Scaling()
    for second, load in enumerate(looks):
        scaling = wanted(30.0 * second, load, scaling, least=1, most=4).scaling
    assert scaling.full == 32.0
    assert over(full, 0.0, SCALE_UP_SECONDS).replicas == 3
    quiet = replace(full, waiting=0, running=50)
    kept = wanted(200.0, quiet, scaling, least=1, most=4).scaling
    assert wanted(999.0, quiet, kept, least=1, most=4).replicas == 2, "one alone would have no place for 50"
    quiet = replace(full, waiting=0, running=19)
    kept = wanted(200.0, quiet, scaling, least=1, most=4).scaling
    found = wanted(999.0, quiet, kept, least=1, most=4)
    assert found.replicas == 1
    assert found.scaling == Scaling(full=32.0), "it is remembered"
    assert over(replace(full, starting=1), 0.0).scaling == Scaling()
    assert wanted(0.0, replace(full, ready=9), scaling, least=1, most=4).scaling == Scaling(full=32.0)


def test_nothing_is_taken_away_while_somebody_waits() -> None:
    known = Scaling(full=100.0)
    assert over(replace(IDLE, waiting=1), 0.0, 999.0, before=known).replicas == 2
    assert over(IDLE, 0.0, 999.0, before=known).replicas == 1


def test_bounds() -> None:
    assert over(BUSY, 0.0, 999.0, most=2).replicas == 2
    assert over(IDLE, 0.0, 999.0, least=2).replicas == 2
    assert over(IDLE, 0.0, least=3) == Wanted(3, "2 replicas are not between 3 and 4", Scaling())
    assert over(replace(IDLE, ready=6), 0.0).replicas == 4
    assert over(replace(IDLE, ready=0), 0.0, least=2).replicas == 2


def test_without_room_it_asks_again_later() -> None:
    scaling = no_room(60.0, over(BUSY, 0.0, 60.0).scaling)
    assert wanted(119.0, BUSY, scaling, least=1, most=4).replicas == 2
    assert wanted(120.0, BUSY, scaling, least=1, most=4).replicas == 3


counts = st.integers(0, 2_000)
loads = st.builds(Load, st.integers(0, 8), st.integers(0, 3), counts, counts, st.integers(1, 1_024))


@given(st.lists(st.tuples(st.floats(0, 400), loads), max_size=30), st.integers(1, 4), st.integers(0, 6))
def test_it_moves_by_one_within_bounds_and_never_while_one_starts(
    looks: list[tuple[float, Load]], least: int, more: int
) -> None:
    most, now, scaling = least + more, 0.0, Scaling()
    for passed, load in looks:
        now += passed
        found = wanted(now, load, scaling, least=least, most=most)
        scaling = found.scaling
        have = load.ready + load.starting
        assert least <= found.replicas <= most
        assert (found.why is None) == (found.replicas == have)
        if least <= have <= most:
            assert abs(found.replicas - have) <= 1
            if load.starting:
                assert found.replicas == have


@given(counts, st.integers(1, 8), st.integers(1, 1_024), st.integers(1, 1_024))
def test_one_that_goes_is_not_called_back_nor_one_that_came_sent_away(
    requests: int, ready: int, most: int, cache: int
) -> None:
    """The same requests, spread over as many replicas as there are then."""

    def load(replicas: int) -> Load:
        running = min(requests, replicas * min(most, cache))
        return Load(replicas, 0, requests - running, running, most)

    known = Scaling(full=float(min(most, cache)))  # as learned from an earlier queue
    first = over(load(ready), 0.0, 1_000.0, most=9, before=known)
    second = over(load(first.replicas), 0.0, 1_000.0, most=9, before=first.scaling)
    assert (first.replicas - ready) * (second.replicas - first.replicas) >= 0
