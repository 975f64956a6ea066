"""Operations of a training against numbers worked out by hand and against torch's own counter; peaks of devices."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from conftest import tiny_model

from distill.sizes import R1_STUDENTS, Sizes
from distill.train import speed
from distill.train.speed import Peak, Speedometer, measured_peak, peak_by_name, peak_of, training_flops

TINY = Sizes(64, 3, 4, 2, 16, 128, 768, tied=True, qkv_bias=True)
CHANGED = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
}


def test_llama_8b_by_hand() -> None:
    """DeepSeek-R1-Distill-Llama-8B. One layer: q and o 4,096², k and v 4,096 × 1,024, three of 4,096 × 14,336:
    218,103,808 weights; 32 layers 6,979,321,856; the head 4,096 × 128,256 = 525,336,576. One trace of 1,000 tokens, 900
    of them with loss: 6 × 6,979,321,856 × 1,000 + 6 × 525,336,576 × 900, and attention 12 × 32 layers × 4,096 × 500,500
    pairs."""
    by_hand = 41_875_931_136_000 + 2_836_817_510_400 + 787_218_432_000
    assert training_flops(R1_STUDENTS["R1-Distill-Llama-8B"], [1_000], 900) == by_hand


def test_half_of_palms_attention_and_all_of_its_matrices() -> None:
    """PaLM's appendix B writes 6 N + 12 L H Q T a token; its T × T square of pairs is half as large with the mask."""
    sizes = R1_STUDENTS["R1-Distill-Qwen-7B"]
    length = 32_768
    weights = sizes.linear_parameters + sizes.vocab * sizes.hidden
    palm = 6 * weights + 12 * sizes.layers * sizes.heads * sizes.head_dim * length / 2
    assert training_flops(sizes, [length], length) / length == pytest.approx(palm, rel=1e-4)


def test_traces_in_one_batch_do_not_attend_to_each_other() -> None:
    apart = training_flops(TINY, [100], 50) + training_flops(TINY, [300], 200)
    assert training_flops(TINY, [100, 300], 250) == apart < training_flops(TINY, [400], 250)


def counted(student: Any, length: int, loss_tokens: int) -> float:
    """What torch counts in the loop's own way of computing a loss; eager attention makes its products visible."""
    from torch.utils.flop_counter import FlopCounterMode

    student.set_attn_implementation("eager")
    student.train()
    ids = torch.arange(length)[None] % 700
    with FlopCounterMode(display=False) as counter:
        decoder = student.get_decoder()
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[0, -loss_tokens - 1 : -1]
        logits = student.get_output_embeddings()(hidden)
        torch.nn.functional.cross_entropy(logits, ids[0, -loss_tokens:]).backward()
    return float(counter.get_total_flops())


def square(sizes: Sizes, length: int) -> float:
    """Operations that an attention written out spends on pairs behind the mask."""
    return 12 * sizes.layers * sizes.heads * sizes.head_dim * (length**2 - length * (length + 1) / 2)


@pytest.mark.parametrize(("length", "loss_tokens"), [(64, 40), (256, 200)])
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_as_many_as_torch_counts(architecture: str, length: int, loss_tokens: int) -> None:
    found = counted(tiny_model(architecture, **CHANGED), length, loss_tokens)
    expected = training_flops(TINY, [length], loss_tokens) + square(TINY, length)
    assert found == pytest.approx(expected, rel=0.01)


def test_as_many_as_torch_counts_with_an_adapter() -> None:
    """The first layer's query, key and value products need no gradient of their input there, in torch's graph: the
    frozen embedding below them has none. That, a 3% here and 0.2% of a 7B, is counted all the same."""
    from peft import LoraConfig, get_peft_model

    student = tiny_model("qwen2", **CHANGED)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(student, LoraConfig(r=8, target_modules=targets))
    adapter, _ = adapted.get_nb_trainable_parameters()
    found = counted(adapted.base_model.model, 256, 200)
    expected = training_flops(TINY, [256], 200, adapter_parameters=adapter) + square(TINY, 256)
    first = 2 * 256 * (64 * 64 + 2 * 64 * 32) + 2 * 256 * 8 * 3 * 64
    assert found == pytest.approx(expected - first, rel=0.01)
    assert expected < training_flops(TINY, [256], 200) + square(TINY, 256)


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA B200", 2_250e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA RTX 6000 Ada Generation", 364.2e12),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GH200 480GB", None),
        ("Tesla T4", None),
        ("", None),
    ],
)
def test_a_card_is_known_by_its_whole_name(name: str, flops: float | None) -> None:
    assert peak_by_name(name) == flops


def test_the_table_is_for_bfloat16_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(speed, "measured_peak", lambda device, dtype: 7.0)
    gpu = torch.device("cuda", 0)
    assert peak_of(gpu, torch.bfloat16) == Peak(989e12, "data sheet")
    assert peak_of(gpu, torch.float32) == Peak(7.0, "matmul rate")
    assert peak_of(torch.device("cpu"), torch.bfloat16) == Peak(7.0, "matmul rate")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Something New")
    assert peak_of(gpu, torch.bfloat16) == Peak(7.0, "matmul rate")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rate_is_measured_in_little_time_and_touches_no_seed(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    state, started = torch.get_rng_state(), time.monotonic()
    rate = measured_peak(torch.device("cpu"), dtype)
    assert time.monotonic() - started < 20  # half a second on a machine with nothing else to do
    assert torch.equal(torch.get_rng_state(), state)
    assert 1e8 < rate < 1e15


def test_the_rate_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """With times given: 256 to the third takes 0.01 s, 512 a tenth of a second, then one slow and one fast."""
    times = iter([9.0, 0.01, 0.1, 0.4, 0.05])
    clock = 0.0

    def timed(factor: torch.Tensor) -> float:
        nonlocal clock
        seconds = next(times)
        clock += seconds if seconds < 9 else 0
        return seconds

    monkeypatch.setattr(speed, "_timed", timed)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock)
    assert measured_peak(torch.device("cpu"), torch.float32) == 2 * 256**3 / 0.01
    assert next(times) == 0.05, "the time was over"


def test_the_share_is_of_all_devices_and_since_the_last_look() -> None:
    meter = Speedometer(TINY, Peak(1e9, "matmul rate"), devices=4)
    assert meter.read() == {}
    meter.add([100, 50], 80, 0.25)
    meter.add([10], 5, 0.75)
    flops = training_flops(TINY, [100, 50, 10], 85)
    assert meter.read() == pytest.approx({"tokens_per_s": 160.0, "mfu": flops / 4e9})
    meter.add(iter([10]), 5, 0.5)
    assert meter.read() == pytest.approx({"tokens_per_s": 20.0, "mfu": training_flops(TINY, [10], 5) / 0.5 / 4e9})
