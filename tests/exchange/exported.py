"""A run by hand, with everything an export has to carry: kept rows, a ledger with failures, verdicts, a student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from conftest import TOKENIZER
from filtered import Judged, write_kept, write_verdicts
from ledger_material import write_all

from distill import specs
from distill.contract import STEP_BY_STEP
from distill.engines import Reply
from distill.prompts.stage import write_prompts
from distill.records import Prompt, Trace
from distill.rundir import RunDir
from distill.sampling.requests import Subject, answered, failed, task_for
from distill.sampling.subjects import teacher_subject
from distill.verify import PASS, Outcome

SIZES = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
}
R1_STUDENT: dict[str, Any] = {
    "name": "small",
    "architecture": SIZES,
    "tokenizer": str(TOKENIZER),
    "template": "deepseek-r1",
    "forced_prefix": "<think>\n",
}
CHATML_STUDENT: dict[str, Any] = {
    "name": "chatty",
    "architecture": SIZES,
    "tokenizer": str(TOKENIZER),
    "template": "chatml",
    "thinks": False,
    "pad_token": "<|endoftext|>",
    "system": "You work out sums.",
    "instruction": {"math": STEP_BY_STEP},
}
TEACHER = {"name": "scripted", "model": "org/scripted", "revision": "1", "instruction": {"math": "Think."}}

PROMPTS = (
    Prompt(
        "What is 1 + 1?",
        id="one",
        kind="math",
        answer="2",
        domain="math",
        source="sums",
        license="MIT",
        difficulty="Level 1",
    ),
    Prompt("¿Cuánto es 2 + 2?\u2028你好 \x85 🙂", kind="math", answer="4", domain="math", language="es"),
    Prompt("Say hello.", kind="open", reasoning="none"),
    Prompt("Nobody was asked this.", kind="open"),
)


def write_specs(folder: Path, student: dict[str, Any] | None) -> specs.Recipe:
    """A recipe whose teacher and student lie as specs in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    named: dict[str, Any] = {"name": "r", "seed": 3, "teacher": str(folder / "teacher.yaml")}
    (folder / "teacher.yaml").write_text(yaml.safe_dump(TEACHER))
    if student is not None:
        (folder / "student.yaml").write_text(yaml.safe_dump(student, allow_unicode=True))
        named["student"] = str(folder / "student.yaml")
    return specs.parse(specs.Recipe, yaml.safe_dump(named), "test")


def subject(recipe: specs.Recipe) -> Subject:
    return teacher_subject(specs.teacher(recipe.teacher), recipe.generate.sampling, None, recipe.seed)


def traces(recipe: specs.Recipe) -> list[Trace]:
    """In the order of arrival: two samples of the first prompt, one of the others, one failure tried again."""
    who = subject(recipe)

    def said(place: int, sample: int, text: str, revision: int = 0) -> Trace:
        reply = Reply(text, "stop", "here", completion_tokens=len(text))
        return answered(task_for(PROMPTS[place], who, sample), reply, who, revision, 1)

    found = [
        said(1, 0, "<think>\nsumo dos y dos, 你好 🙂\n</think>\n\n\\boxed{4}"),
        failed(task_for(PROMPTS[0], who, 0), who, "here", "no answer in time", 0, 3),
        said(0, 1, "<think>\n1 and 1 again\n</think>\n\n\\boxed{3}"),
        said(2, 0, "Hello\u2028there\nand there"),
        said(0, 0, "<think>\n1 and 1\n\nis 2\n</think>\n\n\\boxed{2}", 1),
    ]
    return [replace(trace, created="2026-11-25T00:00:00.000+00:00") for trace in found]


def run_by_hand(
    folder: Path, student: dict[str, Any] | None = None, *, heldout: int = 1
) -> tuple[specs.Recipe, RunDir]:
    """Two of the math replies are right; the last `heldout` of the three kept traces are held out."""
    run = RunDir(folder)
    recipe = write_specs(folder.parent / f"{folder.name}-specs", student)
    run.path.mkdir()
    run.recipe.write_text(specs.dump(recipe))
    write_prompts(run.prompts, list(PROMPTS))
    ledger = traces(recipe)
    write_all(run.traces, ledger)
    judged = judged_by_hand(ledger)
    write_verdicts(run.verdicts, judged)
    kept = [item for item in judged if item.outcomes["math"].outcome != "fail"]
    write_kept(run.kept, kept[: len(kept) - heldout], kept[len(kept) - heldout :])
    return recipe, run


def judged_by_hand(ledger: list[Trace]) -> list[Judged]:
    """The answers with their outcomes, in the order of prompts, then samples."""
    answers = sorted((trace for trace in ledger if trace.finish_reason != "error"), key=lambda trace: trace.sample)
    return [Judged(p, trace, outcomes(trace)) for p in PROMPTS for trace in answers if trace.prompt_id == p.id]


def outcomes(trace: Trace) -> dict[str, Outcome]:
    wrong = Outcome("fail", "wrong_answer", 0.25)
    return {"finished": PASS, "math": wrong if "{3}" in (trace.answer or "") else PASS}


def kept(run: RunDir, *sides: str) -> list[dict[str, Any]]:
    tables = [pq.read_table(run.kept / f"{side}-00000.parquet") for side in sides or ("train", "heldout")]
    return list(pa.concat_tables(tables).to_pylist())
