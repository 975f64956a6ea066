"""Settings of the filter: of each check, with the source of every threshold; what is kept; what of that is chosen.

Knows no trace and no check.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from distill.errors import near
from distill.judge_specs import JudgeSettings
from distill.keep_rule import ALWAYS, Rule, rule_of
from distill.strict import Strict

OF_ONE_TRACE = ("language", "loop", "paragraphs", "code_in_reasoning", "answer_present", "refusal", "secrets")
"""Checks that look at one trace and have settings of their own name, made unless `checks` leaves them out."""
ON_DEMAND = ("length", "score", "majority", "judge")
"""Checks that are made when they are named, or (majority aside) when their settings say something."""
DEFAULT_CHECKS = (*ALWAYS, "correct", *OF_ONE_TRACE, "duplicate", "near_duplicate", "contaminated")
CHECKS = (*DEFAULT_CHECKS, *ON_DEMAND)
"""Names of all checks; a test holds them equal to those that there are."""


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


class MajoritySettings(Strict):
    """When what most samples answer counts as the answer. NeMo-Skills' recipe for problems without one takes the most
    frequent answer of 16 samples however few agree; the share that agrees tells how likely it is right
    (self-consistency, arXiv 2203.11171), so here some have to."""

    share: float = Field(0.5, ge=0.5, lt=1)
    """More than this share of all samples, also of those without an answer, has to agree. From one half on there can
    be no second answer with as many votes."""
    votes: int = Field(3, ge=2)
    """As many samples have to agree: two may do so by chance, as with two choices or a small number."""


class SelectSettings(Strict):
    """Which of the traces that the keep rule lets through are trained on."""

    per_prompt: int | None = Field(None, ge=1)
    """At most so many traces of one prompt."""
    prefer: Literal["first", "short", "long", "diverse"] = "first"
    """Which of a prompt's traces come first: by sample number, by length in tokens, or each the least like those before
    it. s1 prefers long ones (arXiv 2501.19393, section 2.2)."""
    difficulty: tuple[float, float] | None = None
    """Least and highest share of right answers that a prompt may have: open-r1 takes what lies between 0.1 and 0.9. A
    prompt of which nothing could be judged is outside."""
    domains: dict[str, int] = {}
    """Domain → how many traces at most; `*` stands for all that are not named. R1 took 600,000 reasoning and 200,000
    other ones (arXiv 2501.12948, section 2.3.3)."""

    @model_validator(mode="after")
    def _band(self) -> Self:
        if self.difficulty is not None and not 0 <= self.difficulty[0] <= self.difficulty[1] <= 1:
            raise ValueError("difficulty is a band of shares such as [0.1, 0.9], the lower end first")
        lowest = min(self.domains.values(), default=0)
        if lowest < 0:
            raise ValueError("domains: a count of traces is no negative number")
        return self


class FilterSettings(Strict):
    """Which checks run and what their verdicts mean for training."""

    checks: tuple[str, ...] = DEFAULT_CHECKS
    """`finished` and `think_format` are made whatever is said here; `length`, `score` and `judge` also where their
    settings say something."""
    keep: str | tuple[str, ...] = "verified"
    """`verified`: right, or right by the judge where the verifier could not tell, and nothing else against it. `all`:
    whole and well-formed, right or wrong. A list of checks that have to pass. Or an expression over checks, such as
    `(correct or judge) and not loop.fail`."""
    heldout: float = Field(0.02, ge=0, lt=1)
    """Share of the prompts whose kept traces measure the loss instead of lowering it."""
    select: SelectSettings = SelectSettings()
    language: LanguageSettings = LanguageSettings()
    loop: LoopSettings = LoopSettings()
    paragraphs: ParagraphSettings = ParagraphSettings()
    code_in_reasoning: CodeSettings = CodeSettings()
    answer_present: AnswerSettings = AnswerSettings()
    refusal: RefusalSettings = RefusalSettings()
    secrets: SecretSettings = SecretSettings()
    length: LengthSettings = LengthSettings()
    score: ScoreSettings = ScoreSettings()
    majority: MajoritySettings = MajoritySettings()
    judge: JudgeSettings = JudgeSettings()
    across_prompts: bool = False
    """Whether traces of different prompts may be near-duplicates of each other; prompts that repeat each other are left
    out before sampling."""
    engine: Literal["local", "ray"] = "local"
    """Where checks run: on this machine, or on a Ray cluster."""
    workers: int | None = Field(None, ge=1)
    """Processes that check; by default one for each core."""
    ray_address: str | None = None
    """Of the cluster, such as `auto` or `ray://head:10001`; by default a new one on this machine."""

    @field_validator("checks", mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        """`math` is what runs of version 0.1 call the check `correct`."""
        return ["correct" if name == "math" else name for name in value] if isinstance(value, list | tuple) else value

    @field_validator("keep", mode="before")
    @classmethod
    def _keep_renamed(cls, value: Any) -> Any:
        return cls._renamed(value) if isinstance(value, list | tuple) else value

    @field_validator("checks")
    @classmethod
    def _known_checks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in CHECKS:
                raise ValueError(f"unknown check '{name}'{near(name, list(CHECKS))}; known: {', '.join(CHECKS)}")
        return tuple(dict.fromkeys((*ALWAYS, *value)))

    @property
    def _implied(self) -> dict[str, bool]:
        """Check → whether its settings say something."""
        return {
            "length": self.length.min_tokens is not None or self.length.max_tokens is not None,
            "score": self.score.scores is not None,
            "judge": self.judge.teacher is not None,
        }

    @property
    def made(self) -> tuple[str, ...]:
        """The checks that are made: those that are named, and those whose settings say something."""
        implied = (name for name, wanted in self._implied.items() if wanted)
        return tuple(dict.fromkeys((*self.checks, *implied)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        needs = {"score": "filter.score.scores", "judge": "filter.judge.teacher"}
        for name, setting in needs.items():
            if name in self.checks and not self._implied[name]:
                raise ValueError(f"checks names {name}, which needs {setting}: set it, or leave {name} out")
        rule_of(self.keep, self.made)
        return self

    @property
    def rule(self) -> Rule:
        return rule_of(self.keep, self.made)
