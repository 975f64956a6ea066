"""Wanted keys are those of the tasks that sampling makes: a key that differed would be bought again."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.generate.keys import subject_of, wanted_keys
from distill.prompts.stage import read_prompts, write_prompts
from distill.records import Prompt
from distill.rundir import RunDir
from distill.sampling.requests import tasks_by_key
from generate.runs import prepared, questions, recipe, tasks


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_they_are_the_keys_that_sampling_asks_for(tmp_path: Path) -> None:
    asked = recipe(tmp_path, generate__sampling={"temperature": 0.6}, seed=4)
    prompts = [
        Prompt("one", id="a"),
        Prompt("two", id="b", repeats=3),
        Prompt("three", id="c", kind="math", answer="3"),
    ]
    write_prompts(tmp_path / "prompts.parquet", prompts)
    found = list(wanted_keys(asked, tmp_path / "prompts.parquet"))
    by_key = tasks_by_key(prompts, subject_of(asked), 2)
    assert [want.key.hex() for want in found] == list(by_key)
    assert [want.prompt_id for want in found] == [prompt.id for prompt in by_key.values()]
    write_prompts(tmp_path / "twice.parquet", [*prompts, Prompt("one", id="d")])
    assert list(wanted_keys(asked, tmp_path / "twice.parquet")) == found, "what is asked twice is one sample"


@pytest.mark.parametrize("shard", ["1/3", "3/3"])
def test_a_shard_wants_its_own(tmp_path: Path, shard: str) -> None:
    questions(tmp_path / "questions.jsonl", range(20))
    asked = recipe(tmp_path, generate__shard=shard)
    run = prepared(asked, RunDir(tmp_path / "run"))
    found = [want.key.hex() for want in wanted_keys(asked, run.prompts)]
    assert found == [task.key for task in tasks(asked, run)]
    assert 0 < len(found) < 2 * len(list(read_prompts(run.prompts)))
