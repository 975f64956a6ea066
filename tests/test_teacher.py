"""The embedded teacher is what its card says: R1's architecture in miniature, good at its task and not perfect."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from distill import specs
from distill.contract import CLOSE, OPEN
from distill.evaluate import stage
from distill.rundir import RunDir

FOLDER = Path(specs.teacher("tiny-r1").model)


def test_has_the_sizes_that_make_it_a_miniature_of_r1() -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    assert (config["kv_lora_rank"], config["qk_rope_head_dim"]) == (512, 64)
    assert (config["topk_method"], config["scoring_func"]) == ("noaux_tc", "sigmoid")
    assert config["first_k_dense_replace"] == 1
    assert config["n_shared_experts"] == 1
    assert config["n_routed_experts"] > config["num_experts_per_tok"]
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) <= 12_000_000


def test_writes_digits_one_by_one_and_tags_as_single_tokens() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert [len(tokenizer.encode(tag, add_special_tokens=False)) for tag in (OPEN, CLOSE)] == [1, 1]
    assert len(tokenizer.encode("1234567890", add_special_tokens=False)) == 10
    assert tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}], tokenize=False, add_generation_prompt=True
    ).endswith(f"{OPEN}\n")


@pytest.mark.slow
def test_is_good_and_not_perfect(tmp_path: Path) -> None:
    """The card's figure on fresh samples: 200 problems, three standard errors to either side."""
    card = (FOLDER / "README.md").read_text()
    stated = float(re.search(r"top-p 0.95 \| ([\d.]+)%", card).group(1)) / 100
    assert 0.90 <= stated <= 0.99
    part = {"source": "arithmetic", "split": "test", "limit": 200}
    settings = {"prompts": [part], "samples": 1, "max_tokens": 256, "models": ["teacher"]}
    recipe = specs.Recipe.model_validate({"name": "t", "seed": 11, "teacher": "tiny-r1", "evaluate": settings})
    stage.run(recipe, RunDir(tmp_path))
    score = json.loads((tmp_path / "evaluations/teacher.json").read_text())
    assert abs(score["pass_at_1"] - stated) < 3 * score["stderr"]
