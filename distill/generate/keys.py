"""The samples that a recipe wants of prompts in a file, one at a time: what decides whether a paid trace still counts.

Knows nothing about ledgers or engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill import specs
from distill.prompts.stage import read_prompts
from distill.records import asked_hash, trace_key
from distill.sampling.requests import Subject, samples_of
from distill.sampling.shards import in_shard
from distill.sampling.subjects import teacher_subject


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
    for prompt in read_prompts(prompts):
        asked = asked_hash(subject.messages(prompt), subject.forced_prefix)
        start = bytes.fromhex(asked[:32])
        if start not in seen and in_shard(asked, recipe.generate.shard):
            seen.add(start)
            for sample in range(samples_of(prompt, recipe.generate.samples)):
                key = trace_key(asked, sample, subject.identity, subject.sampling)
                yield WantedSample(bytes.fromhex(key), asked, prompt.id)
