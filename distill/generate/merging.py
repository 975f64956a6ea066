"""Makes one run of several that share a recipe: shards of several machines, or runs that were started twice.

The sources are only read. The new run is the recipe without a shard, all traces, and the manifest that says so; what
none of the sources has, `distill generate` asks for. Knows nothing about how traces are sampled.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distill import specs
from distill.files import now, replacing, sha256_file, write_text
from distill.generate.keys import subject_of, wanted_keys
from distill.generate.mergeable import common_recipe, refuse_same, refuse_unfinished_batches, same_prompts, unwritten
from distill.generate.taking import take_over
from distill.ledger import decode_line
from distill.rundir import RunDir
from distill.sampling.shards import numbers, shard_of
from distill.sampling.subjects import foreign


@dataclass(frozen=True, slots=True)
class Source:
    """What one run has: answers, failures, answers that a run named before it has as well, and its sampling time."""

    run: str
    shard: str | None
    traces: int
    failures: int
    duplicates: int
    seconds: float


@dataclass(slots=True)
class Merged:
    """What came of it. Counts are of samples; `missing_of` is by shard, where all sources are of as many shards."""

    out: Path
    sources: list[Source]
    earlier: list[Source]
    """Those of earlier merges into the same run, which are not given now."""
    samples: int = 0
    answered: int = 0
    cut: int = 0
    looped: int = 0
    failed: int = 0
    missing: int = 0
    others: int = 0
    """Answers that the recipe does not want: they are kept and count for nothing."""
    missing_of: dict[str, int] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    """Shards that none of the runs is."""
    until_correct: bool = False

    def counts(self) -> dict[str, Any]:
        """For the manifest and for `--json`: the names that the generate stage uses, and the sources."""
        names = ("samples", "answered", "cut", "looped", "failed", "missing", "others", "missing_of", "absent")
        brought = [asdict(source) for source in (*self.earlier, *self.sources)]
        return {**{name: getattr(self, name) for name in names}, "merged": brought}

    def lines(self) -> Iterator[str]:
        for source in self.sources:
            shard = f" (shard {source.shard})" if source.shard else ""
            said = f"{source.traces:,} traces, {source.failures:,} failures, {source.duplicates:,} duplicates"
            yield f"{source.run}{shard}: {said}"
        yield f"{self.answered:,} of {self.samples:,} samples are in {self.out}, {self.missing + self.failed:,} are not"
        if self.failed:
            yield f"  {self.failed:,} of those failed"
        for shard, count in self.missing_of.items():
            yield f"  {count:,} of shard {shard}" + (", which is none of these runs" if shard in self.absent else "")
        if self.until_correct and self.missing:
            yield "  which of them are wanted depends on how many answers are right: until_correct is set"
        if self.others:
            yield f"{self.others:,} more belong to no sample that the recipe wants"


InputsOf = Callable[[str, specs.Recipe, RunDir], dict[str, str]]
"""Stage, recipe and run → what the stage would read now, by its hash: the pipeline's."""


def merge(runs: Sequence[RunDir], out: RunDir, inputs_of: InputsOf) -> Merged:
    """Takes everything over into `out`, which may be there from an earlier start or an earlier merge of this recipe.

    Raises UsageError for runs that cannot be meant, RunError for those that do not belong together, LockedError naming
    the holder when one is still being written.
    """
    refuse_same(runs, out)
    recipe = common_recipe(runs, out)
    with contextlib.ExitStack() as held:
        for run in runs:
            held.enter_context(unwritten(run))
        for run in runs:
            refuse_unfinished_batches(run)
            same_prompts(runs[0], run)
        merged = Merged(out.path, _survey(runs, recipe), _merged_before(out, runs))
        merged.until_correct = recipe.generate.until_correct is not None
        if out.prompts.is_file():
            same_prompts(runs[0], out)
        held.enter_context(out.lock())
        write_text(out.merging, "not finished: start the same `distill merge` again\n")
        write_text(out.recipe, specs.dump(recipe))
        for name in ("prompts", "left_out"):
            _copy(getattr(runs[0], name), getattr(out, name))
        for run in runs:
            take_over(run.ledger(), out.traces)
        _join_verdicts(runs, out)
        _count(merged, recipe, out)
        _write_stages(merged, recipe, runs[0], out, inputs_of("generate", recipe, out))
        out.merging.unlink()
    return merged


# --- inside ---------------------------------------------------------------------------------------------------------


