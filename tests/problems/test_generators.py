"""The registry: what every generator promises, and the same sequence in any process."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import subprocess
import sys

import pytest

from distill.errors import UsageError
from distill.problems import arithmetic
from distill.problems.generators import GENERATOR_NAMES, GENERATORS, generated
from distill.records import Prompt
from problems.material import SPLITS, take

KINDS = {
    "arithmetic": ("math", "math"),
    "algebra": ("math", "math"),
    "counting": ("numeric", "math"),
    "unit-conversion": ("numeric", "stem"),
    "programs": ("code", "code"),
    "multiple-choice": ("choice", None),
}
DIGEST = """
import hashlib, itertools, json, sys
from distill.problems.generators import GENERATOR_NAMES, generated
for name in GENERATOR_NAMES:
    rows = [
        [split, prompt.to_json()]
        for split, count in (("train", 40), ("validation", 6), ("test", 6))
        for prompt in itertools.islice(generated(name, split, 5), count)
    ]
    print(name, hashlib.sha256(json.dumps(rows).encode()).hexdigest())
"""


def test_the_names() -> None:
    assert tuple(GENERATORS) == GENERATOR_NAMES == tuple(KINDS)
    with pytest.raises(UsageError, match="no generator 'algebr'; did you mean 'algebra'"):
        generated("algebr", "train", 0)


@pytest.mark.parametrize("name", GENERATOR_NAMES)
def test_a_sequence_depends_on_name_split_and_seed_alone(name: str) -> None:
    first = list(itertools.islice(generated(name, "train", 0), 30))
    assert first == list(itertools.islice(generated(name, "train", 0), 30))
    others = [itertools.islice(generated(name, *key), 30) for key in (("train", 1), ("test", 0), ("validation", 0))]
    assert len({tuple(prompt.id for prompt in drawn) for drawn in (first, *others)}) == 4


def test_no_process_draws_otherwise() -> None:
    """Sets and dicts of texts change their order with Python's hash seed: nothing drawn may follow it."""

    def digests(hash_seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told = subprocess.run([sys.executable, "-c", DIGEST], env=env, capture_output=True, text=True, check=True)
        return told.stdout

    first = digests("1")
    assert len(first.splitlines()) == len(GENERATOR_NAMES)
    assert first == digests("77")


@pytest.mark.parametrize("name", GENERATOR_NAMES)
def test_the_fields_of_a_prompt(name: str) -> None:
    for split in SPLITS:
        for prompt in take(name, split, 3, 10):
            kind, domain = KINDS[name]
            assert prompt.kind == kind
            assert prompt.domain == domain or (domain is None and prompt.domain in ("math", "stem", "logic"))
            assert (prompt.source, prompt.license, prompt.reasoning) == (None, None, "required")
            assert (prompt.answer is None) == (kind == "code") == (prompt.tests is not None)
            assert (prompt.choices is not None) == (kind == "choice")
            assert Prompt.from_json(json.loads(json.dumps(prompt.to_json()))) == prompt
            named = dataclasses.replace(prompt, source=name, license="MIT")
            assert named.id == prompt.id


def test_arithmetic_is_the_same_as_ever() -> None:
    """Its sequence is pinned: tiny-r1 learned from it, and runs of old recipes must ask the same questions."""
    whole = hashlib.sha256()
    for split in SPLITS:
        for seed in (0, 7):
            for problem in itertools.islice(arithmetic.problems(split, seed), 400):
                whole.update(repr(problem).encode())
    assert whole.hexdigest() == "65fb333daec8eca8cd4e610da81c2f592526bba2785e28d4288918a1d3a97cf2"
    drawn = take("arithmetic", "test", 0, 50)
    assert [prompt.question for prompt in drawn] == [
        problem.question for problem in itertools.islice(arithmetic.problems("test", 0), 50)
    ]


def test_arithmetic_takes_its_settings() -> None:
    drawn = list(itertools.islice(generated("arithmetic", "train", 0, steps=(2, 2), operators="+-"), 50))
    problems = itertools.islice(arithmetic.problems("train", 0, steps=(2, 2), operators="+-"), 50)
    assert [(prompt.question, prompt.answer) for prompt in drawn] == [(p.question, str(p.result)) for p in problems]
    assert {prompt.difficulty for prompt in drawn} == {"2"}
