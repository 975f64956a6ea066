"""Builds the embedded teacher `teachers/tiny-r1/`: tokenizer, DeepSeek-V3 architecture in miniature, training.

    python benchmarks/build_tiny_r1.py --out teachers/tiny-r1

The recipe is fixed (seed, steps, sizes below). The model in the repository was built in three sittings, one a cycle; a
second build has not been compared with it. It takes about an hour on two cores.
`benchmarks/teacher_card.py` then measures the result and writes its card.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.contract import CLOSE, OPEN, TEMPLATES, Contract, Response
from distill.problems import arithmetic

if TYPE_CHECKING:
    import torch
    from transformers import DeepseekV3ForCausalLM, PreTrainedTokenizerFast

SEED = 20261123
BATCH = 32
POOL = 16
"""Batches drawn at once and sorted by length, so that little of a batch is padding."""
WIDTH = 32
"""Batches are padded to a multiple of this: few distinct shapes keep the allocator from fragmenting (17 GB without)."""
CYCLES = ((1_600, 2e-3, 500), (800, 1e-3, 740), (800, 1e-3, 740))
"""(steps, peak learning rate, steps of the linear fall at the end); each starts with a linear warmup."""
AFRESH = 2_400
"""At this step training goes on from the weights rounded to bfloat16, with a new optimizer: the third cycle was added
to a finished model."""
STEPS = sum(steps for steps, _, _ in CYCLES)
FINAL_LR, WARMUP = 1e-4, 60
CHECKPOINT_STEPS = 200
CORPUS = 4_000
VOCABULARY = 768
BALANCE_RATE = 1e-3
"""Step of the routing bias towards equal load, as in the DeepSeek-V3 report (arXiv 2412.19437, section 2.1.2)."""

CONTRACT = Contract("deepseek-r1", forced_prefix=f"{OPEN}\n")
R1 = TEMPLATES[CONTRACT.template]
PAD = "<｜▁pad▁｜>"

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer: digits one by one, and known to llama.cpp by the name `qwen2`."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 7,
        special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rng = random.Random(SEED)
    texts = []
    for problem in itertools.islice(arithmetic.problems("train", SEED), CORPUS):
        texts += [problem.question, *arithmetic.solve(problem, rng)]
    tokenizer.train_from_iterator(texts, trainer)
    special = (R1.bos, R1.stop, PAD, R1.user, R1.assistant)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in (OPEN, CLOSE)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=R1.bos,
        eos_token=R1.stop,
        pad_token=PAD,
        chat_template=CONTRACT.chat_template,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> DeepseekV3ForCausalLM:
    """R1's class and latent sizes (`kv_lora_rank`, `qk_rope_head_dim`); everything else scaled down, 5.4M weights."""
    import torch
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    torch.manual_seed(SEED)
    hidden = 256
    config = DeepseekV3Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=512,
        moe_intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_shared_experts=1,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=4,
        topk_group=2,
        first_k_dense_replace=1,
        q_lora_rank=128,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=32,
        v_head_dim=64,
        max_position_embeddings=2048,
        num_mtp_layers=0,
        initializer_range=hidden**-0.5,
        rope_theta=10000.0,
        topk_method="noaux_tc",
        scoring_func="sigmoid",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return DeepseekV3ForCausalLM._from_config(config, experts_implementation="grouped_mm", dtype=torch.float32)


def examples(tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[list[int], int]]:
    """Endless (token ids, length of the prompt part) of worked problems in R1's format."""
    rng = random.Random(SEED + 1)
    for problem in arithmetic.problems("train", SEED + 1):
        reasoning, answer = arithmetic.solve(problem, rng)
        messages = CONTRACT.messages(problem.question, "math")
        encoded = CONTRACT.encode(tokenizer, messages, Response(reasoning, answer))
        yield encoded.ids, len(CONTRACT.encode_prompt(tokenizer, messages))


def batches(tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input ids, labels), each [BATCH, longest]; padding and prompt carry the label -100."""
    import torch

    stream, rng = examples(tokenizer), random.Random(SEED + 2)
    while True:
        pool = sorted(itertools.islice(stream, BATCH * POOL), key=lambda example: len(example[0]))
        groups = [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
        rng.shuffle(groups)
        for group in groups:
            width = -(-max(len(ids) for ids, _ in group) // WIDTH) * WIDTH
            inputs = torch.full((BATCH, width), int(tokenizer.pad_token_id))
            labels = torch.full((BATCH, width), -100)
            for row, (ids, prompt) in enumerate(group):
                inputs[row, : len(ids)] = torch.tensor(ids)
                labels[row, prompt : len(ids)] = torch.tensor(ids[prompt:])
            yield inputs, labels


def learning_rate(step: int) -> float:
    for steps, peak, fall in CYCLES:
        if step < WARMUP:
            return peak * (step + 1) / WARMUP
        if step < steps:
            return FINAL_LR + (peak - FINAL_LR) * min(1.0, (steps - step) / fall)
        step -= steps
    return FINAL_LR


class LoadBalance:
    """Counts each expert's tokens and moves its routing bias towards equal load, without an auxiliary loss."""

    def __init__(self, model: DeepseekV3ForCausalLM) -> None:
        import torch

        self.gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
        self.loads = [torch.zeros(gate.num_experts) for gate in self.gates]
        for gate, load in zip(self.gates, self.loads, strict=True):
            gate.register_forward_hook(self._counter(load))

    @staticmethod
    def _counter(load: torch.Tensor) -> Any:
        def count(_module: Any, _inputs: Any, outputs: Any) -> None:
            load.add_(outputs[2].flatten().bincount(minlength=load.numel()))

        return count

    def update(self) -> None:
        for gate, load in zip(self.gates, self.loads, strict=True):
            gate.e_score_correction_bias += BALANCE_RATE * (load.mean() - load).sign()
            load.zero_()


def train(model: DeepseekV3ForCausalLM, tokenizer: PreTrainedTokenizerFast, work: Path) -> None:
    """Trains to the end, from `work/checkpoint.pt` if an earlier build was interrupted."""
    import torch

    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    new_optimizer = partial(torch.optim.AdamW, groups, lr=FINAL_LR, betas=(0.9, 0.98), fused=True)
    optimizer = new_optimizer()
    balance, started, tokens, first = LoadBalance(model), time.monotonic(), 0, 0
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, started = state["step"], started - state["seconds"]
    model.train()
    for step, (inputs, labels) in enumerate(itertools.islice(batches(tokenizer), first, STEPS), start=first):
        if step == AFRESH:
            optimizer = new_optimizer()
            with torch.no_grad():
                for weights in (*model.parameters(), *model.buffers()):
                    weights.copy_(weights.to(torch.bfloat16))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=inputs, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        balance.update()
        tokens += inputs.numel()
        if step % 20 == 0 or step + 1 == STEPS:
            seconds = time.monotonic() - started
            row = {
                "step": step,
                "loss": round(loss.item(), 5),
                "seconds": round(seconds),
                "tokens_per_s": round(tokens / seconds),
            }
            print(json.dumps(row), flush=True)
            with (work / "training.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        if (step + 1) % CHECKPOINT_STEPS == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save({**state, "seconds": time.monotonic() - started}, checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for model and tokenizer")
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/tiny-r1"), help="folder for checkpoint and training log"
    )
    options = parser.parse_args()
    out, work = options.out, options.work
    work.mkdir(parents=True, exist_ok=True)
    import torch

    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    train(model, tokenizer, work)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
