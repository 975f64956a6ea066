"""TRL itself on an exported folder: its script, its own preparation of the rows, one step of the optimizer on a CPU.

What TRL computes is compared with our own contract: the same token ids, and the loss over the same ones.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TOKENIZER, tiny_model
from filtered import Judged, write_kept

from distill import specs
from distill.contract import Contract, parse_canonical
from distill.exchange.exporting import export
from distill.records import Prompt, Trace
from distill.rundir import RunDir
from exchange.exported import CHATML_STUDENT, R1_STUDENT, kept, run_by_hand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG = " ".join(f"{n} + {n} = {2 * n}," for n in range(400))
"""A reasoning of far more than the 1,024 tokens at which TRL cuts by default."""
STUDENTS = {"deepseek-r1": R1_STUDENT, "chatml": CHATML_STUDENT}


def model_folder(place: Path, student: dict[str, Any]) -> Path:
    """A tiny model to start from; for ChatML with that format's tokens in its vocabulary."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    if student["template"] == "chatml":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]})
    tokenizer.chat_template = None  # TRL has to take ours
    tokenizer.save_pretrained(place)
    tiny_model("qwen2", max_position_embeddings=4096).save_pretrained(place)
    return place


def exported(tmp_path: Path, student: dict[str, Any]) -> tuple[specs.Recipe, RunDir, Path]:
    """A run with a long trace, one without reasoning and one in other scripts, handed to TRL."""
    model = model_folder(tmp_path / "model", student)
    learner = {**student, "architecture": None, "tokenizer": None, "base": str(model)}
    recipe, run = run_by_hand(tmp_path / "run", {k: v for k, v in learner.items() if v is not None}, heldout=0)
    first = next(run.ledger().traces())
    prompts = [
        Prompt("What is 400 + 400?", kind="math", answer="800"),
        Prompt("Say hello.", kind="open", reasoning="none"),
        Prompt("¿Cuánto es? 你好 🙂", kind="math", answer="4"),
    ]
    said = [(LONG, "It is \\boxed{800}."), (None, "Hello there."), ("sumo 你好\n\n- dos 🙂", "\\boxed{4}")]
    judged = [Judged(p, changed(first, p, r, a), {}) for p, (r, a) in zip(prompts, said, strict=True)]
    write_kept(run.kept, judged, judged[1:2])
    folder = export(recipe, run, "messages", tool="trl", out=tmp_path / "for-trl").out
    return recipe, run, folder


def changed(trace: Trace, prompt: Prompt, reasoning: str | None, answer: str) -> Trace:
    return replace(trace, prompt_id=prompt.id, reasoning=reasoning, answer=answer)


def script(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("train_trl", folder / "train_trl.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("name", STUDENTS)
def test_trl_trains_on_the_ids_of_our_contract_and_on_nothing_else(tmp_path: Path, name: str) -> None:
    recipe, run, folder = exported(tmp_path, STUDENTS[name])
    spec = specs.student(recipe.student)
    contract: Contract = spec.contract
    module = script(folder)
    assert spec.base is not None
    chosen = Namespace(model=spec.base, out=str(tmp_path / "out"), max_steps=1, batch=3, packing=False)
    trainer = module.trainer_for(chosen)
    tokenizer = trainer.processing_class
    assert len(trainer.train_dataset) == 3, "no row left out"
    for row, computed in zip(kept(run, "train"), trainer.train_dataset, strict=True):
        question, text = (message["content"] for message in row["messages"])
        ours = contract.encode(tokenizer, contract.messages(question, row["kind"]), parse_canonical(text))
        assert computed["input_ids"] == ours.ids
        masked, trained = computed["labels"][: ours.loss_start], computed["labels"][ours.loss_start :]
        assert set(masked) == {-100}, "the prompt is not in the loss"
        assert trained == ours.ids[ours.loss_start :], "tags, reasoning, answer and stop token are, all of them"
        assert tokenizer.decode(trained).endswith(contract.stop)
    assert tokenizer.eos_token == contract.stop
    assert trainer.model.config.eos_token_id == tokenizer.eos_token_id, "what it learnt to stop with"
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    assert max(lengths) > 1_024
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    assert trainer.state.global_step == 1
    assert any(not before[key].equal(after[key]) for key in before), "an optimizer step changed the weights"


def test_packing_cuts_nothing(tmp_path: Path) -> None:
    recipe, _, folder = exported(tmp_path, R1_STUDENT)
    base = specs.student(recipe.student).base
    chosen = {"model": base, "out": str(tmp_path / "out"), "max_steps": 1, "batch": 1}
    plain = script(folder).trainer_for(Namespace(**chosen, packing=False)).train_dataset
    packed = script(folder).trainer_for(Namespace(**chosen, packing=True)).train_dataset
    assert sorted(token for row in packed for token in row["input_ids"]) == sorted(
        token for row in plain for token in row["input_ids"]
    )
    wholes = {tuple(row["input_ids"]) for row in plain}
    pieces = []
    for row in packed:
        start = 0
        for length in row["seq_lengths"]:
            pieces.append(tuple(row["input_ids"][start : start + length]))
            start += length
    assert set(pieces) == wholes, "every text stands in one piece"


def test_the_script_by_itself(tmp_path: Path) -> None:
    recipe, _, folder = exported(tmp_path, R1_STUDENT)
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, moved / "train_trl.py", "--max-steps", "1", "--batch", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "<think>\\n0 + 0 = 0," in done.stdout, "it shows what the loss covers"
    contract = specs.student(recipe.student).contract
    assert (moved / "out" / "chat_template.jinja").read_text(encoding="utf-8") == contract.chat_template
    assert json.loads((moved / "out" / "generation_config.json").read_text())["eos_token_id"] in (720, [720])
    assert (moved / "out" / "model.safetensors").is_file()
    refused = [sys.executable, moved / "train_trl.py", "--model", "FILL-IN-MODEL"]
    done = subprocess.run(refused, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "give --model" in done.stderr
