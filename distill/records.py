"""Prompt, Trace, Verdict: the three records of a run, frozen and typed, to and from JSON and Arrow.

Also the identity of a trace (its key). Knows nothing about files, models or recipes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, get_args, get_origin

from distill.errors import InputError, near
from distill.files import sha256_of

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["math", "numeric", "choice", "code", "exact", "open"]
Reasoning = Literal["required", "optional", "none"]
FinishReason = Literal["stop", "length", "loop", "error"]
Result = Literal["pass", "fail", "abstain"]

KEPT = "kept"
"""The check under which verdicts say of each trace whether it is trained on, and if not, why."""
Message = dict[str, str]
"""A chat message: `role` and `content`."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def storable(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 and Parquet cannot hold, replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


class Record:
    """Conversion shared by the records: plain JSON objects and rows of an Arrow table with a fixed schema."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """The same as dataclasses.asdict, which copies every text deeply and takes most of an import's time."""
        return {name: _plain(getattr(self, name)) for name in _hints(type(self))}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Raises InputError for unknown and missing fields and wrong types, naming the field."""
        kind: type = cls
        hints, quick = _hints(kind), _quick(kind)
        values = {}
        for name, value in row.items():
            if name not in hints:
                raise InputError(f"a {cls.__name__.lower()} has no field '{name}'{near(name, list(hints))}")
            text, optional = quick[name]
            if (value is None and optional) or (text and type(value) is str and value.isascii()):
                values[name] = value  # most are as they should be, and there are millions
            else:
                values[name] = _read(hints[name], value, name)
        for name in _required(kind):
            if name not in values:
                given = f"fields {', '.join(row) or 'none'}"
                raise InputError(f"a {cls.__name__.lower()} needs the field '{name}'", given=given)
        return cls(**values)

    @classmethod
    def schema(cls) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([(name, _arrow(hint)) for name, hint in _hints(cls).items()])

    @classmethod
    def table(cls, records: Iterable[Record]) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_pylist([record.to_json() for record in records], schema=cls.schema())


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, tuple) and value and not isinstance(value[0], int):  # token ids are plain, and many
        return tuple(map(_plain, value))
    return value


def field_names(cls: type[Record]) -> list[str]:
    """The fields of a record class in their order."""
    return list(_hints(cls))


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    """Field → type of a record class, resolved once."""
    if cls not in _HINTS:
        hints = typing.get_type_hints(cls)
        _HINTS[cls] = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    return _HINTS[cls]


@functools.cache
def _required(cls: type) -> tuple[str, ...]:
    """The fields without a default."""
    fields = dataclasses.fields(cls)
    return tuple(f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING)


@functools.cache
def _quick(cls: type) -> dict[str, tuple[bool, bool]]:
    """Field → whether any text of ASCII is as it should be, and whether it may be null."""
    read = {name: _optional(hint) for name, hint in _hints(cls).items()}
    return {name: (inner is str, optional) for name, (inner, optional) in read.items()}


@functools.cache
def _optional(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (types.UnionType, typing.Union):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        return inner, True
    return hint, False


def _read(hint: Any, value: Any, name: str) -> Any:
    inner, optional = _optional(hint)
    if value is None and optional:
        return None
    origin = get_origin(inner)
    if origin is Literal:
        if value in get_args(inner):
            return value
        raise InputError(f"field '{name}' must be one of {', '.join(get_args(inner))}", given=repr(value)[:80])
    if origin is tuple and isinstance(value, list | tuple):
        item_hint = get_args(inner)[0]
        if item_hint is int and all(type(item) is int and 0 <= item < 2**31 for item in value):
            return tuple(value)  # token ids, of which there are tens of thousands
        return tuple(_read(item_hint, item, name) for item in value)
    if dataclasses.is_dataclass(inner) and isinstance(value, Mapping):
        return typing.cast(type[Record], inner).from_json(value)
    if inner is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(_kept(value, name))
    if isinstance(inner, type) and isinstance(value, inner) and not (inner is int and isinstance(value, bool)):
        return _kept(value, name)
    wanted = getattr(inner, "__name__", str(inner))
    raise InputError(f"field '{name}' must be {wanted}{' or null' if optional else ''}", given=repr(value)[:80])


def _kept(value: Any, name: str) -> Any:
    """`value` if JSON and Parquet can both keep it: what got past here must never fail a writer later."""
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise InputError(f"field '{name}' holds half a surrogate pair, which is no text", given=ascii(value)[:80])
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"field '{name}' does not fit in 64 bits", given=repr(value)[:80])
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"field '{name}' must be a finite number", given=repr(value))
    return value


def _arrow(hint: Any) -> Any:
    import pyarrow as pa

    inner, _ = _optional(hint)
    if get_origin(inner) is Literal:
        return pa.string()
    if get_origin(inner) is tuple:
        return pa.list_(_arrow(get_args(inner)[0]))
    if dataclasses.is_dataclass(inner):
        return pa.struct([(name, _arrow(h)) for name, h in _hints(typing.cast(type, inner)).items()])
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[inner]


@dataclass(frozen=True, slots=True)
class CodeTest(Record):
    """One test of a program: text on stdin and the expected stdout, or a call and its expected result as literals."""

    input: str
    output: str
    function: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt(Record):
    """One question. `answer` is the gold answer, None where there is none; `source` names the spec or file."""

    question: str
    id: str = ""
    kind: Kind = "open"
    reasoning: Reasoning = "required"
    answer: str | None = None
    choices: tuple[str, ...] | None = None
    tests: tuple[CodeTest, ...] | None = None
    domain: str | None = None
    source: str | None = None
    license: str | None = None
    language: str | None = None
    """Language of the question, as an ISO 639-1 code."""
    difficulty: str | None = None
    """As the source grades it: a level, a rating or a solve rate."""
    solution: str | None = None
    """A program known to be right, for a prompt of kind code: it has to pass the tests."""
    repeats: int | None = None
    """How many times the recipe's samples are wanted of this prompt; None is once."""
    marks: tuple[str, ...] | None = None
    """What makes the question hard to verify, such as `multi_part`; None before anyone looked."""

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise InputError("field 'question' is empty")
        if not self.id:
            object.__setattr__(self, "id", sha256_of([self.question, list(self.choices or ())])[:16])

    @property
    def text(self) -> str:
        """What is asked: the question, and its choices by letter, one a line."""
        lettered = [f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(self.choices or ())]
        return "\n\n".join([self.question, "\n".join(lettered)]) if lettered else self.question


