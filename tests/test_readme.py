"""The commands of the README as they stand there, against a server in the place of the user's teacher."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from http_teacher import HttpTeacher, Said

from distill import specs
from distill.rundir import RunDir

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def commands(heading: str) -> list[str]:
    """The lines of the first code block under a heading."""
    block = re.search(rf"^## {heading}\n.*?^```\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1].splitlines()


def write(path: Path, first: int, count: int) -> None:
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(first, first + count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


SHORT = ("--set", "evaluate.max_tokens=64")
"""Added to `generate`, and so in the run's recipe: what a student says that has learned next to nothing never
ends, and would take most of the time."""


def half_right(question: str) -> Said:
    a, b = map(int, re.findall(r"\d+", question)[:2])
    return Said(f"\\boxed{{{a + b if a % 2 else a}}}", reasoning=f"I add {a} and {b}.")


WITH_TORCH = ("train", "evaluate", "quantize", "chat")
"""Commands that would load torch and transformers each, seven seconds of a processor."""


def in_this_process(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Exit code of a command, and what it printed; its standard input is empty."""
    from distill import cli

    said = io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        mock.patch.object(sys, "argv", ["distill", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    return int(ended.value.code or 0), said.getvalue()


def run_line(line: str, folder: Path, expected: int = 0) -> str:
    """What a command of the README printed."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "distill"
    arguments += SHORT if arguments[0] == "generate" else ()
    if arguments[0] in WITH_TORCH:
        code, said = in_this_process(arguments, folder)
        assert code == expected, f"{line}\n{said}"
        return said
    result = subprocess.run(
        [sys.executable, "-m", "distill.cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == expected, f"{line}\n{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr


def test_your_own_data_works_as_written(tmp_path: Path) -> None:
    write(tmp_path / "questions.jsonl", 1, 8)
    write(tmp_path / "heldout.jsonl", 100, 2)
    activate, *lines = commands("Your own data")
    assert activate == "source .venv/bin/activate"
    assert len(lines) < 10, "ten lines, as promised"
    with HttpTeacher(half_right, model="my-teacher") as teacher:
        told = {
            line.split()[1]: run_line(line.replace("http://localhost:8000/v1", teacher.url), tmp_path) for line in lines
        }
    assert set(told) == {"generate", "filter", "show", "train", "evaluate", "quantize", "report", "chat"}
    assert "32 of 32 samples" in told["generate"]
    assert "4 of 32 traces kept" in told["filter"]  # four right questions, whose four samples are alike
    assert told["show"].count("wrong_answer") == 16
    assert "over 4 traces" in told["train"] or "over 3 traces" in told["train"]
    assert re.search(r"student .* 2 × 4", told["evaluate"])
    assert re.search(r"gguf:q4_k_m +1\.9\d .* no bar", told["quantize"])
    run = RunDir(tmp_path / "runs/mine")
    assert "Q4_K" in run.report.read_text(encoding="utf-8")
    assert "<think>" in told["chat"]


def test_the_way_to_r1_works_as_written_with_other_models(tmp_path: Path) -> None:
    """The same commands, a server that says what R1's says, a tiny base: what they cannot show is a GPU and 671B."""
    write(tmp_path / "questions.jsonl", 1, 8)
    write(tmp_path / "heldout.jsonl", 100, 2)
    student = specs.read(specs.find("students", "tiny-qwen")).replace("name: tiny-qwen", "name: my-student")
    folder = specs.student("tiny-qwen").tokenizer
    (tmp_path / "my-student.yaml").write_text(student.replace("tokenizer: teachers/tiny-r1", f"tokenizer: {folder}"))
    lines = commands("The way to R1")
    assert len(lines) < 10, "ten lines, as promised"
    told = {}
    with HttpTeacher(half_right, model="deepseek-ai/DeepSeek-R1") as teacher:
        service = tmp_path / "services" / "deepseek-r1"  # in the place of `distill serve deepseek-r1`
        service.mkdir(parents=True)
        (service / "endpoints.json").write_text(json.dumps({"endpoints": [{"url": teacher.url}]}))
        for line in lines:
            verb = line.split()[1]
            told[verb] = run_line(line, tmp_path, 3 * (verb == "quantize"))
    assert "data parallel 8, expert parallel" in told["serve"]
    assert "4 of 32 traces kept" in told["filter"]
    assert "a loss of 5% could not show" in told["quantize"], "so little training teaches nothing: the gate says so"
    kept = RunDir(tmp_path / "runs/r1").ledger().traces()
    assert {trace.teacher.model for trace in kept} == {"deepseek-ai/DeepSeek-R1"}


def test_the_student_of_the_way_to_r1_is_a_spec(tmp_path: Path) -> None:
    block = re.search(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert block is not None
    (tmp_path / "my-student.yaml").write_text(block[1], encoding="utf-8")
    found = specs.student(str(tmp_path / "my-student.yaml"))
    assert (found.base, found.template, found.forced_prefix) == ("Qwen/Qwen2.5-Math-7B", "deepseek-r1", "<think>\n")


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_every_file_that_the_readme_points_to_is_there(path: str) -> None:
    assert (CHECKOUT / path).is_file(), path
