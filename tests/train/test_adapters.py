"""LoRA and QLoRA: what moves and what does not, gradients that arrive, and a merge that does what was trained."""

from __future__ import annotations

import builtins
import re
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import tiny_model

from distill.errors import MissingError, TrainingError
from distill.train import merging, quantized
from distill.train.adapters import (
    dtypes,
    gradients_arrive,
    lora_layers,
    plain,
    sampling_copy,
    save_adapter,
    token_rows,
    with_adapter,
)
from distill.train.attention import Segments
from distill.train.loss import StudentLoss
from distill.train.merging import MergeCheck, merge, merged, probe, verify_merge
from distill.train.optimizer import optimizer_for
from distill.train.quantized import load_quantized
from distill.train_specs import LoraSettings, TrainSettings

CPU = torch.device("cpu")
ROWS = [5, 700]
LORA = LoraSettings(rank=4, alpha=8)
IDS = torch.randint(0, 700, (3, 24), generator=torch.Generator().manual_seed(3))
IDS[:, 7], IDS[:, 15] = ROWS[0], ROWS[1]
TRACES = IDS.tolist()


def base(*, tied: bool = True, seed: int = 0) -> Any:
    """Wide enough for NF4, whose scales cover 64 weights."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.1}
    return tiny_model("qwen2", tie_word_embeddings=tied, seed=seed, **sizes)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """(method, tied, dtype) → a base as that method loads it."""

    def made(method: str = "lora", *, tied: bool = True, dtype: torch.dtype = torch.float32) -> Any:
        student = base(tied=tied)
        for parameter in student.parameters():  # no buffers, as from_pretrained does
            parameter.data = parameter.data.to(dtype)
        if method == "lora":
            return student
        folder = tmp_path / f"base-{tied}-{dtype}"
        student.save_pretrained(folder)
        return load_quantized(folder, dtype, device=CPU)

    return made


def train(model: Any, steps: int = 3, rate: float = 1e-2) -> Any:
    optimizer = optimizer_for(model, TrainSettings(learning_rate=rate), seed=0)
    model.train()
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS).logits
    return found


def pack() -> Any:
    """Two traces of 24 tokens in a row, all of whose tokens but the first are in the loss."""
    places = torch.cat([torch.arange(23), torch.arange(24, 47)])
    row = IDS[:2].reshape(1, 48)
    return SimpleNamespace(
        input_ids=row,
        position_ids=torch.arange(24).repeat(2)[None],
        places=places,
        targets=row[0, places + 1],
        segments=Segments(torch.tensor([0, 24, 48], dtype=torch.int32), (24, 24), "apart"),
    )


# --- what is trained -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_adapter_lies_on_every_linear_layer_but_the_head(load: Callable[..., Any], method: str, tied: bool) -> None:
    model = with_adapter(load(method, tied=tied), LORA, [], seed=0)
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert len(lora_layers(model)) == 2 * len(layers)
    assert {name.rsplit(".", 1)[-1] for name in lora_layers(model)} == set(layers)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * len(layers)
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_only_the_adapter_and_the_asked_rows_move(load: Callable[..., Any], method: str, tied: bool) -> None:
    before = {name: tensor.clone() for name, tensor in base(tied=tied).state_dict().items()}
    model = train(with_adapter(load(method, tied=tied), LORA, ROWS, seed=0))
    assert len(token_rows(model)) == 2
    frozen = {name: tensor.clone() for name, tensor in plain(model).state_dict().items() if "base_layer" in name}
    train(model)
    for name, tensor in plain(model).state_dict().items():
        if "base_layer" in name:
            assert torch.equal(tensor, frozen[name]), name
    student = merged(model, torch.float32, seed=0)
    others = [row for row in range(768) if row not in ROWS]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weight = student.state_dict()[name]
        assert torch.equal(weight[others], before[name][others]), name
        assert bool((weight[ROWS] != before[name][ROWS]).any(-1).all()), name
    head, embedding = student.get_output_embeddings().weight, student.get_input_embeddings().weight
    assert (head is embedding) is tied
    for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight", "model.layers.1.self_attn.q_proj.bias"):
        assert torch.equal(student.state_dict()[name], before[name]), name


def test_it_starts_as_no_change_and_is_drawn_from_the_seed() -> None:
    before = logits(base())
    first, again, other = (with_adapter(base(), LORA, ROWS, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(logits(first), before)
    drawn = [next(iter(lora_layers(model).values())).lora_A["default"].weight for model in (first, again, other)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_on_a_base_in_bfloat16_only_what_is_trained_is_float32(load: Callable[..., Any], method: str) -> None:
    model = with_adapter(load(method, dtype=torch.bfloat16), LORA, ROWS, seed=0)
    for name, parameter in model.named_parameters():
        packed = method == "qlora" and name.endswith("proj.base_layer.weight")
        expected = torch.float32 if parameter.requires_grad else torch.uint8 if packed else torch.bfloat16
        assert parameter.dtype == expected, name
    assert plain(model).model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize(
    ("method", "precision", "expected"),
    [
        ("full", "fp32", (torch.float32, False)),
        ("full", "mixed", (torch.float32, True)),
        ("full", "bf16", (torch.bfloat16, False)),
        ("lora", "fp32", (torch.float32, False)),
        ("lora", "mixed", (torch.bfloat16, True)),
        ("qlora", "bf16", (torch.bfloat16, True)),
    ],
)
def test_what_is_loaded_in_which_precision(method: Any, precision: Any, expected: Any) -> None:
    assert dtypes(TrainSettings(method=method, precision=precision)) == expected


# --- under the loss of the loop --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_packed_loss_is_that_of_the_model(
    load: Callable[..., Any], method: str, tied: bool, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the head in one piece and in parts; gradients included, those of the rows in embedding and head too."""
    if not whole:
        monkeypatch.setattr("distill.train.loss.WHOLE_LOGITS", 0)
    model = train(with_adapter(load(method, tied=tied), LORA, ROWS, seed=0))
    model(input_ids=IDS[:2], labels=IDS[:2]).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        reference = float(model(input_ids=IDS[:2], labels=IDS[:2]).loss)
    model.zero_grad()
    loss = StudentLoss(model)(pack()) / 46
    loss.backward()
    assert float(loss.detach()) == pytest.approx(reference, abs=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad, expected[name], atol=1e-5), name


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_mixed_precision_trains_the_adapter(load: Callable[..., Any], method: str) -> None:
    model = with_adapter(load(method, dtype=torch.bfloat16), LORA, ROWS, seed=0).train()
    module = StudentLoss(model, mixed=True)
    optimizer = optimizer_for(module, TrainSettings(learning_rate=1e-2), seed=0)
    losses = []
    for _ in range(6):
        loss = module(pack()) / 46
        loss.backward()
        gradients_arrive(module)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_recomputed_activations_give_the_same_gradients(load: Callable[..., Any], method: str) -> None:
    model = train(with_adapter(load(method), LORA, ROWS, seed=0))
    grads = []
    for recompute in (False, True):
        if recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        gradients_arrive(model)
        grads.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*grads, strict=True))


