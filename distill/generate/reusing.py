"""Takes over from another run what its traces and this recipe's wanted samples have in common, so that nothing is
bought twice. The other run is only read, also while it is sampling. Knows nothing about engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from distill import specs
from distill.errors import RunError, UsageError
from distill.generate.keys import wanted_keys
from distill.generate.taking import take_over
from distill.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Reused:
    """Answers of the other run, those among them that the recipe wants, and those that this start took over."""

    answers: int
    wanted: int
    taken: int

    def lines(self, source: RunDir) -> Iterator[str]:
        there = f", {self.wanted - self.taken:,} of them here before" if self.taken < self.wanted else ""
        yield f"{source.path}: {self.wanted:,} of its {self.answers:,} traces apply to this recipe{there}"


def reuse(source: RunDir, run: RunDir, recipe: specs.Recipe) -> Reused:
    """Puts every answer of `source` that `recipe` wants of the run's prompts, and the run does not have, into the run.

    By identity: what was asked, which sample, who answered, how it was drawn. The traces stay as they are, but for the
    id that the prompt has here. Needs the run's prompts; whoever calls holds the run's lock. Raises RunError where
    `source` is no run, UsageError where it is this one or where traces are imported, not sampled.
    """
    if source.existing().path.resolve() == run.path.resolve():
        raise UsageError("--reuse names the run itself", todo="give another run; what is in this one counts anyway")
    if recipe.generate.engine == "imported":
        raise UsageError("a run of imported traces wants no samples", todo="leave out --reuse")
    if not run.prompts.is_file():
        raise RunError(f"{run.path} has no {run.prompts.name} yet", todo="run its prompts stage first")
    answered = {bytes.fromhex(key) for key, entry in source.ledger().index().items() if entry.answered}
    ids = {want.key: want.prompt_id for want in wanted_keys(recipe, run.prompts) if want.key in answered}
    here = {bytes.fromhex(key) for key, entry in run.ledger().index().items() if entry.answered}
    there = len(ids.keys() & here)
    ids = {key: prompt_id for key, prompt_id in ids.items() if key not in here}
    if ids:
        take_over(source.ledger(), run.traces, ids)
    return Reused(len(answered), there + len(ids), len(ids))
