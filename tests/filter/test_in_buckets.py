"""Checks of a whole bucket: scores from a file, what most samples say, suspect golds, whom the judge is asked about."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from checked_trace import PROMPT, TRACE
from verify.in_process import InProcess

from distill.errors import InputError
from distill.filter import in_buckets
from distill.filter.in_buckets import BucketChecks, Sample
from distill.filter_specs import FilterSettings
from distill.records import Prompt
from distill.specs import Recipe
from distill.verify import PASS, Outcome, abstaining, failing

WRONG = failing("wrong_answer")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_buckets, "VerifierPool", InProcess)


def samples(prompt: Prompt, answers: list[str | None], **outcomes: Outcome) -> list[Sample]:
    whole = {"finished": PASS, "think_format": PASS, **outcomes}
    keys = [f"{n + 1:x}".ljust(64, "0") for n in range(len(answers))]
    rows = [replace(TRACE, key=key, answer=answer).to_json() for key, answer in zip(keys, answers, strict=True)]
    return [Sample(prompt, row, dict(whole)) for row in rows]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def made(folder: Path, given: list[Sample], **settings: Any) -> BucketChecks:
    recipe = Recipe(name="r", filter=FilterSettings(**settings))
    with BucketChecks(recipe, folder / "judge") as later:
        later.make(given)
    return later


# --- majority --------------------------------------------------------------------------------------------------------

OPEN = replace(PROMPT, answer=None)


def test_the_majority_stands_in_where_there_is_no_gold_and_is_named_so(folder: Path) -> None:
    given = samples(OPEN, ["\\boxed{1/2}", "\\boxed{0.5}", "\\boxed{\\frac12}", "\\boxed{7}", None])
    made(folder, given, checks=["majority"])
    found = [sample.outcomes["majority"] for sample in given]
    assert [one.outcome for one in found] == ["pass", "pass", "pass", "fail", "fail"], "three ways to write one number"
    assert [one.reason for one in found[3:]] == ["minority", "no_answer"]
    assert found[0].score == 0.6
    assert "correct" not in given[0].outcomes


def test_a_prompt_with_a_gold_has_no_majority(folder: Path) -> None:
    given = samples(PROMPT, ["\\boxed{5}"] * 4)
    made(folder, given, checks=["majority"])
    assert {sample.outcomes["majority"] for sample in given} == {abstaining("has_gold")}


def test_a_cut_reply_does_not_vote(folder: Path) -> None:
    given = samples(OPEN, ["\\boxed{5}", "\\boxed{5}", "\\boxed{5}"])
    given[2].outcomes["finished"] = failing("truncated")
    made(folder, given, checks=["majority"])
    assert {sample.outcomes["majority"].outcome for sample in given} == {"abstain"}, "two are too few"


def test_prompts_are_counted_apart(folder: Path) -> None:
    other = replace(OPEN, question="another?", id="other")
    given = [*samples(OPEN, ["\\boxed{1}"] * 3), *samples(other, ["\\boxed{2}"] * 3)]
    made(folder, given, checks=["majority"])
    assert {sample.outcomes["majority"].outcome for sample in given} == {"pass"}


# --- suspects --------------------------------------------------------------------------------------------------------


def test_samples_that_agree_against_the_gold_make_it_suspect(folder: Path) -> None:
    agreeing = samples(PROMPT, ["\\boxed{1/2}", "\\boxed{0.5}", "\\boxed{.5}", "\\boxed{9}"], correct=WRONG)
    scattered = samples(
        replace(PROMPT, id="b"), ["\\boxed{1}", "\\boxed{2}", "\\boxed{3}", "\\boxed{4}"], correct=WRONG
    )
    right = samples(replace(PROMPT, id="c"), ["\\boxed{4}"] * 4, correct=PASS)
    recipe = Recipe(name="r")
    with BucketChecks(recipe, folder) as later:
        later.look_for_suspects([*agreeing, *scattered, *right])
        found = later.suspects()
    assert [(one.prompt_id, one.gold, one.agreeing, one.samples) for one in found] == [(PROMPT.id, "4", 3, 4)]


class Endless(InProcess):
    """Compares until it is stopped."""

    began, stopped = Event(), Event()

    def map(self, items: Iterable[Any]) -> Iterator[Outcome]:
        Endless.began.set()
        assert Endless.stopped.wait(60)
        return iter(())

    def stop(self) -> None:
        Endless.stopped.set()


def test_after_an_error_nobody_waits_for_suspects(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_buckets, "VerifierPool", Endless)
    given = samples(PROMPT, ["\\boxed{1/2}", "\\boxed{0.5}", "\\boxed{.5}", "\\boxed{9}"], correct=WRONG)
    with pytest.raises(KeyboardInterrupt), BucketChecks(Recipe(name="r"), folder) as later:  # noqa: PT012
        later.look_for_suspects(given)
        assert Endless.began.wait(60)
        raise KeyboardInterrupt
    assert Endless.stopped.is_set()


# --- scores ----------------------------------------------------------------------------------------------------------


def test_scores_of_a_file_are_held_against_their_bounds(folder: Path) -> None:
    given = samples(PROMPT, ["\\boxed{4}"] * 3)
    file = folder / "scores.jsonl"
    rows = [
        {"trace_key": sample.trace["key"], "score": score} for sample, score in zip(given, (0.9, 0.2), strict=False)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made(folder, given, score={"scores": str(file), "min": 0.7})
    found = [(one.outcomes["score"].outcome, one.outcomes["score"].reason) for one in given]
    assert found == [("pass", ""), ("fail", "score_too_low"), ("abstain", "no_score")]


def test_a_file_of_scores_that_cannot_be_used_is_named_before_anything_is_looked_at(folder: Path) -> None:
    file = folder / "scores.jsonl"
    file.write_text('{"trace_key": "ab", "score": "good"}\n')
    recipe = Recipe(name="r", filter=FilterSettings(score={"scores": str(file), "min": 0.7}))
    with pytest.raises(InputError, match=r"scores\.jsonl"), BucketChecks(recipe, folder):
        raise AssertionError("never entered")


# --- whom the judge is asked about -----------------------------------------------------------------------------------

ASKS = {
    # judge.on → for which outcomes of `correct` the judge is asked
    "abstained": {"abstain"},
    "failed": {"abstain", "fail"},
    "all": {"abstain", "fail", "pass"},
    ("exact",): set(),
    ("math",): {"abstain", "fail", "pass"},
}


class Asked:
    """Notes what the judge is asked."""

    def __init__(self, *_: object) -> None:
        self.items: list[tuple[Prompt, str]] = []

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def outcomes(self, items: Any) -> list[Outcome]:
        self.items += list(items)
        return [PASS] * len(self.items)


@pytest.mark.parametrize("on", list(ASKS))
def test_the_judge_is_asked_about_what_the_settings_say(folder: Path, on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_buckets, "Judge", Asked)
    outcomes = {"pass": PASS, "fail": WRONG, "abstain": abstaining("unparseable_gold")}
    given = [samples(PROMPT, ["\\boxed{4}"], correct=outcome)[0] for outcome in outcomes.values()]
    made(folder, given, judge={"teacher": "http://localhost:1/v1", "model": "m", "on": on})
    asked = {name for name, sample in zip(outcomes, given, strict=True) if sample.outcomes["judge"] == PASS}
    assert asked == ASKS[on]
    assert all(s.outcomes["judge"] in (PASS, in_buckets.NOT_ASKED) for s in given)


@pytest.mark.parametrize(
    ("prompt", "answer", "cut"),
    [(PROMPT, "\\boxed{4}", True), (PROMPT, None, False), (PROMPT, " ", False), (OPEN, "\\boxed{4}", False)],
)
def test_the_judge_is_never_asked_about_what_it_cannot_judge(
    folder: Path, prompt: Prompt, answer: str | None, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut reply, none at all, a question without a reference answer."""
    monkeypatch.setattr(in_buckets, "Judge", Asked)
    given = samples(prompt, [answer])
    if cut:
        given = [Sample(prompt, {**given[0].trace, "finish_reason": "length"}, given[0].outcomes)]
    made(folder, given, judge={"teacher": "http://localhost:1/v1", "model": "m", "on": "all"})
    assert given[0].outcomes["judge"] == in_buckets.NOT_ASKED