# --- gradients arrive ------------------------------------------------------------------------------------------------


def backward(model: Any) -> Any:
    model.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bitsandbytes' only sign of it
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
    return model


def repack(model: Any, *, only: str = "") -> None:
    """bitsandbytes' own repacking by an eval-mode forward, as on a CPU with AVX512-BF16."""
    for name, layer in quantized._layers(plain(model)).items():
        layer.support_avx512bf16_for_cpu = only in name
    model.eval()
    logits(model)


def test_repacked_weights_are_noticed(load: Callable[..., Any]) -> None:
    model = with_adapter(load("qlora"), LORA, [], seed=0)
    gradients_arrive(backward(model))
    repack(model, only="layers.1.mlp.up_proj")
    with pytest.raises(TrainingError, match="gradients do not arrive") as caught:
        gradients_arrive(backward(model))
    assert "layers.1.mlp.up_proj.base_layer passes none on" in str(caught.value)
    assert "down_proj" not in str(caught.value)


def test_an_eval_mode_forward_of_the_model_that_trains_repacks_nothing(load: Callable[..., Any]) -> None:
    model = with_adapter(load("qlora"), LORA, [], seed=0).eval()
    logits(model)
    gradients_arrive(backward(model))


def test_a_layer_whose_kernel_has_no_gradient_is_noticed(load: Callable[..., Any]) -> None:
    """What the kernel behind the repacked weights does on a CPU that has it."""
    model = with_adapter(load("qlora"), LORA, [], seed=0)
    layer = quantized._layers(plain(model))["model.layers.0.self_attn.v_proj.base_layer"]
    forward = layer.forward
    layer.forward = lambda x: forward(x.detach()).detach()
    with pytest.raises(TrainingError, match=r"v_proj\.base_layer passes none on"):
        gradients_arrive(backward(model))
    layer.forward = lambda x: forward(2 * x) - forward(x.detach())  # the same value, the wrong slope
    with pytest.raises(TrainingError, match=r"v_proj\.base_layer passes none on"):
        gradients_arrive(backward(model))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_trained_weight_without_gradient_is_named(method: str) -> None:
    model = base() if method == "full" else with_adapter(base(), LORA, ROWS, seed=0)
    gradients_arrive(backward(model))
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    name, parameter = next((n, p) for n, p in trained if "v_proj" in n and "lora_A" not in n)
    parameter.grad = None
    with pytest.raises(TrainingError, match="has no gradient") as caught:
        gradients_arrive(model)
    assert name in str(caught.value)


