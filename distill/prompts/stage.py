"""The first stage: every prompt of a run in one file, checked, without duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from distill.errors import InputError
from distill.files import reading, replacing
from distill.prompts.sources import place_of, prompts_of
from distill.records import Prompt
from distill.rundir import RunDir, StageReport
from distill.source_specs import PromptsPart
from distill.specs import Recipe

NEEDS_GOLD = ("math", "numeric")
"""Kinds whose verifier compares with a gold answer."""
AGAIN = "run the prompts stage again: `distill run RECIPE --from prompts --out RUN`, or the same `distill generate`"
"""What to do about a prompts file that cannot be read."""


def run(recipe: Recipe, run: RunDir) -> StageReport:
    """Writes prompts.parquet. Raises InputError for a row that cannot be used, and when nothing is left."""
    if not recipe.prompts:
        raise InputError("the recipe names no prompts", todo="add `prompts: [{source: arithmetic, limit: 100}]` to it")
    counts: Counter[str] = Counter()
    prompts = list(unique(collect(recipe.prompts, recipe.seed), counts))
    if not prompts:
        raise InputError(
            "there are no prompts left",
            given=", ".join(f"{part.source}, skip {part.skip}" for part in recipe.prompts),
            todo="lower prompts.0.skip, or give a file with more rows",
        )
    evaluation_problems(recipe, prompts)  # a mistake there should show before anything is paid for
    if "math" in recipe.filter.checks:
        require_gold(prompts, recipe.prompts)
    write_prompts(run.prompts, prompts)
    kinds = Counter(prompt.kind for prompt in prompts)
    report = {"prompts": len(prompts), "duplicates": counts["duplicates"], "kinds": dict(kinds)}
    return StageReport(report, (run.prompts,), (f"{len(prompts)} prompts, {counts['duplicates']} duplicates left out",))


def collect(parts: Iterable[PromptsPart], seed: int) -> Iterator[Prompt]:
    for part in parts:
        yield from prompts_of(part, seed)


def unique(prompts: Iterable[Prompt], counts: Counter[str]) -> Iterator[Prompt]:
    """Each question once; the same id for two different questions is an error, since results would be mixed up."""
    by_id: dict[str, str] = {}
    questions: set[str] = set()
    for prompt in prompts:
        if by_id.setdefault(prompt.id, prompt.question) != prompt.question:
            raise InputError(
                f"two different questions have the id '{prompt.id}'",
                given=f"{by_id[prompt.id][:60]!r} and {prompt.question[:60]!r}",
                todo="give each its own id, or none at all: then it is derived from the question",
            )
        if prompt.text in questions:
            counts["duplicates"] += 1
            continue
        questions.add(prompt.text)
        yield prompt


def evaluation_problems(recipe: Recipe, prompts: Iterable[Prompt]) -> list[Prompt]:
    """The problems a recipe evaluates on, each once. Raises InputError when there are none, or one is among its
    `prompts` too."""
    problems = list(unique(collect(recipe.evaluate.prompts, recipe.seed), Counter()))
    if recipe.evaluate.prompts and not problems:
        raise InputError(
            "there are no problems to evaluate on",
            given=", ".join(f"{part.source}, skip {part.skip}" for part in recipe.evaluate.prompts),
            todo="lower evaluate.prompts.0.skip, or give a file with more rows",
        )
    require_gold(problems, recipe.evaluate.prompts)
    require_verifier(problems)
    questions = {" ".join(prompt.text.split()) for prompt in prompts}
    common = [problem for problem in problems if " ".join(problem.text.split()) in questions]
    if common:
        raise InputError(
            f"{len(common)} of {len(problems)} problems of the evaluation are prompts of this run as well",
            given=repr(common[0].question[:80]),
            todo="evaluate on another split or file, or set evaluate.prompts.0.skip",
        )
    return problems


def require_gold(prompts: Iterable[Prompt], parts: Sequence[PromptsPart] = ()) -> None:
    """Raises InputError for the first prompt that a verifier could never judge; `parts` tell where it stands."""
    lacking = [prompt for prompt in prompts if prompt.kind in NEEDS_GOLD and not (prompt.answer or "").strip()]
    if lacking:
        first = lacking[0]
        raise InputError(
            f"{len(lacking)} prompts of kind {first.kind} have no gold answer, the first: "
            f"{place_of(first, parts) or first.id}",
            given=repr(first.question[:80]),
            todo="add the answers (field `answer`); to sample without verifying, give these rows `kind: open` and "
            "--set 'filter.checks=[finished,think_format,duplicate]'",
        )


def require_verifier(prompts: Iterable[Prompt], *, unjudged: Collection[str] = ()) -> None:
    """Raises InputError for the first prompt of a kind that nothing here can judge, those in `unjudged` aside: paying
    for it would be in vain."""
    first = next((prompt for prompt in prompts if prompt.kind not in (*NEEDS_GOLD, *unjudged)), None)
    if first is not None:
        raise InputError(
            f"there is no verifier for prompts of kind {first.kind} yet",
            given=repr(first.question[:80]),
            todo=f"use prompts of kind {' or '.join(NEEDS_GOLD)}, or take `math` out of filter.keep and filter.checks",
        )


def write_prompts(path: Path, prompts: list[Prompt]) -> None:
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(Prompt.table(prompts), temporary, compression="zstd")


def read_prompts(path: Path) -> Iterator[Prompt]:
    """The prompts that an earlier stage wrote, in order."""
    import pyarrow.parquet as pq

    with reading(path, AGAIN), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1_024):
            yield from (Prompt.from_json(row) for row in batch.to_pylist())
