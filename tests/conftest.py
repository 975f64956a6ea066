"""What many tests share: tiny random models of the three architectures as folders, and a disk that is soon full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is not there fails at once instead of being looked for in the net

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: their threads would wait for each other, spinning
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that may take longest come first, so that no worker begins with one when the others have done."""
    longest: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0.0), float(limit.args[0]) if limit is not None else 0.0)
    items.sort(key=lambda item: -longest[item.path])


TOKENIZER = Path(__file__).parents[1] / "teachers" / "tiny-r1"
SIZES: dict[str, Any] = {
    "vocab_size": 768,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # wide, so that a random model is sure of nothing and repeats nothing
    "bos_token_id": 719,
    "eos_token_id": 720,
    "pad_token_id": 721,
}
DEEPSEEK: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
ARCHITECTURES = ("qwen2", "llama", "deepseek_v3")


def tiny_model(architecture: str, *, seed: int = 0, **changed: Any) -> Any:
    """A random float32 model, the same for the same seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    extra = DEEPSEEK if architecture == "deepseek_v3" else {}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(architecture, **{**SIZES, **extra, **changed})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded teacher's tokenizer alone, without its weights."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TOKENIZER / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Callable[[str], Path]:
    """Architecture → folder of a tiny random model with tokenizer and chat template, built once."""
    built: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in built:
            path = tmp_path_factory.mktemp(architecture) / "model"
            shutil.copytree(tokenizer_folder, path)
            tiny_model(architecture).save_pretrained(path)
            built[architecture] = path
        return built[architecture]

    return folder


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB, where this machine lets us mount one."""
    place = tmp_path / "tiny-disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
