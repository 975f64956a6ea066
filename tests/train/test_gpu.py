"""The parts of training that only a GPU runs: the same results as on the CPU, where that can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distill.train.adapters import with_adapter
from distill.train.loss import StudentLoss
from distill.train.packing import collate
from distill.train_specs import LoraSettings
from train.material import PAD, PLAIN, Log, examples, job, loop_on

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


def wide(seed: int = 0) -> Any:
    """Heads of 64, which the flash kernels take."""
    from conftest import tiny_model

    return tiny_model("qwen2", seed=seed, hidden_size=128, intermediate_size=256, initializer_range=0.05)


def loss_and_gradient(student: Any, kernel: Any, device: str) -> tuple[float, torch.Tensor]:
    module = StudentLoss(student.to(device))
    loss = module(collate(examples(6), pad=PAD, kernel=kernel).to(device))
    loss.backward()
    gradient = student.get_input_embeddings().weight.grad
    return float(loss.detach()), gradient.float().cpu()


def test_the_variable_length_kernel_gives_the_losses_of_traces_apart() -> None:
    expected, slopes = loss_and_gradient(wide(), "apart", "cpu")
    found, own = loss_and_gradient(wide().to(torch.bfloat16), "varlen", "cuda")
    assert found == pytest.approx(expected, rel=0.01)
    assert torch.nn.functional.cosine_similarity(own.flatten(), slopes.flatten(), dim=0) > 0.99


def test_logits_in_parts_give_the_whole_ones_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, slopes = loss_and_gradient(wide().to(torch.bfloat16), "varlen", "cuda")
    monkeypatch.setattr("distill.train.loss.WHOLE_LOGITS", 0)
    parts, own = loss_and_gradient(wide().to(torch.bfloat16), "varlen", "cuda")
    assert parts == pytest.approx(whole, rel=0.01)
    assert torch.nn.functional.cosine_similarity(own.flatten(), slopes.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_training_lowers_the_loss(tmp_path: Path, method: str) -> None:
    student, log = wide().to("cuda"), Log()
    if method == "lora":
        student = with_adapter(student, LoraSettings(rank=8), [], seed=0)
    settings = PLAIN.model_copy(update={"epochs": 10.0, "learning_rate": 5e-3, "precision": "mixed"})
    loop = loop_on(student, job(tmp_path / "job", settings=settings), log)
    result = loop.run()
    assert result.loss < 0.8 * log.losses[min(log.losses)]
