"""The product by its own command, `distill generate`, on a run directory whose prompts stage is done.

`--way prepare` makes that run directory; `--way seeds` writes what it asked, with the seeds of the requests, to
`asked.jsonl` in it, so that another client can ask exactly the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from asking import Job, job, tell

from distill import cli
from distill.prompts.stage import read_prompts
from distill.rundir import RunDir


def command(job: Job, prompts: Path) -> list[str]:
    settings = {
        "generate.concurrency": job.in_flight,
        "generate.max_concurrency": job.in_flight,
        "prepare.near_duplicates": "false",
        "prepare.shuffle": "false",
    }
    places = ["--prompts", str(prompts), "--teacher", job.url, "--model", job.model, "--out", str(job.out)]
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return ["generate", *places, "--max-tokens", str(job.max_tokens), *changes]


def prepare(job: Job, prompts: Path) -> None:
    from distill import compose, pipeline

    words = command(job, prompts)
    recipe = compose.generate_recipe(
        str(prompts),
        job.url,
        model=job.model,
        samples=1,
        limit=None,
        max_tokens=job.max_tokens,
        settings=[words[place + 1] for place, word in enumerate(words) if word == "--set"],
        out=job.out,
    )
    pipeline.run_recipe(recipe, RunDir(job.out), last="prompts")


def generate(job: Job, prompts: Path) -> None:
    sys.argv = ["distill", *command(job, prompts)]
    try:
        cli.main()
    except SystemExit as leaving:
        if leaving.code:
            raise


def stored(job: Job) -> tuple[int, int]:
    """(answers, completion tokens of them) in the ledger."""
    answers = [trace for trace in RunDir(job.out).ledger().traces() if trace.finish_reason != "error"]
    return len(answers), sum(trace.completion_tokens or 0 for trace in answers)


def write_seeds(job: Job) -> None:
    questions = {prompt.id: prompt.text for prompt in read_prompts(RunDir(job.out).prompts)}
    with (job.out / "asked.jsonl").open("w", encoding="utf-8") as file:
        for trace in RunDir(job.out).ledger().traces():
            row = {"id": trace.prompt_id, "question": questions[trace.prompt_id], "seed": trace.seed}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    wanted, file = job(), Path(sys.argv[sys.argv.index("--prompts") + 1])
    if wanted.way == "prepare":
        prepare(wanted, file)
        print("{}")
    elif wanted.way == "seeds":
        write_seeds(wanted)
        print("{}")
    else:
        generate(wanted, file)
        tell(lambda: stored(wanted))
