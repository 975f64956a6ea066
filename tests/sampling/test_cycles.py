"""A loop at the end of a reply is found whatever its length; reasoning that merely repeats itself is left alone."""

from __future__ import annotations

import json
import math
import random
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.sampling.cycles import (
    AT_THE_END,
    EXACT_TOKENS,
    FEWEST_IDS,
    FEWEST_TIMES,
    GRID_TOKENS,
    LONGEST_PERIOD,
    MOST_NEW,
    NEAR_TOKENS,
    Cycle,
    cycle,
    new_share,
)

DATA = Path(__file__).parents[1] / "data"

_PIECE = re.compile(r" ?[^\W\d_]{1,8}| ?\d{1,3}| ?[^\w\s]|\s+|.", re.DOTALL)


def pieces(text: str) -> list[int]:
    """Numbers for the pieces of a text, about as many as it has tokens."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(piece, len(numbers)) for piece in _PIECE.findall(text)]


def ids(rng: random.Random, count: int, vocabulary: int = 50_000) -> list[int]:
    return [rng.randrange(vocabulary) for _ in range(count)]


def looped(period: Sequence[int], tokens: int) -> list[int]:
    """So many tokens of a cycle, ending anywhere in it."""
    return [period[n % len(period)] for n in range(tokens)]


def wanted(period: Sequence[int]) -> int:
    if len(set(period)) < FEWEST_IDS:
        return GRID_TOKENS
    return max(EXACT_TOKENS, FEWEST_TIMES * len(period))


# --- exact cycles ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32), st.integers(1, LONGEST_PERIOD), st.sampled_from([2, 5, 50, 50_000]), st.integers(0, 9_000)
)
def test_a_cycle_is_found_as_soon_as_it_has_gone_on_for_long(seed: int, size: int, vocabulary: int, more: int) -> None:
    rng = random.Random(seed)
    period = ids(rng, size, vocabulary)
    before = ids(rng, rng.randrange(9_000))
    tokens = wanted(period)
    found = cycle([*before, 60_000, *looped(period, tokens + more)])
    assert found is not None
    assert (found.kind, found.tokens) == ("exact", min(tokens + more, 8_192))
    assert found.period is not None
    assert size % found.period == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, LONGEST_PERIOD), st.sampled_from([2, 50_000]))
def test_one_token_fewer_is_no_cycle_yet(seed: int, size: int, vocabulary: int) -> None:
    rng = random.Random(seed)
    period = ids(rng, size, vocabulary)
    before = ids(rng, 6_000)
    found = cycle([*before, 60_000, *looped(period, wanted(period) - 1)])
    assert found is None or found.kind == "near"
    assert found is None or size > LONGEST_PERIOD * MOST_NEW


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([20, 200, 50_000]), st.integers(0, 20_000))
def test_random_tokens_are_no_cycle(seed: int, vocabulary: int, count: int) -> None:
    assert cycle(ids(random.Random(seed), count, vocabulary)) is None


def test_a_cycle_that_ended_is_none() -> None:
    rng = random.Random(1)
    period = ids(rng, 100)
    inside = looped(period, 6_000)
    assert cycle(inside) == Cycle("exact", 6_000, 100)
    assert cycle([*inside, 60_000]) is None
    assert cycle([*inside, *inside, 60_000]) == Cycle("near", NEAR_TOKENS), "an odd token is no way out"


def test_a_longer_period_than_is_looked_for_is_no_exact_cycle() -> None:
    found = cycle(looped(ids(random.Random(1), LONGEST_PERIOD + 1), 16_000))
    assert found == Cycle("near", NEAR_TOKENS)


def test_it_does_not_matter_what_kind_of_sequence_it_is() -> None:
    inside = looped(range(9), 9_000)
    assert cycle(tuple(inside)) == cycle(inside) == Cycle("exact", 8_192, 9)
    assert cycle([]) is None


# --- near cycles -----------------------------------------------------------------------------------------------------

WAYS = ("Wait, let me check that once more.", "Hmm, is that so?", "So x is 4 and y is 7, as before, and all is well.",
        "But hold on, I should look at the second equation again.", "Let me start over from the two equations.",
        "Alternatively, one could think of it as a line.")  # fmt: skip


def going_round(rng: random.Random, sentences: int) -> str:
    """Goes round the same sentences, now and then another way."""
    place, said = 0, []
    for _ in range(sentences):
        said.append(WAYS[place])
        place = (place + 1) % len(WAYS) if rng.random() < 0.9 else rng.randrange(len(WAYS))
    return " ".join(said)


def test_a_reply_that_goes_round_the_same_sentences_is_found_though_never_quite_the_same() -> None:
    rng = random.Random(5)
    text = pieces(going_round(rng, 2_000))
    assert len(text) > 2 * NEAR_TOKENS
    assert cycle(text) == Cycle("near", NEAR_TOKENS)
    assert cycle(text[: NEAR_TOKENS - 1]) is None


def test_a_reply_that_found_its_way_out_goes_on() -> None:
    rng = random.Random(5)
    text = pieces(going_round(rng, 2_000))
    out = [number + 1_000 for number in ids(rng, int(AT_THE_END * MOST_NEW) + 30)]
    assert new_share([*text, *out][-NEAR_TOKENS:]) <= MOST_NEW
    assert cycle([*text, *out[:100]]) == Cycle("near", NEAR_TOKENS)
    assert cycle([*text, *out]) is None


def test_the_share_of_what_is_new() -> None:
    assert new_share(ids(random.Random(1), 5_000)) == 1.0
    assert new_share(looped(range(10), 29)) == 1.0
    assert new_share(looped(range(10), 1_019)) == 10 / 1_000
    assert new_share([1, 2]) == 1.0
    small = ids(random.Random(1), 3_000, 2)
    assert new_share(small) == len({tuple(small[n : n + 20]) for n in range(2_981)}) / 2_981
    assert new_share(looped([0, 1], 2_000) + looped([1, 0, 0], 2_000)) < 0.02


# --- what must not be stopped ----------------------------------------------------------------------------------------


def prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, math.isqrt(number) + 1))


def division(number: int, by: int, digits: int) -> Iterator[str]:
    rest = number
    for _ in range(digits):
        rest *= 10
        times = rest // by
        yield f"Bring down a 0: {rest}. {by} goes into {rest} {times} times, {times} * {by} = {times * by}, "
        rest -= times * by
        yield f"remainder {rest}.\n"


def collatz(number: int) -> str:
    seen = [number]
    while len(seen) < 21:
        seen.append(seen[-1] // 2 if seen[-1] % 2 == 0 else 3 * seen[-1] + 1)
    return " -> ".join(map(str, seen))


def grid(rows: int, columns: int, cell: Callable[[int, int], object], between: str, end: str) -> str:
    return "\n".join(between.join(str(cell(i, j)) for j in range(columns)) + end for i in range(rows))


R = random.Random(0)
TRUTH = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
HARD = {
    "enumeration": "\n".join(f"{n}. The number {n}: not divisible by 7, so it stays." for n in range(1, 501)),
    "residues": "\n".join(f"For n = {n}: {n} mod 4 = {n % 4}, not zero, so it does not work." for n in range(1, 600)),
    "division of 1 by 7": "".join(division(1, 7, 60)),
    "division of 1 by 17": "".join(division(1, 17, 120)),
    "division of 1 by 97": "".join(division(1, 97, 250)),
    "primes": ", ".join(str(n) for n in range(2, 30_000) if prime(n)),
    "is it prime": "\n".join(f"{n}: {'prime' if prime(n) else 'not prime'}." for n in range(2, 2_500)),
    "table": "\n".join("| " + " | ".join(str(R.randint(0, 9)) for _ in range(12)) + " |" for _ in range(500)),
    "truth table": "\n".join(f"| {a} | {b} | {c} | {int((a and b) or c)} |" for _ in range(40) for a, b, c in TRUTH),
    "nine variables": grid(512, 9, lambda i, j: i >> j & 1, " | ", " |"),
    "zero matrix": grid(60, 60, lambda i, j: 0, " & ", r" \\"),
    "identity matrix": grid(64, 64, lambda i, j: int(i == j), " & ", r" \\"),
    "picture": grid(70, 70, lambda i, j: ".#"[(i - 35) ** 2 + (j - 35) ** 2 < 900], "", ""),
    "sparse picture": "\n".join("".join("#" if R.random() < 0.03 else "." for _ in range(70)) for _ in range(100)),
    "multiplication": "\n".join(f"{a} x {b} = {a * b}" for a in range(1, 40) for b in range(1, 40)),
    "collatz": "\n".join(f"Start {n}: {collatz(n)}" for n in range(2, 300)),
    "wait": "\n\n".join(f"Wait, let me check that again. If x = {x}, then 3x + 5 = {3 * x + 5}, which is "
                        f"{'more' if x > 65 else 'less'} than 200. Hmm, so that is wrong." for x in range(250)),
    "tests": "".join(f"def test_{n}():\n    found = solve([{n}, {n + 1}])\n    assert found == {4 * n}\n\n"
                     for n in range(400)),
    "binary": "\n".join(format(n, "011b") for n in range(2_000)),
    "days": "\n".join(f"Day {d}: {('Mon', 'Tues', 'Wednes', 'Thurs', 'Fri')[d % 5]}day." for d in range(1_500)),
    "weekdays": ", ".join(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")[d % 5] for d in range(1_000)),
    "search": "\n".join(f"({a}, {b}, {c}): sum {a + b + c}, no."
                        for a in range(12) for b in range(12) for c in range(6)),
    "rows": "id,name,value,flag\n" + "\n".join(f"{n},item,{R.randint(1, 9)},true" for n in range(1_500)),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_long_and_regular_reasoning_is_left_alone_wherever_one_looks(name: str) -> None:
    single = [zlib.crc32(piece.encode()) for piece in re.findall(r" ?[A-Za-z]+| ?\d| ?[^\w\s]|\s", HARD[name])]
    for cut in (pieces(HARD[name]), single):
        found = {end: cycle(cut[:end]) for end in range(EXACT_TOKENS, len(cut) + 512, 512)}
        assert {end: what for end, what in found.items() if what is not None} == {}


def test_real_replies_are_left_alone() -> None:
    """One after the other, four to a question and so alike: far more repetition than in any one of them."""
    rows = [json.loads(line) for line in (DATA / "teacher_outputs_128.jsonl").read_text(encoding="utf-8").splitlines()]
    solutions = (DATA / "gsm8k_200.jsonl").read_text(encoding="utf-8").splitlines()
    for text in ("\n\n".join(row["text"] for row in rows), "\n".join(json.loads(line)["answer"] for line in solutions)):
        cut = pieces(text)
        shares = [new_share(cut[max(0, end - NEAR_TOKENS) : end]) for end in range(3_000, len(cut) + 512, 512)]
        assert all(cycle(cut[:end]) is None for end in range(3_000, len(cut) + 512, 512))
        assert min(shares) > 0.8, "far from what counts as a cycle"


@pytest.mark.parametrize("name", ["enumeration", "wait", "zero matrix"])
def test_a_loop_after_regular_reasoning_is_found(name: str) -> None:
    """The same texts with a loop behind them: that they pass is no matter of looking away."""
    loop = " ".join(["So the answer is 4, but let me verify the second equation again, just to be sure."] * 600)
    assert cycle(pieces(HARD[name] + "\n" + loop)) is not None


def test_pieces_are_about_tokens() -> None:
    assert len(pieces("So x = 12,345 and, yes, y is 7.")) == 14
    assert pieces("a b a b") == [0, 1, 2, 1]
    assert pieces("") == []
    assert len(pieces("  \n\n ")) == 1


def test_a_long_reply_takes_no_longer_than_its_end() -> None:
    rng = random.Random(1)
    short, long_ = ids(rng, 8_192), ids(rng, 1_000_000)
    best = {}
    for name, what in (("short", short), ("long", long_)):
        times = []
        for _ in range(7):
            started = time.perf_counter()
            cycle(what)
            times.append(time.perf_counter() - started)
        best[name] = min(times)
    assert best["long"] < 5 * best["short"]
    assert best["short"] < 0.1