def test_an_adapter_cut_off_from_the_loss_is_named() -> None:
    model = with_adapter(base(), LORA, [], seed=0)
    layer = lora_layers(model)["model.layers.0.mlp.up_proj"]
    layer.register_forward_hook(lambda module, inputs, output: output.detach())
    with pytest.raises(TrainingError, match=r"layers\.0\.mlp\.up_proj\.lora_B\.default\.weight has no gradient"):
        gradients_arrive(backward(model))


# --- samples while it trains -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_samples_come_from_a_copy_that_answers_alike(load: Callable[..., Any], method: str, tied: bool) -> None:
    model = base(tied=tied) if method == "full" else with_adapter(load(method, tied=tied), LORA, ROWS, seed=0)
    StudentLoss(model)  # its attention wants segments
    attention = plain(model).config._attn_implementation
    model.train()
    StudentLoss(model)(pack()).backward()
    optimizer_for(model, TrainSettings(learning_rate=1e-2), seed=0).step()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if torch.is_tensor(tensor)}
    with sampling_copy(model) as student, torch.no_grad():
        assert type(student) is type(plain(model))
        assert not any(module.training for module in student.modules())
        for layer in quantized._layers(student).values():
            layer.support_avx512bf16_for_cpu = False
        answers = student(input_ids=IDS).logits
        assert student.generate(IDS[:1, :4], max_new_tokens=5, do_sample=False, pad_token_id=721).shape == (1, 9)
        for layer in quantized._layers(student).values():
            layer.support_avx512bf16_for_cpu = True
        student(input_ids=IDS)
        if method == "qlora":
            assert len(quantized.layers_without_gradient(student)) == 14, "the copy has been repacked"
    assert all(module.training for module in model.modules())
    assert plain(model).config._attn_implementation == attention
    for name, tensor in model.state_dict().items():
        assert not torch.is_tensor(tensor) or torch.equal(tensor, before[name]), name
    model.zero_grad()
    StudentLoss(model)(pack()).backward()
    gradients_arrive(model)
    plain(model).set_attn_implementation("sdpa")
    assert torch.allclose(logits(model), answers, atol=1e-6)


def test_a_copy_takes_no_memory_for_weights(load: Callable[..., Any]) -> None:
    model = with_adapter(load("qlora"), LORA, [], seed=0)
    held = {tensor.data_ptr() for tensor in plain(model).parameters()}
    with sampling_copy(model) as student:
        assert {tensor.data_ptr() for tensor in student.parameters()} == held


