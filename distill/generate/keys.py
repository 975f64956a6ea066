"""The samples that a recipe wants of prompts in a file, one at a time: what decides whether a paid trace still counts.

Knows nothing about ledgers or engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill import specs
from distill.prompts.stage import read_prompts
from distill.records import trace_key
from distill.sampling.requests import Subject
from distill.sampling.subjects import teacher_subject
from distill.sampling.wanted import asked_of


@dataclass(frozen=True, slots=True)
class WantedSample:
    """One sample that is wanted: its trace's key as 32 bytes, the hash of what is asked, the prompt's id."""

    key: bytes
    asked: str
    prompt_id: str


def subject_of(recipe: specs.Recipe) -> Subject:
    """The teacher as the recipe asks it. Raises SpecError when its spec is not there."""
    teacher = specs.teacher(recipe.teacher, recipe.teacher_overrides)
    return teacher_subject(teacher, recipe.generate.sampling, recipe.generate.max_tokens, recipe.seed)


def wanted_keys(recipe: specs.Recipe, prompts: Path) -> Iterator[WantedSample]:
    """Every sample that `recipe` wants of the prompts in that file, those of its shard alone, each once.

    Prompts are streamed; 16 bytes of each are kept, to know what is asked twice.
    """
    subject, seen = subject_of(recipe), set[bytes]()
    for one in asked_of(read_prompts(prompts), subject, recipe.generate.samples, recipe.generate.shard):
        start = bytes.fromhex(one.asked[:32])
        if start not in seen:
            seen.add(start)
            for sample in range(one.samples):
                key = trace_key(one.asked, sample, subject.identity, subject.sampling)
                yield WantedSample(bytes.fromhex(key), one.asked, one.prompt.id)
