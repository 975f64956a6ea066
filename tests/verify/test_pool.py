"""The pool: order kept, and no answer, however hostile, that stops the ones behind it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from itertools import count, islice

import pytest

from distill.errors import RunError
from distill.verify import PASS, failing
from distill.verify.pool import MOST_HELD, Item, VerifierPool

MATH = "distill.verify.math:check_math"
OBEY = "verify.hostile:obey"


def expected(number: int) -> object:
    return PASS if number % 3 == 0 else failing(f"number_{number}")


@pytest.mark.parametrize("workers", [1, 3])
def test_order_is_kept_whatever_the_number_of_workers(workers: int) -> None:
    with VerifierPool(OBEY, workers=workers) as pool:
        assert list(pool.map(("judge", number) for number in range(50))) == [expected(n) for n in range(50)]
        assert list(pool.map([])) == []
        assert list(pool.map([("judge", 7)])) == [failing("number_7")], "a pool may be used again"


def test_a_verifier_that_fails_abstains_and_the_rest_are_judged() -> None:
    orders = ["judge", "die", "raise", "judge", "hang", "recurse", "eat", "die", "judge"]
    with VerifierPool(OBEY, workers=2, seconds=1.0) as pool:
        found = list(pool.map((order, number) for number, order in enumerate(orders)))
    reasons = {"die": "crash", "raise": "error", "hang": "timeout", "recurse": "limit", "eat": "limit"}
    for number, (order, outcome) in enumerate(zip(orders, found, strict=True)):
        if order == "judge":
            assert outcome == expected(number)
        else:
            assert (outcome.outcome, outcome.reason) == ("abstain", f"verifier_{reasons[order]}")


def test_a_verifier_that_cannot_be_loaded_abstains() -> None:
    with VerifierPool("verify.hostile:no_such_function", workers=1) as pool:
        assert [found.reason for found in pool.map([("judge", 1)])] == ["verifier_crash"]


def test_a_verifier_that_can_never_be_loaded_ends_the_run() -> None:
    with (
        VerifierPool("verify.hostile:no_such_function", workers=1) as pool,
        pytest.raises(RunError, match="cannot be loaded: 3 worker processes ended"),
    ):
        list(pool.map(("judge", number) for number in range(10)))


def test_one_bad_item_of_a_chunk_costs_no_other_and_order_is_kept() -> None:
    orders = ["judge"] * 40
    bad = {3: "die", 4: "hang", 17: "raise", 18: "die", 39: "hang"}
    for number, order in bad.items():
        orders[number] = order
    reasons = {"die": "crash", "raise": "error", "hang": "timeout"}
    with VerifierPool(OBEY, workers=2, seconds=1.0, chunk=16) as pool:
        found = list(pool.map((order, number) for number, order in enumerate(orders)))
        assert pool.killed == 4, "an exception is no reason to end a worker"
    for number, outcome in enumerate(found):
        if number in bad:
            assert (outcome.outcome, outcome.reason) == ("abstain", f"verifier_{reasons[bad[number]]}")
        else:
            assert outcome == expected(number)


def test_an_item_has_a_clock_of_its_own_in_a_chunk() -> None:
    """A chunk may take longer than an item may; a module says how long an item may take."""
    with VerifierPool("verify.patient:wait", workers=1, seconds=1.0, chunk=8) as pool:
        found = list(pool.map([(0.4, 1.0)] * 4 + [(1.5, 3.0), (1.5, 0.5)]))
    assert [outcome.reason for outcome in found] == [""] * 5 + ["verifier_timeout"]


def test_what_only_some_items_need_is_loaded_before_their_clock_runs() -> None:
    with VerifierPool("verify.patient:wait_readily", workers=1) as pool:
        found = list(pool.map([(0.1, 0.5), (0.1, 0.5), (1.5, 0.5)]))
    assert [outcome.reason for outcome in found] == ["", "", "verifier_timeout"], "loading took a second"


def test_a_verifier_sees_a_chunk_ahead_and_does_without_where_that_fails() -> None:
    with VerifierPool("verify.foresighted:count", workers=1, chunk=3) as pool:
        found = [outcome.score for outcome in pool.map((number,) for number in (1, 2, 3, 4, -5, 6, 7))]
    assert found == [3.0, 3.0, 3.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("chunk", [1, 4, 8])
def test_a_worker_that_dies_ahead_costs_the_item_that_kills_it(chunk: int) -> None:
    with VerifierPool("verify.foresighted:count", workers=2, chunk=chunk) as pool:
        found = [outcome.reason for outcome in pool.map((number,) for number in range(8, 20))]
    assert found == ["verifier_crash" if number == 13 else "" for number in range(8, 20)]


def test_a_worker_that_hangs_ahead_costs_no_item(monkeypatch: pytest.MonkeyPatch) -> None:
    with VerifierPool("verify.foresighted:count", workers=1, chunk=3) as pool:
        outcomes = pool.map((number,) for number in (1, 2, 3, 98, 99, 100))
        found = [next(outcomes) for _ in range(3)]
        worker = pool._workers[0]
        while not worker.clock.ahead:
            time.sleep(0.01)
        worker.clock.until = time.monotonic()  # rather than two minutes later
        found += outcomes
    assert [outcome.reason for outcome in found] == [""] * 6
    assert pool.killed == 1


def test_workers_may_be_started_before_there_is_an_item() -> None:
    with VerifierPool("verify.foresighted:count", workers=2) as pool:
        pool.start(5)
        started = [worker.process.pid for worker in pool._workers]
        assert len(set(started)) == 2, "no more than the pool has room for"
        assert [outcome.score for outcome in pool.map([(1,), (2,)])] == [1.0, 1.0]
        assert [worker.process.pid for worker in pool._workers] == started


def test_items_are_taken_lazily() -> None:
    taken: list[int] = []

    def endless() -> Iterator[Item]:
        for number in count():
            taken.append(number)
            yield "judge", number

    with VerifierPool(OBEY, workers=1) as pool:
        assert list(islice(pool.map(endless()), 5)) == [expected(n) for n in range(5)]
    assert len(taken) < 20


def test_few_outcomes_are_held_behind_one_that_takes_long() -> None:
    taken = 0

    def orders() -> Iterator[Item]:
        nonlocal taken
        yield "hang", 0
        for taken in range(1, MOST_HELD + 500):
            yield "judge", taken

    with VerifierPool(OBEY, workers=2, seconds=2.0) as pool:
        found = pool.map(orders())
        assert next(found).reason == "verifier_timeout"
        assert taken == MOST_HELD + 1, "held, and one in hand"
        assert list(found) == [expected(number) for number in range(1, MOST_HELD + 500)]


class Inbox:
    """A source of items that never waits: None while it is empty."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, Item]] = deque()
        self.closed = False
        self.asked = 0

    def __iter__(self) -> Iterator[tuple[str, Item] | None]:
        while self.waiting or not self.closed:
            self.asked += 1
            yield self.waiting.popleft() if self.waiting else None


