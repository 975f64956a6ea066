"""A student that no process holds whole: read from a folder, written to one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.errors import SpecError
from distill.safetensors_file import tensors
from distill.train.parallel import World
from distill.train.weights import load_sharded, on_meta, save_weights
from train import many, ranks

SETTING = many.Setting(tied=False, steps=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in several files."""
    folder = tmp_path_factory.mktemp("base")
    many.student(SETTING).save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied")
    many.student(many.Setting()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of the same model with three more vocabulary rows."""
    folder = tmp_path_factory.mktemp("grown")
    config = copy.deepcopy(many.student(SETTING).config)
    config.vocab_size += 3
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[1, 2, 3])
def found(
    request: pytest.FixtureRequest, base: Path, tied: Path, grown: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], Path]:
    out = tmp_path_factory.mktemp("out")
    if request.param == 1:
        return [many.reloaded(base, tied, grown, out)], out
    return ranks.run(request.param, many.reloaded, base, tied, grown, out), out


@pytest.mark.parametrize("which", ["untied", "tied"])
def test_it_trains_as_the_loaded_model_does(found: Any, which: str) -> None:
    expected = many.trained([many.Setting(tied=which == "tied", steps=1)])[0]
    for rank in found[0]:
        assert rank[which]["losses"] == pytest.approx(expected["losses"], rel=1e-5)
        assert rank[which]["weights"].keys() == expected["weights"].keys()
        for name, values in expected["weights"].items():
            np.testing.assert_allclose(rank[which]["weights"][name], values, atol=1e-5, err_msg=name)


def test_no_rank_held_all(found: Any) -> None:
    if len(found[0]) == 1:
        return
    for name, values in found[0][0]["untied"]["weights"].items():
        shares = [rank["held"][name] for rank in found[0]]
        assert sum(shares) == values.size
        assert max(shares) == -(-values.shape[0] // len(shares)) * (values.size // values.shape[0])


def test_new_vocabulary_rows_are_the_mean(found: Any) -> None:
    whole = found[0][0]["whole"]
    for name, weight in many.student(SETTING).named_parameters():
        values = weight.detach().numpy()
        np.testing.assert_array_equal(whole[name][: len(values)], values, err_msg=name)
        if values.shape[0] == 768:
            assert whole[name].shape[0] == 771
            np.testing.assert_allclose(whole[name][768:], np.tile(values.mean(0), (3, 1)), atol=1e-6)
    assert all(not rank["whole"][name].size for rank in found[0][1:] for name in whole)


def test_what_was_saved_is_a_model_folder(found: Any, grown: Path) -> None:
    from transformers import AutoModelForCausalLM

    (_, folder) = found
    assert len(list(folder.glob("*.safetensors"))) > 2
    (folder / "config.json").write_text((grown / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, weight in model.named_parameters():
        np.testing.assert_array_equal(weight.detach().numpy(), found[0][0]["whole"][name], err_msg=name)


def test_a_tied_head_is_read_and_written_once(tmp_path: Path) -> None:
    tied = many.student(many.Setting())
    tied.save_pretrained(tmp_path)
    model = on_meta(tied.config, torch.float32)
    load_sharded(model, tmp_path, World())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    inputs = torch.arange(9)[None]
    assert torch.equal(model.eval()(inputs).logits, tied(inputs).logits)
    save_weights(model, tmp_path, World(), dtype=torch.bfloat16)
    saved = {tensor.name: tensor.type for tensor in tensors(tmp_path / "model.safetensors")}
    assert saved.keys() == dict(tied.named_parameters()).keys()
    assert set(saved.values()) == {"BF16"}


@pytest.mark.parametrize("wrong", ["missing", "shape", "empty"])
def test_another_folder_is_refused(tmp_path: Path, base: Path, wrong: str) -> None:
    from safetensors.torch import load_file, save_file

    config = copy.deepcopy(many.student(SETTING).config)
    if wrong != "empty":
        state = {name: tensor for file in base.glob("*.safetensors") for name, tensor in load_file(file).items()}
        if wrong == "missing":
            del state["model.norm.weight"]
        save_file(state, tmp_path / "model.safetensors")
    if wrong == "shape":
        config.intermediate_size = 32
    said = {"missing": "model.norm.weight is missing", "shape": r"instead of \[32, 32\]", "empty": "there is no"}
    with pytest.raises(SpecError, match=said[wrong]):
        load_sharded(on_meta(config, torch.float32), tmp_path, World())
