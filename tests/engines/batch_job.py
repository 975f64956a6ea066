"""A sampling job through a batch API; as a program one to be killed from outside.

`python -m engines.batch_job URL FOLDER [DIES_AT]` samples into FOLDER/ledger and, if told, kills itself when that many
replies are there of which the last is not yet in the ledger.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from sampling.scripted import prompts, subject

from distill.engines import batch_api, batch_follow
from distill.engines.batch_api import BatchApiEngine
from distill.ledger import Ledger
from distill.records import Trace
from distill.sampling import scheduler
from distill.sampling.requests import wanted
from distill.sampling.scheduler import Limits, Progress, sample

PROMPTS, SAMPLES, BATCH = 5, 2, 4
"""10 requests in batches of 4, 4 and 2."""
QUICK = {
    (batch_follow, "POLL_SECONDS"): 0.01,
    (batch_follow, "LONGEST_POLL"): 0.02,
    (batch_follow, "DOUBT_SECONDS"): 0.3,
    (batch_api, "ROOM_SECONDS"): 0.05,
    (batch_api, "CLOSE_SECONDS"): 0.2,
    (scheduler, "FIRST_BACKOFF"): 0.001,
}


class Dying(Ledger):
    """Kills its process instead of taking the record of that number, counted from 1."""

    dies_at = 0
    taken = 0

    def append(self, trace: Trace) -> None:
        self.taken += 1
        if self.taken == self.dies_at:
            self.commit()
            os.kill(os.getpid(), signal.SIGKILL)
        super().append(trace)


def run(
    url: str, folder: Path, *, dies_at: int = 0, count: int = PROMPTS, attempts: int = 3, **settings: Any
) -> Progress:
    with Dying(folder / "ledger") as ledger:
        ledger.dies_at = dies_at
        chosen: dict[str, Any] = {"batch_requests": BATCH, "gather_seconds": 0.05, **settings}
        engine = BatchApiEngine(url=url, model="scripted", state=folder / "batches.jsonl", answered=ledger, **chosen)
        tasks = wanted(prompts(count), subject(), SAMPLES, ledger)
        return sample(tasks, subject(), engine, ledger, Limits(50, attempts), Progress(count * SAMPLES))


if __name__ == "__main__":
    for (module, name), value in QUICK.items():
        setattr(module, name, value)
    run(sys.argv[1], Path(sys.argv[2]), dies_at=int(sys.argv[3]) if len(sys.argv) > 3 else 0)
