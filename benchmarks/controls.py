"""Shows what the quickstart's gain comes from, and how far a single run can be trusted.

    python benchmarks/controls.py --out runs/controls

`verified` is the quickstart itself, `all` keeps wrong answers too, `tiny-llama` is the other architecture, `wrong
prompts` trains on the verified traces, each under another prompt: that one has to end below 20% pass@1, or the student
learned something else than its traces. `seed N` is the whole quickstart again. Started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill import specs
from distill.evaluate import stage as evaluate
from distill.examine.scores import table
from distill.pipeline import run_recipe
from distill.rundir import RunDir
from distill.train import stage as train

WRONG = "wrong prompts"
WRONG_PROMPTS_CEILING = 0.20
ONLY_STUDENT: dict[str, Any] = {"evaluate.models": ["student"], "evaluate.min_pass_at_1": None}


def shuffle_replies(kept: Path, seed: int) -> None:
    """Gives every prompt the reply of another one: a cyclic shift of a shuffled order, so that none keeps its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in sorted(kept.glob("*.parquet")):
        table = pq.read_table(file)
        rows: list[dict[str, Any]] = table.to_pylist()
        order = list(range(len(rows)))
        random.Random(seed).shuffle(order)
        replies = {a: rows[b]["messages"][1] for a, b in zip(order, order[1:] + order[:1], strict=True)}
        shuffled = [{**row, "messages": [row["messages"][0], replies[place]]} for place, row in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(shuffled, schema=table.schema), file)


def student_score(run: RunDir) -> dict[str, Any]:
    score: dict[str, Any] = json.loads((run.evaluations / "student.json").read_text())
    return score


def fork(source: RunDir, target: Path) -> RunDir:
    """A copy of a run without what was trained from it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source.path, target, ignore=shutil.ignore_patterns("student", "untrained", "evaluations", ".lock"))
    return RunDir(target)


def controls(base: RunDir, out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name → the student's score, for each choice of what is learned by whom; finished ones are not run again."""
    for name, settings in {"all": {"filter.keep": "all"}, "tiny-llama": {"student": "tiny-llama"}}.items():
        run = RunDir(out / name)
        if not run.recipe.is_file():
            fork(base, run.path)
        run_recipe(specs.recipe("quickstart", {**settings, **ONLY_STUDENT}), run)
        yield name, student_score(run)
    wrong = RunDir(out / "wrong-prompts")
    if not (wrong.evaluations / "student.json").is_file():
        fork(base, wrong.path)
        recipe = specs.recipe("quickstart", ONLY_STUDENT)
        shuffle_replies(wrong.kept, recipe.seed)
        train.run(recipe, wrong)  # not through the pipeline: it would mend kept/
        evaluate.run(recipe, wrong)
    yield WRONG, student_score(wrong)


def other_seeds(out: Path, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whole quickstarts, other samples and other first weights."""
    for seed in range(2, 2 + count):
        run = RunDir(out / f"seed-{seed}")
        run_recipe(specs.recipe("quickstart", {"seed": seed, **ONLY_STUDENT}), run)
        yield f"seed {seed}", student_score(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="a finished quickstart run to start from")
    parser.add_argument("--seeds", type=int, default=2, help="how many whole quickstarts with other seeds")
    options = parser.parse_args()
    base = RunDir(options.base or options.out / "verified")
    run_recipe(specs.recipe("quickstart"), base)
    scores = {"verified": student_score(base)}
    scores.update(controls(base, options.out))
    scores.update(other_seeds(options.out, options.seeds))
    print("\n".join(table(list(scores.items()))))
    if scores[WRONG]["pass_at_1"] >= WRONG_PROMPTS_CEILING:
        raise SystemExit(f"wrong prompts should end below {WRONG_PROMPTS_CEILING:.0%}")


if __name__ == "__main__":
    main()
