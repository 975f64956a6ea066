"""Two scores: compared problem by problem when they were measured alike, refused otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sampling.scripted import subject
from verify.in_process import InProcess

from distill.errors import InputError, UsageError
from distill.examine import examination
from distill.examine.examination import examine
from distill.examine.scores import compare
from distill.records import Prompt
from distill.sampling import scheduler
from examine.material import PROBLEMS, Student, examined, examinee


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "VerifierPool", InProcess)
    monkeypatch.setattr(scheduler, "FIRST_BACKOFF", 0.001)


def test_two_scores_measured_alike_are_compared_problem_by_problem(tmp_path: Path) -> None:
    examined(tmp_path, Student((4, 2, 0, 0)), "before")
    examined(tmp_path, Student((4, 3, 2, 1)), "after")
    values, lines = compare(tmp_path / "before.json", tmp_path / "after.json")
    assert (values["difference"], values["problems"]) == (0.25, 4)
    assert values["interval"][0] < 0.25 < values["interval"][1]
    assert lines[-1].startswith("after − before: +25.0% (95% ")
    assert lines[-1].endswith("paired over 4 problems)")
    assert [line.split()[0] for line in lines[1:3]] == ["before", "after"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"max_tokens": 50}, "max_tokens: 100 and 50"),
        ({"samples": 2}, "samples: 4 and 2"),
        ({"sampling": subject().sampling.__class__(temperature=1.0, seed=1)}, "sampling: "),
    ],
)
def test_scores_measured_differently_are_not_compared(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    examined(tmp_path, Student(), "a")
    examined(tmp_path, Student(), "b", **changed)
    with pytest.raises(UsageError, match="measured differently") as caught:
        compare(tmp_path / "a.json", tmp_path / "b.json")
    assert named in str(caught.value)


def test_scores_of_other_problems_are_not_compared(tmp_path: Path) -> None:
    examined(tmp_path, Student(), "a")
    examine(examinee(Student(), "b"), PROBLEMS[:3], 4, tmp_path, benchmark="test")
    with pytest.raises(UsageError, match="measured differently") as caught:
        compare(tmp_path / "a.json", tmp_path / "b.json")
    assert "problems_hash" in str(caught.value)
    renamed = [Prompt(p.question, id=f"x{p.id}", kind="math", answer=p.answer) for p in PROBLEMS]
    examine(examinee(Student(), "c"), renamed, 4, tmp_path, benchmark="test")
    with pytest.raises(UsageError, match="measured differently"):
        compare(tmp_path / "a.json", tmp_path / "c.json")


@pytest.mark.parametrize("text", [None, "", "[]", "7", "{}", '{"conditions": {}, "per_problem": {}, "pass_at_1": 1}'])
def test_what_is_no_score_says_so(tmp_path: Path, text: str | None) -> None:
    examined(tmp_path, Student(), "a")
    if text is not None:
        (tmp_path / "b.json").write_text(text)
    with pytest.raises(InputError, match="is not a score"):
        compare(tmp_path / "a.json", tmp_path / "b.json")
