"""Models that lie here, as examinees: their contract, their context, the program they are for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.errors import InputError, UsageError
from distill.examine.models import gguf_in, model_contract, model_examinee
from examine.material import a_student, recipe


def test_a_folder_is_examined_with_the_recipes_seed_and_within_its_context(
    tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    folder = a_student(tmp_path / "student", model_folder)
    examinee = model_examinee(folder, "s", recipe(tmp_path).model_copy(update={"seed": 8}))
    assert (examinee.subject.sampling.seed, examinee.subject.sampling.temperature) == (8, 0.6)
    assert examinee.subject.max_tokens == 256, "of the 32,768 asked for"
    shorter = model_examinee(folder, "s", recipe(tmp_path, max_tokens=40))
    assert shorter.subject.max_tokens == 40


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"contract": 7}', '{"contract": {"template": "deepseek-r1"}}'])
def test_a_damaged_contract_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "distill.json").write_text(text)
    with pytest.raises(InputError, match=r"distill\.json cannot be read"):
        model_contract(tmp_path)


def test_a_folder_without_a_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say under which contract"):
        model_contract(tmp_path)


def test_which_file_is_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither config\.json nor a \.gguf"):
        gguf_in(tmp_path)
    one = tmp_path / "one.gguf"
    one.touch()
    assert gguf_in(tmp_path) == gguf_in(one) == one
    (tmp_path / "two.GGUF").touch()
    with pytest.raises(UsageError, match="holds 2 GGUF files") as raised:
        gguf_in(tmp_path)
    assert "one.gguf, two.GGUF" in str(raised.value)
    (tmp_path / "config.json").write_text("{}")
    assert gguf_in(tmp_path) is None
    with pytest.raises(UsageError, match="is no GGUF file"):
        gguf_in(tmp_path / "config.json")
