"""A student to train in a second, and something to train it on."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

from conftest import TOKENIZER, tiny_model

from distill.contract import Contract, Response
from distill.specs import StudentSpec, TrainSettings
from distill.train.encoding import Example
from distill.train.loop import Job

CONTRACT = Contract("deepseek-r1", "<think>\n")
PAD = 721
PLAIN = TrainSettings(precision="fp32", batch_size=4, epochs=2, learning_rate=1e-3, micro_batch_tokens=10_000)


def spec(tokenizer: Path | None = TOKENIZER, **changed: Any) -> StudentSpec:
    sizes = {
        "model_type": "qwen2",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
    }
    settings = {
        "name": "tiny",
        "architecture": sizes,
        "tokenizer": str(tokenizer) if tokenizer is not None else None,
        "template": "deepseek-r1",
        "forced_prefix": "<think>\n",
    }
    return StudentSpec(**{**settings, **changed})


@functools.cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TOKENIZER)


def examples(count: int, *, seed: int = 0) -> list[Example]:
    """Of different lengths, prompts longer than replies in some."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        question = " ".join(str(rng.randrange(100)) for _ in range(rng.randrange(1, 15)))
        response = Response(" + ".join(str(rng.randrange(9)) for _ in range(rng.randrange(1, 12))), str(number))
        encoded = CONTRACT.encode(tokenizer(), CONTRACT.messages(question, "math"), response)
        found.append(Example(f"trace-{number:04d}", encoded))
    return found


def model(seed: int = 0) -> Any:
    return tiny_model("qwen2", seed=seed, initializer_range=0.05)


def job(folder: Path, *, count: int = 16, settings: TrainSettings = PLAIN, name: str = "job", **changed: Any) -> Job:
    everything = {"train": examples(count), "heldout": examples(3, seed=9), "seed": 5, **changed}
    return Job(name=name, settings=settings, phases=settings.phases_of(), pad=PAD, checkpoints=folder, **everything)
