"""An adapter merged into its student, and the proof that the student does what was trained.

Knows nothing about data, runs or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from distill.errors import TrainingError
from distill.train import quantized
from distill.train.adapters import ADAPTER, lora_layers, merge_rows, plain, sampling_copy, token_rows
from distill.train.optimizer import round_stochastically

PLACES = 64
"""Last tokens of a trace whose logits are compared: 64 of 152,000 words take 39 MB."""
PROBES = 16
"""Random inputs that every adapted layer is asked with."""
SHARE_ERROR, STANDARD_ERRORS = 0.02, 6.0
"""How far the share of an adapter found in a merged layer may be from 1: this, and so many standard errors, which are
those of rounding the merged weights."""
KL = {torch.float32: 1e-6, torch.bfloat16: 0.02}
"""Nats per token that the merged student may be from what was trained."""


@dataclass(frozen=True, slots=True)
class LayerProbe:
    """An adapted layer before the merge: random inputs [PROBES, in], and what base and adapter add to the output, each
    [PROBES, out], in float32."""

    inputs: torch.Tensor
    base: torch.Tensor
    adapter: torch.Tensor


@dataclass(frozen=True, slots=True)
class Probe:
    """What a student with an adapter does."""

    traces: Sequence[Sequence[int]]
    logits: Sequence[torch.Tensor]
    """One per trace, [PLACES at most, vocabulary], float32, on the CPU."""
    layers: Mapping[str, LayerProbe]
    rows: Mapping[str, tuple[Sequence[int], torch.Tensor]]
    """Vocabulary module → ids of the trained rows, and the rows."""


@dataclass(frozen=True, slots=True)
class MergeCheck:
    """The merged student against what was trained, on `places` tokens of real traces."""

    places: int
    max_difference: float
    """Of a logit."""
    kl: float
    """Nats per token, from what was trained to the merged student."""
    agreement: float
    """Share of tokens where both put the same word first."""
    lowest_share: float
    highest_share: float
    """Of an adapter, found in its merged layer: 1 when all of it is there, 0 when the layer was left out."""


@dataclass(frozen=True, slots=True)
class Merge:
    student: Any
    check: MergeCheck


def merge(model: Any, traces: Sequence[Sequence[int]], dtype: torch.dtype, *, seed: int) -> Merge:
    """The adapted `model`, which is used up, as a plain transformers model in `dtype`, compared on token ids of real
    traces. Raises TrainingError when it does not do what was trained."""
    before = probe(model, traces)
    student = merged(model, dtype, seed=seed)
    return Merge(student, verify_merge(before, student))


def merged(model: Any, dtype: torch.dtype, *, seed: int) -> Any:
    """The adapted model as a plain transformers model with weights in `dtype`, made in place: `model` is used up.

    A base in 4 bits is dequantized first, to the very weights that the adapter was trained on. Sums are float32. In
    bfloat16 they are rounded stochastically: rounded to nearest, changes that are small beside their weight would all
    be lost.
    """
    inner = plain(model)
    place = _place(inner, dtype)
    draw = torch.Generator(inner.device).manual_seed(seed)
    with torch.no_grad():
        for name in list(lora_layers(model)):  # names alone: nothing shall hold a layer that is merged already
            inner.set_submodule(name, _merged_layer(inner.get_submodule(name), dtype, draw, place))
        merge_rows(inner)
        for parameter in inner.parameters():  # no buffers: rotary frequencies are float32 whatever the weights are
            parameter.data = parameter.data.to(dtype)
    if hasattr(inner, "peft_config"):
        del inner.peft_config
    quantized.forget_quantization(inner)
    inner.to(place)
    inner.config.dtype = dtype
    return inner.requires_grad_(False)


def _place(inner: Any, dtype: torch.dtype) -> torch.device:
    """Where the merged student lies: on the GPU if it has room for what was in 4 bits, else on the CPU."""
    device: torch.device = inner.device
    if device.type != "cuda":
        return device
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return device if free >= room_to_merge(inner, dtype) else torch.device("cpu")


def room_to_merge(inner: Any, dtype: torch.dtype) -> int:
    """Bytes that the merged weights of 4-bit layers take, and those of one layer in float32 four times over: base,
    adapter, sum, random bits. Layers in whole numbers of bytes make their own room."""
    sizes: list[int] = []
    opened = 0
    for layer in lora_layers(inner).values():
        sizes.append(layer.in_features * layer.out_features)
        opened += sizes[-1] if hasattr(layer.get_base_layer().weight, "quant_state") else 0
    return opened * dtype.itemsize + 4 * 4 * max(sizes, default=0)


def _merged_layer(layer: Any, dtype: torch.dtype, draw: torch.Generator, place: torch.device) -> torch.nn.Linear:
    base = layer.get_base_layer()
    weight = quantized.weight_of(base).float() + layer.get_delta_weight(ADAPTER).float()
    if dtype == torch.bfloat16:
        round_stochastically(weight, draw)
    made = torch.nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    made.weight = torch.nn.Parameter(weight.to(dtype).to(place), requires_grad=False)
    made.bias = base.bias
    return made


@torch.no_grad()
def probe(model: Any, traces: Sequence[Sequence[int]]) -> Probe:
    """Records what `model` with its adapter does, for `verify_merge`."""
    layers = {name: _probe_layer(layer) for name, layer in lora_layers(model).items()}
    return Probe(traces, _logits(model, traces), layers, token_rows(model))


def _probe_layer(layer: Any) -> LayerProbe:
    base = layer.get_base_layer()
    weight = quantized.weight_of(base).float()
    inputs = torch.randn(PROBES, base.in_features, generator=torch.Generator().manual_seed(0)).to(weight.device)
    inner, outer = layer.lora_A[ADAPTER].weight.float(), layer.lora_B[ADAPTER].weight.float()
    return LayerProbe(inputs, inputs @ weight.T, (inputs @ inner.T) @ outer.T * layer.scaling[ADAPTER])


def _logits(model: Any, traces: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    found = []
    with sampling_copy(model) as student:
        for ids in traces:
            row = torch.tensor([list(ids)], device=student.device)
            out = student(input_ids=row, use_cache=False, logits_to_keep=PLACES)
            found.append(out.logits[0].float().cpu())
    return found


@torch.no_grad()
def verify_merge(before: Probe, student: Any) -> MergeCheck:
    """Compares the merged student with what was trained: layer by layer, row by row and on whole traces.

    A layer is compared by the part of the adapter's output that is found in the difference between merged layer and
    base: that is 1 up to rounding however little the adapter does, where a comparison of logits would not notice one
    lost layer of many. Raises TrainingError naming what does not agree.
    """
    wrong, shares = [], []
    for name, layer in before.layers.items():
        share, error = _share(layer, student.get_submodule(name).weight)
        if share is None:
            continue
        shares.append(share)
        if not abs(share - 1) <= SHARE_ERROR + STANDARD_ERRORS * error:
            wrong.append(f"{share:.2f} of the adapter of {name}")
    for name, (ids, rows) in before.rows.items():
        weight = student.get_submodule(name).weight
        same = (weight[list(ids)] == rows.to(weight)).all(-1).tolist()
        wrong += [
            f"not the trained row of token {row} in {name}" for row, fits in zip(ids, same, strict=True) if not fits
        ]
    check = _compared(before.logits, _logits(student, before.traces), shares or [1.0])
    limit = KL[student.dtype]
    if not check.kl <= limit:
        wrong.append(f"logits {check.kl:.2g} nats per token from those of the adapter, more than {limit:g}")
    if wrong:
        raise TrainingError(
            "the merged student does not do what was trained",
            given="it has " + ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""),
            todo="the adapter itself is whole, in the run's adapter/; please report this with the versions of torch, "
            "peft and transformers",
        )
    return check


def _share(layer: LayerProbe, weight: torch.Tensor) -> tuple[float | None, float]:
    """The share of the adapter in a merged weight, by least squares, and its standard error; None for no adapter."""
    added = layer.inputs @ weight.to(layer.inputs.device).float().T - layer.base
    square = float(layer.adapter.square().sum())
    if square == 0:
        return None, 0.0
    share = float((added * layer.adapter).sum()) / square
    rest = float((added - share * layer.adapter).square().mean())
    return share, (rest / square) ** 0.5


def _compared(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], shares: Sequence[float]) -> MergeCheck:
    one, other = torch.cat(list(before)), torch.cat(list(after))
    expected, found = one.log_softmax(-1), other.log_softmax(-1)
    return MergeCheck(
        places=len(one),
        max_difference=float((one - other).abs().max()),
        kl=float((expected.exp() * (expected - found)).sum(-1).mean()),
        agreement=float((one.argmax(-1) == other.argmax(-1)).float().mean()),
        lowest_share=min(shares),
        highest_share=max(shares),
    )
