"""Whether runs may become one: one recipe, the same prompts, nobody still writing, no batch still with a provider.

Knows nothing about how they are brought together.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from distill import specs
from distill.errors import LockedError, RunError, UsageError
from distill.files import FileLock, sha256_file
from distill.generate.changed import leaves
from distill.ledger import Entry, decode_line
from distill.prompts.stage import read_prompts
from distill.rundir import RunDir

PAID = ("prompts", "generate")
"""Stages whose settings decide which traces a run has; in these the runs have to agree."""
BESIDE_TRACES = (
    "generate.shard",
    *(f"teacher_overrides.{name}" for name in ("url", "api_key_env", "price", "description", "license", "source")),
)
"""Settings among those in which they need not: where a teacher answers decides no trace."""


def refuse_same(runs: Sequence[RunDir], out: RunDir) -> None:
    places = [run.existing().path.resolve() for run in runs]
    if out.path.resolve() in places:
        raise UsageError(
            f"--out {out.path} is one of the runs to merge", todo="give a folder of its own; the runs stay as they are"
        )
    for place, count in Counter(places).items():
        if count > 1:
            raise UsageError(f"{place} is given twice", todo="name each run once")
    for run in runs:
        if run.merging.exists():
            raise RunError(f"the merge into {run.path} was cut off", todo="start it once more, and go on from there")
    if out.path.exists() and not out.recipe.is_file():
        there = [path.name for path in out.path.iterdir() if not path.name.startswith(".")]
        if there:
            raise RunError(
                f"{out.path} holds something and is no run",
                given=", ".join(sorted(there)[:5]),
                todo="give a new folder, or a run of this recipe, as --out",
            )


def common_recipe(runs: Sequence[RunDir], out: RunDir) -> specs.Recipe:
    """The recipe of all runs without its shard; that of `out` where it is there already."""
    recipes = {run.path: specs.kept_in(run.existing().recipe) for run in runs}
    for path, recipe in recipes.items():
        if recipe.generate.engine == "imported":
            raise RunError(
                f"the traces of {path} were imported, and so belong to no sample of a recipe",
                todo="import the files of both runs into one: `distill import FILE FILE --out RUN`",
            )
    first = recipes[runs[0].path]
    if out.recipe.is_file():
        recipes[out.path] = specs.kept_in(out.existing().recipe)
    for path, recipe in recipes.items():
        differing = [
            f"{key}: {before} → {after}"
            for stage in PAID
            for key, before, after in leaves(first.section(stage), recipe.section(stage))
            if key not in BESIDE_TRACES
        ]
        if differing:
            raise RunError(
                f"{runs[0].path} and {path} were made by different recipes",
                given="; ".join(dict.fromkeys(differing)),
                todo="merge runs of one recipe; `distill generate --reuse RUN` takes over what applies to another",
            )
    kept = recipes.get(out.path, first)
    if out.path in recipes and kept.generate.shard is not None:
        raise RunError(
            f"{out.path} is a shard itself ({kept.generate.shard})", todo="name it among the runs, and a new --out"
        )
    return kept.model_copy(update={"generate": kept.generate.model_copy(update={"shard": None})})


def same_prompts(first: RunDir, other: RunDir) -> None:
    """Raises RunError where the prompts differ; libraries of two versions may write the same ones differently."""
    for run in (first, other):
        if not run.prompts.is_file():
            raise RunError(
                f"{run.path} has no {run.prompts.name} yet", todo="start it, or leave it out: it holds no traces"
            )
    if sha256_file(first.prompts) == sha256_file(other.prompts):
        return
    pairs = zip_longest(read_prompts(first.prompts), read_prompts(other.prompts))
    for row, (one, two) in enumerate(pairs, start=1):
        if one != two:
            told = [f"'{prompt.id}' {prompt.question[:60]!r}" if prompt else "none" for prompt in (one, two)]
            raise RunError(
                f"{first.path} and {other.path} have different prompts, from row {row} on",
                given=f"{told[0]} and {told[1]}",
                todo="were they made from different files? `distill generate --reuse RUN` takes over what applies",
            )


def refuse_unfinished_batches(run: RunDir) -> None:
    """Raises RunError where replies may still lie with a provider: the merged run would ask, and pay, for them anew."""
    index = run.ledger().index()
    open_ones = [asked for asked in _batches(run.batches) if not all(_answered(index, key) for key in asked)]
    if open_ones:
        requests = sum(map(len, open_ones))
        raise RunError(
            f"{len(open_ones)} batches of {run.path} are not finished: {requests:,} requests lie with the provider",
            given=str(run.batches),
            todo="start its `distill generate` again until they are there, and merge then",
        )


def _answered(index: Mapping[str, Entry], key: str) -> bool:
    entry = index.get(key)
    return entry is not None and entry.answered


def _batches(path: Path) -> list[set[str]]:
    """What each batch of a list (distill/engines/batch_state.py) asks for, by key; of batches that are neither dropped
    nor done, and without the requests that are known to have failed."""
    found: dict[str, set[str]] = {}
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):  # torn or altered: the batch counts as far as it is known
                event = decode_line(line)
                if event["event"] == "planned":
                    found[event["batch"]] = set(event["asked"])
                elif event["event"] == "failed":
                    found.get(event["batch"], set()).difference_update(event["ids"])
                elif event["event"] in ("dropped", "done"):
                    found.pop(event["batch"], None)
    return list(found.values())


@contextlib.contextmanager
def unwritten(run: RunDir) -> Iterator[None]:
    """Nobody writes to a run while this lasts. Raises LockedError naming who does."""
    with contextlib.ExitStack() as held:
        for folder, what in ((run.path, "run"), (run.traces, "ledger")):
            if folder.is_dir():
                _hold(folder / ".lock", what, held)
        yield


def _hold(lock: Path, what: str, held: contextlib.ExitStack) -> None:
    try:
        held.enter_context(FileLock(lock, what))
    except LockedError as error:
        raise _being_written(what, error.given) from error
    except RunError:  # a copy that cannot be written to: only somebody at its other end could
        if lock.is_file():
            file = held.enter_context(lock.open("rb"))
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _being_written(
                    what, f"{lock.parent}, held by {file.read(500).decode(errors='replace')}"
                ) from error


def _being_written(what: str, given: str | None) -> LockedError:
    return LockedError(f"this {what} is still being written", given=given, todo="wait for it or stop it, then merge")
