"""Looking at traces in worker processes: order, and what becomes of a trace whose verifier hangs or dies."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from checked_trace import PROMPT, TRACE

from distill.filter import looking
from distill.filter.looking import Item, Lens, LocalLooking
from distill.filter_specs import FilterSettings
from distill.records import Trace
from distill.verify import PASS, abstaining, failing

WANTED = ("finished", "think_format", "loop", "correct")
SETTINGS = FilterSettings(checks=WANTED)


def items(answers: Iterable[str], **known: Any) -> list[Item]:
    return [
        (PROMPT, replace(TRACE, key=f"{n:064x}", answer=answer).to_json(), WANTED, known, {})
        for n, answer in enumerate(answers)
    ]


def test_a_hanging_and_a_dying_verifier_cost_their_own_verdict_alone() -> None:
    answers = ["4", "hang", "4", "die", "5", "raise"] + ["4"] * 40 + ["hang"]
    lens = Lens(SETTINGS, {"math": "verify.obedient:judge"}, ("verify.obedient:judge",), signatures=True)
    with LocalLooking(lens, workers=2) as local:
        found = list(local.look(items(answers)))
    correct = [looked.outcomes["correct"] for looked in found]
    reasons = {"hang": "timeout", "die": "crash", "raise": "error"}
    for answer, outcome in zip(answers, correct, strict=True):
        if answer in reasons:
            assert outcome == abstaining(f"verifier_{reasons[answer]}")
        else:
            assert outcome == (PASS if answer == "4" else failing("wrong_answer"))
    assert all(looked.outcomes["loop"] == PASS for looked in found), "what else there is to see of them is seen"
    rows = [Trace.from_json(item[1]) for item in items(answers)]
    assert [looked.content for looked in found] == [trace.content_hash for trace in rows]
    assert all(looked.signature for looked in found)


def test_a_check_that_hangs_is_told_and_the_rest_goes_on() -> None:
    lens = Lens(FilterSettings(checks=("finished", "think_format")), {}, ())
    with LocalLooking(lens, workers=1) as local:
        local._pool.function = "verify.obedient:look"
        given = [(PROMPT, item[1], ("finished",), {}, {}) for item in items(["4", "hang", "4"])]
        found = list(local.look(given))
    assert [one.outcomes["finished"] for one in found] == [PASS, abstaining("verifier_timeout"), PASS]


def test_neither_order_nor_company_changes_what_is_found() -> None:
    given = items(["4", "\\boxed{4}", "\\boxed{5}", "so\n" * 300, "\\boxed{8/2}", "", "five"])
    lens = Lens(SETTINGS, {}, ("math",), (("exam", "What is 2 + 2? Say it in words."),), signatures=True)
    looking.prepare(lens)
    alone = {item[1]["key"]: looking.look(*item) for item in given}
    for seed in range(5):
        random.Random(seed).shuffle(given)
        assert {item[1]["key"]: looking.look(*item) for item in given} == alone


def test_traces_read_together_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second one the problem that it holds is known; few fit in what is read at a time."""
    exam = "Every sailor sings the old song about a quiet harbour again tonight"
    given = [
        (PROMPT, replace(TRACE, key=f"{n:064x}", reasoning=reasoning).to_json(), ("contaminated",), known, {})
        for n, (reasoning, known) in enumerate(
            [("a", {}), (exam, {"contaminated": PASS}), (exam, {}), ("b", {}), ("c", {}), (exam, {})]
        )
    ]
    for most in (looking.MOST_READ, 2 * len(TRACE.raw)):
        monkeypatch.setattr(looking, "MOST_READ", most)
        looking.prepare(Lens(SETTINGS, {}, (), (("exam", exam),), signatures=True))
        looking.ahead(given)
        monkeypatch.setattr(looking, "trace_of", lambda row: pytest.fail("it was read already"))
        found = [looking.look(*item) for item in given]
        monkeypatch.undo()
        outcomes = [looked.outcomes["contaminated"].outcome for looked in found]
        assert outcomes == ["pass", "pass", "fail", "pass", "pass", "fail"]
        assert len({looked.signature for looked in found}) == 4


def test_a_trace_is_left_as_it_is() -> None:
    looking.prepare(Lens(FilterSettings(), {}, ("math",), signatures=True))
    (item,) = items(["\\boxed{4}"])
    before = dict(item[1])
    wanted = tuple(name for name in FilterSettings().checks if "duplicate" not in name)
    looking.look(item[0], item[1], wanted, {}, {})
    assert item[1] == before


def test_a_row_is_the_trace_that_json_makes_of_it() -> None:
    changed = [
        TRACE,
        replace(TRACE, sampling=replace(TRACE.sampling, honoured=replace(TRACE.sampling.requested, temperature=0.1))),
        replace(TRACE, teacher=replace(TRACE.teacher, quantization="fp8"), answer=None, fault="missing_close"),
    ]
    for trace in changed:
        row = Trace.table([trace]).to_pylist()[0]
        assert looking.trace_of(row) == trace == Trace.from_json(row)


def test_what_is_known_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looking.prepare(Lens(SETTINGS, {}, ("math",)))
    (item,) = items(["\\boxed{4}"], correct=failing("told_before"))
    monkeypatch.setattr(looking, "_correct", lambda *given: pytest.fail("asked"))
    assert looking.look(*item).outcomes["correct"] == failing("told_before")