# --- the merge -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_merged_student_does_what_was_trained(load: Callable[..., Any], method: str, tied: bool) -> None:
    model = train(with_adapter(load(method, tied=tied), LORA, ROWS, seed=0))
    expected, start = logits(model), logits(base(tied=tied))
    done = merge(model, TRACES, torch.float32, seed=0)
    assert torch.allclose(logits(done.student), expected, atol=1e-4)
    assert float((expected - start).abs().max()) > 0.1, "training has changed something"
    check = done.check
    assert check.places == 3 * 24
    assert check.agreement == 1
    assert check.kl < 1e-6
    assert check.max_difference < 1e-4
    assert check.lowest_share == pytest.approx(1, abs=1e-4)
    assert check.highest_share == pytest.approx(1, abs=1e-4)
    assert not lora_layers(done.student)
    assert not hasattr(done.student, "peft_config")


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_what_is_saved_is_the_merged_student_and_loads_without_peft(
    load: Callable[..., Any], tmp_path: Path, method: str
) -> None:
    from transformers import AutoModelForCausalLM

    model = train(with_adapter(load(method, dtype=torch.bfloat16), LORA, ROWS, seed=0))
    student = merge(model, TRACES, torch.bfloat16, seed=0).student
    student.save_pretrained(tmp_path / "student")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype="auto")
    assert again.dtype == torch.bfloat16
    assert getattr(again.config, "quantization_config", None) is None
    saved = again.state_dict()
    assert saved.keys() == base().state_dict().keys()
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, saved[name]), name
    assert torch.equal(logits(again), logits(student))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_adapter_is_saved_in_pefts_own_form(
    load: Callable[..., Any], tmp_path: Path, method: str, tied: bool
) -> None:
    from peft import PeftModel

    model = train(with_adapter(load(method, tied=tied), LORA, ROWS, seed=0))
    save_adapter(model, tmp_path / "adapter", base="org/base")
    again = PeftModel.from_pretrained(load(method, tied=tied), str(tmp_path / "adapter"))
    assert torch.equal(logits(again), logits(model))
    assert again.peft_config["default"].base_model_name_or_path == "org/base"
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "adapter").iterdir()} == {0o644}
    student = merge(again, TRACES, torch.float32, seed=0).student
    assert torch.allclose(logits(student), logits(model), atol=1e-4)


