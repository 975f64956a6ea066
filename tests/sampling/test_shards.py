"""Shards of a recipe: disjoint, complete, of about one size, and blind to ids, order and number of prompts."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from generate.runs import prepared, questions, recipe, tasks

from distill.files import sha256_of
from distill.records import Prompt
from distill.rundir import RunDir
from distill.sampling.requests import task_for
from distill.sampling.shards import in_shard, numbers, shard_of
from sampling.scripted import subject


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_prompt_is_in_one_shard_of_any_number() -> None:
    chance = random.Random(5)
    hashes = [sha256_of(number) for number in range(400)]
    for shards in (1, 2, 3, 7, 64, *(chance.randrange(2, 1_000) for _ in range(20))):
        for asked in chance.sample(hashes, 20):
            found = [number for number in range(1, shards + 1) if in_shard(asked, f"{number}/{shards}")]
            assert found == [shard_of(asked, shards)]
        assert all(in_shard(asked, None) for asked in hashes)


def test_shards_are_of_about_one_size() -> None:
    """Binomial, 10,000 at 1/4: a standard deviation of 43."""
    sizes = [sum(in_shard(sha256_of(n), f"{number}/4") for n in range(10_000)) for number in range(1, 5)]
    assert sum(sizes) == 10_000
    assert all(abs(size - 2_500) < 260 for size in sizes)


def test_a_prompt_stays_in_its_shard_whatever_its_id_and_neighbours() -> None:
    asked = [task_for(Prompt(f"question {n}", id=f"p{n}"), subject(), 0).asked for n in range(50)]
    others = [task_for(replace(Prompt(f"question {n}"), id=f"x{n}", repeats=3), subject(), 5).asked for n in range(50)]
    assert asked == others
    assert numbers("2/13") == (2, 13)


@pytest.mark.parametrize("shards", [2, 5])
def test_two_shards_of_a_recipe_have_no_key_in_common(tmp_path: Path, shards: int) -> None:
    questions(tmp_path / "questions.jsonl", range(40))
    run = prepared(recipe(tmp_path), RunDir(tmp_path / "run"))
    whole = {task.key for task in tasks(recipe(tmp_path), run)}
    parts = [
        {task.key for task in tasks(recipe(tmp_path, generate__shard=f"{number}/{shards}"), run)}
        for number in range(1, shards + 1)
    ]
    assert sum(map(len, parts)) == len(whole) == 80
    assert set.union(*parts) == whole
