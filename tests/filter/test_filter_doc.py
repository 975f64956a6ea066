"""What docs/filter.md says: its settings, checks and reasons exist, and its commands work on a run as written."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_material import write_all
from typer.testing import CliRunner
from verify.in_process import LooksInProcess

from distill import specs
from distill.cli import app
from distill.filter import selection, stage
from distill.filter_specs import CHECKS, FilterSettings, SelectSettings
from distill.prompts.stage import write_prompts
from distill.records import Verdict
from distill.rundir import RunDir
from distill.teacher_specs import GenerateSettings
from filter.test_stage import prompts, traces

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "filter.md").read_text(encoding="utf-8")
PAGE = PAGE.partition("## Measured")[0]
COMMANDS = [
    line for block in re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
HERE = [line for line in COMMANDS if "ray" not in line]


def test_every_check_is_on_the_page() -> None:
    table = PAGE.partition("## The checks")[2].partition("## The keep rule")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(CHECKS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"filter\.([a-z_]+(?:\.[a-z_]+)?)", PAGE)) - {"md"}))
def test_every_setting_is_one(name: str) -> None:
    first, _, second = name.partition(".")
    assert first in FilterSettings.model_fields
    if second:
        section = getattr(FilterSettings(), first)
        assert second in type(section).model_fields


def test_every_reason_and_column_is_one() -> None:
    assert all(f"`{reason}`" in PAGE for reason in selection.REASONS if reason)
    columns = re.search(r"a row for each trace and check: (.*?)\. The check", PAGE)
    assert columns is not None
    assert re.findall(r"`(\w+)`", columns[1]) == Verdict.schema().names
    assert all(f"`{name}`" in PAGE for name in SelectSettings.model_fields)


def test_its_commands_work_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LocalLooking", LooksInProcess)
    monkeypatch.chdir(tmp_path)
    Path("scripted.yaml").write_text("name: scripted\nmodel: org/scripted\nrevision: '1'\n")
    recipe = specs.Recipe(name="r", seed=3, teacher="scripted.yaml", generate=GenerateSettings(samples=8))
    run = RunDir("runs/mine")
    asked = prompts()
    write_prompts(run.prompts, asked)
    looping = "add 1 to it and go on.\n" * 300
    found = traces(recipe, asked)
    found[0] = replace(found[0], raw=looping, reasoning=looping)
    write_all(run.traces, found)
    run.recipe.write_text(specs.dump(recipe))
    assert len(HERE) >= 9
    for line in HERE:
        outcome = CliRunner().invoke(app, shlex.split(line)[1:])
        assert outcome.exit_code == 0, (line, outcome.output)
