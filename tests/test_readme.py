"""The commands of the README's "Your own data", as they stand there, against a server in the place of the user's."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from http_teacher import HttpTeacher, Said

from distill.rundir import RunDir

CHECKOUT = Path(__file__).resolve().parent.parent


def commands() -> list[str]:
    """The lines of the first code block under the heading, without their comments."""
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^## Your own data\n.*?^```\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1].splitlines()


def write(path: Path, first: int, count: int) -> None:
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(first, first + count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def half_right(question: str) -> Said:
    a, b = map(int, re.findall(r"\d+", question))
    return Said(f"\\boxed{{{a + b if a % 2 else a}}}", reasoning=f"I add {a} and {b}.")


def test_your_own_data_works_as_written(tmp_path: Path) -> None:
    write(tmp_path / "questions.jsonl", 1, 8)
    write(tmp_path / "heldout.jsonl", 100, 2)
    activate, *distill = commands()
    assert activate == "source .venv/bin/activate"
    assert len(distill) == 5
    printed = []
    with HttpTeacher(half_right, model="my-teacher") as teacher:
        for line in distill:
            program, *arguments = shlex.split(line.replace("http://localhost:8000/v1", teacher.url), comments=True)
            assert program == "distill"
            result = subprocess.run(
                [sys.executable, "-m", "distill.cli", *arguments],
                cwd=tmp_path,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert result.returncode == 0, f"{line}\n{result.stderr}"
            printed.append(result.stdout + result.stderr)
    generated, filtered, rejected, trained, evaluated = printed
    assert "32 of 32 samples" in generated
    assert "4 of 32 traces kept" in filtered  # four right questions, whose four samples are alike
    assert rejected.count("wrong_answer") == 16
    assert "over 4 traces" in trained or "over 3 traces" in trained
    assert re.search(r"student .* 2 × 4", evaluated)
    assert RunDir(tmp_path / "runs/mine").student.is_dir()
