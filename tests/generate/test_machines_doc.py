"""The commands of docs/machines.md as they stand there: two shards, merged, completed, reused."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from http_teacher import HttpTeacher, Said
from typer.testing import CliRunner

from distill.cli import app
from distill.rundir import RunDir
from generate.runs import questions

TEXT = (Path(__file__).resolve().parents[2] / "docs/machines.md").read_text(encoding="utf-8")


def test_they_work_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    questions(tmp_path / "questions.jsonl", range(12))
    questions(tmp_path / "more.jsonl", range(14))
    lines = [
        line for block in re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) for line in block.split("\n")
    ]
    commands = [shlex.split(line)[1:] for line in lines if line]
    assert [command[0] for command in commands] == ["generate", "generate", "merge", "generate", "generate"]
    asked = []
    with HttpTeacher(lambda question: Said("4", reasoning="I add."), model="scripted") as teacher:
        spec = f"name: my-teacher\nmodel: scripted\nserved: true\nurl: {teacher.url}\nmax_tokens: 50\n"
        (tmp_path / "my-teacher.yaml").write_text(spec)
        for command in commands:
            before = len(teacher.chats)
            extra = ["--url", teacher.url] if command[0] == "generate" else []
            assert CliRunner().invoke(app, [*command, *extra], catch_exceptions=False).exit_code == 0
            asked.append(len(teacher.chats) - before)
    assert asked[0] + asked[1] == 12 * 4
    assert min(asked[:2]) > 0
    assert asked[2:] == [0, 0, 2 * 4], "nothing is bought twice"
    assert len(RunDir("runs/more").ledger().index()) == 14 * 4
