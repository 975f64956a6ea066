"""A teacher and how it is sampled: who it is, how it is asked, the form of its replies, where it answers, its limits.

Knows nothing about how sampling is done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from distill.contract import ReasoningFormat
from distill.errors import near
from distill.records import Kind, Sampling
from distill.strict import Strict
from distill.teacher_architecture import TeacherArchitecture, Weights

HIDDEN = "hidden"
"""Type of a validation error whose input must not be shown."""


class SamplingSpec(Strict):
    """How a sample is drawn; None leaves the server's own default."""

    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = Field(None, gt=0)

    def sampling(self, seed: int | None) -> Sampling:
        return Sampling(**self.model_dump(), seed=seed)

    def over(self, base: SamplingSpec) -> SamplingSpec:
        """These settings where they are given, those of `base` elsewhere."""
        return SamplingSpec(**{**base.model_dump(), **self.model_dump(exclude_none=True)})


class Price(Strict):
    """What tokens cost, in any one currency per million of them."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class TeacherSpec(Strict):
    """A model that answers: who it is, how it is asked, what form its replies have."""

    name: str
    description: str = ""
    model: str
    """A folder beside this spec (`./tiny-r1`), a Hugging Face id, or the name under which a server knows it."""
    served: bool = False
    """The model is known by its name at a server alone, even where a folder of that name lies here."""
    revision: str | None = None
    """Commit or version; for a folder it is derived from the files. Part of every trace's identity."""
    quantization: str | None = None
    license: str | None = None
    distillation_terms: str | None = None
    """What the licence says about training other models on the outputs."""
    context_length: int = Field(32_768, gt=0)
    """Tokens that prompt and reply may have together."""
    reasoning_format: ReasoningFormat = "tags"
    """`field`: a separate field; `tags`: think tags in the text; `r1-zero`: think and answer tags; `plain`: none;
    `foreign`: any of the tags in which traces are published (docs/traces.md)."""
    forced_prefix: str = ""
    """What the teacher's chat template puts before the reply, such as `<think>\\n`; replies do not repeat it."""
    system: str | None = None
    instruction: dict[Kind, str] = {}
    """Added to the question, by the kind of prompt."""
    sampling: SamplingSpec = SamplingSpec()
    max_tokens: int = Field(32_768, gt=0)
    reasons: bool = False
    """It always reasons first: a reply without is a failure of that sample, but for prompts that want no reasoning."""
    continuation: Literal["token_ids", "prefix", "none"] = "none"
    """How its endpoint can go on with a cut reply: by `token_ids` (a completion after ids that it told before, as vLLM
    does), by a `prefix` of text, which is tokenized anew and so no longer what the model wrote, or not at all."""
    ignores: tuple[str, ...] = ()
    """Sampling settings that its endpoint takes and does not follow."""
    url: str | None = None
    """Where it answers, for a provider's own API; a recipe's generate.url stands above it."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the provider's key; a recipe's own stands above it."""
    price: Price | None = None
    architecture: TeacherArchitecture | None = None
    """Its sizes, so that a layout can be planned before anything is downloaded."""
    weights: Weights | None = None
    """How its published weights are kept."""
    reasoning_parser: str | None = None
    """vLLM's name for what parts reasoning and answer of this model's replies (`--reasoning-parser`)."""
    trust_remote_code: bool = False
    """Let vLLM run the Python files that lie beside the weights."""
    variant_of: str | None = None
    """Name of the spec whose weights these are, in another precision."""
    source: str | None = None
    """Where the figures above come from."""

    @field_validator("ignores")
    @classmethod
    def _known_settings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = [*SamplingSpec.model_fields, "seed"]
        for name in value:
            if name not in known:
                raise ValueError(f"unknown sampling setting '{name}'{near(name, known)}; known: {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _weights_of_this_architecture(self) -> Self:
        if self.weights is not None and self.architecture is None:
            raise ValueError("weights say how an architecture is kept: give it as well")
        for field in ("experts", "nextn"):
            if self.weights is None or self.architecture is None or getattr(self.weights, field) is None:
                continue
            there = self.architecture.experts if field == "experts" else self.architecture.num_nextn_predict_layers
            if not there:
                raise ValueError(f"weights.{field} names a format of what the architecture has not")
        if self.variant_of == self.name:
            raise ValueError("variant_of names another spec than this one")
        return self

    @property
    def is_folder(self) -> bool:
        """Whether the weights lie here, where `teacher()` found them, so that they are known by their content."""
        return not self.served and Path(self.model).is_absolute() and Path(self.model).is_dir()


Urls: TypeAlias = str | tuple[str, ...] | None


def without_login(value: Urls, key_setting: str) -> Urls:
    """The addresses as they are. Raises a pydantic error that does not show them when one holds a login; `key_setting`
    names the setting that a key belongs to."""
    for url in (value,) if isinstance(value, str) else value or ():
        if "@" in url.partition("://")[2].partition("/")[0]:
            what = "the url holds a login, which would be written into the run; put a key into the variable that "
            raise PydanticCustomError(HIDDEN, what + key_setting + " names")
    return value


class GenerateSettings(Strict):
    """How the teacher is sampled."""

    engine: Literal["local", "openai", "vllm", "batch", "imported"] = "local"
    """`local` runs the model in this process; `openai` asks the OpenAI-compatible servers at `url`; `vllm` starts the
    teacher's own servers by the section `serve`, asks those, and ends them; `batch` hands the
    requests to a provider's batch API there; `imported` samples nothing: the run's traces were imported, and every one
    of a question counts for it, whoever wrote it."""
    url: str | tuple[str, ...] | None = None
    """One server or several of the same model. By default the teacher's own, or those in RUN/endpoints.json."""
    endpoints: str | None = None
    """A JSON file of servers, read again whenever it changes (docs/generate.md)."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, by default the teacher's, else OPENAI_API_KEY; the key
    itself is never written down."""
    served_model: str | None = None
    """The model's name at the server, when it differs from the teacher's."""
    samples: int = Field(1, ge=1)
    """Samples per prompt."""
    sampling: SamplingSpec = SamplingSpec()
    """Overrides the teacher's own, setting by setting."""
    max_tokens: int | None = Field(None, gt=0)
    """Tokens per reply; by default the teacher's own."""
    concurrency: int = Field(64, ge=1)
    """Requests in flight at each server to begin with; for `local`, rows in a batch."""
    max_concurrency: int = Field(1_024, ge=1)
    """Requests in flight at each server at most: it is asked for more while it does not get slower by it."""
    max_attempts: int = Field(6, ge=1)
    """Tries per sample before its failure is recorded."""
    retry_failed: bool = False
    """Ask for samples that failed before, and for nothing else; of one start, so the run's recipe does not keep it."""
    request_timeout: float = Field(3_600.0, gt=0)
    """Seconds after which a request counts as failed, whatever else the server does. A reply comes as a whole: at
    25 tokens/s, 32,768 tokens take 22 minutes."""
    stall_timeout: float = Field(180.0, gt=0)
    """Seconds without any sign of progress from a server with requests in flight after which those are asked elsewhere:
    no reply, and no token where the server tells (vLLM's metrics do); of a streamed reply, no byte."""
    patience: float = Field(900.0, gt=0)
    """Seconds in which no server answered after which the run stops, to be gone on with later."""
    stream: bool = False
    """Take replies token by token: gateways that cut long silent requests need it; it costs both sides time."""
    slice_tokens: int | None = Field(None, ge=16)
    """Ask for long replies in slices of so many tokens, each durable before the next: a dead server costs one slice."""
    continue_truncated: bool = False
    """Go on with traces that were cut at an earlier, lower max_tokens."""
    until_correct: int | None = Field(None, ge=1)
    """Ask for further samples of a prompt, up to `samples`, only while fewer than so many of its answers are right."""
    shard: str | None = Field(None, pattern=r"^[1-9]\d*/[1-9]\d*$")
    """`I/N`: only the I-th of N parts of the prompts, so that several machines share them."""
    max_tokens_total: int | None = Field(None, ge=1)
    """Stop before the run has paid for more completion tokens than this."""
    max_cost: float | None = Field(None, gt=0)
    """Stop before the run has cost more than this, by the teacher's price."""
    max_hours: float | None = Field(None, gt=0)
    """Ask for nothing new after so many hours of one start; what is in flight may finish."""

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else self.url or ()

    @field_validator("url")
    @classmethod
    def _no_secret_in_url(cls, value: Urls) -> Urls:
        return without_login(value, "generate.api_key_env")

    @field_validator("shard")
    @classmethod
    def _shard_exists(cls, value: str | None) -> str | None:
        if value is not None and int(value.partition("/")[0]) > int(value.partition("/")[2]):
            raise ValueError("the shards of N are 1/N to N/N")
        return value

    @model_validator(mode="after")
    def _right_ones_within_samples(self) -> Self:
        if self.until_correct is not None and self.until_correct > self.samples:
            raise ValueError(f"until_correct {self.until_correct} needs as many samples; samples is {self.samples}")
        return self
