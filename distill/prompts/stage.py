"""The first stage: every prompt of a run in one file, checked, without duplicates, in the order of sampling."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.files import replacing
from distill.progress import bar
from distill.prompts.census import Census
from distill.prompts.contamination import Contamination
from distill.prompts.preparing import FILTERS, Prepared, prepare
from distill.prompts.sources import Sourced, place_of, sourced
from distill.prompts.spool import Spool, write_in_order
from distill.prompts.table import PromptTable
from distill.records import Prompt
from distill.rundir import RunDir, StageReport
from distill.source_specs import PromptsPart
from distill.specs import Recipe
from distill.verify.verifiers import NEEDS_GOLD, OF_KIND, Chosen, verifier_of

Named = list[tuple[str, Prompt]]
"""Problems with the name of their benchmark."""
QUOTED = 200
"""Characters of a question that was left out, in the file that lists them."""


def run(recipe: Recipe, run: RunDir) -> StageReport:
    """Writes prompts.parquet, and left-out.parquet with the reason of each prompt that is not in it.

    Raises InputError for a row that cannot be used, and when nothing is left, naming what took the prompts.
    """
    if not recipe.prompts:
        raise InputError("the recipe names no prompts", todo="add `prompts: [{source: arithmetic, limit: 100}]` to it")
    evaluated = _named_problems(recipe.evaluate.prompts, recipe.seed)
    _usable((prompt for _, prompt in evaluated), recipe, ())  # a mistake there shows before anything is paid for
    folder = run.path / ".prompts"
    shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
    spool = Spool(folder)
    try:
        items = _told(collect(recipe.prompts, recipe.seed))
        found = prepare(items, recipe.prepare, contamination_of(recipe, evaluated), recipe.seed, spool)
        if not len(found.order):
            raise _nothing_left(recipe, spool.rows, found)
        if "correct" in recipe.filter.checks and not isinstance(recipe.verify, str):
            _require_gold(found, spool, recipe)
        with replacing(run.prompts) as temporary:
            write_in_order(spool, found.order, found.repeats, temporary)
        with replacing(run.left_out) as temporary:
            _write_left_out(spool, found, temporary)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _report(run, spool.rows, found)


def collect(parts: Iterable[PromptsPart], seed: int) -> Iterator[Sourced]:
    for part in parts:
        yield from sourced(part, seed)


def contamination_of(recipe: Recipe, evaluated: Named) -> Contamination | None:
    """The problems that must not be trained on: those of the recipe's own evaluation, and of the sets it names."""
    named = [*evaluated, *_named_problems(recipe.prepare.decontaminate, recipe.seed)]
    return Contamination((name, prompt.text) for name, prompt in named) if named else None


