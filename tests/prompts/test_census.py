"""The census: every prompt counted once, under its verifier or under the plainest of its marks."""

from __future__ import annotations

from typing import get_args

from distill.prompts import census as census_module
from distill.prompts.census import NO_DOMAIN, OTHERS, Census
from distill.records import Kind, Prompt
from distill.verify.verifiers import BUILT_IN, OF_KIND


def taken(*rows: tuple[str | None, Kind, tuple[str, ...] | None]) -> Census:
    census = Census()
    for number, (domain, kind, marks) in enumerate(rows):
        census.add(Prompt(f"Question {number}?", kind=kind, domain=domain, marks=marks))
    return census


FULL = taken(
    ("math", "math", ()),
    ("math", "numeric", ()),
    ("math", "math", ("guessable",)),
    ("math", "math", ("proof", "figure")),
    ("math", "math", ("figure", "no_gold")),
    ("math", "math", None),
    ("code", "code", ()),
    ("code", "code", ("bad_tests",)),
    ("stem", "choice", ("guessable",)),
    ("stem", "exact", ()),
    (None, "open", None),
    (None, "open", ("figure",)),
)


def test_every_prompt_is_counted_once() -> None:
    table = FULL.to_json()
    assert list(table) == ["math", NO_DOMAIN, "code", "stem", "all"]
    assert table["math"] == {
        "prompts": 6,
        "verifiable": {"math": 2, "numeric": 1},
        "unverifiable": {"proof": 1, "no_gold": 1},
        "open": 0,
        "unmarked": 1,
        "guessable": 1,
    }
    assert table["code"]["verifiable"] == {"code": 1}
    assert table["code"]["unverifiable"] == {"bad_tests": 1}
    assert table["stem"]["verifiable"] == {"choice": 1, "exact": 1}
    assert table[NO_DOMAIN] == {
        "prompts": 2,
        "open": 2,
        "unmarked": 0,
        "guessable": 0,
        "verifiable": {},
        "unverifiable": {},
    }
    for row in FULL.table().values():
        assert row.prompts == row.verifiable.total() + row.unverifiable.total() + row.open + row.unmarked
    assert table["all"]["prompts"] == 12
    assert table["all"]["guessable"] == 2


def test_the_lines_read_well() -> None:
    assert FULL.lines() == [
        "math: 6 prompts: 2 by math, 1 by numeric, of these 1 guessable, 1 proof, 1 no_gold, 1 not looked at",
        "(no domain): 2 prompts: 2 open",
        "code: 2 prompts: 1 by code, 1 bad_tests",
        "stem: 2 prompts: 1 by choice, 1 by exact, of these 1 guessable",
        "all: 12 prompts: 2 by math, 1 by numeric, 1 by code, 1 by choice, "
        "1 by exact, of these 2 guessable, 1 proof, 1 no_gold, 1 bad_tests, 2 open, 1 not looked at",
    ]
    assert Census().lines() == ["all: 0 prompts"]


def test_many_domains_take_no_more_memory() -> None:
    census = taken(*((f"domain {number}", "math", ()) for number in range(census_module.MOST_DOMAINS + 50)))
    table = census.table()
    assert len(table) == census_module.MOST_DOMAINS + 2
    assert table[OTHERS].prompts == 50
    assert table["all"].prompts == census_module.MOST_DOMAINS + 50


def test_every_kind_has_a_verifier_or_is_open() -> None:
    assert set(OF_KIND) == set(get_args(Kind)) - {"open"}
    assert set(OF_KIND.values()) == set(BUILT_IN)