def _survey(runs: Sequence[RunDir], recipe: specs.Recipe) -> list[Source]:
    """What each run has. Raises RunError for one with traces of which the recipe wants none."""
    wanted = {sample.key for sample in wanted_keys(recipe, runs[0].prompts)}
    seen: set[bytes] = set()
    found = []
    for run in runs:
        entries = run.ledger().index().items()
        answered = {bytes.fromhex(key) for key, entry in entries if entry.answered}
        if answered and wanted.isdisjoint(answered):
            raise foreign(len(answered), run.traces, subject_of(recipe))
        state = run.stages().get("generate")
        shard, seconds = specs.kept_in(run.existing().recipe).generate.shard, (state.seconds if state else None) or 0.0
        failures, duplicates = len(entries) - len(answered), len(answered & seen)
        found.append(Source(str(run.path), shard, len(answered), failures, duplicates, seconds))
        seen |= answered
    return found


def _merged_before(out: RunDir, runs: Sequence[RunDir]) -> list[Source]:
    state, given = out.stages().get("generate"), {str(run.path) for run in runs}
    known = state.counts.get("merged", []) if state else []
    return [Source(**source) for source in known if source["run"] not in given]


def _copy(path: Path, here: Path) -> None:
    if path.is_file() and not here.is_file():
        with replacing(here) as temporary:
            shutil.copyfile(path, temporary)


def _join_verdicts(runs: Sequence[RunDir], out: RunDir) -> None:
    """Every whole line of the runs' verdicts once; a torn one is only a verdict to be reached again."""
    files = [file for run in (out, *runs) if (file := run.early_verdicts).is_file()]
    if not files:
        return
    seen: set[bytes] = set()
    with replacing(out.early_verdicts) as temporary, temporary.open("wb") as joined:
        for file in files:
            with file.open("rb") as lines:
                for line in lines:
                    with contextlib.suppress(ValueError):
                        decode_line(line)
                        digest = hashlib.blake2b(line, digest_size=16).digest()
                        if digest not in seen:
                            joined.write(line)
                        seen.add(digest)


def _count(merged: Merged, recipe: specs.Recipe, out: RunDir) -> None:
    """What the merged run has of what its recipe wants, and of which shards the rest is."""
    index = out.ledger().index()
    brought = (*merged.earlier, *merged.sources)
    given = [numbers(source.shard) for source in brought if source.shard]
    shards = given[0][1] if given and {of for _, of in given} == {given[0][1]} else 0
    missing_of: Counter[int] = Counter()
    for sample in wanted_keys(recipe, out.prompts):
        merged.samples += 1
        entry = index.get(sample.key.hex())
        merged.answered += entry is not None and entry.answered
        merged.cut += entry is not None and entry.finish_reason == "length"
        merged.looped += entry is not None and entry.finish_reason == "loop"
        merged.failed += entry is not None and not entry.answered
        if entry is None:
            merged.missing += 1
            missing_of[shard_of(sample.asked, shards) if shards else 0] += 1
    merged.others = sum(entry.answered for _, entry in index.items()) - merged.answered
    if shards:
        merged.missing_of = {f"{number}/{shards}": missing_of[number] for number in sorted(missing_of)}
        present = {number for number, _ in given} if len(given) == len(brought) else set(range(1, shards + 1))
        merged.absent = [f"{number}/{shards}" for number in range(1, shards + 1) if number not in present]


def _write_stages(merged: Merged, recipe: specs.Recipe, first: RunDir, out: RunDir, inputs: dict[str, str]) -> None:
    """The manifest as if one machine had sampled it all: done, or still to be gone on with; seconds are the sum."""
    before = out.stages()
    prompts = first.stages().get("prompts")
    made = prompts.outputs.get(out.prompts.name) if prompts and prompts.state == "done" else None
    if prompts is not None and "prompts" not in before and made == sha256_file(out.prompts):
        out.write_stage("prompts", prompts)
    state = out.start_stage(
        "generate", recipe.section_hash("generate"), recipe.decides("generate"), recipe.seed, inputs
    )
    state.outputs = out.hashes(out.traces)
    whole = not merged.missing and not merged.failed
    state.state, state.finished = "done" if whole else "incomplete", now()
    state.seconds = round(sum(source.seconds for source in (*merged.earlier, *merged.sources)), 2)
    state.counts = {**merged.counts(), "_lines": list(merged.lines()), "_failed_gates": []}
    out.write_stage("generate", state)
