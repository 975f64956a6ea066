"""The product by its own command, `distill filter`, on a run directory made from the corpus.

`--way prepare` makes that run, CORPUS/run: a prompts stage that is done and a ledger with the traces. Without it, a
fresh copy of that run is filtered. With NO_TEXT in the environment answers and gold are not compared as texts first;
worker processes import this file too, so that holds in them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace

from work import NO_TEXT, Work, work

from distill.verify import math

if os.environ.get(NO_TEXT):
    math._is_same_text = lambda found, gold: False

SERVER, MODEL = "http://localhost:9/v1", "benchmark"
"""Nobody asks it."""


def prepare(wanted: Work) -> None:
    from distill import compose, pipeline
    from distill.engines import Reply
    from distill.ledger import Ledger
    from distill.prompts.stage import read_prompts
    from distill.rundir import RunDir
    from distill.sampling.requests import answered, task_for
    from distill.sampling.subjects import teacher_subject
    from distill.specs import teacher

    run = RunDir(wanted.corpus / "run")
    samples = _write_prompts(wanted)
    settings = ["prepare.near_duplicates=false", "prepare.shuffle=false"]
    source = str(wanted.corpus / "prompts.jsonl")
    recipe = compose.generate_recipe(
        source, SERVER, model=MODEL, samples=samples, limit=None, max_tokens=None, settings=settings, out=run.path
    )
    pipeline.run_recipe(recipe, run, last="prompts")
    spec = teacher(recipe.teacher, recipe.teacher_overrides)
    subject = teacher_subject(spec, recipe.generate.sampling, recipe.generate.max_tokens, recipe.seed)
    rows = wanted.traces()
    with Ledger(run.traces) as ledger:
        for prompt in read_prompts(run.prompts):
            for sample in range(samples):
                row = next(rows)
                assert (prompt.id, sample) == (str(row["prompt"]), row["sample"]), "no prompt may be left out"
                text = f"<think>\n{row['reasoning']}\n</think>\n\n{row['answer']}"
                reply = Reply(text, "stop", "benchmark", completion_tokens=len(text) // 4)
                found = answered(task_for(prompt, subject, sample), reply, subject, 0, 1)
                ledger.append(replace(found, created=""))
    assert next(rows, None) is None


def _write_prompts(wanted: Work) -> int:
    """Returns how many traces each prompt has."""
    samples = 0

    def prompts() -> Iterator[dict[str, str]]:
        nonlocal samples
        for row in wanted.traces():
            samples = max(samples, row["sample"] + 1)
            if row["sample"] == 0:
                yield {"id": str(row["prompt"]), "question": row["question"], "answer": row["gold"], "kind": "math"}

    with (wanted.corpus / "prompts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in prompts())
    return samples


def filter_(wanted: Work) -> None:
    from distill import cli

    run = wanted.corpus / "filtered"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(wanted.corpus / "run", run)
    problems = f"prepare.decontaminate=[{{source: {wanted.corpus / 'evaluation.jsonl'}}}]"
    settings = [problems, "filter.across_prompts=true"]
    sys.argv = ["distill", "filter", str(run), *(part for each in settings for part in ("--set", each))]
    cli.main()


if __name__ == "__main__":
    given = work()
    if given.way == "prepare":
        prepare(given)
    else:
        filter_(given)
