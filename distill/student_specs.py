"""Student specs: a pretrained base or an architecture, how it is talked to, and how it was trained by others.

Knows nothing about recipes, files or how a student is built.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from distill.contract import TEMPLATES, Contract, Response
from distill.errors import near
from distill.records import Kind
from distill.strict import Strict
from distill.train_specs import Phase, TrainSettings


class Architecture(Strict):
    """A dense student built from nothing: sizes of a Qwen2 or Llama model."""

    model_type: Literal["qwen2", "llama"]
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=0)
    rope_theta: float = Field(10_000.0, gt=0)
    tie_word_embeddings: bool = True
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation of the initial weights."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must divide hidden_size, and num_key_value_heads num_attention_heads")
        return self


class ContextExtension(Strict):
    """More context than the base was trained with: only where its publisher's successors did the same."""

    max_position_embeddings: int = Field(gt=0)
    rope_theta: float = Field(gt=0)
    """Base of the rotary frequencies, higher than the base model's: positions turn more slowly."""


class StudentSpec(Strict):
    """A model that learns: a pretrained base, or an architecture with a tokenizer to start from nothing."""

    name: str
    description: str = ""
    base: str | None = None
    """A Hugging Face id or a folder; a relative one lies beside the spec, in the checkout or the working directory."""
    revision: str | None = None
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
    """Whether the think tags have to be single tokens; missing ones are added, mean-initialised and trained."""
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
        if (self.base is None) == (self.architecture is None):
            raise ValueError("give either base (pretrained) or architecture (from nothing)")
        if self.architecture is not None and self.tokenizer is None:
            raise ValueError("architecture needs a tokenizer")
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
