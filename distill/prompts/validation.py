"""Would the program that a source calls right pass the tests of its problem? Where it does not, no answer could be
trusted to be judged rightly.

The verifier of code itself is asked, in worker processes, with the program in the place of an answer. Knows nothing
about where prompts come from or what else speaks against them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Self

from distill.prompts.sources import Sourced
from distill.records import Prompt
from distill.verify import Outcome, abstaining, code
from distill.verify.final_program import Program
from distill.verify.pool import VerifierPool

VALIDATE = "distill.prompts.validation:validate"
"""For a VerifierPool: its items are (prompt,)."""
FAILED = "failed_tests"
"""The reason of a prompt whose known solution fails."""
require, prepare, seconds = code.require, code.prepare, code.seconds


def validate(prompt: Prompt) -> Outcome:
    """What `verify.code` says of the known solution, in Python, of a prompt that has one and tests."""
    return code.judge_program(Program(prompt.solution or "", "python"), prompt.tests or ())


class Validation:
    """Runs known solutions when `wanted`; a context manager that owns the workers, which start at the first program.

    Raises MissingError where programs cannot be run.
    """

    def __init__(self, *, wanted: bool, workers: int | None = None) -> None:
        if wanted:
            require()
        self._pool = VerifierPool(VALIDATE, workers=workers) if wanted else None
        self.found: Counter[str] = Counter()
        """`passed`, why a solution failed or could not be run, or `no_solution` → programming problems with tests."""

    def __enter__(self) -> Self:
        if self._pool is not None:
            self._pool.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.__exit__(*exception)

    def over(self, looked_at: Iterable[tuple[Sourced, str, str]]) -> Iterator[tuple[Sourced, str, str]]:
        """Items with the reason to leave each out, empty where there is none so far, and a detail: the same in their
        order, with the reason FAILED and in the detail why."""
        if self._pool is None:
            yield from looked_at
            return
        items = list(looked_at)
        concerned = [item.prompt for item, reason, _ in items if not reason and _has_tests(item.prompt)]
        outcomes = self._pool.map((prompt,) for prompt in concerned if prompt.solution)
        for item, reason, detail in items:
            if reason or not _has_tests(item.prompt):
                yield item, reason, detail
                continue
            outcome = next(outcomes) if item.prompt.solution else abstaining("no_solution")
            self.found[outcome.reason or "passed"] += 1
            yield (item, FAILED, outcome.reason) if outcome.outcome == "fail" else (item, reason, detail)

    def lines(self) -> list[str]:
        """What the reader of a report should know."""
        if not self.found:
            return []
        told = ", ".join(f"{count} {what}" for what, count in self.found.most_common())
        return [f"known solutions of {self.found.total()} programming problems on their tests: {told}"]


def _has_tests(prompt: Prompt) -> bool:
    return prompt.kind == "code" and bool(prompt.tests)
