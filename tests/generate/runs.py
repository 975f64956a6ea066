"""Small runs with real prompts and a real ledger, whose traces are written here instead of being asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from distill import specs
from distill.engines import Reply
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
    """Two samples of each question in `folder`/questions.jsonl from a teacher that exists by name alone; settings with
    `__` for the dots."""
    spec = folder / "scripted.yaml"
    if not spec.exists():
        spec.write_text("name: scripted\nmodel: scripted\nserved: true\nrevision: '1'\n", encoding="utf-8")
    text = {
        "name": "r",
        "teacher": str(spec),
        "prompts": [{"source": str(folder / "questions.jsonl")}],
        "prepare": {"near_duplicates": False},
        "generate": {"samples": 2, "engine": "openai", "url": "http://127.0.0.1:9/v1"},
    }
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    return specs.parse(specs.Recipe, json.dumps(text), "test", changes)


def prepared(asked: specs.Recipe, run: RunDir) -> RunDir:
    run_recipe(asked, run, last="prompts")
    return run


def sampled(
    asked: specs.Recipe,
    run: RunDir,
    *,
    text: str = "<think>\nwhy\n</think>\n\n{question}",
    failing: Callable[[Task], bool] = lambda task: False,
    left_out: Callable[[Task], bool] = lambda task: False,
) -> RunDir:
    """A run with prompts and the traces that its recipe wants; the manifest says nothing of the sampling."""
    prepared(asked, run)
    with Ledger(run.traces) as ledger:
        for task in tasks(asked, run):
            if not left_out(task):
                ledger.append(trace_of(asked, task, text, failing(task), ledger.next_revision(task.key)))
    return run


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