def test_a_layer_goes_when_it_is_merged(load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the old weights and the new ones would all stand side by side."""
    model = with_adapter(load("lora", dtype=torch.bfloat16), LORA, ROWS, seed=0)
    layers = [weakref.ref(layer) for layer in lora_layers(model).values()]
    there, real = [], merging._merged_layer

    def noting(*args: Any) -> Any:
        there.append(sum(layer() is not None for layer in layers))
        return real(*args)

    monkeypatch.setattr(merging, "_merged_layer", noting)
    merged(model, torch.bfloat16, seed=0)
    assert there == list(range(len(layers), 0, -1))


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_only_what_was_in_4_bits_needs_room_to_be_merged(load: Callable[..., Any], method: str) -> None:
    model = with_adapter(load(method, dtype=torch.bfloat16), LORA, ROWS, seed=0)
    sizes = [layer.in_features * layer.out_features for layer in lora_layers(model).values()]
    opened = sum(sizes) * 2 if method == "qlora" else 0
    assert merging.room_to_merge(plain(model), torch.bfloat16) == opened + 16 * max(sizes)


def test_rounded_to_nearest_a_small_change_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step at a small rate on a base in bfloat16: the merge keeps its change on the mean, and the check sees
    what rounding to nearest does."""

    def shares() -> MergeCheck:
        model = train(with_adapter(base().to(torch.bfloat16), LORA, [], seed=0), steps=2, rate=1e-4)
        return verify_merge(probe(model, TRACES), merged(model, torch.bfloat16, seed=0))

    check = shares()
    assert check.lowest_share > 0.3  # in layers of 4,096 weights, up to the noise of rounding them
    monkeypatch.setattr(merging, "round_stochastically", lambda values, generator: None)
    with pytest.raises(TrainingError, match=r"it has 0\.\d\d of the adapter"):
        shares()


# --- a merge gone wrong ----------------------------------------------------------------------------------------------


def broken(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Breaks the merge by hand."""
    whole = merging._merged_layer
    count = iter(range(100))

    def layer(adapted: Any, dtype: torch.dtype, draw: torch.Generator, place: torch.device) -> Any:
        if how == "scale":
            adapted.scaling["default"] /= 2
        made = whole(adapted, dtype, draw, place)
        if how == "base" or (how == "layer" and next(count) == 9):
            made.weight.data = quantized.weight_of(adapted.get_base_layer()).to(dtype)
        return made

    def no_rows(inner: Any) -> None:
        for name in ("model.embed_tokens", "lm_head"):
            inner.set_submodule(name, inner.get_submodule(name).original_module)

    monkeypatch.setattr(merging, "_merged_layer", layer)
    if how == "rows":
        monkeypatch.setattr(merging, "merge_rows", no_rows)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("scale", r"0\.50 of the adapter of model\.layers\.0\.self_attn\.q_proj.* and 1\d more"),
        ("layer", r"it has [\d.-]+ of the adapter of model\.layers\.1\.self_attn\.v_proj"),
        ("base", r"0\.00 of the adapter of"),
        ("rows", r"not the trained row of token 5 in model\.embed_tokens, .*token 700 in lm_head"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_wrong_merge_is_refused_with_its_reason(
    load: Callable[..., Any], method: str, dtype: torch.dtype, how: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train(with_adapter(load(method, dtype=dtype), LORA, ROWS, seed=0), steps=2)
    broken(monkeypatch, how)
    with pytest.raises(TrainingError, match="the merged student does not do what was trained") as caught:
        merge(model, TRACES, dtype, seed=0)
    assert re.search(reason, str(caught.value), re.DOTALL), str(caught.value)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_weights_beside_the_adapter_count_too(load: Callable[..., Any], method: str) -> None:
    """A norm that got lost on the way: no layer and no row tells of it, the logits do."""
    model = train(with_adapter(load(method), LORA, ROWS, seed=0))
    before, student = probe(model, TRACES), merged(model, torch.float32, seed=0)
    student.model.norm.weight.data *= 1.05
    with pytest.raises(TrainingError, match="nats per token from those of the adapter"):
        verify_merge(before, student)


def test_nan_is_no_agreement() -> None:
    model = train(with_adapter(base(), LORA, [], seed=0))
    before, student = probe(model, TRACES), merged(model, torch.float32, seed=0)
    student.model.layers[0].mlp.up_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(TrainingError, match="nan"):
        verify_merge(before, student)


def test_an_adapter_onto_the_base_in_full_precision_is_another_student(
    load: Callable[..., Any], tmp_path: Path
) -> None:
    """What NF4 rounds off is large beside what a merge may differ: such a student is refused."""
    from peft import PeftModel

    model = train(with_adapter(load("qlora"), LORA, [], seed=0))
    save_adapter(model, tmp_path / "adapter", base="base")
    onto_full = merged(PeftModel.from_pretrained(base(), str(tmp_path / "adapter")), torch.float32, seed=0)
    with pytest.raises(TrainingError, match="does not do what was trained"):
        verify_merge(probe(model, TRACES), onto_full)


# --- what is missing -------------------------------------------------------------------------------------------------


def test_without_bitsandbytes_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "bitsandbytes":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingError, match="qlora needs bitsandbytes") as caught:
        load_quantized(tmp_path, torch.bfloat16, device=CPU)
    assert "[quantize]" in str(caught.value)


def test_a_folder_that_is_no_student_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be loaded in 4 bits") as caught:
        load_quantized(tmp_path, torch.bfloat16, device=CPU)
    assert str(tmp_path) in str(caught.value)
