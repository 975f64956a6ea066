"""A frozen base in 4 bits (NF4, double quantization: QLoRA, arXiv 2305.14314), as bitsandbytes has it.

Knows nothing about adapters and training.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.environment import missing_extra
from distill.errors import TrainingError
from distill.progress import quiet_transformers

if TYPE_CHECKING:
    import torch

ADJOINT_ERROR = 0.1
"""How far a 4-bit layer's backward pass may be from the transpose of its forward pass; in bfloat16 it is below 0.01."""


def require() -> None:
    """Raises MissingError when a package is not installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it asks for a package that CPUs can do without
    try:
        import accelerate  # noqa: F401  # transformers loads quantized weights through it
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise missing_extra("train.method: qlora needs bitsandbytes and accelerate", "quantize") from error


def load_quantized(folder: Path, dtype: torch.dtype, *, device: torch.device) -> Any:
    """The student of `folder`, frozen, its decoder's linear layers in NF4; embedding, norms and head stay in `dtype`,
    which is also what the layers compute in."""
    require()
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quiet_transformers()
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=how, dtype=dtype, device_map={"": device}
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise TrainingError(
            "the student cannot be loaded in 4 bits",
            given=f"{folder}: {type(error).__name__}: {error}"[:300],
            todo="use train.method: lora, which needs no quantized base",
        ) from error
    for layer in _layers(model).values():
        layer.support_avx512bf16_for_cpu = False  # asked before a layer is repacked in eval mode; see below
    return model.requires_grad_(False)


def _layers(model: Any) -> dict[str, Any]:
    """The 4-bit layers by name; none where bitsandbytes is not even installed."""
    if getattr(model, "hf_quantizer", None) is None:
        return {}
    from bitsandbytes.nn import Linear4bit

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def weight_of(layer: Any) -> torch.Tensor:
    """A linear layer's weight [out, in], dequantized where it is in 4 bits to what the layer computes with."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        weight: torch.Tensor = layer.weight.detach()
        return weight
    from bitsandbytes.functional import dequantize_4bit

    opened: torch.Tensor = dequantize_4bit(layer.weight.data, state).to(layer.compute_dtype)
    return opened


def forget_quantization(model: Any) -> None:
    """Makes a model whose 4-bit layers have all been replaced an ordinary one again."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None:
        return
    left = list(_layers(model))
    assert not left, f"still in 4 bits: {left}"
    quantizer.remove_quantization_config(model)


def shared_weights(model: Any) -> dict[int, Any]:
    """Identity of every 4-bit weight → another parameter over the same memory, with a state of its own: repacking one
    leaves the other as it is. For the memo of a deep copy."""
    layers = _layers(model)
    if not layers:
        return {}
    from bitsandbytes.nn import Params4bit

    made: dict[int, Any] = {}
    for layer in layers.values():
        weight = layer.weight
        state = copy.copy(weight.quant_state)
        made[id(weight)] = Params4bit(
            weight.data,
            requires_grad=False,
            quant_state=state,
            blocksize=weight.blocksize,
            compress_statistics=weight.compress_statistics,
            quant_type=weight.quant_type,
            quant_storage=weight.quant_storage,
            bnb_quantized=True,
        )
        made[id(weight.quant_state)] = state
    return made


def layers_without_gradient(model: Any) -> list[str]:
    """Names of the 4-bit layers that bitsandbytes has repacked for a CPU, which happens in eval mode and leaves them a
    kernel without gradient, and of those whose backward pass is for any reason not the transpose of the forward one.

    One token through each: for y = W x, the gradient of |y|² / 2 is Wᵀ y, and its product with x is |y|² again.
    """
    import torch

    found = []
    for name, layer in _layers(model).items():
        if getattr(layer.weight.quant_state, "packing_format_for_cpu", False):
            found.append(name)  # not even run: its kernel, where the CPU has one, fails at the bias of a leaf
            continue
        with torch.enable_grad():
            x = torch.ones(1, layer.in_features, dtype=layer.compute_dtype, device=layer.weight.device)
            x = (x * torch.linspace(-1, 1, layer.in_features, device=x.device)).to(x.dtype).requires_grad_()
            y = layer(x) if layer.bias is None else layer(x) - layer.bias.detach()
            gradient = torch.autograd.grad(y, x, y.detach(), allow_unused=True)[0] if y.requires_grad else None
        square = float(y.detach().float().square().sum())
        given = 0.0 if gradient is None else float((gradient.float() * x.detach().float()).sum())
        if abs(given - square) > ADJOINT_ERROR * square:
            found.append(name)
    return found
