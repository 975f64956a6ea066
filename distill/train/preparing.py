"""What every training starts from: spec, tokenizer, encoded traces, what fits the context, and the job's name.

The stage, its check and each worker of a training on several GPUs come to the same from the same recipe and run. Knows
nothing about models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distill import specs
from distill.errors import TrainingError
from distill.files import sha256_of
from distill.progress import quiet_transformers
from distill.rundir import RunDir
from distill.student_specs import StudentSpec, context_length_of
from distill.train.architecture import sizes_of
from distill.train.census import Census, census
from distill.train.dataset import encode_split
from distill.train.mixture import Schedule
from distill.train.student import student_config
from distill.train.token_set import TokenSet
from distill.train.tokenizer import prepare_tokenizer
from distill.training_sizes import OUTSIDE, TrainingMemory, training_memory


@dataclass(frozen=True, slots=True)
class Prepared:
    """A student's training, ready but for the model itself."""

    recipe: specs.Recipe
    spec: StudentSpec
    tokenizer: Any
    config: Any
    """transformers' configuration of the student."""
    train: TokenSet
    heldout: TokenSet
    heldout_places: npt.NDArray[np.int64]
    """Those of the held-out traces that fit the context."""
    census: Census
    schedule: Schedule
    name: str
    """Of the job: a hash of everything that decides what the student learns."""

    @property
    def context(self) -> int:
        """Tokens: longer traces are left out."""
        return self.census.context


def prepare(recipe: specs.Recipe, run: RunDir) -> Prepared:
    """Encodes a run's kept traces for the recipe's student, or finds them encoded.

    Raises TrainingError when no trace fits, SpecError for a context that the student does not have.
    """
    quiet_transformers()
    spec = specs.student(recipe.student, recipe.student_overrides)
    tokenizer = prepare_tokenizer(spec)
    config = student_config(spec, tokenizer)
    context = context_length_of(spec, config, recipe.train)
    train, heldout = (encode_split(run.kept, split, tokenizer, spec.contract, run.encoded) for split in SPLITS)
    within = train.within(context)
    if not len(within):
        raise TrainingError(
            "there is nothing to train on",
            given=_why_nothing(train, context) or f"no kept traces in {run.kept}",
            todo="look at the rejections with `distill show RUN --rejected`, or change filter.keep",
        )
    schedule = Schedule(
        train.lengths,
        train.domains,
        train.difficulty,
        spec.phases(recipe.train),
        recipe.train.batch_size,
        recipe.seed,
        within=within,
    )
    folders = {what: specs.folder_revision(folder) for what, folder in recipe.model_folders("train").items()}
    return Prepared(
        recipe,
        spec,
        tokenizer,
        config,
        train,
        heldout,
        heldout.within(context),
        census({"train": train, "heldout": heldout}, context),
        schedule,
        sha256_of([recipe.section_hash("train"), run.hashes(run.kept), folders]),
    )


def _why_nothing(train: TokenSet, context: int) -> str:
    tokens = ", ".join(sorted({*train.special.values()}))
    reasons = {
        f"longer than the {context:,} tokens of the context": len(train),
        f"with special tokens of this student in their replies ({tokens})": len(train.special),
    }
    return "; ".join(f"{count:,} kept traces {why}" for why, count in reasons.items() if count)


SPLITS = ("train", "heldout")


def predicted_memory(prepared: Prepared) -> TrainingMemory:
    """Of one GPU at the widest row that this training has: a full pass, or the longest trace."""
    settings = prepared.recipe.train
    own = max(1, settings.processes // settings.context_parallel)
    longest = int(prepared.train.lengths[prepared.train.within(prepared.context)].max())
    return training_memory(
        sizes_of(prepared.config),
        method=settings.method,
        ranks=own * settings.context_parallel,
        context_parallel=settings.context_parallel,
        tokens=max(longest, settings.micro_batch_tokens * settings.context_parallel),
        precision=settings.precision,
        checkpointing=settings.activation_checkpointing is not False,
        adapter_rank=settings.lora.rank,
    )


def memory_line(prepared: Prepared) -> str:
    memory, processes = predicted_memory(prepared), prepared.recipe.train.processes
    parts = ", ".join(
        f"{name} {getattr(memory, name) / 1e9:.1f}"
        for name in ("parameters", "gradients", "optimizer", "activations", "working")
    )
    where = "one GPU" if processes == 1 else f"each of {processes} GPUs"
    return (
        f"memory of {where}, predicted from the sizes: {memory.peak / 1e9:.1f} GB ({parts}), "
        f"and about {OUTSIDE / 1e9:.0f} for CUDA"
    )
