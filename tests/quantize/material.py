"""An untrained student to quantize, and ways to break what was made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill import specs
from distill.files import sha256_of, sha256_tree
from distill.quantize import gguf_writer
from distill.train.student import load_student, save_student
from distill.train.tokenizer import prepare_tokenizer

SCHEMES = ("nf4", "int8", "gguf:bf16", "gguf:q8_0", "gguf:q4_k_m")


def a_student(folder: Path, *, name: str = "tiny-qwen", seed: int = 1) -> Path:
    """The shipped student of that name as the training would begin with it."""
    import torch

    spec = specs.student(name)
    tokenizer = prepare_tokenizer(spec)
    model = load_student(spec, tokenizer, seed=seed, dtype=torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_student(model, tokenizer, spec.contract, folder, facts={"student": name, "gguf_pre": spec.gguf_pre})
    return folder


def converted_once(kept: Path) -> Callable[..., None]:
    """llama.cpp's converter, which takes eight seconds to start: what it made of a student is copied the next time."""
    convert = gguf_writer.convert

    def instead(student: Path, out: Path, *, pre: str | None, name: str) -> None:
        made = kept / f"{sha256_of([sha256_tree(student), pre, name])}.gguf"
        if not made.exists():
            convert(student, made, pre=pre, name=name)
        shutil.copy(made, out)

    return instead


def halve_scales(folder: Path) -> None:
    """Every scale of NF4 (absmax) and int8 (SCB) weights is half of what it was."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = folder / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = file.metadata()
    for name in tensors:
        if name.endswith((".absmax", ".SCB")):
            tensors[name] = tensors[name] / 2
    save_file(tensors, path, metadata=facts)


BLOCKS: Mapping[str, tuple[int, tuple[int, ...]]] = {"Q8_0": (34, (0,)), "Q4_K": (144, (0, 2)), "Q6_K": (210, (208,))}
"""Type → bytes of a block, and where its 16-bit scales lie (ggml-common.h)."""


def halve_gguf_scales(file: Path) -> None:
    import gguf
    import numpy as np

    for tensor in gguf.GGUFReader(file, "r+").tensors:
        if tensor.tensor_type.name in BLOCKS:
            size, places = BLOCKS[tensor.tensor_type.name]
            blocks = tensor.data.reshape(-1, size)
            for place in places:
                scales = blocks[:, place : place + 2].copy().view(np.float16) / 2
                blocks[:, place : place + 2] = scales.astype(np.float16).view(np.uint8)


def wrong_gguf_stop(file: Path, token: int = 5) -> None:
    import gguf

    field = gguf.GGUFReader(file, "r+").fields["tokenizer.ggml.eos_token_id"]
    field.parts[field.data[0]][0] = token


def changed_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