@dataclass(frozen=True, slots=True)
class Sampling(Record):
    """What decides the distribution a sample is drawn from; None leaves the server's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    """The base seed; each request derives its own from it and the trace's key."""

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            if float in get_args(hint) and isinstance(value, int):  # 1 and 1.0 are one temperature, and one identity
                object.__setattr__(self, name, float(value))

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self)


@dataclass(frozen=True, slots=True)
class SamplingRecord(Record):
    """What was asked for and what the endpoint honoured, None where the endpoint does not tell."""

    requested: Sampling
    honoured: Sampling | None = None


@dataclass(frozen=True, slots=True)
class TeacherIdentity(Record):
    """Who answered: the model, its revision and its quantization; never the address it answered at."""

    model: str
    revision: str
    quantization: str | None = None

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self)


@dataclass(frozen=True, slots=True)
class Trace(Record):
    """One sampled reply. `raw` is the reply's text as received, `raw_reasoning` its separate reasoning field if the
    endpoint returns one; `reasoning` and `answer` are derived from both and can be derived again."""

    key: str
    asked: str
    """Hash of what was asked, `asked_hash`: leads back to the prompt even when its id is used for another question."""
    prompt_id: str
    sample: int
    raw: str
    finish_reason: FinishReason
    teacher: TeacherIdentity
    sampling: SamplingRecord
    revision: int = 0
    raw_reasoning: str | None = None
    reasoning: str | None = None
    answer: str | None = None
    fault: str | None = None
    """What the contract found wrong with the reply's form, such as `missing_close`; None for a clean one."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    max_tokens: int | None = None
    """Tokens that the reply was allowed in all; no part of the identity."""
    seed: int | None = None
    endpoint: str | None = None
    attempts: int = 1
    error: str | None = None
    created: str = field(default="")
    prompt_ids: tuple[int, ...] | None = None
    """Token ids of the rendered prompt, forced prefix included; kept with `output_ids` while the trace is cut but
    its context is not full, where the endpoint tells them, so that it can go on without its text tokenized anew."""
    output_ids: tuple[int, ...] | None = None
    """Token ids of the reply so far."""

    @property
    def unfinished(self) -> bool:
        """Whether it stopped at the end of a slice, and not at the limit that was set for the whole reply."""
        tokens, limit = self.completion_tokens, self.max_tokens
        return self.can_go_on and tokens is not None and limit is not None and tokens < limit

    @property
    def can_go_on(self) -> bool:
        """Whether it was cut where its context had room left, and its token ids are known."""
        return self.finish_reason == "length" and self.prompt_ids is not None and self.output_ids is not None

    @property
    def content_hash(self) -> str:
        """What verdicts belong to: a change of the text, its parts or its ending makes it another content."""
        parts = [self.raw, self.raw_reasoning, self.reasoning, self.answer, self.fault, self.finish_reason]
        return sha256_of(parts)[:32]


@functools.lru_cache(maxsize=256)
def _fingerprint(record: Record) -> str:
    """Over the fields that are set: a field added in a later version leaves earlier fingerprints as they are."""
    return sha256_of({name: value for name, value in record.to_json().items() if value is not None})[:16]


def asked_hash(messages: list[Message], forced_prefix: str) -> str:
    """Hex sha256 of what was asked: the messages and the prefix that the reply had to continue."""
    return sha256_of({"messages": messages, "forced_prefix": forced_prefix})


def trace_key(asked: str, sample: int, teacher: TeacherIdentity, sampling: Sampling) -> str:
    """Hex sha256 that identifies one paid sample: what was asked, which sample, who answered, how it was drawn.

    Left out on purpose: the prompt's id, max_tokens, concurrency, n and any address, none of which changes the
    distribution that the sample comes from.
    """
    # the canonical JSON of the four, written here: a run of 800,000 asks for it often
    text = f'["{asked}",{sample},"{teacher.fingerprint}","{sampling.fingerprint}"]'
    return hashlib.sha256(text.encode()).hexdigest()


def request_seed(sampling: Sampling, key: str, *, after: int = 0, again: int = 0) -> int | None:
    """The seed of one request (31 bits, which every server takes), or None when the sampling has no base seed.

    `after` counts the tokens that a continued reply has already: each slice draws numbers of its own. `again` counts
    earlier replies to the same request that were failures: asked for with the same seed they would come back.
    """
    if sampling.seed is None:
        return None
    drawn_by = f'[{sampling.seed},"{key}"' + (f",{after},{again}]" if after or again else "]")
    return int(hashlib.sha256(drawn_by.encode()).hexdigest()[:8], 16) & 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Verdict(Record):
    """The outcome of one check on one content: `reason` is a short fixed name, empty when it passed plainly; `detail`
    is what a person would want to see, such as the problem that a contaminated trace holds."""

    trace_key: str
    content_hash: str
    check: str
    outcome: Result
    reason: str = ""
    score: float | None = None
    detail: str = ""
