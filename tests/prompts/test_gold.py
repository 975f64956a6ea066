"""Golds of every kind that public sets hold: what can be read, and that the fast path never says more than the slow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.prompts import gold as gold_module
from distill.prompts.gold import _PLAIN, GoldReader, gold_mark, plain
from distill.verify import PASS, Outcome, abstaining
from distill.verify.math import LONGEST, check_math, read_gold
from prompts.test_marks import GSM8K

FAST = [
    "0", "7", "-12", "007", "1,234", "-1,234,567.50", "3.14", "$5", r"\$1,234.50", "50%", r"12.5\%", "3/4", "-3/4",
    r"\frac{1}{2}", r"-\dfrac{3}{4}", r"\tfrac{22}{7}", r"2\sqrt{3}", r"\sqrt{2}", r"\pi", r"12\pi", r"60^\circ",
    r"45^{\circ}", "A", "x = 3", r"x=\frac{1}{2}", "(3, 4)", "(1,-2,3)", "[1,2]", "(0,5]", r"5\text{ cm}",
    r"3 \text{hours}",
]  # fmt: skip
SLOW = [
    "x=1, y=2", "5, 7", r"\{1,2,3\}", r"(-\infty,-1)\cup(2,+\infty)", r"\left[-\frac{1}{2},1\right)",
    "x^2+y^2=1", "2n-1",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\text{even}", r"\text{No solution}", r"\text{Monday}", r"\mathbb{R}",
    r"1 \text{ or } 2", r"(2,3)\text{ or }(3,2)", "1 1/2", r"\log_2 3", r"\sin x", "sin x", r"\binom{5}{2}", "x>3",
    r"-1 \leq x \leq 1", r"1.2 \times 10^{5}", "2516_8", r"5 \pm \sqrt{2}", "9^{9^{9^9}}",
    "5 apples", "12 cm", "-.5", "$-5",
    r"$\frac{1}{2}$", r"\boxed{5}", "1" * 1_500, "ABC", "a_n = 2n+1", "5:3", r"\overrightarrow{AB}", "12\n",
    "½", "1e5", "15 million", r"15 \text{ minutes } 30 \text{ seconds}", r"\leq 5", r"k \in \mathbb{Z}, k\ne 0",
    "even", "yes", "no", "Tuesday", "no solution exists", "20 miles per gallon of fuel",
]  # fmt: skip
UNREADABLE = {
    "": "no_gold",
    " \n": "no_gold",
    "proof": "no_gold",
    "Proof\n": "no_gold",
    "notfound": "no_gold",
    "n/a": "no_gold",
    "even if the number is odd": "unparseable_gold",
    "The answer is the set of all primes": "unparseable_gold",
    r"\text{the function is increasing on its domain}": "unparseable_gold",
    "存在": "unparseable_gold",
    "1/0": "unparseable_gold",
    r"\frac{1}{0}": "unparseable_gold",
    "3\n4": "ambiguous_gold",
    "7\ud800": "unparseable_gold",
    "\udc00": "unparseable_gold",
    "1" * (LONGEST + 1): "unparseable_gold",
    "{" * 100_000: "unparseable_gold",
    "{" * 50_000 + "7" + "}" * 50_000: "unparseable_gold",
    "0x10": "ambiguous_gold",
    r"f(n)=n \text{ for all } n": "ambiguous_gold",
}


@pytest.mark.parametrize("gold", FAST + SLOW)
def test_a_readable_gold_passes_in_its_own_box(gold: str) -> None:
    assert read_gold(gold) == PASS
    assert check_math(f"So it is \\boxed{{{gold}}}.", gold) == PASS


@pytest.mark.parametrize("gold", FAST)
def test_the_fast_path_knows_the_plain_forms(gold: str) -> None:
    assert plain(gold)


@pytest.mark.parametrize(
    "gold", [*SLOW, *UNREADABLE, "1/00", "٣", "１２", "1,23", "12,34", "5\n", "-$5", "F", "1" * 101]
)
def test_the_fast_path_claims_nothing_else(gold: str) -> None:
    assert not plain(gold)


@given(st.from_regex(_PLAIN, fullmatch=True))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_whatever_the_fast_path_calls_readable_is(gold: str) -> None:
    assert read_gold(gold) == PASS
    assert check_math(f"\\boxed{{{gold}}}", gold) == PASS


@pytest.mark.parametrize(("gold", "reason"), UNREADABLE.items(), ids=lambda text: ascii(text)[:30])
def test_what_cannot_be_read_says_why(gold: str, reason: str) -> None:
    assert read_gold(gold) == abstaining(reason)
    assert read_gold(None) == abstaining("no_gold")


def test_a_gold_that_only_ever_passes_as_the_same_text_is_not_readable() -> None:
    assert check_math(r"\boxed{0x10}", "0x10") == PASS, "the texts are the same"
    assert check_math(r"\boxed{16}", "0x10") == abstaining("unparseable_gold"), "and no other way to write it is known"
    assert read_gold("0x10") != PASS


@pytest.fixture(scope="module")
def reader() -> Iterator[GoldReader]:
    with GoldReader(workers=1) as opened:
        yield opened


def test_outcomes_come_in_order_and_with_their_reasons(reader: GoldReader) -> None:
    golds = [*FAST[:9], *SLOW[:9], *list(UNREADABLE)[:9]]
    mixed = [golds[place * 7 % len(golds)] for place in range(3 * len(golds))]
    found = list(reader.readable(("math", gold) for gold in mixed))
    assert found == [read_gold(gold) for gold in mixed]
    assert {outcome.reason for outcome in found} == {"", "no_gold", "unparseable_gold"}


def test_kinds_without_a_math_gold(reader: GoldReader) -> None:
    golds: list[Any] = [("open", None), ("open", "x"), ("choice", "A"), ("code", "x"), ("exact", "Paris"),
                        ("exact", " "),
                        ("numeric", "5"), ("numeric", None), ("math", "存在")]  # fmt: skip
    found = list(reader.readable(golds))
    assert found == [PASS, PASS, *[abstaining("no_verifier")] * 3, abstaining("no_gold"), PASS, abstaining("no_gold"),
                     abstaining("unparseable_gold")]  # fmt: skip
    assert [gold_mark(outcome) for outcome in found] == [None] * 5 + ["no_gold", None, "no_gold", "unparseable_gold"]
    assert gold_mark(abstaining("verifier_timeout")) == "unparseable_gold"


def test_a_gold_that_hangs_abstains_and_the_rest_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gold_module, "READ_GOLD", "verify.hostile:hang_on_a_word")
    with GoldReader(workers=1, seconds=0.5) as quick:
        found = list(quick.readable([("math", gold) for gold in ("x^2", "hang", "2n-1")]))
    assert found == [PASS, abstaining("verifier_timeout"), PASS]


class Counting:
    """A pool that notes what it is given and reads in this process."""

    def __init__(self, *_: object, **__: object) -> None:
        self.given: list[str] = []

    def map(self, items: Iterable[tuple[str]]) -> Iterator[Outcome]:
        for (gold,) in items:
            self.given.append(gold)
            yield read_gold(gold)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[GoldReader, list[str]]:
    monkeypatch.setattr(gold_module, "VerifierPool", Counting)
    monkeypatch.setattr(gold_module, "REMEMBERED", 3)
    monkeypatch.setattr(gold_module, "AT_ONCE", 4)
    opened = GoldReader()
    return opened, opened._pool.given  # type: ignore[attr-defined]


def test_a_gold_is_read_once_while_it_is_remembered(counted: tuple[GoldReader, list[str]]) -> None:
    reader, given = counted
    golds = ["x^2", "x^2", "5", "x^3", "x^2", "7", "½", "x^3"]
    assert list(reader.readable(("math", gold) for gold in golds)) == [read_gold(gold) for gold in golds]
    assert given == ["x^2", "x^3", "½"]
    list(reader.readable(("math", gold) for gold in ["x^4", "x^2"]))
    assert given == ["x^2", "x^3", "½", "x^4"], "x^3, longest unused, made room"
    list(reader.readable([("math", "x^3")]))
    assert given[-1] == "x^3"
    assert len(reader._known) == 3


def test_golds_are_taken_as_they_are_needed(counted: tuple[GoldReader, list[str]]) -> None:
    taken: list[int] = []

    def endless() -> Iterator[tuple[Any, str]]:
        while True:
            taken.append(1)
            yield "math", "5"

    outcomes = counted[0].readable(endless())
    assert [next(outcomes) for _ in range(10)] == [PASS] * 10
    assert len(taken) == 12


@pytest.mark.skipif(not GSM8K.is_file(), reason="no ../shared/data")
def test_all_golds_of_gsm8k_are_read(reader: GoldReader) -> None:
    golds = [json.loads(line)["answer"].partition("#### ")[2] for line in GSM8K.read_text().splitlines()]
    assert len(golds) == 1_000
    assert list(reader.readable(("math", gold) for gold in golds)) == [PASS] * 1_000
    assert [gold for gold in golds if read_gold(gold) != PASS] == []
