"""How answers are judged by a language model: which one, when it is asked, how its votes count, what it may cost.

Knows nothing about how it is asked or what its replies mean.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from distill.records import Kind
from distill.strict import Strict
from distill.teacher_specs import SamplingSpec, Urls, without_login

On = Literal["abstained", "failed", "all"] | tuple[Kind, ...]


class JudgeSettings(Strict):
    """A language model that says whether an answer agrees with the reference answer (docs/judge.md)."""

    teacher: str | None = None
    """Who judges: the name or path of a teacher spec, or the URL of an OpenAI-compatible server. None: nobody does."""
    model: str | None = None
    """The model's name at that server; needed for a URL."""
    teacher_overrides: dict[str, Any] = Field({})
    """Fields of the judge's spec that this recipe sets itself, such as its `price` or `revision`."""
    url: str | tuple[str, ...] | None = None
    """Where a judge named by a spec answers; by default where its spec says, or RUN/judge/endpoints.json."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, by default the spec's, else OPENAI_API_KEY; the key itself
    is never written down."""
    served_model: str | None = None
    """The model's name at the server, when it differs from the spec's."""
    on: On = "abstained"
    """Which traces it is asked about, of those that are whole, well-formed and have a reference answer. `abstained`:
    those that their verifier could not decide. `failed`: also those that it called wrong; of these Open-R1 recovered
    28,000 with a judge (its card of OpenR1-Math-220k). `all`: every one. Or kinds of prompts, such as `[open]`."""
    votes: int = Field(3, ge=1, le=15)
    """Replies asked for per answer; what most of those that can be read say is the outcome."""
    unanimous: bool = False
    """Every vote has to be readable and say the same, otherwise the judge abstains."""
    stop_early: bool = True
    """Leave out votes that cannot change the outcome any more: of three, the third where two agree. The score is then
    the share of those that were cast."""
    again: int = Field(1, ge=0)
    """How many times a vote that cannot be read is asked for again, with another seed."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.7)
    """Overrides the spec's own, setting by setting. Votes that are to be worth more than one must differ by chance: 0.7
    is what self-consistency draws with (arXiv 2203.11171, section 3.1)."""
    max_tokens: int = Field(4_096, gt=0)
    """Tokens per vote, a judge's own reasoning included; a vote that is cut there cannot be read."""
    max_characters: int = Field(20_000, gt=0)
    """Of question, reference and answer together: what is longer is not asked about (`judge_too_long`). Four or five
    thousand tokens; an answer behind its reasoning has a few hundred."""
    structured: bool = True
    """Ask the server to hold replies to the form that is wanted (`response_format`). One that refuses this is asked
    without; replies are read in any case."""
    concurrency: int = Field(64, ge=1)
    """Requests in flight to begin with; for a model in this process, rows in a batch."""
    max_concurrency: int = Field(1_024, ge=1)
    """Requests in flight at most: a server is asked for more while it does not get slower by it."""
    max_attempts: int = Field(6, ge=1)
    """Tries per vote before its failure is recorded."""
    request_timeout: float = Field(600.0, gt=0)
    """Seconds after which a request counts as failed: at 25 tokens/s, 4,096 tokens take under three minutes."""
    patience: float = Field(900.0, gt=0)
    """Seconds in which no server answered after which the stage stops, to be gone on with later."""
    max_tokens_total: int | None = Field(None, ge=1)
    """Stop asking before the judge's replies have taken more tokens than this, those of earlier starts included."""
    max_cost: float | None = Field(None, gt=0)
    """Stop asking before the judge has cost more than this, by the price in its spec."""

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else self.url or ()

    @field_validator("teacher", "url")
    @classmethod
    def _no_secret_in_url(cls, value: Urls) -> Urls:
        return without_login(value, "filter.judge.api_key_env")

    @model_validator(mode="after")
    def _votes_can_differ(self) -> Self:
        if self.votes > 1 and self.sampling.temperature == 0:
            raise ValueError("at temperature 0 all votes are one: set votes to 1, or a temperature above 0")
        return self