def test_an_outcome_does_not_wait_for_one_that_takes_long() -> None:
    orders = [("slow", ("hang", 0)), ("first", ("judge", 3)), ("second", ("judge", 4))]
    with VerifierPool(OBEY, workers=2, seconds=2.0) as pool:
        assert [tag for tag, _ in pool.as_they_come(iter(orders))] == ["first", "second", "slow"]


def test_a_source_may_have_nothing_at_the_moment() -> None:
    inbox = Inbox()
    found: deque[tuple[str, object]] = deque()
    with VerifierPool(OBEY, workers=2, seconds=60.0) as pool:
        thread = threading.Thread(target=lambda: found.extend(pool.as_they_come(inbox)))
        thread.start()
        time.sleep(0.3)
        assert inbox.asked == 1, "an idle pool waits, it does not ask over and over"
        asked = list(range(40))
        for number in asked:
            inbox.waiting.append((f"{number}", ("judge", number)))
            pool.nudge()
            time.sleep(0.01)
        inbox.closed = True
        pool.nudge()
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(found, key=lambda pair: int(pair[0])) == [(f"{n}", expected(n)) for n in asked]


def test_outcomes_and_new_items_pass_at_once_while_another_worker_is_busy() -> None:
    inbox = Inbox()
    came: deque[tuple[str, float]] = deque()
    with VerifierPool(OBEY, workers=2, seconds=60.0) as pool:

        def listen() -> None:
            for tag, _ in pool.as_they_come(inbox):
                came.append((tag, time.monotonic()))

        thread = threading.Thread(target=listen)
        inbox.waiting.extend([("hang", ("hang", 0)), ("warm", ("judge", 1))])
        thread.start()
        while not came:
            time.sleep(0.01)
        waited = []
        for number in range(10):
            given = time.monotonic()
            inbox.waiting.append((f"{number}", ("judge", number)))
            pool.nudge()
            while came[-1][0] != f"{number}":
                time.sleep(0.001)
            waited.append(came[-1][1] - given)
        assert sorted(waited)[5] < 0.1, "the pool looks up by itself only every 0.2 s"
        pool.stop()
        thread.join(5)
        assert not thread.is_alive(), "stopped with a worker still busy"


