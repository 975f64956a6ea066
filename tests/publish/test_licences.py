"""What licences ask of a student and of traces: each rule with the case that breaks it and the one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from distill import specs
from distill.publish.licences import LICENCES, UNKNOWN, card_license, named, terms

FREE: dict[str, Any] = {
    "teacher": "MIT",
    "base": "apache-2.0",
    "prompts": {"gsm8k": "MIT"},
    "name": "my-student",
    "licence_text": False,
}


def conflicts(**changed: Any) -> list[str]:
    return [str(conflict) for conflict in terms(**{**FREE, **changed}).conflicts]


def test_free_licences_stand_in_nobodys_way() -> None:
    found = terms(**FREE)
    assert (found.student, found.traces, found.conflicts, found.llama) == (("apache-2.0",), ("mit",), (), None)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"teacher": None}, "nobody says under which licence the teacher's outputs are"),
        ({"base": "unknown"}, "nobody says under which licence the student's base is"),
        ({"prompts": {"a": "CC-BY-NC-4.0"}}, "prompts that are not for commercial use, a (CC-BY-NC-4.0)"),
        ({"base": "qwen-research"}, "its base is under qwen-research, whose terms are not known here"),
        ({"base": "cc-by-nc-nd-4.0"}, "its base is under cc-by-nc-nd-4.0, whose terms are not known here"),
        ({"base": "llama4", "licence_text": True}, "asks for a name that begins with Llama"),
        ({"base": "llama3", "name": "Llama-x"}, "asks that its text goes with the weights"),
        ({"base": "cc-by-nc-4.0", "chosen": "mit"}, "its base is under cc-by-nc-4.0, which stays with it"),
        ({"teacher": "my-terms"}, "its teacher is under my-terms, whose terms are not known here"),
        ({"prompts": {"a": "CC-BY-NC-ND-4.0"}}, "prompts that are not for commercial use, a (CC-BY-NC-ND-4.0)"),
        ({"prompts": {"a": "research only, non-commercial"}}, "prompts that are not for commercial use"),
        ({"prompts": {"a": "my-own"}}, "prompts are under my-own, whose terms are not known here"),
        ({"prompts": {"aime": None}}, "nobody says under which licence the prompts of aime are"),
        ({"prompts": {"a": "CC-BY-SA-4.0", "b": "CC-BY-NC-SA-4.0"}}, "licences that no one set can follow"),
        ({"prompts": {"a": "CC-BY-SA-4.0", "b": "CC-BY-NC-4.0"}}, "licences that no one set can follow"),
        (
            {"base": "llama3.1", "licence_text": True},
            "asks for a name that begins with Llama, and is called my-student",
        ),
        ({"base": "llama3.1", "name": "Llama-mine"}, "asks that its text goes with the weights"),
        ({"teacher": "MIT, llama3.3"}, "learned from what a Llama wrote"),
        ({"base": "llama3.2", "chosen": "mit", "name": "Llama-x", "licence_text": True}, "which stays with it"),
    ],
)
def test_a_conflict_is_named_with_what_would_remove_it(changed: dict[str, Any], told: str) -> None:
    found = conflicts(**changed)
    assert any(told in text for text in found), found
    assert all(text.endswith(")") for text in found)


@pytest.mark.parametrize(
    "changed",
    [
        {"prompts": {"a": "CC-BY-NC-4.0"}, "chosen": "cc-by-nc-4.0"},
        {"prompts": {"a": "CC-BY-SA-4.0", "b": "MIT"}},
        {"base": "llama3.1", "name": "Llama-mine", "licence_text": True},
        {"teacher": "MIT, llama3.3", "name": "llama-taught"},
    ],
)
def test_what_removes_it_does(changed: dict[str, Any]) -> None:
    assert conflicts(**changed) == []


def test_a_llama_is_told_by_its_version() -> None:
    assert terms(**{**FREE, "base": "llama3.3", "name": "Llama-x", "licence_text": True}).llama == "3.3"


def test_a_teacher_without_a_licence_is_said_of_the_traces_too() -> None:
    found = terms(**{**FREE, "teacher": None})
    assert "unknown" in found.traces
    assert [conflict.about for conflict in found.conflicts] == ["student", "traces"]


def test_a_card_names_what_the_hub_knows() -> None:
    assert card_license(("mit",)) == "mit"
    assert card_license(("cc-by-4.0", "mit")) == ["cc-by-4.0", "mit"]
    assert card_license(("my-own",)) == "other"


@pytest.mark.parametrize("kind", ["teachers", "students", "data"])
def test_every_licence_of_a_shipped_spec_is_known(kind: Any) -> None:
    for name in specs.names(kind):
        for licence in named(getattr(specs.load(kind, name), "license", None)):
            assert licence in LICENCES or licence == UNKNOWN, f"{kind}/{name}: {licence}"
