"""How many requests a server is sent: a simulated one that batches, one that turns requests away, one that was away."""

from __future__ import annotations

import pytest

from distill.sampling.concurrency import BACK_OFF, TOLERANCE, WINDOW, Concurrency


def rounds(limit: Concurrency, count: int, seconds: float, tokens: int = 100) -> None:
    """So many rounds in which every place is taken and each reply takes `seconds`."""
    for _ in range(count):
        for _ in range(limit.limit):
            limit.answered(seconds, tokens, used=True)


def test_it_doubles_each_round_while_latency_holds_up_to_the_most() -> None:
    limit = Concurrency(32, 500)
    rounds(limit, 1, 1.0)
    assert 32 < limit.limit <= 64
    rounds(limit, 5, 1.0)
    assert limit.limit == 500


def test_it_settles_where_replies_take_as_long_per_token_as_they_may() -> None:
    """A server with 100 places: those beyond wait, and each token takes in proportion."""
    limit = Concurrency(32, 10_000)
    for _ in range(300):
        at_once = limit.limit
        for _ in range(at_once):
            limit.answered(max(1.0, at_once / 100), 100, used=True)
    assert 100 * TOLERANCE * 0.9 <= limit.limit <= 100 * TOLERANCE * 1.1


def test_longer_replies_are_no_slower_ones() -> None:
    limit = Concurrency(32, 64)
    rounds(limit, 1, 1.0, tokens=100)
    rounds(limit, 2, 300.0, tokens=30_000)
    assert limit.limit == 64


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limit = Concurrency(32, 64)
    for _ in range(10 * WINDOW):
        limit.answered(1.0, 100, used=limit.is_used(5))
    assert limit.limit == 32
    assert limit.is_used(16)
    assert not limit.is_used(15)


def test_a_wish_for_less_halves_it_once_for_all_that_were_sent_before() -> None:
    limit = Concurrency(64, 64)
    for _ in range(20):
        limit.back_off(asked=10.0, now=11.0)
    assert limit.limit == 64 * BACK_OFF
    limit.back_off(asked=11.5, now=12.0)
    assert limit.limit == 64 * BACK_OFF**2
    for second in range(100):
        limit.back_off(asked=20.0 + second, now=20.5 + second)
    assert limit.limit == 1


def test_after_a_bound_was_met_it_grows_by_one_a_round() -> None:
    limit = Concurrency(64, 256)
    limit.back_off(1.0, 2.0)
    rounds(limit, 1, 1.0)  # to know the latency
    before = limit.limit
    rounds(limit, 4, 1.0)
    assert before + 3 <= limit.limit <= before + 4


def test_slow_replies_after_a_wish_for_less_do_not_raise_it() -> None:
    limit = Concurrency(64, 64)
    rounds(limit, 2, 1.0)
    for second in range(20):
        limit.back_off(20.0 + second, 20.5 + second)
    assert limit.limit == 1
    rounds(limit, 40, 50.0)
    assert limit.limit < 8, "the first few were not known to be slow"


def test_after_an_absence_it_begins_again() -> None:
    limit = Concurrency(16, 256)
    rounds(limit, 6, 1.0)
    assert limit.limit == 256
    limit.begin_again()
    assert limit.limit == 16
    assert not limit.holds, "what was fast before is not known now"


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_replies_without_a_count_of_tokens_are_taken_by_their_time(tokens: int | None) -> None:
    limit = Concurrency(16, 64)
    for _ in range(6 * WINDOW):
        limit.answered(1.0, tokens, used=True)
    assert limit.limit == 64