def test_nudges_that_nobody_hears_do_not_block() -> None:
    with VerifierPool(OBEY, workers=1) as pool:
        for _ in range(100_000):
            pool.nudge()
        assert list(pool.map([("judge", 7)])) == [failing("number_7")]


def test_hostile_answers_neither_hang_nor_pass_and_those_behind_them_are_judged() -> None:
    bracketed = r"\boxed{" + "{" * 5_000 + "7" + "}" * 5_000 + "}"  # whoever sees through it may call it right
    hostile = [
        r"\boxed{9^{9^{9^9}}}",
        r"\boxed{(((9^9)^9)^9)^9 \cdot 8^{8^8}}",
        bracketed,
        r"\boxed{" * 3_000,
        r"\boxed{" + "7" * 1_000_000 + "}",
        "7" * 1_000_000,
        r"\boxed{7" + "\ud83d}",
        "\udcff" * 100,
        r"\boxed{\frac{1}{\frac{1}{\frac{1}{0}}}}",
        r"\boxed{" + r"\frac{1}{" * 300 + "7" + "}" * 300 + "}",
        r"\boxed{factorial(factorial(factorial(20)))}",
        r"\boxed{20!!!!!!}",
        r"\boxed{__import__('os').system('touch /tmp/pwned')}",
        "\x00\x1b[31m",
    ]
    items = [pair for text in hostile for pair in ((text, "7"), (r"\boxed{7}", "7"), (r"\boxed{8}", "7"))]
    with VerifierPool(MATH, workers=2, seconds=2.0) as pool:
        found = list(pool.map(items))
    assert [outcome.outcome for outcome in found[1::3]] == ["pass"] * len(hostile)
    assert [outcome.reason for outcome in found[2::3]] == ["wrong_answer"] * len(hostile)
    assert all(
        outcome.outcome != "pass" for text, outcome in zip(hostile, found[0::3], strict=True) if text != bracketed
    )
    assert found[0].outcome == "abstain", "too big to compute, and seen before it is tried"


def test_the_number_of_workers_changes_no_outcome() -> None:
    items = [(rf"\boxed{{{n % 5}}} of {n}", "3") for n in range(30)]
    outcomes = []
    for workers in (1, 3):
        with VerifierPool(MATH, workers=workers) as pool:
            outcomes.append(list(pool.map(items)))
    assert outcomes[0] == outcomes[1]
    assert sum(outcome == PASS for outcome in outcomes[0]) == 6