def benchmark_texts(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(benchmark, problem) of all that must not be trained on, as `contamination_of` takes them together."""
    for parts in (recipe.evaluate.prompts, recipe.prepare.decontaminate):
        yield from ((name, prompt.text) for name, prompt in _named_problems(parts, recipe.seed))


def _named_problems(parts: Iterable[PromptsPart], seed: int) -> Named:
    return [(benchmark_name(part), item.prompt) for part in parts for item in sourced(part, seed)]


def benchmark_name(part: PromptsPart) -> str:
    return f"{Path(part.source).stem}:{part.split}"


def evaluation_problems(recipe: Recipe, prompts: Iterable[Prompt]) -> list[Prompt]:
    """The problems a recipe evaluates on, each once. Raises InputError when there are none, when one has no gold
    answer or verifier, or one is among `prompts` too."""
    return _usable((item.prompt for item in collect(recipe.evaluate.prompts, recipe.seed)), recipe, prompts)


def _usable(found: Iterable[Prompt], recipe: Recipe, prompts: Iterable[Prompt]) -> list[Prompt]:
    """The checks of `evaluation_problems` on problems that were read."""
    parts, problems = recipe.evaluate.prompts, list(unique(found))
    if parts and not problems:
        raise InputError(
            "there are no problems to evaluate on",
            given=", ".join(f"{part.source}, skip {part.skip}" for part in parts),
            todo="lower evaluate.prompts.0.skip, or give a file with more rows",
        )
    if not isinstance(recipe.verify, str):
        require_gold(problems, parts)
    require_verifier(problems, recipe.verify)
    questions = {" ".join(prompt.text.split()) for prompt in prompts}
    common = [problem for problem in problems if " ".join(problem.text.split()) in questions]
    if common:
        raise InputError(
            f"{len(common)} of {len(problems)} problems of the evaluation are prompts of this run as well",
            given=repr(common[0].question[:80]),
            todo="evaluate on another split or file, or set evaluate.prompts.0.skip",
        )
    return problems


def unique(prompts: Iterable[Prompt]) -> Iterator[Prompt]:
    """Each question once; the same id for two different questions is an error, since results would be mixed up."""
    by_id: dict[str, str] = {}
    questions: set[str] = set()
    for prompt in prompts:
        if by_id.setdefault(prompt.id, prompt.text) != prompt.text:
            raise InputError(
                f"two different questions have the id '{prompt.id}'",
                given=f"{by_id[prompt.id][:60]!r} and {prompt.question[:60]!r}",
                todo="give each its own id, or none at all: then it is derived from the question",
            )
        if prompt.text not in questions:
            questions.add(prompt.text)
            yield prompt


def require_gold(prompts: Iterable[Prompt], parts: Sequence[PromptsPart] = ()) -> None:
    """Raises InputError for the first problem that a verifier could never judge; `parts` tell where it stands."""
    prompts = list(prompts)
    untested = [prompt for prompt in prompts if prompt.kind == "code" and not prompt.tests]
    if untested:
        place = place_of(untested[0], parts) or untested[0].id
        raise InputError(
            f"{len(untested)} programming problems have no tests, the first: {place}",
            given=repr(untested[0].question[:80]),
            todo="add the tests (field `tests`), or take these problems out of the evaluation",
        )
    lacking = [prompt for prompt in prompts if prompt.kind in NEEDS_GOLD and not (prompt.answer or "").strip()]
    if lacking:
        first = lacking[0]
        todo = "add the answers (field `answer`), or take these problems out of the evaluation"
        raise _no_gold(len(lacking), first.kind, place_of(first, parts) or first.id, first.question, todo)


def _no_gold(count: int, kind: str, place: str, question: str, todo: str) -> InputError:
    what = f"{count} prompts of kind {kind} have no gold answer, the first: {place}"
    return InputError(what, given=repr(question[:80]), todo=todo)


def require_verifier(prompts: Iterable[Prompt], chosen: Chosen) -> None:
    """Raises InputError for the first prompt of a kind that nothing can judge: a score would count it as wrong."""
    first = next((prompt for prompt in prompts if verifier_of(prompt.kind, chosen) is None), None)
    if first is not None:
        raise InputError(
            f"there is no verifier for prompts of kind {first.kind}",
            given=repr(first.question[:80]),
            todo=f"use prompts of kind {', '.join(OF_KIND)}, or name a verifier of your own: `verify: module:function`",
        )


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> None:
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(Prompt.table(prompts), temporary, compression="zstd")


def read_prompts(path: Path) -> Iterator[Prompt]:
    """The prompts that an earlier stage wrote, in order."""
    return iter(PromptTable(path))


# --- inside --------------------------------------------------------------------------------------------------------


def _told(items: Iterable[Sourced]) -> Iterator[Sourced]:
    """Says how far it is; how many will come is not known."""
    with bar("prompts", None) as update:
        for number, item in enumerate(items, start=1):
            yield item
            update(number)


def _require_gold(found: Prepared, spool: Spool, recipe: Recipe) -> None:
    lacking = [n for kind, n in found.properties.items() if "no_gold" in kind.marks and kind.kind in NEEDS_GOLD]
    if not lacking:
        return
    count = sum(lacking)
    for row in spool.rows_at(found.order.tolist(), ["kind", "question", "marks", "place"]):
        if row["kind"] in NEEDS_GOLD and "no_gold" in (row["marks"] or ()):
            drop = ", ".join((*recipe.prepare.drop, "no_gold"))  # a list that is set replaces the one before
            todo = (
                f"add the answers (field `answer`), or leave such prompts out: --set 'prepare.drop=[{drop}]'; to "
                "sample without verifying, give these rows `kind: open`, or take `correct` out of filter.checks"
            )
            raise _no_gold(count, row["kind"], row["place"], row["question"], todo)


def _nothing_left(recipe: Recipe, read: int, found: Prepared) -> InputError:
    if not read:
        return InputError(
            "there are no prompts left",
            given=", ".join(f"{part.source}, skip {part.skip}" for part in recipe.prompts),
            todo="lower prompts.0.skip, or give a file with more rows",
        )
    reasons = found.left_out.most_common()
    return InputError(
        f"there are no prompts left: all {read} were left out",
        given="; ".join(f"{count} {reason} ({setting_of(reason)})" for reason, count in reasons),
        todo=f"change {setting_of(reasons[0][0])}, or take prompts from another source",
    )


def setting_of(reason: str) -> str:
    """The setting of a recipe that leaves prompts out for this reason."""
    return FILTERS.get(reason, "prepare.drop")


def _write_left_out(spool: Spool, found: Prepared, path: Path) -> None:
    """One row per prompt that is not used: where it stood, why it was left out, and of what it is a copy, if so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("id", "source", "place", "reason", "detail", "question")
    schema = pa.schema([(name, pa.string()) for name in names])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        numbers = sorted(found.reasons)
        for first in range(0, max(1, len(numbers)), 16_384):
            rows: list[Mapping[str, Any]] = []
            chunk = numbers[first : first + 16_384]
            copied = [found.same_as[number] for number in chunk if number in found.same_as]
            places = {row["number"]: row["place"] for row in spool.rows_at(copied, ["place"])}
            for row in spool.rows_at(chunk, ["id", "source", "place", "question"]):
                number = row["number"]
                detail = found.details.get(number)
                if number in found.same_as:
                    detail = f"of {places[found.same_as[number]]}" + (f", {detail}" if detail else "")
                known = {"reason": found.reasons[number], "detail": detail}
                rows.append({**row, **known, "question": row["question"][:QUOTED]})
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _report(run: RunDir, read: int, found: Prepared) -> StageReport:
    left_out = found.left_out
    census = Census()
    for kind, count in found.properties.items():
        census.add(kind, count)
    counts = {
        "prompts": len(found.order),
        "read": read,
        "left_out": dict(left_out.most_common()),
        "kinds": _by(found, "kind"),
        "sources": _by(found, "source"),
        "samples_of_each": int(found.repeats.sum()),
        "census": census.to_json(),
    }
    lines = [f"{len(found.order)} prompts of {read} read"]
    if left_out:
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        lines.append(f"left out: {told}; each is listed in {run.left_out.name}")
    return StageReport(counts, (run.prompts, run.left_out), (*lines, *found.lines, *census.lines()))


def _by(found: Prepared, field: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for properties, count in found.properties.items():
        name = str(getattr(properties, field))
        counts[name] = counts.get(name, 0) + count
    return counts
