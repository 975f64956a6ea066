"""Small runs with real prompts and a real ledger, whose traces are written here instead of being asked for."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from distill import specs
from distill.engines import Reply
from distill.files import sha256_of
from distill.generate.keys import subject_of
from distill.ledger import Ledger
from distill.pipeline import run_recipe
from distill.prompts.stage import read_prompts
from distill.records import Trace
from distill.rundir import RunDir
from distill.sampling.requests import Task, answered, failed, samples_of, task_for
from distill.sampling.shards import in_shard


def questions(path: Path, numbers: Iterable[int], *, word: str = "What is") -> Path:
    rows = [{"question": f"{word} {n} + {n}?", "answer": str(2 * n), "id": f"q{n}"} for n in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(folder: Path, **settings: Any) -> specs.Recipe:
    """Two samples of each question in questions.jsonl from a teacher that exists by name alone; settings with `__` for
    the dots. Relative to `folder`, which has to be the working directory: so a run can be copied elsewhere."""
    spec = folder / "scripted.yaml"
    if not spec.exists():
        spec.write_text("name: scripted\nmodel: scripted\nserved: true\nrevision: '1'\n", encoding="utf-8")
    text = {
        "name": "r",
        "teacher": spec.name,
        "prompts": [{"source": "questions.jsonl"}],
        "prepare": {"near_duplicates": False},
        "generate": {"samples": 2, "engine": "openai", "url": "http://127.0.0.1:9/v1"},
    }
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    return specs.parse(specs.Recipe, json.dumps(text), "test", changes)


def prepared(asked: specs.Recipe, run: RunDir) -> RunDir:
    run_recipe(asked, run, last="prompts")
    return run


def none_of_them(task: Task) -> bool:
    return False


MADE = Path(tempfile.mkdtemp(prefix="runs-"))
"""Runs as they were made the first time: most tests start from the same ones."""
FILES = (Path("questions.jsonl"), Path("scripted.yaml"))
atexit.register(shutil.rmtree, MADE, ignore_errors=True)


def sampled(
    asked: specs.Recipe,
    run: RunDir,
    *,
    text: str = "<think>\nwhy\n</think>\n\n{question}",
    failing: Callable[[Task], bool] = none_of_them,
    left_out: Callable[[Task], bool] = none_of_them,
) -> RunDir:
    """A run with prompts and the traces that its recipe wants; the manifest says nothing of the sampling."""
    plain = failing is left_out is none_of_them
    made = MADE / sha256_of([specs.dump(asked), text, *(path.read_text() for path in FILES)])
    if plain and made.is_dir():
        shutil.copytree(made, run.path)
        return run
    _sampled(asked, run, text, failing, left_out)
    if plain:
        shutil.copytree(run.path, made)
    return run


def _sampled(
    asked: specs.Recipe, run: RunDir, text: str, failing: Callable[[Task], bool], left_out: Callable[[Task], bool]
) -> None:
    prepared(asked, run)
    with Ledger(run.traces) as ledger:
        for task in tasks(asked, run):
            if not left_out(task):
                ledger.append(trace_of(asked, task, text, failing(task), ledger.next_revision(task.key)))


def tasks(asked: specs.Recipe, run: RunDir) -> list[Task]:
    subject = subject_of(asked)
    found = [
        task_for(prompt, subject, sample)
        for prompt in read_prompts(run.prompts)
        for sample in range(samples_of(prompt, asked.generate.samples))
    ]
    return [task for task in found if in_shard(task.asked, asked.generate.shard)]


def trace_of(asked: specs.Recipe, task: Task, text: str, failing: bool, revision: int) -> Trace:
    subject = subject_of(asked)
    if failing:
        return failed(task, subject, "here", "HTTP 500", revision, 3)
    said = text.format(question=task.request.messages[-1]["content"], sample=task.sample)
    return answered(task, Reply(said, "stop", "here", completion_tokens=7), subject, revision, 1)


def records(run: RunDir) -> list[Trace]:
    return list(run.ledger().records())


def contents(run: RunDir) -> dict[str, bytes]:
    """Every file of a run but its locks, by name."""
    files = [path for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}
