"""A scripted model to examine, and a pool that judges in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sampling.scripted import Scripted, subject

from distill.engines import Reply, Request
from distill.examine.examination import Examinee, examine
from distill.records import Prompt, TeacherIdentity
from distill.source_specs import PromptsPart
from distill.specs import EvaluateSettings, Recipe

PROBLEMS = [Prompt(f"What is {n}?", id=f"p{n}", kind="math", answer=str(n)) for n in range(4)]


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


def recipe(tmp_path: Path, **changed: Any) -> Recipe:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"question": p.question, "answer": p.answer}) + "\n" for p in PROBLEMS))
    part = PromptsPart(source=str(path))
    return Recipe(name="r", evaluate=EvaluateSettings(**{"prompts": (part,), "models": ("student",), **changed}))


def a_student(folder: Path, model_folder: Callable[[str], Path]) -> Path:
    shutil.copytree(model_folder("qwen2"), folder)
    contract = {"template": "deepseek-r1", "forced_prefix": "<think>\n", "instruction": {}, "system": None}
    (folder / "distill.json").write_text(json.dumps({"contract": contract}))
    return folder
