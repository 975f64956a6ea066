"""The records: reading with named errors, JSON and Arrow round trips, and the identity of a trace."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import InputError
from distill.records import (
    CodeTest,
    Message,
    Prompt,
    Record,
    Sampling,
    SamplingRecord,
    TeacherIdentity,
    Trace,
    Verdict,
    asked_hash,
    field_names,
    request_seed,
    storable,
    trace_key,
)

TEACHER = TeacherIdentity("deepseek-ai/DeepSeek-R1", "abc123", "fp8")
SAMPLING = Sampling(temperature=0.6, top_p=0.95, seed=7)
MESSAGES: list[Message] = [{"role": "user", "content": "What is 1+1?"}]


def trace(**changes: Any) -> Trace:
    values: dict[str, Any] = {
        "key": "0" * 64,
        "asked": "f" * 64,
        "prompt_id": "p1",
        "sample": 0,
        "raw": "<think>\nr\n</think>\n\n2",
        "finish_reason": "stop",
        "teacher": TEACHER,
        "sampling": SamplingRecord(SAMPLING),
    }
    return Trace(**{**values, **changes})


# --- round trips -----------------------------------------------------------------------------------------------------

texts = st.text(max_size=12)
whole = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
code_tests = st.builds(CodeTest, input=texts, output=texts, function=st.none() | texts)
prompts = st.builds(
    Prompt,
    question=texts.filter(str.strip),
    id=texts.filter(bool),
    kind=st.sampled_from(["math", "numeric", "choice", "code", "exact", "open"]),
    reasoning=st.sampled_from(["required", "optional", "none"]),
    answer=st.none() | texts,
    choices=st.none() | st.lists(texts, max_size=3).map(tuple),
    tests=st.none() | st.lists(code_tests, max_size=2).map(tuple),
    domain=st.none() | texts,
    source=st.none() | texts,
    license=st.none() | texts,
)
samplings = st.builds(
    Sampling,
    temperature=st.none() | numbers,
    top_p=st.none() | numbers,
    top_k=st.none() | whole,
    min_p=st.none() | numbers,
    presence_penalty=st.none() | numbers,
    frequency_penalty=st.none() | numbers,
    repetition_penalty=st.none() | numbers,
    seed=st.none() | whole,
)
traces = st.builds(
    Trace,
    key=texts,
    asked=texts,
    prompt_id=texts,
    sample=whole,
    raw=texts,
    finish_reason=st.sampled_from(["stop", "length", "loop", "error"]),
    teacher=st.builds(TeacherIdentity, texts, texts, st.none() | texts),
    sampling=st.builds(SamplingRecord, samplings, st.none() | samplings),
    revision=whole,
    raw_reasoning=st.none() | texts,
    reasoning=st.none() | texts,
    answer=st.none() | texts,
    fault=st.none() | texts,
    prompt_tokens=st.none() | whole,
    completion_tokens=st.none() | whole,
    reasoning_tokens=st.none() | whole,
    max_tokens=st.none() | whole,
    seed=st.none() | whole,
    endpoint=st.none() | texts,
    attempts=whole,
    error=st.none() | texts,
    created=texts,
)
verdicts = st.builds(
    Verdict,
    trace_key=texts,
    content_hash=texts,
    check=texts,
    outcome=st.sampled_from(["pass", "fail", "abstain"]),
    reason=texts,
    score=st.none() | numbers,
)


@pytest.mark.parametrize("records", [prompts, traces, verdicts], ids=["prompt", "trace", "verdict"])
def test_json_and_arrow_give_back_the_same_record(records: st.SearchStrategy[Record]) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(records, min_size=1, max_size=4))
    def round_trip(batch: list[Record]) -> None:
        kind = type(batch[0])
        assert [kind.from_json(json.loads(json.dumps(record.to_json()))) for record in batch] == batch
        table = kind.table(batch)
        assert table.schema == kind.schema()
        assert [kind.from_json(row) for row in table.to_pylist()] == batch

    round_trip()


def test_schemas_have_a_column_per_field_in_order() -> None:
    for kind in (Prompt, Trace, Verdict):
        assert kind.schema().names == field_names(kind) == [f.name for f in dataclasses.fields(kind)]
    assert str(Trace.schema().field("teacher").type) == "struct<model: string, revision: string, quantization: string>"
    assert str(Prompt.schema().field("choices").type) == "list<item: string>"


# --- reading what others wrote ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "anwser": "2"}, r"a prompt has no field 'anwser'; did you mean 'answer'\?"),
        ({"answer": "2"}, "a prompt needs the field 'question'"),
        ({"question": " \n"}, "field 'question' is empty"),
        ({"question": 5}, "field 'question' must be str"),
        ({"question": None}, "field 'question' must be str"),
        ({"question": "q", "answer": 5}, "field 'answer' must be str or null"),
        ({"question": "q", "kind": "maths"}, "field 'kind' must be one of math, numeric, choice, code, exact, open"),
        ({"question": "q", "kind": ["math"]}, "field 'kind' must be one of"),
        ({"question": "q", "choices": "ab"}, "field 'choices' must be"),
        ({"question": "q", "choices": ["a", 1]}, "field 'choices' must be str"),
        ({"question": "q", "tests": [{"input": "1"}]}, "a codetest needs the field 'output'"),
        ({"question": "q", "tests": ["1"]}, "field 'tests' must be CodeTest"),
        ({"question": "half \ud83e"}, "field 'question' holds half a surrogate pair"),
        ({"question": "q", "choices": ["\udc00"]}, "field 'choices' holds half a surrogate pair"),
    ],
)
def test_a_row_that_is_no_prompt_names_the_field(row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Prompt.from_json(row)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample": "0"}, "field 'sample' must be int"),
        ({"sample": True}, "field 'sample' must be int"),
        ({"sample": 0.0}, "field 'sample' must be int"),
        ({"seed": 2**63}, "field 'seed' does not fit in 64 bits"),
        ({"finish_reason": "tool_calls"}, "field 'finish_reason' must be one of stop, length, loop, error"),
        ({"teacher": "R1"}, "field 'teacher' must be TeacherIdentity"),
        ({"teacher": {"model": "m"}}, "a teacheridentity needs the field 'revision'"),
        ({"teacher": {"model": "m", "revision": "r", "url": "http://x"}}, "a teacheridentity has no field 'url'"),
        ({"sampling": {"requested": {"temperatur": 1.0}}}, "no field 'temperatur'; did you mean 'temperature'"),
        ({"sampling": {"requested": {"temperature": "hot"}}}, "field 'temperature' must be float or null"),
        ({"sampling": {"requested": {"temperature": True}}}, "field 'temperature' must be float or null"),
        ({"sampling": {"requested": {"temperature": float("nan")}}}, "field 'temperature' must be a finite number"),
        ({"sampling": {"requested": {"top_p": float("inf")}}}, "field 'top_p' must be a finite number"),
        ({"sampling": {"requested": {"top_p": 10**400}}}, "field 'top_p' does not fit in 64 bits"),
        ({"raw": "\ud800"}, "field 'raw' holds half a surrogate pair"),
    ],
)
def test_a_row_that_is_no_trace_names_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Trace.from_json({**trace().to_json(), **changes})


def test_a_field_left_out_takes_its_default() -> None:
    row = trace().to_json()
    for name in ("revision", "attempts", "error", "created", "raw_reasoning"):
        del row[name]
    assert Trace.from_json(row) == trace()


def test_a_prompt_without_id_gets_one_from_question_and_choices() -> None:
    ids = [Prompt("q").id, Prompt("q", choices=("a", "b")).id, Prompt("q", choices=("b", "a")).id, Prompt("q2").id]
    assert len(set(ids)) == 4
    assert ids[0] == "aa1db869ac666ce9"
    assert Prompt("q", answer="1", kind="math").id == ids[0]
    assert Prompt("q", id="mine").id == "mine"


def test_storable_replaces_lone_surrogates_and_nothing_else() -> None:
    assert storable("a\ud800b\udfffc 🧮 \ufffd \x00") == "a\ufffdb\ufffdc 🧮 \ufffd \x00"


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(codec=None), max_size=20))
def test_what_storable_returns_is_stored_unchanged(text: str) -> None:
    clean = storable(text)
    assert clean.encode("utf-8").decode("utf-8") == clean
    assert len(clean) == len(text)
    assert Trace.from_json(trace(raw=clean).to_json()).raw == clean


# --- the identity of a trace -----------------------------------------------------------------------------------------


def key(**changes: Any) -> str:
    values: dict[str, Any] = {
        "messages": MESSAGES,
        "forced_prefix": "<think>\n",
        "sample": 0,
        "teacher": TEACHER,
        "sampling": SAMPLING,
    }
    values.update(changes)
    asked = asked_hash(values.pop("messages"), values.pop("forced_prefix"))
    return trace_key(asked, **values)


def test_the_key_is_pinned() -> None:
    """A change here makes every trace of every earlier run another one, to be bought again. Never change it."""
    assert TEACHER.fingerprint == "8485468bf873cae7"
    assert SAMPLING.fingerprint == "2db5060d18165355"
    assert key() == "c8d6d8f62e3536005b73345abb0e49641f321e3c0084ff0d0ba35736b2dec42e"


def test_the_key_changes_with_all_that_decides_the_sample() -> None:
    edited = [{"role": "user", "content": "What is 1+1 ?"}]
    others = {
        "question": key(messages=edited),
        "system": key(messages=[{"role": "system", "content": "s"}, *MESSAGES]),
        "role": key(messages=[{"role": "system", "content": "What is 1+1?"}]),
        "prefix": key(forced_prefix=""),
        "sample": key(sample=1),
        "model": key(teacher=dataclasses.replace(TEACHER, model="deepseek-ai/DeepSeek-R1-0528")),
        "revision": key(teacher=dataclasses.replace(TEACHER, revision="abc124")),
        "quantization": key(teacher=dataclasses.replace(TEACHER, quantization="nvfp4")),
        "no quantization": key(teacher=dataclasses.replace(TEACHER, quantization=None)),
    }
    for name in field_names(Sampling):
        value: Any = 3 if name in ("top_k", "seed") else 0.25
        others[name] = key(sampling=dataclasses.replace(SAMPLING, **{name: value}))
        if getattr(SAMPLING, name) is not None:
            others[f"no {name}"] = key(sampling=dataclasses.replace(SAMPLING, **{name: None}))
    others["base"] = key()
    assert len(set(others.values())) == len(others), others


def test_no_two_fields_can_stand_for_each_other() -> None:
    assert key(forced_prefix="a") != key(messages=[*MESSAGES, {"role": "a", "content": ""}], forced_prefix="")
    one, other = TeacherIdentity("a", "b", "c"), TeacherIdentity("a", "bc")
    assert one.fingerprint != other.fingerprint
    assert Sampling(top_p=0.5).fingerprint != Sampling(min_p=0.5).fingerprint


def test_the_key_ignores_what_does_not_decide_the_sample() -> None:
    """The prompt's id, its gold answer, order of a message's keys: none of them is asked of the teacher."""
    assert key(messages=[{"content": "What is 1+1?", "role": "user"}]) == key()
    assert "prompt" not in trace_key.__annotations__
    assert set(trace_key.__annotations__) == {"asked", "sample", "teacher", "sampling", "return"}


def test_whole_numbers_are_the_same_sampling_as_their_floats() -> None:
    assert Sampling(temperature=1, top_p=1) == Sampling(temperature=1.0, top_p=1.0)
    assert Sampling(temperature=1, top_p=1).fingerprint == Sampling(temperature=1.0, top_p=1.0).fingerprint
    assert Sampling(temperature=0).fingerprint == Sampling.from_json({"temperature": 0}).fingerprint
    assert isinstance(Sampling(top_k=20).top_k, int)


@dataclass(frozen=True, slots=True)
class LaterSampling(Sampling):
    """Sampling as a later version might have it, with one more setting."""

    typical_p: float | None = None


@dataclass(frozen=True, slots=True)
class LaterTeacher(TeacherIdentity):
    adapter: str | None = None


def test_a_field_of_a_later_version_leaves_earlier_identities_alone() -> None:
    assert LaterSampling(temperature=0.6, top_p=0.95, seed=7).fingerprint == SAMPLING.fingerprint
    assert LaterSampling(temperature=0.6, typical_p=0.5).fingerprint != Sampling(temperature=0.6).fingerprint
    assert LaterTeacher(TEACHER.model, TEACHER.revision, TEACHER.quantization).fingerprint == TEACHER.fingerprint
    assert LaterTeacher("m", "r", adapter="a").fingerprint != TeacherIdentity("m", "r").fingerprint


def test_request_seeds_follow_key_and_base_seed() -> None:
    seeds = {
        request_seed(dataclasses.replace(SAMPLING, seed=base), key(sample=n)) for base in (0, 1) for n in range(50)
    }
    assert len(seeds) == 100
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)
    assert request_seed(SAMPLING, key()) == 1815983982
    assert request_seed(dataclasses.replace(SAMPLING, seed=None), key()) is None


def test_verdicts_expire_with_the_content() -> None:
    base = trace(reasoning="r", answer="2")
    others = {
        name: trace(**{"reasoning": "r", "answer": "2", name: value}).content_hash
        for name, value in {
            "raw": "other",
            "raw_reasoning": "other",
            "reasoning": "other",
            "answer": "other",
            "fault": "leaked_tag",
            "finish_reason": "length",
        }.items()
    }
    assert len({*others.values(), base.content_hash}) == 7, others
    assert dataclasses.replace(base, reasoning="2", answer="r").content_hash != base.content_hash
    same = dataclasses.replace(
        base, key="1" * 64, prompt_id="p2", revision=3, attempts=2, created="later", endpoint="b"
    )
    assert same.content_hash == base.content_hash
