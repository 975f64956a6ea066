"""The examination with a scripted subject: what counts as right, and what a score holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sampling.scripted import subject
from verify.in_process import InProcess

from distill.engines import AttemptError, RefusedError, Reply, Request
from distill.errors import InputError, RunError
from distill.examine import examination
from distill.examine.examination import examine, grade
from distill.examine.scores import table
from distill.ledger import LedgerReader
from distill.records import Prompt
from distill.sampling import scheduler
from distill.sampling.requests import answered, task_for
from distill.verify.pool import VerifierPool
from examine.material import PROBLEMS, Student, examined, examinee


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "VerifierPool", InProcess)
    monkeypatch.setattr(scheduler, "FIRST_BACKOFF", 0.001)


def test_a_score_holds_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "VerifierPool", VerifierPool)
    result = examined(tmp_path, Student())
    assert result["pass_at_1"] == pytest.approx((1 + 0.75 + 0.5 + 0) / 4)
    assert result["per_problem"] == {"p0": 1.0, "p1": 0.75, "p2": 0.5, "p3": 0.0}
    assert (result["problems"], result["samples"], result["unfinished"]) == (4, 16, 0.0)
    assert result["mean_tokens"] == pytest.approx(11.5)
    assert result["model"] == {"model": "student", "revision": "1", "quantization": None}
    assert result["conditions"]["sampling"]["temperature"] == 0.6
    assert (result["conditions"]["samples"], result["conditions"]["max_tokens"]) == (4, 100)
    assert json.loads((tmp_path / "student.json").read_text(encoding="utf-8")) == result
    assert len(list(LedgerReader(tmp_path / "student").traces())) == 16, "the samples behind it stay"


def test_a_cut_reply_is_wrong_even_if_it_holds_the_right_answer(tmp_path: Path) -> None:
    result = examined(tmp_path, Student((4, 4, 4, 4), finish="length"))
    assert (result["pass_at_1"], result["unfinished"]) == (0.0, 1.0)
    found = answered(
        task_for(PROBLEMS[1], subject(), 0),
        Reply("<think>\none\n</think>\n\n\\boxed{1}", "length", "here"),
        subject(),
        0,
        1,
    )
    assert found.answer == "\\boxed{1}"
    (graded,) = grade([(PROBLEMS[1], found)], 1_000)
    assert (graded.right, graded.finished) == (False, False)


def test_only_what_follows_the_reasoning_is_looked_at(tmp_path: Path) -> None:
    texts = ["<think>\n\\boxed{1}\n</think>\n\nI forgot.", "<think>\n\\boxed{1}\n</think>\n\n\\boxed{2}", "\\boxed{1}"]
    traces = [
        answered(task_for(PROBLEMS[1], subject(), n), Reply(text, "stop", "here"), subject(), 0, 1)
        for n, text in enumerate(texts)
    ]
    assert [graded.right for graded in grade([(PROBLEMS[1], trace) for trace in traces], 1_000)] == [False, False, True]


def test_an_interrupted_examination_asks_only_for_the_rest(tmp_path: Path) -> None:
    examined(tmp_path, Student((4, 4, 4, 4)), samples=2)
    second = Student((4, 4, 4, 4))
    result = examined(tmp_path, second, samples=4)
    assert len(second.asked) == 8
    assert (result["samples"], result["pass_at_1"]) == (16, 1.0)
    third = Student((0, 0, 0, 0))
    assert examined(tmp_path, third, samples=4)["pass_at_1"] == 1.0
    assert third.asked == []


@pytest.mark.parametrize("tokens", [None, 60])
def test_a_reply_cut_by_the_context_is_not_drawn_again(tmp_path: Path, tokens: int | None) -> None:
    class Cut(Student):
        async def complete(self, request: Request) -> Reply:
            await super().complete(request)
            return Reply("<think>\nit is", "length", self.name, completion_tokens=tokens)

    for asked in (16, 0):
        engine = Cut()
        result = examined(tmp_path, engine)
        assert len(engine.asked) == asked
    assert (result["unfinished"], result["mean_tokens"]) == (1.0, tokens)
    higher = Cut()
    examined(tmp_path, higher, max_tokens=200)
    assert len(higher.asked) == 16, "a higher limit may show more"


def test_a_lower_limit_cuts_the_samples_that_are_there(tmp_path: Path) -> None:
    """Drawn under 100 tokens, 10 to 13 of them long: under 11 the longer ones would have been cut there."""
    examined(tmp_path, Student((4, 4, 4, 4)))
    engine = Student()
    result = examined(tmp_path, engine, max_tokens=11)
    assert engine.asked == []
    assert (result["pass_at_1"], result["unfinished"]) == (0.5, 0.5)
    assert result["per_problem"] == {"p0": 1.0, "p1": 1.0, "p2": 0.0, "p3": 0.0}
    assert result["mean_tokens"] == pytest.approx((10 + 11 + 11 + 11) / 4)


def test_samples_of_unknown_length_tell_nothing_about_a_lower_limit(tmp_path: Path) -> None:
    class Uncounted(Student):
        async def complete(self, request: Request) -> Reply:
            return replace(await super().complete(request), completion_tokens=None)

    examined(tmp_path, Uncounted())
    for limit, asked in ((200, 0), (50, 16)):
        engine = Uncounted()
        result = examined(tmp_path, engine, max_tokens=limit)
        assert len(engine.asked) == asked
    assert result["mean_tokens"] is None
    assert "unknown" in table([("student", result)])[1]


def test_samples_that_are_there_already_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examined(tmp_path, Student())
    assert "already" not in capsys.readouterr().err
    examined(tmp_path, Student((0, 0, 0, 0)))
    assert f"16 of 16 samples are there already, in {tmp_path / 'student'}" in capsys.readouterr().err


def test_a_score_with_holes_is_no_score(tmp_path: Path) -> None:
    engine = Student((4, 4, 4, 4), script={"What is 2?": [RefusedError("too long")]})
    with pytest.raises(RunError, match="4 of 16 samples of student failed"):
        examined(tmp_path, engine)
    assert not (tmp_path / "student.json").exists()
    assert examined(tmp_path, Student((4, 4, 4, 4)))["pass_at_1"] == 1.0
    unlucky = Student((4, 4, 4, 4), script={"What is 2?": [AttemptError("busy")] * 5})
    assert examined(tmp_path / "b", unlucky)["pass_at_1"] == 1.0, "six attempts each"


def test_a_problem_without_gold_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no gold answer"):
        examine(examinee(Student()), [Prompt("What?", kind="math")], 1, tmp_path, benchmark="test")
