"""What docs/generate.md says: its commands and settings exist, its endpoints are read, its first command works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from http_teacher import HttpTeacher, Said
from typer.testing import CliRunner

from distill.cli import app
from distill.rundir import RunDir
from distill.sampling.endpoints import read_places
from distill.teacher_specs import GenerateSettings, TeacherSpec

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "generate.md").read_text(encoding="utf-8")
PAGE = PAGE.partition("## Measured")[0]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, block in BLOCKS if not language for line in block.splitlines() if line]


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 4
    assert all(line.startswith("distill generate ") for line in COMMANDS)


@pytest.mark.parametrize("word", sorted(set(re.findall(r"(--[a-z][a-z-]+)", PAGE))))
def test_every_option_is_one(word: str) -> None:
    commands = typer.main.get_command(app)
    known = {name for parameter in commands.commands["generate"].params for name in parameter.opts}  # type: ignore[attr-defined]
    assert word in known


@pytest.mark.parametrize("name", sorted(set(re.findall(r"generate\.([a-z_]+)", PAGE))))
def test_every_setting_is_one(name: str) -> None:
    assert name in {*GenerateSettings.model_fields, "md"}


def test_every_default_is_as_the_page_says() -> None:
    settings = GenerateSettings()
    for name in ("max_concurrency", "patience", "stall_timeout", "request_timeout", "max_attempts"):
        said = re.search(rf"generate\.{name}` \(([\d,]+)", PAGE)
        assert said is not None, name
        assert float(said[1].replace(",", "")) == getattr(settings, name)
    for name in ("continuation", "ignores", "reasons"):
        assert f"`{name}" in PAGE
        assert name in TeacherSpec.model_fields


def test_its_file_of_endpoints_is_read(tmp_path: Path) -> None:
    (block,) = (block for language, block in BLOCKS if language == "json")
    (tmp_path / "endpoints.json").write_text(block)
    assert [place.name for place in read_places(tmp_path / "endpoints.json")] == ["replica-0", "replica-1"]


def test_its_first_command_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ({"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(5))
    Path("questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with HttpTeacher(lambda question: Said("\\boxed{4}", reasoning="so"), model="my-teacher") as teacher:
        words = shlex.split(COMMANDS[0].replace("http://localhost:8000/v1", teacher.url))[1:]
        found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert len(list(RunDir("runs/mine").ledger().traces())) == 20
