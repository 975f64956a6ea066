"""What a user sees of sampling while it goes on: one line with everything that matters, and the same for machines."""

from __future__ import annotations

import time
from typing import Any

from distill.generate.sources import Source
from distill.progress import LINE_SECONDS, Bar, say
from distill.rundir import RunDir
from distill.sampling.budget import Budget
from distill.sampling.fleet import Fleet
from distill.sampling.scheduler import Progress

DRAW_SECONDS = 0.2
"""The bar is drawn this often at most: replies come by the thousand a second."""
SHOWN = 4
"""Servers whose state stands in the line; of more only how many are well."""


class Sight:
    """Watches a sampling job: draws the bar, and appends to metrics.jsonl every LINE_SECONDS and at the end."""

    def __init__(self, run: RunDir, update: Bar, fleet: Fleet, budget: Budget, source: Source) -> None:
        self.run, self.update, self.fleet, self.budget, self.source = run, update, fleet, budget, source
        self._writes = True
        self._drawn = self._logged = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._drawn >= DRAW_SECONDS:
            self._drawn = now
            self.update(progress.done + self.source.spared, self.remark(progress))
        if now - self._logged >= LINE_SECONDS:
            self._logged = now
            self.log(progress)

    def log(self, progress: Progress) -> None:
        """A line for machines; where it cannot be written that is said once, and sampling goes on."""
        if self._writes:
            try:
                self.run.log_metrics("generate", self.figures(progress))
            except OSError as error:
                self._writes = False
                say(f"generate: {self.run.metrics} cannot be written ({error.strerror}); sampling goes on without")

    def figures(self, progress: Progress) -> dict[str, Any]:
        """Totals of this start and the state of every server, as plain JSON."""
        right = self.source.right()
        return {
            "samples": progress.total,
            "done": progress.done,
            "answered": progress.answered,
            "cut": progress.cut,
            "looped": progress.looped,
            "failed": progress.failed,
            "retries": progress.retries,
            "prompt_tokens": progress.prompt_tokens,
            "completion_tokens": progress.completion_tokens,
            "tokens_per_second": round(progress.tokens_per_second, 1),
            "tokens_paid_in_all": self.budget.tokens(progress),
            "cost": self.budget.cost(progress),
            "right": right[0] if right else None,
            "judged": right[1] if right else None,
            "endpoints": [
                {
                    "name": endpoint.name,
                    "state": endpoint.state,
                    "in_flight": endpoint.in_flight,
                    "limit": endpoint.concurrency.limit,
                    "answered": endpoint.answered,
                    "completion_tokens": endpoint.tokens,
                }
                for endpoint in self.fleet.endpoints
            ],
        }

    def remark(self, progress: Progress) -> str:
        """What stands beside the bar, which tells itself how many samples there are and how long the rest will take."""
        parts = [f"{progress.tokens_per_second:.0f} tokens/s"]
        right = self.source.right()
        if right is not None and right[1]:
            parts.append(f"{right[0] / right[1]:.0%} right of {right[1]}")
        if progress.cut:
            parts.append(f"{progress.cut / max(1, progress.answered):.1%} cut")
        parts += [
            f"{count} {what}" for count, what in ((progress.looped, "loops"), (progress.failed, "failed")) if count
        ]
        cost = self.budget.cost(progress)
        if cost is not None:
            parts.append(f"cost {cost:.2f}")
        endpoints = self.fleet.endpoints
        if len(endpoints) > SHOWN:
            well = sum(endpoint.state == "ok" for endpoint in endpoints)
            parts.append(f"{well} of {len(endpoints)} servers well, {self.fleet.in_flight} in flight")
        else:
            parts += [endpoint.described() for endpoint in endpoints]
        return ", ".join(parts)
