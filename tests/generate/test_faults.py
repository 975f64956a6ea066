"""Everything that goes wrong with a teacher at once, and the program killed in between: complete all the same.

What the scripted server gave out is compared with what the ledger holds: a reply is paid for once its last byte is out.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from http_teacher import Fault, HttpTeacher, Said, Seen

from distill.ledger import LedgerReader
from distill.records import Trace

IN_FLIGHT = 48
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


class Paid:
    """What the server answered in full, by question and seed; safe to ask from another thread."""

    def __init__(self) -> None:
        self.replies: Counter[str] = Counter()

    def __call__(self, question: str) -> Said:
        self.replies[question] += 1
        return Said(f"The answer is {question.split()[-1]}.", reasoning=f"I look at {question}")

    @property
    def total(self) -> int:
        return self.replies.total()


def misbehaving(share: float) -> object:
    """One request in so many meets a fault, each kind in turn by chance; every request meets them alike."""
    kinds = {
        Fault("status", 429, retry_after="0"): 10,
        Fault("status", 429, retry_after="1"): 1,  # nothing is sent to a server for so long
        Fault("status", 429): 2,
        Fault("status", 503): 2,
        Fault("status", 500): 10,
        Fault("status", 502): 10,
        Fault("drop"): 10,
        Fault("hang_up"): 10,
        Fault("malformed"): 10,
        Fault("no_choices"): 10,
        Fault("stall", seconds=6.0): 5,
    }
    draw = random.Random(7)

    def script(number: int, seen: Seen) -> Fault | None:
        return draw.choices([*kinds], [*kinds.values()])[0] if draw.random() < share else None

    return script


def write_prompts(path: Path, count: int) -> Path:
    rows = ({"question": f"What is number {n}", "answer": str(n), "kind": "math"} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def generate(folder: Path, teacher: HttpTeacher, samples: int, *options: str) -> subprocess.Popen[str]:
    settings = {
        "generate.max_concurrency": IN_FLIGHT,
        "generate.request_timeout": 3,
        "generate.max_attempts": 12,
        "filter.checks": "[finished]",
        "prepare.near_duplicates": "false",
    }
    command = [sys.executable, "-m", "distill.cli", "generate", "--prompts", str(folder / "prompts.jsonl")]
    command += ["--teacher", teacher.url, "--model", teacher.model, "--samples", str(samples)]
    command += ["--concurrency", str(IN_FLIGHT), "--out", str(folder / "run"), *options]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return subprocess.Popen(command, env=ALONE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output[-3_000:]
    return output


def records(folder: Path) -> list[Trace]:
    return list(LedgerReader(folder / "run" / "traces").records())


def complete_and_right(folder: Path, prompts: int, samples: int) -> list[Trace]:
    """The run's traces: every sample once, each with the reply to its own question."""
    found = list(LedgerReader(folder / "run" / "traces").traces())
    assert len(found) == len({trace.key for trace in found}) == prompts * samples
    assert all(trace.finish_reason == "stop" and trace.error is None for trace in found)
    asked = {trace.prompt_id: (trace.reasoning or "").rpartition(" ")[2] for trace in found}
    assert len(asked) == prompts
    assert all(trace.answer == f"The answer is {asked[trace.prompt_id]}." for trace in found)
    return found


def test_every_fault_in_small_and_each_reply_is_stored_once(tmp_path: Path) -> None:
    paid = Paid()
    write_prompts(tmp_path / "prompts.jsonl", 60)
    with HttpTeacher(paid, faults=misbehaving(0.15), latency=(0.001, 0.05)) as teacher:  # type: ignore[arg-type]
        ended(generate(tmp_path, teacher, 4))
        assert len(teacher.chats) > paid.total + 15, "some requests did meet a fault"
    complete_and_right(tmp_path, 60, 4)
    whole = [trace for trace in records(tmp_path) if trace.finish_reason != "error"]
    assert len(whole) == 240, "nothing was stored twice"
    assert paid.total == 240, "and no reply was given out twice"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompts", "kills"), [(500, 4), *(pytest.param(2_000, kills, marks=pytest.mark.rehearse) for kills in (5, 50))]
)
def test_every_fault_a_dying_server_and_kills(tmp_path: Path, prompts: int, kills: int) -> None:
    paid, draw, samples = Paid(), random.Random(kills), 4 * prompts
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    with HttpTeacher(paid, faults=misbehaving(0.05), latency=(0.002, 0.1)) as teacher:  # type: ignore[arg-type]
        absence = threading.Thread(target=die_and_return, args=(teacher, paid, 3, samples))
        absence.start()
        for _ in range(kills):
            process = generate(tmp_path, teacher, 4)
            until = paid.total + draw.randrange(1, max(2, samples * 3 // 4 // kills))
            while process.poll() is None and paid.total < until:
                time.sleep(0.005)
            process.kill()
            process.communicate()
            durable = {trace.key for trace in LedgerReader(tmp_path / "run" / "traces").traces()}
        ended(generate(tmp_path, teacher, 4))
        absence.join()
    found = complete_and_right(tmp_path, prompts, 4)
    assert durable <= {trace.key for trace in found}
    whole = [trace for trace in records(tmp_path) if trace.finish_reason != "error"]
    assert len(whole) == samples
    again = paid.total - samples
    print(f"{kills} kills and 3 deaths of the server: {again} replies were given out again")
    assert again <= (kills + 3) * IN_FLIGHT


def die_and_return(teacher: HttpTeacher, paid: Paid, times: int, samples: int) -> None:
    for number in range(1, times + 1):
        while paid.total < samples * number / (times + 2):
            time.sleep(0.01)
        teacher.die()
        time.sleep(1.0)
        teacher.come_back()


def test_a_wrong_model_name_ends_before_anything_is_asked(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 5)
    with HttpTeacher() as teacher:
        teacher.model, wrong = "scripted", "scriptet"
        command = generate(tmp_path, teacher, 1, "--model", wrong)
        output, _ = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "the server has no model 'scriptet'; did you mean 'scripted'?" in output
    assert not teacher.chats
