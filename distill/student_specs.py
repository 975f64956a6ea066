"""Student specs: a pretrained base or an architecture, how it is talked to, and how it was trained by others.

Knows nothing about files or how a student is built.
"""

from __future__ import annotations

from typing import Literal, Protocol, Self

from pydantic import Field, field_validator, model_validator

from distill.contract import TEMPLATES, Contract, Response
from distill.errors import SpecError, near
from distill.records import Kind
from distill.strict import Strict
from distill.train_specs import CONTEXT_LENGTH, Phase, TrainSettings


class RopeScaling(Strict):
    """How Llama 3.1 and later stretch the rotary frequencies: the slow ones by `factor`, the fast ones not at all."""

    type: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1)
    low_freq_factor: float = Field(gt=0)
    high_freq_factor: float = Field(gt=0)
    original_max_position_embeddings: int = Field(gt=0)

    @model_validator(mode="after")
    def _low_is_lower(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("high_freq_factor must be greater than low_freq_factor")
        return self


class Architecture(Strict):
    """The sizes of a dense Qwen2, Qwen3 or Llama model, under the names of its config.json.

    What the model type alone decides is no field: Qwen2 has biases at the query, key and value projections, Qwen3 norms
    of queries and keys, Llama neither.
    """

    model_type: Literal["qwen2", "qwen3", "llama"]
    vocab_size: int | None = Field(None, gt=0)
    """Rows of the embedding, spare ones included. None for a student from nothing: it follows the tokenizer."""
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int | None = Field(None, gt=0)
    """None: hidden_size / num_attention_heads. Only Qwen3 has another."""
    max_position_embeddings: int = Field(gt=0)
    rope_theta: float = Field(10_000.0, gt=0)
    """Base of the rotary frequencies."""
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = Field(1e-6, gt=0)
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding matrix."""
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation of the initial weights."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        own_head_dim = self.model_type == "qwen3" and self.head_dim is not None
        uneven = self.hidden_size % self.num_attention_heads and not own_head_dim
        if uneven or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must divide hidden_size, and num_key_value_heads num_attention_heads")
        if not own_head_dim and self.head_size != self.hidden_size // self.num_attention_heads:
            raise ValueError(f"a {self.model_type} has head_dim = hidden_size / num_attention_heads; leave it out")
        return self

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads


class ContextExtension(Strict):
    """More context than the base was trained with: only where its publisher's successors did the same."""

    max_position_embeddings: int = Field(gt=0)
    rope_theta: float = Field(gt=0)
    """Base of the rotary frequencies, higher than the base model's: positions turn more slowly."""


class StudentSpec(Strict):
    """A model that learns: a pretrained base, or an architecture with a tokenizer to start from nothing.

    A base may have its architecture beside it, so that it can be planned and checked before anything is downloaded;
    what is loaded must agree with it.
    """

    name: str
    description: str = ""
    base: str | None = None
    """A Hugging Face id or a folder; a relative one lies beside the spec, in the checkout or the working directory."""
    revision: str | None = None
    published_as: str | None = None
    """The base's name on the Hub where `base` is a folder: what a published student's card says it was made from."""
    architecture: Architecture | None = None
    tokenizer: str | None = None
    """Folder or id of the tokenizer; by default the base's own."""
    license: str | None = None
    parameters: int | None = Field(None, gt=0)
    """Published number of weights; a test builds the model and compares."""
    template: str
    """Chat format: one of those in contract.py."""
    forced_prefix: str = ""
    """Put behind the assistant's header when serving: `<think>\\n` for a student that always reasons."""
    thinks: bool = True
    """Whether the think tags have to be single tokens; missing ones are added and start at the others' mean."""
    reserved_tokens: dict[str, str] = {}
    """Token of the contract → a reserved one of the base's vocabulary whose row it takes, so that nothing grows."""
    untrained_tokens: tuple[str, ...] = ()
    """Tokens that the base has and never trained: their rows start at the others' mean."""
    context_extension: ContextExtension | None = None
    learning_rate: float | None = Field(None, gt=0)
    """Peak, for full training; None: 1e-4."""
    epochs: float | None = Field(None, gt=0)
    pad_token: str | None = None
    """A token other than every stop token; by default the tokenizer's own."""
    system: str | None = None
    instruction: dict[Kind, str] = {}
    gguf_pre: str | None = None
    """llama.cpp's name for the tokenizer's pre-tokenizer."""
    source: str | None = None
    """Where the figures above come from."""

    @field_validator("template")
    @classmethod
    def _known_template(cls, value: str) -> str:
        if value not in TEMPLATES:
            raise ValueError(f"unknown template '{value}'{near(value, list(TEMPLATES))}; known: {', '.join(TEMPLATES)}")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.base is None and self.architecture is None:
            raise ValueError("give base (pretrained), architecture (from nothing), or both (a base and its sizes)")
        if self.base is None:
            self._from_nothing()
        elif self.architecture is not None and self.architecture.vocab_size is None:
            raise ValueError("architecture.vocab_size is missing: a base has a certain number of vocabulary rows")
        return self

    def _from_nothing(self) -> None:
        if self.tokenizer is None:
            raise ValueError("architecture needs a tokenizer")
        if self.architecture is not None and self.architecture.vocab_size is not None:
            raise ValueError("architecture.vocab_size follows the tokenizer where there is no base; leave it out")
        if self.untrained_tokens or self.context_extension is not None:
            raise ValueError("untrained_tokens and context_extension are about a base, and there is none")

    @model_validator(mode="after")
    def _prefix(self) -> Self:
        if self.forced_prefix and not self.thinks:
            raise ValueError("forced_prefix is for a student that thinks; set thinks: true or drop it")
        if not Response(None, "answer").render(empty_pair=True).startswith(self.forced_prefix):
            raise ValueError('forced_prefix is not how a response begins; write "<think>\\n" in double quotes')
        return self

    @property
    def contract(self) -> Contract:
        instruction: dict[str, str] = {str(kind): text for kind, text in self.instruction.items()}
        return Contract(self.template, self.forced_prefix, instruction or None, self.system)

    def phases(self, settings: TrainSettings) -> tuple[Phase, ...]:
        """What training this student goes through under a recipe's settings."""
        return settings.phases_of(learning_rate=self.learning_rate, epochs=self.epochs)


class Positions(Protocol):
    """An Architecture, or the configuration of a loaded model."""

    @property
    def max_position_embeddings(self) -> int: ...


def positions_of(spec: StudentSpec, sizes: Positions) -> int:
    """Tokens of context that a student has: its base's own, or those of its context extension."""
    extension = spec.context_extension
    return extension.max_position_embeddings if extension is not None else sizes.max_position_embeddings


def check_context(spec: StudentSpec, sizes: Positions, context_length: int) -> None:
    """Raises SpecError when traces of `context_length` tokens would reach positions that the student does not have."""
    allowed = positions_of(spec, sizes)
    if context_length <= allowed:
        return
    source = "context_extension" if spec.context_extension is not None else spec.base or "architecture"
    raise SpecError(
        f"train.context_length is {context_length:,} tokens, more than the {allowed:,} of student '{spec.name}'",
        given=f"max_position_embeddings: {allowed} ({source})",
        todo=f"set train.context_length to {allowed} or less, or leave it out: --set train.context_length=null (a run "
        "of an earlier version has 32768 written down); a longer context needs a context_extension in the student "
        "spec, with a rope_theta that is known to work",
    )


def context_length_of(spec: StudentSpec, sizes: Positions, settings: TrainSettings) -> int:
    """Tokens of the longest trace that this student trains on under a recipe's settings.

    Raises SpecError when the settings name more than the student has; without a number they ask for no more than that.
    """
    if settings.context_length is None:
        return min(CONTEXT_LENGTH, positions_of(spec, sizes))
    check_context(spec, sizes, settings.context_length)
    return settings.context_length
