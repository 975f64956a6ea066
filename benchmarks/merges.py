"""What merging an adapter costs: the loss of the merged student beside that of what was trained, in one run.

    python benchmarks/merges.py --base .cache/smollm2 --traces gsm8k_train_1000.jsonl

Trains LoRA and QLoRA on question and answer of the first traces and measures on later ones: the adapter as trained;
merged with weights rounded to nearest and stochastically; a QLoRA adapter merged onto its dequantized base and onto the
base in full precision. The loss is over every token, in nats. Arithmetic is float32, so that weights alone count: the
base is what bfloat16 holds, and so is every merged student.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from distill.train import merging
from distill.train.adapters import gradients_arrive, sampling_copy, save_adapter, with_adapter
from distill.train.optimizer import optimizer_for
from distill.train.quantized import load_quantized
from distill.train_specs import LoraSettings, TrainSettings

BATCH = 4
CPU = torch.device("cpu")
Traces = Sequence[list[int]]


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def train(model: Any, traces: Traces, settings: TrainSettings) -> None:
    optimizer = optimizer_for(model, settings, seed=0)
    model.train()
    for start in range(0, len(traces), BATCH):
        for ids in traces[start : start + BATCH]:
            row = torch.tensor([ids])
            (model(input_ids=row, labels=row, use_cache=False).loss / BATCH).backward()
        if start == 0:
            gradients_arrive(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def loss_of(model: Any, traces: Traces) -> float:
    summed, tokens = 0.0, 0
    with sampling_copy(model) as student:
        for ids in traces:
            row = torch.tensor([ids])
            logits = student(input_ids=row, use_cache=False).logits[0, :-1].float()
            summed += float(torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum"))
            tokens += len(ids) - 1
    return summed / tokens


@contextlib.contextmanager
def rounded_to_nearest() -> Iterator[None]:
    with mock.patch.object(merging, "round_stochastically", return_value=None):
        yield


def report(name: str, before: merging.Probe, student: Any, traces: Traces) -> None:
    student = student.float()
    with mock.patch.object(merging, "SHARE_ERROR", float("inf")), mock.patch.dict(merging.KL, {torch.float32: 1e9}):
        check = merging.verify_merge(before, student)
    print(
        f"{name:44} loss {loss_of(student, traces):.4f}   KL {check.kl:.1e}   same word {check.agreement:.3f}   "
        f"adapter {check.lowest_share:.3f} to {check.highest_share:.3f}",
        flush=True,
    )


def measure(base: Path, method: str, heldout: Traces, traces: Traces, settings: TrainSettings) -> None:
    from peft import PeftModel

    def fresh() -> Any:
        return load(base) if method == "lora" else load_quantized(base, torch.float32, device=CPU)

    model = with_adapter(fresh(), settings.lora, [], seed=0)
    print(f"{method}, rate {settings.learning_rate:g}, {len(traces) // BATCH} steps")
    print(f"{'base':44} loss {loss_of(model, heldout):.4f}", flush=True)
    train(model, traces, settings)
    print(f"{'as trained':44} loss {loss_of(model, heldout):.4f}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        save_adapter(model, Path(place), base=str(base))
        before = merging.probe(model, heldout)
        with rounded_to_nearest():
            report("merged, rounded to nearest", before, merging.merged(model, torch.bfloat16, seed=0), heldout)
        again = PeftModel.from_pretrained(fresh(), place)
        report("merged, rounded stochastically", before, merging.merged(again, torch.bfloat16, seed=0), heldout)
        if method == "qlora":
            again = PeftModel.from_pretrained(load(base), place)
            student = merging.merged(again, torch.bfloat16, seed=0)
            report("merged onto the base in full precision", before, student, heldout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=Path(".cache/smollm2"))
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--heldout", type=int, default=48)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-5])
    options = parser.parse_args()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.base)
    rows = [json.loads(line) for line in options.traces.read_text(encoding="utf-8").splitlines()]
    texts = [f"{row['question']}\n{row['answer']}{tokenizer.eos_token}" for row in rows]
    ids = [tokenizer.encode(text) for text in texts]
    heldout, traces = ids[-options.heldout :], ids[: options.steps * BATCH]
    for method in ("lora", "qlora"):
        for rate in options.rates:
            settings = TrainSettings(method=method, lora=LoraSettings(), learning_rate=rate)
            measure(options.base, method, heldout, traces, settings)


if __name__ == "__main__":
    main()
