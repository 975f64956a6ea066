"""Models that lie here, as examinees: their contract, their context, the program they are for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.errors import InputError
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


def test_a_folder_with_several_gguf_files_asks_which(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match="holds 2 GGUF files"):
        gguf_in(tmp_path)
    assert gguf_in(tmp_path / "a.gguf") == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").unlink()
    assert gguf_in(tmp_path) == tmp_path / "a.gguf"
    (tmp_path / "config.json").write_text("{}")
    assert gguf_in(tmp_path) is None, "a model folder that happens to hold one is loaded as a model folder"
