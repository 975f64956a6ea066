"""A pretrained student, its adapter and its GGUF file, published and pulled back by what users load them with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from upload_hub import UploadHub
from vllm_server import CHECKOUT

from distill import specs
from distill.pipeline import run_recipe
from distill.publish import publishing
from distill.publish.lineage import lineage
from distill.rundir import RunDir
from publish.pulling import pulled

BASE = CHECKOUT / ".cache" / "smollm2"
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
REPO = "org/sums"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not BASE.is_dir(), reason="no .cache/smollm2: make smollm2"),
]
SETTINGS = {
    "prompts.0.limit": 32,
    "filter.heldout": 0.1,
    "train.method": "lora",
    "train.batch_size": 8,
    "train.samples.problems": 1,
    "evaluate.models": ["student"],
    "evaluate.prompts.0.limit": 2,
    "evaluate.max_tokens": 16,
    "evaluate.min_pass_at_1": None,
    "quantize.schemes": ["gguf:q8_0"],
    "quantize.limit": 2,
    "quantize.samples": 1,
    "quantize.min_difference": None,
    "quantize.min_four_bit_share": None,
}


def test_a_pretrained_student_and_its_adapter_come_back_as_they_were(hub: UploadHub, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    recipe = specs.recipe("arithmetic-smollm2", SETTINGS)
    run_recipe(recipe, run)
    publishing.publish(recipe, run, publishing.Asked(REPO))
    settings = json.loads(hub.files(f"{REPO}-adapter")["adapter_config.json"])
    assert settings["base_model_name_or_path"] == BASE_NAME
    assert f"base_model:\n- {BASE_NAME}\n" in hub.files(REPO)["README.md"].decode()
    hub.put(BASE_NAME, {path.name: path.read_bytes() for path in BASE.iterdir() if path.is_file()}, private=False)
    pulled(hub, REPO, run, tmp_path / "home", ("student", "adapter", "gguf", "traces"), BASE)
    assert lineage(run.adapter / "adapter_model.safetensors").broken == []
