"""Quantizes a student with bitsandbytes (NF4, int8) into a folder that transformers loads by itself, and reads back
what lies in it. Knows nothing about scores."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.contract import CONTRACT_FILE
from distill.engines.memory import free_memory
from distill.environment import missing_extra
from distill.errors import InputError
from distill.progress import quiet_transformers
from distill.quantize.fidelity import TensorFact, missing, relative_error
from distill.quantize.schemes import Scheme

if TYPE_CHECKING:
    import torch

BESIDE = ("tokenizer*.json", "chat_template.jinja", "special_tokens_map.json", "generation_config.json", CONTRACT_FILE)
"""Files of a student that its quantized folder needs as they are."""
NF4_STATE = "quant_state.bitsandbytes__nf4"
INT8_MAX = 127.0


def write(student: Path, out: Path, scheme: Scheme) -> None:
    """Writes weights, configuration, tokenizer and contract into `out`. Linear layers are quantized; embeddings, norms
    and the output head stay bfloat16."""
    require()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quiet_transformers()
    how = (
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
        if scheme.bits == 4
        else BitsAndBytesConfig(load_in_8bit=True)
    )
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(student, quantization_config=how, dtype=torch.bfloat16)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{student} cannot be loaded as a model",
            given=f"{type(error).__name__}: {error}"[:300],
            todo="give a student's folder that is whole: config.json, weights, tokenizer and distill.json",
        ) from error
    model.save_pretrained(out)
    del model
    free_memory()
    for pattern in BESIDE:
        for file in student.glob(pattern):
            shutil.copyfile(file, out / file.name)
    for file in out.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone; a server often runs as another user


def require() -> None:
    """Raises MissingError when a package is not installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it asks for a package that CPUs can do without
    try:
        import accelerate  # noqa: F401  # transformers loads quantized weights through it
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise missing_extra("nf4 and int8 need bitsandbytes and accelerate", "quantize") from error


def facts(student: Path, out: Path) -> Iterator[TensorFact]:
    """Every tensor of the folder as it lies on disk, compared with the student's."""
    made, originals = Weights(out), Weights(student)
    for name in originals.names:
        original = originals[name].float()
        if name not in made:
            yield missing(name, original.numel())
            continue
        kind, values = _opened(made, name)
        yield TensorFact(name, kind, original.numel(), relative_error(values.reshape(original.shape), original))


def _opened(made: Weights, name: str) -> tuple[str, torch.Tensor]:
    """A tensor's real type, and its weights in float32."""
    import torch

    stored = made[name]
    if f"{name}.{NF4_STATE}" in made:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        state = {part: made[f"{name}.{part}"] for part in ("absmax", "quant_map", NF4_STATE)}
        quant_state = QuantState.from_dict(state, device=torch.device("cpu"))
        return quant_state.quant_type.upper(), dequantize_4bit(stored, quant_state).float()
    scale = name.removesuffix("weight") + "SCB"
    if stored.dtype == torch.int8:
        return "INT8", stored.float() * made[scale].float()[:, None] / INT8_MAX
    return str(stored.dtype).removeprefix("torch.").replace("float", "F").replace("bF", "BF"), stored.float()


class Weights:
    """The tensors of a model folder by name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, Path] = {}
        for file in sorted(folder.glob("*.safetensors")):
            for name in self._opened(file).keys():  # noqa: SIM118  # it is no dict
                self._places[name] = file
        tied = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("tie_word_embeddings", False)
        self.names = [name for name in self._places if not (tied and name == "lm_head.weight")]

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._opened(self._places[name]).get_tensor(name)
        return tensor

    @staticmethod
    def _opened(file: Path) -> Any:
        from safetensors import safe_open

        return safe_open(file, framework="pt")
