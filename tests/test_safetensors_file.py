"""Headers of safetensors files: what safetensors itself wrote is read, and what is no such file is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill import safetensors_file
from distill.errors import InputError
from distill.safetensors_file import Tensor, expected_bytes, tensors


def test_what_safetensors_wrote_is_read(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "model.safetensors"
    content = {"a": torch.zeros(3, 4, dtype=torch.bfloat16), "b": torch.zeros(()), "c": torch.zeros(2, 0)}
    save_file(content, file, metadata={"format": "pt"})
    assert sorted(tensors(file), key=lambda tensor: tensor.name) == [
        Tensor("a", "BF16", 12), Tensor("b", "F32", 1), Tensor("c", "F32", 0),
    ]  # fmt: skip
    assert expected_bytes(file) == file.stat().st_size
    with file.open("rb+") as opened:
        opened.truncate(file.stat().st_size - 1)
    assert expected_bytes(file) == file.stat().st_size + 1, "the header tells, not the file"


def written(path: Path, header: bytes, length: int | None = None) -> Path:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header)
    return path


@pytest.mark.parametrize(
    "header",
    [
        [], "x", None, {"a": None}, {"a": {}}, {"a": {"dtype": "F32"}}, {"a": {"dtype": "F32", "shape": None}},
        {"a": {"dtype": "F32", "shape": ["x"]}}, {"a": {"dtype": "F32", "shape": [-1]}},
        {"a": {"dtype": ["F32"], "shape": [1]}},
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_named(tmp_path: Path, header: object) -> None:
    file = written(tmp_path / "odd.safetensors", json.dumps(header).encode())
    with pytest.raises(InputError, match=r"odd\.safetensors is no safetensors file"):
        tensors(file)


def test_neither_a_torn_file_nor_an_absurd_length_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    assert tensors(written(tmp_path / "whole", header)) == [Tensor("a", "F32", 1)]
    for name, content in (("empty", b""), ("short", b"\1"), ("torn", (900).to_bytes(8, "little") + header[:9])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            tensors(tmp_path / name)
    with pytest.raises(InputError, match="gone"):
        tensors(tmp_path / "gone")
    with pytest.raises(InputError, match="deep"):
        tensors(written(tmp_path / "deep", b"[" * 100_000))
    monkeypatch.setattr(safetensors_file, "LONGEST_HEADER", 20)
    with pytest.raises(InputError, match="long"):
        tensors(written(tmp_path / "long", header, 2**63))


def test_a_file_without_weights_or_places_of_them(tmp_path: Path) -> None:
    assert expected_bytes(written(tmp_path / "none", b"{}")) == 10
    odd: list[object] = [{"a": {}}, {"a": {"data_offsets": []}}, {"a": {"data_offsets": [0, "x"]}}, {"a": None}]
    for header in odd:
        file = written(tmp_path / "odd", json.dumps(header).encode())
        with pytest.raises(InputError, match="odd is no safetensors file"):
            expected_bytes(file)
