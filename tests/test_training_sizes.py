"""Predicted memory of a training against the same training counted on fake tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from distill.sizes import R1_STUDENTS, Sizes
from distill.training_sizes import OUTSIDE, TrainingMemory, training_memory

QWEN, LLAMA = R1_STUDENTS["R1-Distill-Qwen-1.5B"], R1_STUDENTS["R1-Distill-Llama-8B"]

SMALL: list[tuple[Sizes, dict[str, Any]]] = [
    (QWEN, {"ranks": 8}),
    (QWEN, {"ranks": 8, "precision": "bf16"}),
    (QWEN, {"ranks": 8, "checkpointing": False}),
    (QWEN, {"ranks": 1}),
    (QWEN, {"ranks": 1, "precision": "bf16"}),
    (LLAMA, {"ranks": 16, "context_parallel": 8}),
]
"""With three layers of their real sizes: seconds instead of a minute."""
STUDENTS = {
    "R1-Distill-Qwen-1.5B": [(8, 1)],
    "R1-Distill-Qwen-7B": [(8, 1)],
    "R1-Distill-Llama-8B": [(8, 1)],
    "R1-Distill-Qwen-14B": [(16, 1)],
    "R1-Distill-Qwen-32B": [(32, 1), (32, 4)],
    "R1-Distill-Llama-70B": [(64, 2), (64, 8)],
}
"""Ranks and context_parallel at which each is measured whole."""


def measured(sizes: Sizes, *, adapter: bool = False, **layout: Any) -> Any:
    from distill.train.at_size import Layout, config_with, measure

    config = config_with(sizes)
    return measure(config, Layout(**layout), prepare=adapted) if adapter else measure(config, Layout(**layout))


def adapted(model: Any) -> Any:
    """LoRA of rank 32 by hand (peft moves modules, which fake tensors do not allow): a bfloat16 base with float32
    matrices beside each linear layer."""
    import torch

    class Adapter(torch.nn.Module):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base = base
            self.down = torch.nn.Linear(base.in_features, 32, bias=False)
            self.up = torch.nn.Linear(32, base.out_features, bias=False)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.base(rows) + 2 * self.up(self.down(rows))
            return found

    for weight in model.parameters():
        weight.data, weight.requires_grad = weight.data.to(torch.bfloat16), False
    for layer in model.get_decoder().layers:
        for part in (layer.self_attn, layer.mlp):
            for name, child in list(part.named_children()):
                if isinstance(child, torch.nn.Linear):
                    setattr(part, name, Adapter(child))
    return model


def assert_predicted(sizes: Sizes, **layout: Any) -> None:
    found, predicted = measured(sizes, **layout), training_memory(sizes, **layout)
    assert predicted.peak == pytest.approx(found.peak, rel=0.1)
    for part in ("parameters", "gradients", "optimizer"):
        assert getattr(predicted, part) == pytest.approx(getattr(found, part), rel=0.01)


@pytest.mark.parametrize(("sizes", "layout"), SMALL)
def test_three_layers_are_predicted(sizes: Sizes, layout: dict[str, Any]) -> None:
    assert_predicted(dataclasses.replace(sizes, layers=3), **layout)


def test_an_adapter_is_predicted() -> None:
    sizes = dataclasses.replace(QWEN, layers=3)
    found, predicted = measured(sizes, adapter=True, ranks=8), training_memory(sizes, method="lora", ranks=8)
    assert predicted.peak == pytest.approx(found.peak, rel=0.1)
    for part in ("parameters", "gradients", "optimizer"):
        assert getattr(predicted, part) == pytest.approx(getattr(found, part), rel=0.01)


def marked(name: str, ranks: int, shared: int) -> Any:
    """The time goes by the number of layers: the deeper half by hand."""
    mark = pytest.mark.slow if R1_STUDENTS[name].layers <= 32 else pytest.mark.rehearse
    return pytest.param(name, ranks, shared, marks=mark)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "ranks", "shared"), [marked(name, *layout) for name, layouts in STUDENTS.items() for layout in layouts]
)
def test_students_are_predicted(name: str, ranks: int, shared: int) -> None:
    assert_predicted(R1_STUDENTS[name], ranks=ranks, context_parallel=shared)


def test_an_adapter_has_as_many_weights_as_peft_gives_it() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = Sizes(64, 2, 4, 2, 16, 96, 128, tied=False, qkv_bias=True)
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=8, target_modules="all-linear"))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert sizes.lora_parameters(8) == trained


def test_adapters_hold_less_than_full_training() -> None:
    full, lora, qlora = (training_memory(QWEN, method=method, ranks=1) for method in ("full", "lora", "qlora"))
    trained = QWEN.lora_parameters(32)
    assert lora.gradients == trained * 4
    assert lora.optimizer == trained * 8
    assert lora.parameters == QWEN.weight_bytes("bf16") + trained * 4
    assert qlora.parameters < lora.parameters < full.parameters
    assert qlora.peak < lora.peak < full.peak


def test_whether_it_fits_counts_what_is_not_counted() -> None:
    memory = TrainingMemory(10, 10, 20, 30, 30)
    assert memory.peak == 100
    assert memory.fits(OUTSIDE + 100)
    assert not memory.fits(OUTSIDE + 99)
