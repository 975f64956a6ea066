"""What a changed recipe, or edited files under the same one, would do to traces that a run has paid for.

Judged by the traces' identities: the prompts are made anew beside the run, and the samples that would be wanted then
are compared with those that are there. Knows nothing about how a stage is run.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import RunError, SpecError
from distill.progress import say
from distill.rundir import RunDir
from distill.specs import Recipe

BESIDE_PAYMENT = ("evaluate", "prepare.decontaminate")
"""Begin the settings of the prompts stage that may always change: what an evaluation asks must not be trained on,
whether it was paid for or not. The traces stay in the ledger."""
BESIDE_IDENTITY = (
    *("max_tokens", "reasoning", "reasoning_format", "context_length", "license", "distillation_terms"),
    *("until_correct", "continue_truncated", "url", "api_key_env", "price", "continuation", "ignores", "reasons"),
)
"""Settings that are no part of a trace's identity and take no sample away."""
NAMED = 5
"""Prompts that an error names."""
SCRATCH = ".adopting"
"""Folder inside a run in which prompts are made only to be looked at."""


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs, in words: of the prompts, of how they are asked, and whether any of it is in the recipe itself.

    `specs` says that the teacher's spec was edited, so that what it said before cannot be loaded any more.
    """

    prompts: tuple[str, ...]
    asking: tuple[str, ...]
    specs: bool
    settings: bool


def refuse_lost(earlier: Recipe, recipe: Recipe, run: RunDir, stages: Sequence[str]) -> None:
    """Raises RunError when traces that `earlier` wanted are there and `recipe` would leave any of them out.

    `stages` are those about to be run: files and specs are looked at for them, as settings are in any case. Where
    nothing differs, nothing is read.
    """
    found = differences(earlier, recipe, run, stages)
    if not found.prompts and not found.asking:
        return
    answered = {bytes.fromhex(key) for key, entry in run.ledger().index().items() if entry.answered}
    if not answered:
        return
    if _imported(earlier, recipe):
        raise _refusal(found, run, len(answered), len(answered), "")
    paid = answered if found.specs else _wanted_before(earlier, run, answered)
    lost = paid
    if found.asking and run.prompts.is_file():
        lost = _without_wanted(paid, recipe, run.prompts)
        if len(lost) == len(paid):  # other prompts would not bring them back
            raise _refusal(found, run, len(paid), len(lost), "")
    if found.prompts:
        say(f"prompts: made once to see which of {len(paid):,} traces still apply")
        with _new_prompts(earlier, recipe, run) as prompts:
            lost = _without_wanted(paid, recipe, prompts)
    if lost:
        raise _refusal(found, run, len(paid), len(lost), _of_prompts(earlier, run, lost))
    say(f"all {len(paid):,} traces still apply")


def differences(earlier: Recipe, recipe: Recipe, run: RunDir, stages: Sequence[str]) -> Differences:
    """What differs that might leave traces out: in the recipe, and for `stages` in the files and specs that it names
    since the run looked at them."""
    before = run.stages()
    of_prompts = [leaf for leaf in leaves(earlier.section("prompts"), recipe.section("prompts")) if _matters(leaf)]
    of_asking = [leaf for leaf in leaves(earlier.section("generate"), recipe.section("generate")) if _matters(leaf)]
    settings = bool(of_prompts or of_asking)
    files: list[str] = []
    specs: list[Leaf] = []
    if _imported(earlier, recipe):  # a second import adds to the files, and no trace is wanted by its key
        of_prompts = [leaf for leaf in of_prompts if not _grows(leaf, "limit")]
        return Differences(_told(of_prompts), _told(of_asking), specs=False, settings=True)
    if "prompts" in stages and "prompts" in before and earlier.prompts == recipe.prompts:
        state = before["prompts"]
        files = _edited_files(recipe, state.inputs)
        now = recipe.decides("prompts")["specs"]
        own = [f"source.{place}" for place in range(len(recipe.prompts))]
        then = state.settings.get("specs", {})
        of_prompts += [leaf for name in own if name in then for leaf in leaves(then[name], now.get(name, {}), name)]
        if state.state != "done" and run.prompts.is_file():
            files.append("the last start of the prompts stage did not end")
    same_teacher = (earlier.teacher, earlier.teacher_overrides) == (recipe.teacher, recipe.teacher_overrides)
    if "generate" in stages and "generate" in before and same_teacher:
        then, now = before["generate"].settings.get("specs", {}), recipe.decides("generate")["specs"]
        specs = [leaf for leaf in leaves(then, now) if _matters(leaf)]
    return Differences(
        (*_told(of_prompts), *files),
        _told([*of_asking, *specs]),
        specs=bool(specs),
        settings=settings,
    )


Leaf = tuple[str, Any, Any]
"""Dotted key, old value, new value."""


def leaves(before: Any, after: Any, path: str = "") -> Iterator[Leaf]:
    """(dotted key, old, new) for every leaf in which two settings differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            yield from leaves(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, pair in enumerate(zip(before, after, strict=True)):
            yield from leaves(*pair, f"{path}.{place}")
    elif before != after:
        yield path, before, after


# --- inside --------------------------------------------------------------------------------------------------------


def _matters(leaf: Leaf) -> bool:
    """Whether this difference might take a trace away: anything that is not known to take none."""
    path = leaf[0]
    if path.startswith(BESIDE_PAYMENT) or path.rpartition(".")[2] in BESIDE_IDENTITY:
        return False
    return not (path.startswith("generate.") and _grows(leaf, "samples"))


def _grows(leaf: Leaf, key: str) -> bool:
    """Whether it is this setting, and more than before, which takes nothing away."""
    path, before, after = leaf
    return path.rpartition(".")[2] == key and isinstance(before, int) and (after is None or after >= before)


def _imported(earlier: Recipe, recipe: Recipe) -> bool:
    return "imported" in (earlier.generate.engine, recipe.generate.engine)


def _told(found: Sequence[Leaf]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{path}: {before} → {after}" for path, before, after in found))


def _edited_files(recipe: Recipe, before: dict[str, str]) -> list[str]:
    """The data files of the recipe's own prompts that are no longer what the prompts were made from."""
    from distill.prompts.sources import data_files, state_of

    known = {place: before.get(f"data/{place}-{file.name}") for place, file in data_files(recipe.prompts).items()}
    files = data_files(recipe.prompts)
    edited = [place for place, then in known.items() if then is not None and then != state_of(files[place])]
    return [f"prompts.{place}.source: {files[place].name} was edited" for place in edited]


def _wanted_before(earlier: Recipe, run: RunDir, answered: set[bytes]) -> set[bytes]:
    """Of these keys those that the run's own recipe wants of its own prompts; all where that cannot be told."""
    from distill.generate.keys import wanted_keys

    if not run.prompts.is_file():
        return answered
    with contextlib.suppress(SpecError):  # its teacher's spec is gone
        found = {wanted.key for wanted in wanted_keys(earlier, run.prompts) if wanted.key in answered}
        return found or answered
    return answered


def _without_wanted(keys: set[bytes], recipe: Recipe, prompts: Path) -> set[bytes]:
    """Those keys that `recipe` does not want of these prompts."""
    from distill.generate.keys import wanted_keys

    lost = set(keys)
    for wanted in wanted_keys(recipe, prompts):
        lost.discard(wanted.key)
    return lost


@contextlib.contextmanager
def _new_prompts(earlier: Recipe, recipe: Recipe, run: RunDir) -> Iterator[Path]:
    """The prompts that a recipe makes now, but for what the earlier one kept apart for evaluation: what a change of
    that takes away is meant to go."""
    from distill.prompts import stage

    scratch = RunDir(run.path / SCRATCH)
    shutil.rmtree(scratch.path, ignore_errors=True)  # of a start that was killed
    prepare = recipe.prepare.model_copy(update={"decontaminate": earlier.prepare.decontaminate})
    try:
        stage.run(recipe.model_copy(update={"prepare": prepare, "evaluate": earlier.evaluate}), scratch)
        yield scratch.prompts
    finally:
        shutil.rmtree(scratch.path, ignore_errors=True)


def _of_prompts(earlier: Recipe, run: RunDir, lost: set[bytes]) -> str:
    """How many prompts those traces are of, and the first of them; nothing where that cannot be told."""
    from distill.generate.keys import wanted_keys

    ids: dict[str, None] = {}
    if run.prompts.is_file():
        with contextlib.suppress(SpecError):
            ids = dict.fromkeys(w.prompt_id for w in wanted_keys(earlier, run.prompts) if w.key in lost)
    more = ", …" if len(ids) > NAMED else ""
    return f" of {len(ids):,} prompts ({', '.join(list(ids)[:NAMED])}{more})" if ids else ""


def _refusal(found: Differences, run: RunDir, paid: int, lost: int, of_prompts: str) -> RunError:
    made = "was made by another recipe" if found.settings else "was made before its files or specs were edited"
    if lost == paid:
        what = f"none of the {paid:,} traces paid for would count"
    else:
        what = (
            f"{paid - lost:,} of the {paid:,} traces paid for still apply, {lost:,}{of_prompts} do not: their prompts "
            "would be left out, be asked differently or get fewer samples"
        )
    return RunError(
        f"the run {run.path} {made}: {what}",
        given="; ".join((*found.prompts, *found.asking)),
        todo=f"use another --out, with --reuse {run.path} to take over what applies, or run the recipe as it was",
    )
