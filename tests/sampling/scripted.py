"""An engine that answers, fails and refuses by a script, in this process; also a job to be killed from outside.

`python -m sampling.scripted FOLDER PROMPTS SAMPLES SECONDS` samples into a ledger until it is done or stopped.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from distill.engines import Reply, Request
from distill.errors import Interrupted
from distill.ledger import Ledger
from distill.records import Prompt, Sampling, TeacherIdentity
from distill.sampling import scheduler
from distill.sampling.requests import Subject, wanted
from distill.sampling.scheduler import Limits, Progress, sample


class Scripted:
    """Goes through a question's script, one step per attempt (an error, or None for an answer); then it answers."""

    name = "scripted"

    def __init__(self, script: Mapping[str, Sequence[Exception | None]] | None = None, *, seconds: float = 0.0) -> None:
        self.script = dict(script or {})
        self.seconds = seconds
        self.asked: list[str] = []
        self.attempts: Counter[str] = Counter()
        self.now = self.most = 0
        self.started = self.closed = False

    async def start(self) -> None:
        self.started = True

    async def probe(self) -> None:
        return None

    async def progress(self) -> float | None:
        return None

    async def check_continuation(self) -> None:
        return None

    async def close(self) -> None:
        self.closed = True

    async def complete(self, request: Request) -> Reply:
        question = request.messages[-1]["content"]
        steps = self.script.get(question, ())
        attempt = self.attempts[request.id]
        self.attempts[request.id] += 1
        self.asked.append(question)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.now -= 1
        step = steps[attempt] if attempt < len(steps) else None
        if step is not None:
            raise step
        return Reply(f"<think>\nwhy\n</think>\n\n{question}", "stop", self.name, completion_tokens=7)


def subject(**changed: object) -> Subject:
    settings = {
        "identity": TeacherIdentity("scripted", "1"),
        "messages": lambda prompt: [{"role": "user", "content": prompt.question}],
        "reasoning_format": "tags",
        "forced_prefix": "",
        "sampling": Sampling(temperature=0.6, seed=1),
        "max_tokens": 100,
    }
    return Subject(**{**settings, **changed})  # type: ignore[arg-type]


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"question {number}", id=f"p{number}") for number in range(count)]


class Talking(Scripted):
    """Says on stdout when it is first asked: from then on signals are handled."""

    async def complete(self, request: Request) -> Reply:
        if not self.asked:
            say("asked")
        return await super().complete(request)


class Told:
    """Says how many samples are done, each number once."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self, progress: Progress) -> None:
        if progress.done > self.last:
            self.last = progress.done
            say(progress.done)


def say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: str, count: str, samples: str, seconds: str) -> int:
    scheduler.GRACE_SECONDS = 20.0
    asked = prompts(int(count))
    with Ledger(Path(folder)) as ledger:
        progress = Progress(len(asked) * int(samples), already=len(ledger.index()))
        tasks = wanted(asked, subject(), int(samples), ledger)
        engine = Talking(seconds=float(seconds))
        try:
            sample(tasks, subject(), engine, ledger, Limits(4, 3), progress, Told())
        except Interrupted as error:
            say(error)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
