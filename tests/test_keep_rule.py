"""What a keep rule lets through, why it keeps others out, and what is no rule."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.keep_rule import rule_of
from distill.verify import PASS, Outcome, abstaining, failing

CHECKS = ("finished", "think_format", "correct", "loop", "language", "judge", "majority", "score")
GOOD = dict.fromkeys(CHECKS, PASS)
WRONG, UNSURE = failing("wrong_answer"), abstaining("unparseable_gold")


def decided(keep: Any, **outcomes: Outcome) -> tuple[str, str]:
    return rule_of(keep, CHECKS).decides({**GOOD, **outcomes})


KEPT = ("", "")


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({}, KEPT),
        ({"correct": WRONG}, ("correct", "wrong_answer")),
        ({"correct": WRONG, "judge": PASS}, ("correct", "wrong_answer")),
        ({"correct": UNSURE, "judge": PASS}, KEPT),
        ({"correct": UNSURE, "judge": failing("judge_incorrect")}, ("judge", "judge_incorrect")),
        ({"correct": UNSURE, "judge": abstaining("judge_split")}, ("correct", "unparseable_gold")),
        ({"judge": failing("judge_incorrect")}, KEPT),
        ({"correct": Outcome("pass", "open"), "judge": failing("judged_wrong")}, ("judge", "judged_wrong")),
        ({"correct": Outcome("pass", "open"), "judge": abstaining("not_asked")}, KEPT),
        ({"majority": failing("minority")}, KEPT),
        ({"loop": failing("loop")}, ("loop", "loop")),
        ({"language": abstaining("too_little_prose")}, KEPT),
        ({"score": abstaining("no_score")}, KEPT),
        ({"finished": failing("truncated"), "correct": WRONG}, ("finished", "truncated")),
    ],
)
def test_verified_is_right_and_nothing_against_it(outcomes: dict[str, Outcome], expected: tuple[str, str]) -> None:
    """The judge counts where the verifier could not tell, what most samples say never; an abstention of a check of form
    is nothing against a trace."""
    assert decided("verified", **outcomes) == expected


def test_without_a_verifier_nothing_has_to_be_right() -> None:
    assert rule_of("verified", ("finished", "think_format")).decides({"finished": PASS, "think_format": PASS}) == KEPT


@pytest.mark.parametrize("keep", ["verified", "all", ("correct",), "correct or not correct", "loop.fail"])
@pytest.mark.parametrize(("check", "reason"), [("finished", "truncated"), ("think_format", "missing_close")])
def test_a_cut_or_malformed_reply_is_out_whatever_the_rule(keep: Any, check: str, reason: str) -> None:
    assert decided(keep, loop=failing("loop"), **{check: failing(reason)}) == (check, reason)


@pytest.mark.parametrize(
    ("keep", "outcomes", "expected"),
    [
        ("all", {"correct": WRONG, "loop": failing("loop")}, KEPT),
        (("correct", "language"), {"loop": failing("loop")}, KEPT),
        (("correct", "language"), {"language": abstaining("too_little_prose")}, ("language", "too_little_prose")),
        ("correct or judge", {"correct": WRONG}, KEPT),
        ("correct or judge", {"correct": WRONG, "judge": failing("judge_incorrect")}, ("correct", "wrong_answer")),
        ("correct and not loop.fail", {"loop": failing("loop")}, ("loop", "loop")),
        ("correct and not loop.fail", {"loop": abstaining("too_short")}, KEPT),
        ("not correct", {}, ("correct", "not_correct")),
        ("correct.abstain", {}, ("correct", "correct_pass")),
        ("correct.abstain and majority", {"correct": UNSURE}, KEPT),
        ("score.score >= 0.7", {"score": Outcome("pass", "", 0.7)}, KEPT),
        ("score.score >= 0.7", {"score": Outcome("pass", "", 0.69)}, ("score", "score_score")),
        ("score.score < 0.7", {}, ("score", "score_score")),
        ("correct or score.score > 1", {"correct": WRONG, "score": Outcome("pass", "", 2.0)}, KEPT),
        ("correct.reason != 'open'", {"correct": Outcome("pass", "open")}, ("correct", "open")),
        ("(correct or judge) and (loop and language)", {"language": failing("mixed_language")},
         ("language", "mixed_language")),
    ],
)  # fmt: skip
def test_lists_and_expressions(keep: Any, outcomes: dict[str, Outcome], expected: tuple[str, str]) -> None:
    assert decided(keep, **outcomes) == expected


def test_a_check_that_was_not_made_has_not_passed() -> None:
    assert rule_of("correct", CHECKS).decides({}) == ("correct", "not_checked")


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("corect", "keep asks for corect, which checks does not run; did you mean 'correct'"),
        (("correct", "maths"), "keep asks for maths"),
        ("verfied", "keep says verfied; did you mean 'verified'?"),
        ("correct.pass", "cannot be read"),
        ("correct and", "cannot be read"),
        ("correct or", "write it like"),
        ("__import__('os').system('true')", "a part that is none"),
        ("correct.outcome", "a part that is none: correct.outcome"),
        ("correct if loop else judge", "a part that is none"),
        ("score.score >= 'high'", "compares what cannot be compared"),
        ("score.score >= True", "compares what cannot be compared"),
        ("0.1 < score.score < 0.9", "compares what cannot be compared"),
        ("correct.reason > 'a'", "compares what cannot be compared"),
        ("score >= 0.7", "compares what cannot be compared"),
        ("1", "a part that is none"),
        ("(" * 500 + "correct" + ")" * 500, "cannot be read"),
    ],
)
def test_what_is_no_rule(keep: Any, message: str) -> None:
    with pytest.raises(ValueError, match="keep") as caught:
        rule_of(keep, CHECKS)
    assert message in str(caught.value)


@given(st.text(alphabet="corectjudg ()andotl.fsp=><0.9'\n", max_size=60))
def test_no_text_is_more_than_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        rule_of(text, CHECKS).decides(GOOD)


OUTCOMES = st.builds(
    Outcome,
    st.sampled_from(["pass", "fail", "abstain"]),
    st.sampled_from(["", "a", "b"]),
    st.none() | st.floats(0, 1),
)


@given(st.fixed_dictionaries(dict.fromkeys(CHECKS, OUTCOMES)))
def test_a_rule_and_its_negation_split_the_whole_ones(outcomes: dict[str, Outcome]) -> None:
    whole = {**outcomes, "finished": PASS, "think_format": PASS}
    rule = "(correct or judge.fail) and not (loop or score.score > 0.5)"
    kept = rule_of(rule, CHECKS).decides(whole) == KEPT
    assert kept == (rule_of(f"not ({rule})", CHECKS).decides(whole) != KEPT)
    assert kept == (
        (outcomes["correct"].outcome == "pass" or outcomes["judge"].outcome == "fail")
        and not (outcomes["loop"].outcome == "pass" or (outcomes["score"].score or 0) > 0.5)
    )
