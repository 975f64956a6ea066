"""A student to train in a second, and something to train it on."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import TOKENIZER, tiny_model

from distill.contract import Contract, Response
from distill.specs import StudentSpec, TrainSettings
from distill.train.loop import Job, Loop
from distill.train.mixture import Schedule
from distill.train.parallel import World
from distill.train.token_set import Example, Row, TokenSet, write_set

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


def keep(folder: Path, replies: list[str], *, split: str = "train", kind: str = "math") -> None:
    folder.mkdir(exist_ok=True, parents=True)
    rows = [
        {
            "trace_id": f"t{number}",
            "prompt_id": f"{split}-{number}",
            "kind": kind,
            "messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": reply}],
        }
        for number, reply in enumerate(replies)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000.parquet")


def examples(count: int, *, seed: int = 0) -> list[Example]:
    """Of different lengths, prompts longer than replies in some."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        question = " ".join(str(rng.randrange(100)) for _ in range(rng.randrange(1, 15)))
        response = Response(" + ".join(str(rng.randrange(9)) for _ in range(rng.randrange(1, 12))), str(number))
        encoded = CONTRACT.encode(tokenizer(), CONTRACT.messages(question, "math"), response)
        found.append(Example(f"trace-{number:04d}", np.array(encoded.ids, np.int32), encoded.loss_start))
    return found


def token_set(folder: Path, found: Sequence[Example]) -> TokenSet:
    return write_set(folder, (Row(example) for example in found))


def model(seed: int = 0) -> Any:
    return tiny_model("qwen2", seed=seed, initializer_range=0.05)


def job(
    folder: Path,
    *,
    train: Sequence[Example] | None = None,
    heldout: Sequence[Example] | None = None,
    count: int = 16,
    settings: TrainSettings = PLAIN,
    name: str = "job",
    seed: int = 5,
) -> Job:
    """Its traces lie in `folder`-data, its checkpoints in `folder`."""
    place = folder.with_name(f"{folder.name}-data")
    learned = token_set(place / "train", examples(count) if train is None else train)
    held = token_set(place / "heldout", examples(3, seed=9) if heldout is None else heldout)
    nothing = [None] * len(learned)
    schedule = Schedule(learned.lengths, nothing, nothing, settings.phases_of(), settings.batch_size, seed)
    return Job(name, learned, held, np.arange(len(held)), schedule, settings, PAD, folder)


class Log(list[dict[str, Any]]):
    """A watcher that writes down what it is told; `at` calls a function after the loss of that step was told, `looked`
    are the steps after which it says that it used the model."""

    def __init__(self, looked: Sequence[int] = (), **at: Any) -> None:
        super().__init__()
        self.at = {int(step.removeprefix("step_")): call for step, call in at.items()}
        self.looked, self.asked = looked, list[int]()
        self.begun: list[int] = []

    def begin(self, done: int) -> None:
        self.begun.append(done)

    def log(self, values: Mapping[str, Any]) -> None:
        self.append(dict(values))
        if "loss" in values and values["step"] in self.at:
            self.at[values["step"]]()

    def after_step(self, done: int, steps: int, stop: Callable[[], bool]) -> bool:
        self.asked.append(done)
        return done in self.looked

    @property
    def losses(self) -> dict[int, float]:
        return {values["step"]: values["loss"] for values in self if "loss" in values}

    @property
    def heldout(self) -> dict[int, float]:
        return {values["step"]: values["heldout_loss"] for values in self if "heldout_loss" in values}


def loop_on(student: Any, what: Job, log: Log | None = None, **more: Any) -> Loop:
    """The loop over `student`, in one process."""
    from distill.train.loss import StudentLoss
    from distill.train.optimizer import optimizer_for

    module = StudentLoss(student, mixed=what.settings.precision == "mixed")
    optimizer = optimizer_for(module, what.settings, seed=5)
    return Loop(module, optimizer, what, Log() if log is None else log, World(), **more)
