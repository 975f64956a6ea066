"""The length census: what each context would leave out, per split, size and domain."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from distill.train.census import census


def measured(lengths: list[int], domains: list[str | None] | None = None, special: dict[str, str] | None = None) -> Any:
    every = domains or [None] * len(lengths)
    return SimpleNamespace(lengths=np.array(lengths, np.int32), domains=every, special=special or {})


TRAIN = measured([100] * 50 + [5_000] * 40 + [10_000] * 9 + [40_000], ["math"] * 90 + ["code"] * 10)
HELDOUT = measured([100, 9_000], ["math", "code"])


def test_what_every_context_leaves_out() -> None:
    found = census({"train": TRAIN, "heldout": HELDOUT}, 8_192)
    assert list(found.contexts) == [4_096, 8_192, 16_384, 32_768, 65_536], "up to the first that loses nothing"
    lost = {size: (spread.lost_traces, spread.lost_tokens) for size, spread in found.contexts.items()}
    assert lost == {
        4_096: (51, 40 * 5_000 + 9_000 + 90_000 + 40_000),
        8_192: (11, 9_000 + 90_000 + 40_000),
        16_384: (1, 40_000),
        32_768: (1, 40_000),
        65_536: (0, 0),
    }
    train = found.splits["train"]
    assert (train.traces, train.tokens, train.longest) == (100, 335_000, 40_000)
    assert train.percentiles == (5_000, 10_000, 40_000)
    assert (train.lost_traces, train.lost_tokens) == (10, 130_000)
    assert found.splits["heldout"].lost_traces == 1


def test_what_the_reader_is_told() -> None:
    assert census({"train": TRAIN, "heldout": HELDOUT}, 8_192).lines() == (
        "train: 100 traces, 335,000 tokens; 50% have at most 5,000, 90% have at most 10,000, 99% have at most 40,000, "
        "the longest 40,000",
        "heldout: 2 traces, 9,100 tokens; 50% have at most 9,000, 90% have at most 9,000, 99% have at most 9,000, "
        "the longest 9,000",
        "a context of 4,096 leaves out 51 traces (50.0%) with 98.5% of the tokens",
        "a context of 8,192 leaves out 11 traces (10.8%) with 40.4% of the tokens",
        "a context of 16,384 leaves out 1 trace (1.0%) with 11.6% of the tokens",
        "a context of 32,768 leaves out 1 trace (1.0%) with 11.6% of the tokens",
        "a context of 65,536 leaves out nothing",
        "domain math: 91 traces, 205,100 tokens; 50% have at most 100, 90% have at most 5,000, 99% have at most 5,000, "
        "the longest 5,000; left out nothing",
        "domain code: 11 traces, 139,000 tokens; 50% have at most 10,000, 90% have at most 10,000, 99% have at most "
        "40,000, the longest 40,000; left out 11 traces (100.0%) with 100.0% of the tokens",
        "the context of 8,192 tokens leaves out 10 traces (10.0%) with 38.8% of the tokens of train, 1 trace (50.0%) "
        "with 98.9% of the tokens of heldout; none is cut",
    )


def test_a_context_of_its_own_and_one_domain() -> None:
    found = census({"train": measured([10, 300, 20], ["sums"] * 3), "heldout": measured([])}, 256)
    assert list(found.contexts) == [256, 4_096]
    assert found.domains == {}
    assert found.lines()[1] == "heldout: no traces"
    assert found.lines()[-1] == (
        "the context of 256 tokens leaves out 1 trace (33.3%) with 90.9% of the tokens of train; none is cut"
    )
    assert census({"train": measured([10, 20])}, 4_096).lines()[-1] == "the context of 4,096 tokens leaves out nothing"


def test_a_trace_exactly_as_long_as_the_context_fits() -> None:
    found = census({"train": measured([4_096, 4_097])}, 4_096)
    assert (found.splits["train"].lost_traces, found.splits["train"].lost_tokens) == (1, 4_097)


def test_a_small_part_is_never_told_as_none() -> None:
    found = census({"train": measured([10] * 100_000 + [5_000])}, 4_096)
    assert "1 trace (0.1%) with 0.5%" in found.lines()[-1]


def test_a_million_r1_traces_do_not_overflow() -> None:
    assert census({"train": measured([10_000] * 800_000)}, 4_096).splits["train"].tokens == 8_000_000_000


def test_many_domains_are_shortened() -> None:
    names: list[str | None] = [f"d{n:02d}" for n in range(20)]
    lines = census({"train": measured(list(range(100, 120)), names)}, 4_096).lines()
    assert sum(line.startswith("domain ") for line in lines) == 12
    assert "domain d19" in lines[1]
    assert lines[-2] == "and 8 smaller domains"


def test_counts_are_json_for_the_manifest() -> None:
    found = census({"train": TRAIN, "heldout": measured([])}, 8_192).counts()
    assert json.loads(json.dumps(found)) == found
    assert found["splits"]["train"] == {
        "traces": 100,
        "tokens": 335_000,
        "percentiles": {"50": 5_000, "90": 10_000, "99": 40_000},
        "longest": 40_000,
        "too_long": 10,
        "too_long_tokens": 130_000,
    }
    assert found["splits"]["heldout"]["percentiles"] == {}
    assert found["lost_at"]["16384"] == [1, 40_000]
    assert set(found["domains"]) == {"math", "code"}


def test_traces_left_out_for_a_special_token_are_named() -> None:
    held = {f"trace-{n:02d}-and-more": "<filename>" for n in range(150)} | {"z": "<empty>"}
    found = census({"train": measured([10], special=held), "heldout": measured([])}, 4_096)
    assert found.lines()[-3:-1] == (
        "train: 1 trace left out, for <empty> in the reply: a special token of this student, which servers drop (z)",
        "train: 150 traces left out, for <filename> in the reply: a special token of this student, which servers drop "
        "(trace-00-and, trace-01-and, trace-02-and, trace-03-and, trace-04-and, trace-05-and, trace-06-and, "
        "trace-07-and and 142 more)",
    )
    counted = found.counts()["special"]
    assert (len(counted["train"]), counted["train"]["trace-00-and-more"]) == (100, "<filename>")
    assert counted["heldout"] == {}
