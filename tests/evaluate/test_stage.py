"""The examination with a scripted subject: what counts as right, what is refused, and what two scores may say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sampling.scripted import Scripted, subject

from distill.engines import AttemptError, RefusedError, Reply, Request
from distill.errors import InputError, RunError, UsageError
from distill.evaluate import stage
from distill.evaluate.stage import Examinee, compare, examine, grade, model_contract
from distill.ledger import LedgerReader
from distill.prompts.stage import write_prompts
from distill.records import Prompt, TeacherIdentity
from distill.rundir import RunDir
from distill.sampling import scheduler
from distill.sampling.requests import answered, task_for
from distill.specs import EvaluateSettings, PromptsPart, Recipe
from distill.verify import Outcome
from distill.verify.math import check_math
from distill.verify.pool import VerifierPool

PROBLEMS = [Prompt(f"What is {n}?", id=f"p{n}", kind="math", answer=str(n)) for n in range(4)]


class InProcess:
    """Stands in for the pool where worker processes would only cost time."""

    def __init__(self, function: str) -> None:
        assert function == stage.VERIFIER

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def map(self, items: Iterable[Any]) -> Iterator[Outcome]:
        return (check_math(*item) for item in items)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "VerifierPool", InProcess)
    monkeypatch.setattr(scheduler, "FIRST_BACKOFF", 0.001)


class Student(Scripted):
    """Knows the answer to every question but the last, and says it `of` times out of 4."""

    def __init__(self, right: tuple[int, ...] = (4, 3, 2, 0), finish: str = "stop", **more: Any) -> None:
        super().__init__(**more)
        self.right, self.finish = right, finish

    async def complete(self, request: Request) -> Reply:
        await super().complete(request)
        question = request.messages[-1]["content"]
        number = int(question.removeprefix("What is ").removesuffix("?"))
        turn = self.asked.count(question) - 1
        said = number if turn % 4 < self.right[number] else 99
        text = f"<think>\nit is {said}\n</think>\n\n\\boxed{{{said}}}"
        return Reply(text, self.finish, self.name, completion_tokens=10 + number)  # type: ignore[arg-type]


def examinee(engine: Scripted, name: str = "student", **changed: Any) -> Examinee:
    return Examinee(name, subject(identity=TeacherIdentity(name, "1"), **changed), engine, 2, "contract")


def examined(
    folder: Path, engine: Scripted, name: str = "student", *, samples: int = 4, **changed: Any
) -> dict[str, Any]:
    return examine(examinee(engine, name, **changed), PROBLEMS, samples, folder, benchmark="test")


# --- one score -------------------------------------------------------------------------------------------------------


def test_a_score_holds_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "VerifierPool", VerifierPool)
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
    assert "unknown" in stage.table([("student", result)])[1]


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


# --- two scores ------------------------------------------------------------------------------------------------------


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


# --- the stage -------------------------------------------------------------------------------------------------------


def recipe(tmp_path: Path, **changed: Any) -> Recipe:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"question": p.question, "answer": p.answer}) + "\n" for p in PROBLEMS))
    part = PromptsPart(source=str(path))
    return Recipe(name="r", evaluate=EvaluateSettings(**{"prompts": (part,), "models": ("student",), **changed}))


def test_problems_that_were_trained_on_are_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    write_prompts(run.prompts, [Prompt("What  is\n2?", kind="math", answer="2")])
    with pytest.raises(InputError, match="1 of 4 problems of the evaluation are prompts of this run as well"):
        stage.run(recipe(tmp_path), run)


def test_a_run_without_problems_or_student_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no problems"):
        stage.run(Recipe(name="r"), RunDir(tmp_path / "run"))
    with pytest.raises(RunError, match="there is no student student in this run"):
        stage.run(recipe(tmp_path), RunDir(tmp_path / "run"))


@pytest.mark.parametrize(("bar", "failed"), [(0.5, 0), (0.7, 1), (None, 0)])
def test_a_gate_that_did_not_pass_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bar: float | None, failed: int
) -> None:
    monkeypatch.setattr(stage, "_examinee", lambda name, recipe, run: examinee(Student((4, 3, 2, 0)), name))
    report = stage.run(recipe(tmp_path, min_pass_at_1=bar), RunDir(tmp_path / "run"))
    assert len(report.failed_gates) == failed
    assert report.counts["student"]["pass_at_1"] == pytest.approx(0.5625)
    assert any("56.2%" in line and "4 × 4" in line for line in report.lines)


def a_student(folder: Path, model_folder: Callable[[str], Path]) -> Path:
    shutil.copytree(model_folder("qwen2"), folder)
    contract = {"template": "deepseek-r1", "forced_prefix": "<think>\n", "instruction": {}, "system": None}
    (folder / "distill.json").write_text(json.dumps({"contract": contract}))
    return folder


def test_a_folder_is_examined_with_the_recipes_seed_and_within_its_context(
    tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    folder = a_student(tmp_path / "student", model_folder)
    examinee = stage._folder(folder, "s", recipe(tmp_path).model_copy(update={"seed": 8}))
    assert (examinee.subject.sampling.seed, examinee.subject.sampling.temperature) == (8, 0.6)
    assert examinee.subject.max_tokens == 256, "of the 32,768 asked for"
    shorter = stage._folder(folder, "s", recipe(tmp_path, max_tokens=40))
    assert shorter.subject.max_tokens == 40


def test_a_student_in_a_run_is_not_examined_on_what_it_was_trained_on(
    tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    run = RunDir(tmp_path / "run")
    write_prompts(run.prompts, [Prompt("What is 2?", kind="math", answer="2")])
    folder = a_student(run.student, model_folder)
    with pytest.raises(InputError, match="1 of 4 problems of the evaluation are prompts of this run as well"):
        stage.examine_alone(str(folder), None, recipe(tmp_path), tmp_path / "out")


def test_a_students_folder_is_named_after_its_run(tmp_path: Path) -> None:
    (tmp_path / "mine" / "student").mkdir(parents=True)
    assert stage._name_of(tmp_path / "mine" / "student") == "student"
    (tmp_path / "mine" / "recipe.yaml").write_text("name: r\n")
    assert stage._name_of(tmp_path / "mine" / "student") == "mine-student"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"contract": 7}', '{"contract": {"template": "deepseek-r1"}}'])
def test_a_damaged_contract_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "distill.json").write_text(text)
    with pytest.raises(InputError, match=r"distill\.json cannot be read"):
        model_contract(tmp_path)


def test_a_folder_without_a_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say under which contract"):
        model_contract(tmp_path)
