"""Every published layout: recognised by its columns, read to exactly what its rows hold, refused row by row."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError, UsageError
from distill.exchange.foreign import Imported, UnreadableRow, conversation
from distill.exchange.layouts import LAYOUTS, detect, items, named
from distill.prompts.rows import rows
from exchange.material import EXPECTED, FIXTURES, SCHEMAS, SETS, as_parquet, leaves


def test_the_fixtures_are_what_their_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("make_traces", FIXTURES / "make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert {path.name: path.read_text(encoding="utf-8") for path in FIXTURES.glob("*.json*")} == make.files()


def test_every_layout_has_a_fixture_but_our_own() -> None:
    assert {layout.name for layout in LAYOUTS} - set(SETS) == {"distill"}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_recognised_by_its_columns(name: str) -> None:
    place = FIXTURES / f"{name}.jsonl"
    found = [row for _, row in rows(place)]
    assert detect(found[:20], str(place)).name == name
    assert len(found) >= 20


@pytest.mark.parametrize("name", SETS)
def test_every_trace_of_a_set_is_read_and_every_other_row_named(name: str) -> None:
    layout, traces, unreadable = named(name), [], []
    for number, row in rows(FIXTURES / f"{name}.jsonl"):
        for place, item in enumerate(items(layout, row)):
            if isinstance(item, UnreadableRow):
                unreadable.append([number, place, item.reason])
                continue
            assert isinstance(item, Imported)
            assert item.raw in leaves(row), "the text as it stands in the set"
            if not item.tools:
                traces.append((number, place, item))
            else:
                unreadable.append([number, place, "tool_output"])
    assert unreadable == EXPECTED[name]["unreadable"]
    told = {(entry["row"], entry["item"]): entry for entry in EXPECTED[name]["traces"]}
    for number, place, item in traces:
        if (number, place) in told:  # the one row that is another's copy is told of once
            expected = told.pop((number, place))
            assert item.prompt.question == expected["question"]
            assert item.prompt.kind == expected["kind"]
            assert (item.teacher or "unknown") == expected["teacher"]
    assert not told


@pytest.mark.parametrize(
    ("name", "row", "field", "value"),
    [
        ("openr1-math", 1, "source", "openr1-math"),
        ("openr1-math", 1, "license", "apache-2.0"),
        ("openthoughts-114k", 4, "domain", None),
        ("openthoughts-114k", 2, "domain", "code"),
        ("openthoughts-114k", 3, "domain", "math"),
        ("bespoke-stratos", 1, "source", "bespoke-stratos-17k"),
        ("openthoughts3", 1, "difficulty", None),
        ("openthoughts3", 7, "difficulty", "8"),
        ("mixture-of-thoughts", 1, "domain", "science"),
        ("mixture-of-thoughts", 2, "domain", "math"),
        ("mixture-of-thoughts", 3, "domain", "code"),
        ("mixture-of-thoughts", 3, "license", None),
        ("am-deepseek-r1-distilled", 1, "license", "cc-by-nc-4.0"),
        ("openmathreasoning", 1, "difficulty", "0.5"),
        ("openmathreasoning", 2, "difficulty", None),
        ("messages", 13, "license", "mit"),
        ("messages", 1, "reasoning", "optional"),
        ("sharegpt", 1, "reasoning", "optional"),
        ("openthoughts2", 1, "reasoning", "required"),
    ],
)
def test_what_a_set_tells_of_a_question(name: str, row: int, field: str, value: str | None) -> None:
    found = dict(rows(FIXTURES / f"{name}.jsonl"))[row]
    item = items(named(name), found)[0]
    assert isinstance(item, Imported)
    assert getattr(item.prompt, field) == value


def test_sampling_is_recorded_where_a_set_tells_it() -> None:
    item = items(named("openr1-math"), dict(rows(FIXTURES / "openr1-math.jsonl"))[1])[0]
    assert isinstance(item, Imported)
    assert (item.sampling.temperature, item.sampling.top_p) == (0.6, 0.95)


def test_a_system_prompt_is_kept_apart_from_the_question() -> None:
    turns = [{"from": "system", "value": "Two."}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    assert conversation(turns, "One.").system == "One.\n\nTwo."
    assert conversation(turns[1:], "").system is None
    assert conversation(turns[1:], float("nan")).question == "Q"


# --- recognising --------------------------------------------------------------------------------------------------


def test_columns_of_no_known_set_are_named() -> None:
    with pytest.raises(InputError) as caught:
        detect([{"prompt_text": "a", "reply_text": "b"}, {"score": 1}], "mine.jsonl")
    assert "prompt_text, reply_text, score" in str(caught.value)
    assert "openr1-math" in str(caught.value)


def test_two_sets_of_the_same_columns_are_told_apart_by_their_address() -> None:
    head = [row for _, row in rows(FIXTURES / "bespoke-stratos.jsonl")]
    assert detect(head, "hf://datasets/bespokelabs/Bespoke-Stratos-17k@1/data/train.parquet").name == "bespoke-stratos"
    assert detect(head, "/data/OpenThoughts-114k/data/train.parquet").name == "openthoughts-114k"
    with pytest.raises(InputError, match="openthoughts-114k or bespoke-stratos") as caught:
        detect(head, "train.parquet")
    assert "system, conversations" in str(caught.value)
    assert detect(head, "train.parquet", "bespoke-stratos").name == "bespoke-stratos"


def test_a_layout_that_was_asked_for_must_fit() -> None:
    head = [row for _, row in rows(FIXTURES / "sharegpt.jsonl")]
    assert detect(head, "a.jsonl", "sharegpt").name == "sharegpt"
    with pytest.raises(InputError, match=r"not of the layout openr1-math, which has the columns problem, generations"):
        detect(head, "a.jsonl", "openr1-math")
    with pytest.raises(UsageError, match="did you mean 'openr1-math'"):
        detect(head, "a.jsonl", "openr1-maths")


# --- as Parquet, with the real nested types ------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_parquet_holds_the_same_as_jsonl(name: str, tmp_path: Path) -> None:
    path, numbers = as_parquet(name, tmp_path)
    assert len(numbers) >= 20
    found = [row for _, row in rows(path)]
    layout = detect(found[:20], str(path))
    assert layout.name == name
    plain = dict(rows(FIXTURES / f"{name}.jsonl"))
    for row, number in zip(found, numbers, strict=True):
        read = [item if isinstance(item, Imported) else getattr(item, "reason", "") for item in items(layout, row)]
        told = items(layout, plain[number])
        assert read == [item if isinstance(item, Imported) else getattr(item, "reason", "") for item in told]


# --- rows of mixed types -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("openr1-math", {"problem": 7, "generations": ["<think>a</think>b"]}, "no_question"),
        ("openr1-math", {"problem": "a", "generations": "not a list"}, "no_reply"),
        ("openr1-math", {"problem": "a", "generations": [1, {"x": 2}]}, "no_reply"),
        ("openr1-math", {"generations": []}, "no_question"),
        ("openmathreasoning", {"problem": "a", "generated_solution": 3}, "no_trace"),
        ("openthoughts3", {"conversations": {"from": "human"}}, "not_messages"),
        ("openthoughts3", {"conversations": ["a", "b"]}, "not_messages"),
        ("messages", {"messages": [{"role": 1, "content": "a"}]}, "unknown_role"),
        ("messages", {"messages": [{"role": "user", "content": 5}]}, "not_text"),
        ("messages", {"messages": [{"role": "user", "content": [1]}]}, "not_text"),
        ("messages", {}, "not_messages"),
        ("am-deepseek-r1-distilled", {"messages": [{"role": "user", "content": "a", "info": "b"}]}, "no_reply"),
        ("am-deepseek-r1-distilled", {"messages": 3}, "not_messages"),
        ("distill", {"prompt": "a", "trace": {}}, "bad_record"),
        ("distill", {"prompt": {"question": "a"}, "trace": {"key": 1}}, "bad_record"),
        ("distill", {"prompt": {"question": "a", "colour": 1}, "trace": {}}, "bad_record"),
        ("distill", {"prompt": {"question": " "}, "trace": {}}, "bad_record"),
    ],
)
def test_a_row_of_wrong_types_is_refused_with_a_reason(name: str, row: dict[str, Any], reason: str) -> None:
    found = items(named(name), row)
    assert found
    assert {item.reason for item in found if isinstance(item, UnreadableRow)} == {reason}
    assert all(isinstance(item, UnreadableRow) for item in found)
