"""What every training starts from: spec, tokenizer, encoded traces, what fits the context, and the job's name.

The stage, its check and each worker of a training on several GPUs come to the same from the same recipe and run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill import specs
from distill.errors import TrainingError
from distill.files import sha256_of
from distill.rundir import RunDir
from distill.student_specs import StudentSpec
from distill.train.census import Census, census
from distill.train.dataset import TokenSet, encode_split
from distill.train.mixture import Schedule
from distill.train.student import context_of
from distill.train.tokenizer import prepare_tokenizer
from distill.train_specs import TrainSettings


@dataclass(frozen=True, slots=True)
class Prepared:
    """A student's training, ready but for the model itself."""

    spec: StudentSpec
    settings: TrainSettings
    seed: int
    tokenizer: Any
    context: int
    """Tokens: longer traces are left out."""
    train: TokenSet
    heldout: TokenSet
    census: Census
    schedule: Schedule
    name: str
    """Of the job: a hash of everything that decides what it learns."""
