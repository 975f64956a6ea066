"""How a student is trained: the `train` section of a recipe. Knows nothing about students, recipes or the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from distill.strict import Strict

Method = Literal["full", "lora", "qlora"]
Order = Literal["shuffled", "short_first", "easy_first"]
Tracker = Literal["tensorboard", "wandb", "trackio"]

NODE_RANK, MASTER = "DISTILL_NODE_RANK", "DISTILL_MASTER"
"""Environment variables that say which of several machines this is, and where the first one is (HOST:PORT)."""
LEARNING_RATE, EPOCHS = 1e-4, 2.0
"""Where neither recipe nor student says: R1's smallest student (arXiv 2501.12948v2, B.4.3)."""
CONTEXT_LENGTH = 32_768
"""Where the recipe does not say, and the student can hold that much: R1's students (the same place)."""
ADAPTER_FACTOR = 10.0
"""An adapter's learning rate is this many times the student's own for full training, as in tinker-cookbook (1e-3 for
LoRA where full training has 1e-4)."""


class LoraSettings(Strict):
    """The adapter of `method: lora` and `qlora`, on every linear layer inside the decoder layers."""

    rank: int = Field(32, ge=1)
    alpha: float = Field(64.0, gt=0)
    """The adapter's output is scaled by alpha / rank."""


class SampleSettings(Strict):
    """What is asked of the student while it learns, on held-out problems of the recipe's evaluation."""

    every_steps: int | None = Field(None, ge=1)
    """None: at a quarter, half, three quarters and the end of a job of at least 100 steps; a shorter one is over before
    its samples. With `problems: 0` never."""
    problems: int = Field(16, ge=0)
    max_tokens: int = Field(4_096, gt=0)
    """Tokens per reply, at most evaluate.max_tokens and the student's context."""


class PhaseSettings(Strict):
    """One of several trainings of the same student, each with its own learning rate schedule, mixture and order."""

    name: str
    epochs: float | None = Field(None, gt=0)
    learning_rate: float | None = Field(None, gt=0)
    """None: the section's own, as for epochs."""
    mixture: dict[str, float] | None = None
    order: Order | None = None
    shortest: int = Field(0, ge=0)
    longest: int | None = Field(None, gt=0)
    """Only traces of `shortest` to `longest` tokens, prompt included, take part."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase with nothing left open. `name` is empty where the recipe names none."""

    name: str
    epochs: float
    learning_rate: float
    mixture: Mapping[str, float]
    order: Order
    shortest: int = 0
    longest: int | None = None


class TrainSettings(Strict):
    """Supervised fine-tuning of the student. Defaults: DeepSeek-R1's students (arXiv 2501.12948v2, B.4.3)."""

    method: Method = "full"
    """`full`: every weight. `lora`: an adapter, merged into the student at the end. `qlora`: the same over a base held
    in 4 bits (NF4), for the memory of a consumer GPU."""
    lora: LoraSettings = LoraSettings()
    epochs: float | None = Field(None, gt=0)
    """None: the student spec's own, else 2."""
    learning_rate: float | None = Field(None, gt=0)
    """None: the student spec's own, else 1e-4; ten times that for an adapter."""
    final_learning_rate: float = Field(0.1, ge=0, le=1)
    """The cosine schedule ends at this share of the learning rate."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the steps over which the learning rate rises; not published for R1, 0.03 as in Open-R1's recipes."""
    batch_size: int = Field(64, ge=1)
    """Traces per optimizer step, over all GPUs."""
    micro_batch_tokens: int = Field(16_384, ge=1)
    """Tokens of one forward pass on one GPU; a step takes as many passes as its traces need, and a longer trace has
    one of its own."""
    context_length: int | None = Field(None, ge=16)
    """Longer traces are left out and counted, never cut. None: 32,768 as for R1's students, or the student's own
    context where that is less; more than the student's own is an error."""
    mixture: dict[str, float] = {}
    """Domain → how often its traces are seen in an epoch: 2 twice, 0.5 every other one, 0 none; others once."""
    order: Order = "shuffled"
    """`short_first` and `easy_first` go from short to long traces, or from easy to hard prompts, in every epoch."""
    phases: tuple[PhaseSettings, ...] = ()
    """Several trainings, one after the other, of the same student; empty: one with the settings above."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["fp32", "bf16", "mixed"] = "mixed"
    """`mixed`: fp32 weights, bf16 arithmetic. `bf16`: weights and optimizer in bf16, for half the memory; updates are
    rounded up or down by chance, in proportion, so that small ones are not lost (arXiv 2010.06192)."""
    max_loss_jump: float | None = Field(1.0, gt=0)
    """A step whose loss is this many nats per token above the median of those before stops the training and names its
    traces; null lets it pass. A loss that is not a number always does."""
    average_checkpoints: int = Field(1, ge=1)
    """The student is the mean of the last so many checkpoints, the end included (OpenMathReasoning averaged four)."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    checkpoint_steps: int | None = Field(None, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    samples: SampleSettings = SampleSettings()
    trackers: tuple[Tracker, ...] = ()
    """Where the metrics go besides metrics.jsonl."""
    gpus: int = Field(1, ge=1)
    """Of each machine; `distill train --gpus`. On a machine without any: processes."""
    nodes: int = Field(1, ge=1)
    """Machines; `distill train --nodes`."""
    context_parallel: int = Field(1, ge=1)
    """GPUs that share every trace's tokens, for long traces on large students; must divide the attention heads."""
    activation_checkpointing: bool | None = None
    """Activations are computed again in the backward pass instead of kept. None: on a GPU yes, on a CPU no."""

    @property
    def processes(self) -> int:
        return self.gpus * self.nodes

    @field_validator("mixture")
    @classmethod
    def _weights(cls, value: dict[str, float]) -> dict[str, float]:
        negative = [f"{domain}: {weight}" for domain, weight in value.items() if weight < 0]
        if negative:
            raise ValueError(f"a weight cannot be negative: {', '.join(negative)}")
        return value

    @model_validator(mode="after")
    def _phase_names(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError("two phases have the same name")
        return self

    @model_validator(mode="after")
    def _one_gpu_for_four_bits(self) -> Self:
        if self.method == "qlora" and self.processes > 1:
            raise ValueError("method: qlora trains on one GPU; use gpus: 1, or method: lora on several")
        return self

    def phases_of(self, *, learning_rate: float | None = None, epochs: float | None = None) -> tuple[Phase, ...]:
        """What is trained, in order; where the section leaves rate and epochs open, those given here are the student
        spec's own."""
        factor = 1.0 if self.method == "full" else ADAPTER_FACTOR
        rate = self.learning_rate or (learning_rate or LEARNING_RATE) * factor
        times = self.epochs or epochs or EPOCHS
        if not self.phases:
            return (Phase("", times, rate, self.mixture, self.order),)
        return tuple(
            Phase(
                phase.name,
                phase.epochs or times,
                phase.learning_rate or rate,
                self.mixture if phase.mixture is None else phase.mixture,
                phase.order or self.order,
                phase.shortest,
                phase.longest,
            )
            for phase in self.phases
        )
