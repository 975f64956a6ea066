"""LoRA: an adapter on every linear layer inside the decoder, its vocabulary rows, and what is sampled from while it
trains. A base in 4 bits comes from quantized.py, the merge is in merging.py. Knows nothing about data, optimizers or
runs.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from distill.errors import TrainingError
from distill.train import quantized
from distill.train_specs import LoraSettings, TrainSettings

if TYPE_CHECKING:
    import torch

ADAPTER = "default"
"""peft's name for the one adapter a model has here."""


def dtypes(settings: TrainSettings) -> tuple[torch.dtype, bool]:
    """In what the weights are loaded, and whether they compute in bfloat16 under autocast.

    A frozen base needs no float32 copy: under an adapter it is bfloat16, and the adapter itself float32.
    """
    import torch

    if settings.method == "full":
        return torch.bfloat16 if settings.precision == "bf16" else torch.float32, settings.precision == "mixed"
    return (torch.float32, False) if settings.precision == "fp32" else (torch.bfloat16, True)


def with_adapter(model: Any, settings: LoraSettings, rows: Sequence[int], *, seed: int) -> Any:
    """`model` as a PeftModel: LoRA on every linear layer but the head, and the vocabulary rows `rows` of embedding and
    head. All else is frozen. The adapter is float32, starts as no change, and is drawn from `seed`."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    tokens = {name: sorted(set(rows)) for name in _vocabulary_modules(model)} if rows else None
    torch.manual_seed(seed)
    return get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=settings.rank,
            lora_alpha=cast(int, settings.alpha),
            lora_dropout=0.0,
            target_modules="all-linear",
            trainable_token_indices=cast(Any, tokens),
        ),
    )


def _vocabulary_modules(model: Any) -> list[str]:
    """Names of embedding and head; of the embedding alone where the head is tied to it and follows."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    wanted = [embedding] if head.weight is embedding.weight else [embedding, head]
    return [name for name, module in model.named_modules() if any(module is one for one in wanted)]


def is_adapted(model: Any) -> bool:
    peft = sys.modules.get("peft")  # whoever has an adapter has imported it, which takes seconds
    return peft is not None and isinstance(model, peft.PeftModel)


def plain(model: Any) -> Any:
    """The transformers model inside; adapters stay in its layers."""
    return model.get_base_model() if is_adapted(model) else model


def lora_layers(model: Any) -> dict[str, Any]:
    """The layers with an adapter, by their name in the transformers model."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in plain(model).named_modules() if isinstance(module, LoraLayer)}


def save_adapter(model: Any, folder: Path, *, base: str) -> None:
    """Writes the adapter in peft's own form, for `PeftModel.from_pretrained`; `base` is the student it belongs on."""
    model.peft_config[ADAPTER].base_model_name_or_path = base
    model.save_pretrained(folder, save_embedding_layers=False)  # the trained rows are part of the adapter
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone; a server often runs as another user


def token_rows(model: Any) -> dict[str, tuple[list[int], torch.Tensor]]:
    """Embedding and head, by name, where some of their rows are trained → ids of the rows, and the rows."""
    from peft.utils.other import TrainableTokensWrapper

    return {
        name: (
            list(module.token_adapter.token_indices[ADAPTER]),
            module.token_adapter.trainable_tokens_delta[ADAPTER].detach().clone(),
        )
        for name, module in plain(model).named_modules()
        if isinstance(module, TrainableTokensWrapper)
    }


def merge_rows(inner: Any) -> None:
    """Puts the trained vocabulary rows into embedding and head; what was tied stays tied."""
    import torch
    from peft.utils.other import TrainableTokensWrapper

    found = {name: module for name, module in inner.named_modules() if isinstance(module, TrainableTokensWrapper)}
    done: dict[int, torch.nn.Parameter] = {}
    for name, wrapper in found.items():
        base = wrapper.original_module
        tied = id(base.weight)
        if tied not in done:
            done[tied] = torch.nn.Parameter(wrapper.weight.detach(), requires_grad=False)
        base.weight = done[tied]
        inner.set_submodule(name, base)


@contextlib.contextmanager
def sampling_copy(model: Any) -> Iterator[Any]:
    """A transformers model in eval mode that answers as `model` does now, to generate from while it trains.

    Modules of its own over the same weights: nothing that generating does to it (4-bit weights repacked, attention,
    eval mode) reaches the model that trains, and only the vocabulary matrices of an adapter with rows take memory.
    Not for a sharded model.
    """
    import torch

    inner = plain(model)
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*inner.parameters(), *inner.buffers())}
    memo.update(quantized.shared_weights(inner))
    own = copy.deepcopy(inner, memo)
    with torch.no_grad():
        merge_rows(own)
    own.set_attn_implementation("sdpa")
    yield own.eval()


def gradients_arrive(model: Any) -> None:
    """To be called after the first backward pass of a training, and after the first one behind every sampling.

    Raises TrainingError when a trained weight has no gradient, or a frozen 4-bit layer passes none on: bitsandbytes
    repacks such layers for a CPU in eval mode, after which gradients are wrong or missing, with no more than a warning.
    """
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or ("lora_B" in name and not bool(parameter.grad.any())))
    ]
    blocked = quantized.layers_without_gradient(plain(model))
    if without or blocked:
        named = [*(f"{name} has no gradient" for name in without), *(f"{name} passes none on" for name in blocked)]
        raise TrainingError(
            "gradients do not arrive",
            given=", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else ""),
            todo="start again from the last checkpoint, and never put a 4-bit model that trains into eval mode: sample "
            "from `sampling_copy`",
        )
