"""pass@1 and its uncertainty, checked by hand and against a simulation of whole examinations."""

from __future__ import annotations

import random
import statistics

import pytest

from distill.examine.scoring import Difference, Graded, paired_difference, per_problem, score, standard_error


def graded(*problems: str, tokens: int = 10) -> list[Graded]:
    """One text per problem, a letter per sample: r(ight), w(rong), c(ut)."""
    return [
        Graded(f"p{number}", letter == "r", letter != "c", tokens)
        for number, samples in enumerate(problems)
        for letter in samples
    ]


def test_pass_at_1_is_the_mean_share_of_right_samples() -> None:
    found = score(graded("rrrr", "rrww", "wwww", "rwcc"))
    assert found.pass_at_1 == pytest.approx((1 + 0.5 + 0 + 0.25) / 4)
    assert (found.problems, found.samples) == (4, 16)
    assert found.unfinished == pytest.approx(2 / 16)
    assert found.mean_tokens == 10


def test_problems_count_alike_however_many_samples_each_has() -> None:
    assert score(graded("rrrrrrrrrr", "w")).pass_at_1 == pytest.approx(0.5)


def test_samples_of_one_problem_are_no_independent_draws() -> None:
    shares = [1.0, 1.0, 0.0, 0.0]
    expected = statistics.stdev(shares) / 2
    assert score(graded("rrrr", "rrrr", "wwww", "wwww")).stderr == pytest.approx(expected)
    assert score(graded("r" * 400, "r" * 400, "w" * 400, "w" * 400)).stderr == pytest.approx(expected)
    assert score(graded("rw", "rw", "rw")).stderr == 0
    assert score(graded("rrw")).stderr == 0, "a single problem tells nothing about others"


def test_the_interval_is_95_percent_and_stays_between_0_and_1() -> None:
    many = score(graded(*["rrrr", "rrww", "wwww", "rwcc"] * 100))
    assert many.interval == pytest.approx(
        (many.pass_at_1 - 1.96 * many.stderr, many.pass_at_1 + 1.96 * many.stderr), abs=2e-3
    )
    for problems in (["r", "r", "w"], ["w", "w", "r"], ["r"], ["w"], ["rw", "rw"]):
        low, high = score(graded(*problems)).interval
        assert 0 <= low <= score(graded(*problems)).pass_at_1 <= high <= 1


def test_none_or_all_right_is_no_certainty() -> None:
    """Of n draws without a success the upper end is z²/(n + z²): 3.8 of 303.8 for n = 300."""
    none, all_right = score(graded(*["wwww"] * 300)), score(graded(*["rrrr"] * 300))
    assert none.interval == pytest.approx((0.0, 3.8416 / 303.8416))
    assert all_right.interval == pytest.approx((1 - 3.8416 / 303.8416, 1.0))


def test_the_standard_error_is_what_repeated_examinations_show() -> None:
    rng = random.Random(1)

    def examination() -> list[Graded]:
        return [
            Graded(f"p{problem}", rng.random() < chance, True, 1)
            for problem, chance in enumerate(rng.betavariate(0.5, 0.5) for _ in range(60))
            for _ in range(4)
        ]

    found = [score(examination()) for _ in range(400)]
    spread = statistics.stdev(each.pass_at_1 for each in found)
    told = statistics.mean(each.stderr for each in found)
    assert told == pytest.approx(spread, rel=0.15)
    covered = sum(each.interval[0] <= 0.5 <= each.interval[1] for each in found) / len(found)
    assert 0.91 <= covered <= 0.98


def test_no_samples_have_no_score() -> None:
    with pytest.raises(ValueError, match="no samples"):
        score([])


def test_shares_by_problem() -> None:
    assert per_problem(graded("rw", "rr", "w")) == {"p0": 0.5, "p1": 1.0, "p2": 0.0}


def test_a_paired_difference_is_of_the_same_problems() -> None:
    a = {"p0": 0.0, "p1": 0.5, "p2": 1.0, "p3": 0.25}
    b = {"p3": 0.5, "p2": 1.0, "p1": 0.75, "p0": 0.5}
    found = paired_difference(a, b)
    assert found.mean == pytest.approx(0.25)
    assert found.stderr == pytest.approx(statistics.stdev([0.5, 0.25, 0.0, 0.25]) / 2)
    assert found.stderr < standard_error(list(a.values())), "pairing takes out how hard the problems are"


def test_the_interval_of_a_difference() -> None:
    before, after = shares(*[1.0, 0.0] * 100), shares(*[1.0, 0.0] * 98, 0.5, 0.0, 0.5, 0.5)
    found = paired_difference(before, after)
    assert found.mean == pytest.approx((-0.5 - 0.5 + 0.5) / 200)
    spread = (3 * 0.25 / 200 - found.mean**2) ** 0.5
    assert found.high - found.mean == pytest.approx(max(1.96 * spread / 200**0.5, 3 / 200), rel=0.01)
    wide = paired_difference(shares(*[1.0, 0.0] * 100), shares(*[0.0, 1.0] * 100))
    assert wide.high - wide.mean == pytest.approx(1.96 * wide.stderr)


def test_no_difference_at_all_still_leaves_what_so_few_problems_cannot_tell() -> None:
    assert paired_difference(shares(*[1.0] * 200), shares(*[1.0] * 200)) == Difference(0.0, -0.015, 0.015, 0.0)
    assert paired_difference(shares(*[1.0] * 10), shares(*[1.0] * 10)).low == pytest.approx(-0.3)


def shares(*values: float) -> dict[str, float]:
    return {f"p{n}": value for n, value in enumerate(values)}


@pytest.mark.parametrize("values", [[], [0.7]])
def test_the_error_of_less_than_two_values(values: list[float]) -> None:
    assert standard_error(values) == 0.0
