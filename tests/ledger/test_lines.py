"""Lines of a segment: checksummed, strict about what they hold, and turned into a table without loss."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_material import trace

from distill.errors import InputError, RunError
from distill.ledger import Ledger, LedgerReader, decode_line, encode_line, lines
from distill.ledger.lines import encode_trace, read_line, rows_table
from distill.records import Sampling, SamplingRecord, TeacherIdentity, Trace

BAD: dict[str, dict[str, Any]] = {
    "surrogate": {"raw": "half a pair \ud83e"},
    "surrogate inside": {"teacher": TeacherIdentity("m \udc00", "r")},
    "finish_reason": {"finish_reason": "content_filter"},
    "64 bits": {"revision": 2**63},
    "negative 64 bits": {"seed": -(2**63) - 1},
    "NaN": {"sampling": SamplingRecord(Sampling(temperature=float("nan")))},
    "infinite": {"sampling": SamplingRecord(Sampling(top_p=0.5), Sampling(top_p=float("inf")))},
    "text for a number": {"completion_tokens": "7"},
    "float for a number": {"completion_tokens": 7.0},
    "bool for a number": {"completion_tokens": True},
    "number for a text": {"answer": 42},
    "bytes for a text": {"raw": b"x"},
    "null": {"key": None},
    "no token id": {"output_ids": (1, "2")},
    "a bool among the ids": {"output_ids": (True,)},
    "no record": {"teacher": None},
    "another record": {"sampling": Sampling()},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_record_that_could_not_be_sealed_is_refused_at_the_door(tmp_path: Path, change: dict[str, Any]) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append(trace("a"))
        with pytest.raises(InputError, match=r"field '|needs the field"):
            ledger.append(replace(trace("x"), **change))
        ledger.append(trace("b"))
    assert [record.key for record in LedgerReader(tmp_path).traces()] == ["a", "b"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(json_values, st.data())
def test_lines_round_trip_and_notice_any_change(value: Any, data: st.DataObject) -> None:
    line = encode_line(value)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert decode_line(line) == value
    position = data.draw(st.integers(9, len(line) - 1))
    altered = bytearray(line)
    altered[position] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(altered), line[:position], line[position:]):
        with pytest.raises(ValueError, match=r"checksum|literal|int\(\)"):
            decode_line(damaged)


texts = st.text(max_size=12) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
sampled = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2) | st.integers(0, 2),
    top_k=st.none() | st.integers(-(2**63), 2**63 - 1),
    seed=st.none() | st.integers(),
)
traces = st.builds(
    Trace,
    key=texts,
    asked=texts,
    prompt_id=texts,
    sample=st.integers(-(2**64), 2**64),
    raw=texts,
    finish_reason=st.sampled_from(["stop", "length", "loop", "error", "other"]),
    teacher=st.builds(TeacherIdentity, texts, texts, st.none() | texts),
    sampling=st.builds(SamplingRecord, sampled, st.none() | sampled),
    raw_reasoning=st.none() | texts,
    completion_tokens=st.none() | st.integers(0, 9) | st.floats() | st.booleans() | texts,
    output_ids=st.none() | st.lists(st.integers(-2, 2**31) | st.booleans(), max_size=3).map(tuple),
    prompt_ids=st.none() | st.lists(st.integers(0, 5), max_size=3),
)


@settings(max_examples=200, deadline=None)
@given(traces)
def test_the_fast_way_takes_what_the_exact_way_takes_and_writes_the_same(record: Trace) -> None:
    """Whatever the fields hold: the line, or the refusal, is that of the JSON read back, and so is the sealed row."""
    try:
        exact = Trace.from_json(record.to_json())
    except InputError as refused:
        with pytest.raises(InputError, match=re.escape(str(refused))):
            encode_trace(record)
        return
    line = encode_trace(record)
    assert line == encode_line(record.to_json())
    assert read_line(line, "a segment") == exact
    (row,) = rows_table([line], "a segment").to_pylist()
    assert Trace.from_json(row) == exact


def test_a_table_of_lines_is_made_without_looking_at_rows_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow parses the lines; fields left out, as by an older version, get their default."""
    whole = replace(trace(1, raw="null \0, newline \n, 思考, 😀, \u2028"), output_ids=(1, 2), prompt_ids=())
    short = {name: value for name, value in trace(2).to_json().items() if value is not None}
    del short["attempts"], short["revision"], short["created"]
    monkeypatch.setattr(lines, "read_line", None)
    table = rows_table([encode_trace(whole), encode_line(short)], "a segment")
    assert table.schema.equals(Trace.schema())
    assert [Trace.from_json(row) for row in table.to_pylist()] == [whole, trace(2)]


@pytest.mark.parametrize(
    "change",
    [
        {"logprobs": [0.5]},
        {"finish_reason": "content_filter"},
        {"key": None},
        {"revision": 1.5},
        {"teacher": {"model": "m", "revision": None}},
        {"teacher": {"model": "m", "revision": "r", "host": "h"}},
        {"sampling": {"requested": None}},
    ],
    ids=str,
)
def test_a_table_is_refused_for_a_row_of_an_unknown_form(change: dict[str, Any]) -> None:
    lines = [encode_trace(trace(1)), encode_line({**trace(2).to_json(), **change})]
    with pytest.raises(RunError, match="this version of distill cannot read") as caught:
        rows_table(lines, "open-00007.log")
    assert "open-00007.log" in str(caught.value)
