"""Answers made to hang, crash or exhaust the mathematical verifier, in a pool of real workers."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from distill.verify import PASS
from distill.verify.math import LONGEST, check_math
from distill.verify.pool import SECONDS_PER_ITEM, VerifierPool
from verify.fuzzed import hostile

KILLED = ("verifier_timeout", "verifier_crash")
FAULTS = ("verifier_error", "verifier_limit")
"""What the pool says of an exception inside the verifier."""

MATH = "distill.verify.math:check_math"


def judged(count: int, seed: int, seconds: float) -> Counter[str]:
    """How often each outcome and reason came, over `count` fuzzed answers with a sound one after every tenth."""
    items: list[tuple[str, str]] = []
    for number, (gold, answer) in enumerate(hostile(count, seed)):
        items.append((answer, gold))
        if number % 10 == 0:
            items.append((rf"So it is \boxed{{\frac{{{number}}}{{7}}}}.", f"{number}/7"))
    with VerifierPool(MATH, workers=2, seconds=seconds) as pool:
        outcomes = list(pool.map(items))
    assert len(outcomes) == len(items)
    sound = [
        outcome for (answer, _), outcome in zip(items, outcomes, strict=True) if answer.startswith("So it is \\boxed")
    ]
    assert sound == [PASS] * len(sound), "those behind a hostile one are judged as ever"
    return Counter(f"{outcome.outcome} {outcome.reason}".strip() for outcome in outcomes)


def test_hostile_answers_end_in_time_and_harm_nothing() -> None:
    found = judged(300, 7, 3.0)
    assert not [reason for reason in found if any(fault in reason for fault in (*FAULTS, *KILLED))], found


@pytest.mark.rehearse
def test_ten_thousand_hostile_answers(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.perf_counter()
    found = judged(10_000, 1, SECONDS_PER_ITEM)
    taken = time.perf_counter() - started
    killed = sum(count for reason, count in found.items() if any(name in reason for name in KILLED))
    with capsys.disabled():
        print(f"\n10,000 hostile answers: {taken:.0f} s, {killed} workers killed, {dict(found.most_common())}")
    assert not [reason for reason in found if any(fault in reason for fault in FAULTS)]
    assert killed <= 10
    assert taken < 1_800


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^9}}",
        r"9^{9^{9^9}}+1",
        "(((((2^{1000})^{1000})^{1000})^{1000})^{1000})",
        "1000000000!",
        r"\binom{10^9}{10^8}",
        r"\sin(10^{10^{10}})",
        r"x^{10^{10}} + y^{10^{10}}",
        r"\sqrt[10^{100}]{2}",
        "1" * LONGEST,
        "1." + "0" * (LONGEST - 10) + "1",
        "(" * 900 + "7" + ")" * 900,
        r"\frac{" * 300 + "7" + "}{2}" * 300,
        r"\sqrt{" * 300 + "7" + "}" * 300,
        "-" * 1_900 + "7",
        "7" + "!" * 1_900,
        "x" * 1_900,
        "2^" * 900 + "2",
        ", ".join(f"{n}.5" for n in range(300)),
        r" \cup ".join(f"({n},{n}.5)" for n in range(100)),
        "1" + " " * 1_900 + "2",
        r"\text{" * 300 + "7" + "}" * 300,
        r"\begin{pmatrix}" + " & ".join("1" * 300) + r"\end{pmatrix}",
        "7" + "\u200b" * 1_900,
        "7\ud800",
        r"\int_0^1 x^x dx",
        r"\sum_{k=1}^{10^{12}} k",
    ],
    ids=lambda text: ascii(text)[:20],
)
@pytest.mark.parametrize("gold", ["x+1", None])
def test_what_would_take_long_is_turned_away_at_once(text: str, gold: str | None) -> None:
    check_math(r"\boxed{x+2}", "x+1")  # sympy is loaded
    started = time.process_time()
    outcome = check_math(rf"\boxed{{{text}}}", gold or text, fast=gold is not None)
    assert time.process_time() - started < 1.0
    assert gold is None or outcome != PASS


@pytest.mark.parametrize(
    "unit", ["\\boxed{", "\\boxed{5", "{", "}", "$", "\\(", "answer: ", "1,", "= ", "**", " \n", "\\boxed{}"]
)
def test_a_megabyte_takes_no_longer_than_its_length(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    check_math(text, "7")
    assert time.process_time() - started < 2.0
