"""Which verifier judges what, and what its verdicts depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.errors import SpecError
from distill.records import CodeTest, Prompt
from distill.verify import PASS, Outcome, failing, verifiers

PROMPT = Prompt("2 + 2?", kind="math", answer="4")


@pytest.mark.parametrize(
    ("kind", "chosen", "expected"),
    [
        ("math", {}, "math"),
        ("numeric", {}, "numeric"),
        ("open", {}, None),
        ("open", {"open": "mine:judge"}, "mine:judge"),
        ("math", {"open": "mine:judge"}, "math"),
        ("math", {"math": "exact"}, "exact"),
        ("code", "mine:judge", "mine:judge"),
        ("open", "mine:judge", "mine:judge"),
    ],
)
def test_a_recipe_may_name_another(kind: str, chosen: Any, expected: str | None) -> None:
    assert verifiers.verifier_of(kind, chosen) == expected


@pytest.mark.parametrize(
    ("verifier", "answer", "expected"),
    [
        (None, "4", Outcome("pass", "open")),
        (None, None, Outcome("pass", "open")),
        ("math", None, failing("no_answer")),
        ("math", " \n", failing("no_answer")),
        ("math", "4", None),
    ],
)
def test_what_is_told_without_a_look(verifier: str | None, answer: str | None, expected: Outcome | None) -> None:
    assert verifiers.told_without(verifier, answer) == expected


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        (PROMPT, "\\boxed{4}"),
        (replace(PROMPT, kind="numeric"), "It is 4."),
        (replace(PROMPT, kind="exact", answer="four"), "\\boxed{Four}"),
        (replace(PROMPT, kind="choice", answer="B", choices=("3", "4")), "(B)"),
    ],
)
def test_every_kind_is_judged_by_its_own(prompt: Prompt, answer: str) -> None:
    name = verifiers.verifier_of(prompt.kind, {})
    assert name is not None
    verifiers.prepare(name)
    assert verifiers.judge(name, prompt, answer) == PASS
    assert verifiers.judge(name, replace(prompt, answer="A" if prompt.choices else "9"), answer).outcome == "fail"


def test_one_of_ones_own_is_judged_by_and_has_a_limit_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine_of_this_test.py"
    code = """from distill.verify import PASS, failing
def judge(prompt, answer):
    return PASS if answer == prompt.question else failing("unlike")
def seconds(prompt):
    return 3.0
"""
    file.write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = "mine_of_this_test:judge"
    verifiers.require((name,))
    verifiers.prepare(name)
    assert verifiers.judge(name, PROMPT, "2 + 2?") == PASS
    assert verifiers.judge(name, PROMPT, "4") == failing("unlike")
    assert verifiers.seconds(name, PROMPT, "4") == 3.0
    before = verifiers.fingerprint(name)
    verifiers.fingerprint.cache_clear()
    file.write_text(code.replace("unlike", "other"))
    assert verifiers.fingerprint(name) != before
    verifiers.fingerprint.cache_clear()


def test_one_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(SpecError, match=r"no verifier 'numric'; did you mean 'numeric'\?") as caught:
        verifiers.require(("numric",))
    assert "math, numeric, exact, choice, code" in str(caught.value.todo)


def test_the_names_of_distills_own_are_told_alike() -> None:
    from distill.verify import own

    assert set(own.DISTILLS) == set(verifiers.BUILT_IN)


def test_what_a_verdict_depends_on_of_a_prompt() -> None:
    plain = verifiers.wants_of(PROMPT)
    tests = (CodeTest("1", "2"),)
    for changed in ({"answer": "5"}, {"kind": "exact"}, {"choices": ("4",)}, {"tests": tests}, {"reasoning": "none"}):
        assert verifiers.wants_of(replace(PROMPT, **changed)) != plain
    assert verifiers.wants_of(replace(PROMPT, id="other", domain="sums", source="mine")) == plain
    own = verifiers.wants_of(PROMPT, "mine:judge")
    assert verifiers.wants_of(replace(PROMPT, domain="sums"), "mine:judge") != own, "it may look at anything"


@pytest.mark.parametrize("name", ["math", "numeric", "choice"])
def test_another_version_of_a_library_is_another_verifier(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = verifiers.fingerprint(name)
    monkeypatch.setattr(verifiers, "_version", lambda library: "99")
    verifiers.fingerprint.cache_clear()
    assert verifiers.fingerprint(name) != before
    verifiers.fingerprint.cache_clear()
