"""Settings of each check of a trace, with the source of every threshold. Knows no trace and no check."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from distill.strict import Strict


class LanguageSettings(Strict):
    """How much of a trace may be in another language than its question. R1 left out traces with mixed languages
    (arXiv 2501.12948v2, B.3.3) and published no number; these are ours, measured in docs/checks.md."""

    stretch: int = Field(5, ge=2)
    """Foreign words in a row that are no name or term any more; two ideographs count as a word."""
    most_foreign: float = Field(0.05, ge=0, le=1)
    """Share of the words of reasoning or answer that may be foreign in shorter pieces."""
    least_words: int = Field(10, ge=1)
    """Words of prose from which a share is taken; where less is left of both parts, the check abstains."""


class LoopSettings(Strict):
    """How often a text may repeat itself. A setting of null turns its rule off."""

    gram_times: int | None = Field(20, ge=2)
    """A piece of 15 words, about 20 tokens, may occur so many times: more than 20 times, AM-team leaves the trace out
    (arXiv 2504.17565)."""
    paragraph_times: int | None = Field(10, ge=2)
    """Times at which a repeated paragraph is a loop; twice as many where it holds mathematics or code (open-instruct,
    filter_ngram_repetitions.py)."""
    sentence_times: int | None = Field(40, ge=2)
    """The same for a sentence or a line (open-instruct)."""
    consecutive_times: int | None = Field(4, ge=2)
    """The same for one that follows itself (open-instruct; with mathematics four times as many, not two: a long
    division writes one line for each digit of 0.333…)."""
    cycle_times: int | None = Field(8, ge=2)
    """Times that the end of a text goes through one cycle (sampling/cycles.py); with mathematics four times as many."""
    most_compressible: float | None = Field(30.0, gt=1)
    """How many times smaller zlib may make a text half of whose pieces repeat; a long division of 1/7 to 60 digits
    reaches 20, the replies of a 0.5B model 5 (docs/checks.md)."""


class ParagraphSettings(Strict):
    """R1 left out traces with long paragraphs (arXiv 2501.12948v2, B.3.3) and published no number."""

    longest: int = Field(4_000, ge=1)
    """Bytes of UTF-8 of one line of reasoning, about 650 words of English or 1,300 ideographs: ours."""


class CodeSettings(Strict):
    """R1 left out traces with code blocks in the reasoning (arXiv 2501.12948v2, B.3.3); prompts of kind code aside."""

    unfenced: bool = True
    """Whether lines that can only be code count without a fence around them as well."""


class AnswerSettings(Strict):
    """What counts as an answer at all."""

    readable: bool = True
    """Whether the kinds math, numeric and choice need something that a verifier could read."""


class LengthSettings(Strict):
    """Length of reasoning and answer in tokens of the student, as it will be trained on."""

    min_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    """R1's students were trained with a context of 32,768 tokens (arXiv 2501.12948v2, B.4.3)."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_tokens is not None and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens}) is more than max_tokens ({self.max_tokens})")
        return self


class RefusalSettings(Strict):
    """Answers that refuse, and replies that say who is speaking."""

    longest: int = Field(600, ge=1)
    """Characters of an answer that can be a refusal: one that goes on for longer has something to say."""
    identity: bool = True
    """Whether a reply that calls itself a model or names its maker unasked fails: a student would say it as well."""


class SecretSettings(Strict):
    """What must not be learnt by heart, where it does not stand in the question."""

    secrets: bool = True
    """Keys, tokens, private keys, passwords in addresses."""
    personal_data: bool = True
    """E-mail addresses, telephone, card and bank account numbers, social security numbers."""


class ScoreSettings(Strict):
    """A score of each trace that another program worked out, such as a perplexity or a reward."""

    scores: str | None = None
    """A JSONL or Parquet file with one trace a row."""
    key: str = "trace_key"
    """The column with the trace's key."""
    column: str = "score"
    """The column with the number."""
    min: float | None = None
    """DeepDistill kept a reward above 0.7, or 4.99 for science (arXiv 2504.17565)."""
    max: float | None = None
    """DeepDistill left out what had a perplexity above 20 under a 32B model (arXiv 2504.17565)."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) is more than max ({self.max})")
        if self.scores is not None and self.min is None and self.max is None:
            raise ValueError("scores without min or max would reject nothing: set one")
        return self
