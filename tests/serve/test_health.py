"""Alive means that tokens come: who counts as stuck, and what follows from failures."""

from __future__ import annotations

import pytest

from distill.serve.health import FAILURES_UNREADY, FIRST_DELAY, LONGEST_DELAY, STEADY_SECONDS, Failures, Pulse


def pulse() -> Pulse:
    return Pulse(stall=30, probe_every=10, last_token=0)


def test_one_that_gives_tokens_is_never_stuck() -> None:
    seen = pulse()
    for now in range(0, 1_000, 5):
        seen.told(tokens=now * 7, requests=3, now=now)
        assert seen.stuck(now) is None
        assert not seen.wants_probe(now), "its own requests show that it lives"


def test_one_with_requests_and_no_token_is_stuck_though_it_answers() -> None:
    seen = pulse()
    for now in range(31):
        seen.told(tokens=70, requests=3, now=now)
        assert seen.stuck(now) is None
    assert seen.stuck(30.5) == "no token for 30 s: requests are in it and none gets a token"


def test_requests_that_come_and_go_do_not_hide_that_none_gets_a_token() -> None:
    """A dead engine answers each request with an error at once: now there is one in it, now there is none."""
    seen = pulse()
    for now in range(40):
        seen.told(tokens=70, requests=now % 2, now=now)
    assert seen.stuck(39) is not None


def test_an_idle_one_is_asked_and_lives_as_long_as_it_answers() -> None:
    seen = pulse()
    for now in range(200):
        seen.told(tokens=70, requests=0, now=now)
        if seen.wants_probe(now):
            assert now % 10 == 0
            seen.answered(now)
        assert seen.stuck(now) is None


def test_an_idle_one_whose_probes_fail_is_stuck_and_says_how_they_failed() -> None:
    seen = pulse()
    for now in range(31):
        seen.told(tokens=70, requests=0, now=now)
        if seen.wants_probe(now):
            seen.silent("HTTP 500: EngineDeadError")
    assert seen.wants_probe(31)
    seen.silent("HTTP 500: EngineDeadError")
    assert seen.stuck(31) == "no token for 31 s: HTTP 500: EngineDeadError"


def test_one_that_is_stopped_answers_nothing_and_is_stuck() -> None:
    seen = pulse()
    seen.told(tokens=1, requests=2, now=0)
    seen.silent("it does not answer")
    assert seen.stuck(29) is None
    assert seen.stuck(31) == "no token for 31 s: it does not answer"


def test_a_server_that_began_anew_is_seen_to_live() -> None:
    """Counters that fell are those of another process, which has given tokens."""
    seen = pulse()
    seen.told(tokens=500, requests=1, now=0)
    seen.told(tokens=3, requests=1, now=25)
    assert seen.stuck(40) is None


def test_failures_in_a_row_wait_longer_each_time_and_end() -> None:
    failures = Failures(most=12)
    failures.ready()
    delays = [failures.failed(5, final=False) for _ in range(11)]
    assert delays[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY
    assert failures.failed(5, final=False) is None, "a crash loop ends"


def test_ten_good_minutes_forget_what_was_before() -> None:
    failures = Failures(most=3)
    failures.ready()
    for _ in range(20):
        assert failures.failed(STEADY_SECONDS, final=False) == FIRST_DELAY
    assert failures.failed(STEADY_SECONDS - 1, final=False) is not None
    assert failures.failed(1, final=False) is None


def test_one_that_never_gave_a_token_is_given_up_earlier() -> None:
    failures = Failures(most=10)
    found = [failures.failed(0, final=False) for _ in range(FAILURES_UNREADY)]
    assert found[-1] is None
    assert None not in found[:-1]


@pytest.mark.parametrize("ready", [True, False])
def test_what_would_end_the_same_way_is_not_tried_again(ready: bool) -> None:
    failures = Failures(most=10, ever_ready=ready)
    assert failures.failed(0, final=True) is None


def test_a_service_that_was_stopped_itself_takes_no_replica_for_stuck() -> None:
    seen = pulse()
    seen.told(tokens=70, requests=0, now=0)
    seen.slept(500)
    assert seen.stuck(505) is None
    assert seen.stuck(531) is not None
