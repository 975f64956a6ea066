"""What a user of a publication does: a fresh process loads it from the Hub with the libraries that the cards name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from upload_hub import UploadHub

from distill.rundir import RunDir
from publish.conftest import TOKEN

PULL = """
import json, sys
repo, run, parts, base, gguf = json.loads(sys.stdin.read())
questions = ["What is 17 + 25?", "Tom has 3 apples and buys 4."]
told = {}

from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer

def greedy(model, place):
    tokenizer = AutoTokenizer.from_pretrained(place)
    said = []
    for question in questions:
        ids = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True,
                                            return_dict=True, return_tensors="pt")
        said.append(model.generate(**ids, max_new_tokens=24, do_sample=False)[0].tolist())
    return said

if "student" in parts:
    def answers(place):
        return greedy(AutoModelForCausalLM.from_pretrained(place, dtype="auto"), place)
    assert answers(repo) == answers(f"{run}/student"), "another student came back"
    told["snapshot"] = snapshot_download(repo)

if "adapter" in parts:
    from peft import AutoPeftModelForCausalLM, PeftModel
    own = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    own.resize_token_embeddings(len(AutoTokenizer.from_pretrained(f"{run}/student")))
    adapted = PeftModel.from_pretrained(own, f"{run}/adapter").eval()
    pulled = AutoPeftModelForCausalLM.from_pretrained(f"{repo}-adapter", dtype="auto").eval()
    assert greedy(pulled, f"{repo}-adapter") == greedy(adapted, f"{run}/student"), "another adapter came back"

if "gguf" in parts:
    from llama_cpp import Llama
    def answers(llama):
        asked = [[{"role": "user", "content": question}] for question in questions]
        return [llama.create_chat_completion(one, temperature=0, max_tokens=16)["choices"] for one in asked]
    quiet = {"n_ctx": 256, "verbose": False}
    kind = gguf.partition("gguf-")[2].partition("/")[0].upper()
    pulled = Llama.from_pretrained(f"{repo}-GGUF", f"*-{kind}.gguf", **quiet)
    assert answers(pulled) == answers(Llama(gguf, **quiet)), "another GGUF file came back"

if "traces" in parts:
    from datasets import load_dataset
    sets = {name: load_dataset(f"{repo}-traces", name) for name in ("kept", "traces", "verdicts", "prompts")}
    told["rows"] = {name: {split: part.num_rows for split, part in one.items()} for name, one in sets.items()}
    told["columns"] = sets["traces"]["train"].column_names
    kept = load_dataset(f"{repo}-traces")["train"]
    told["message"] = kept[0]["messages"][0]["role"]
    assert set(kept["trace_id"]) <= set(sets["traces"]["train"]["key"])
    assert set(kept["trace_id"]) <= set(sets["verdicts"]["train"]["trace_key"])
    assert set(kept["prompt_id"]) <= set(sets["prompts"]["train"]["id"])
print(json.dumps(told))
"""


def environment(hub: UploadHub, home: Path, **more: str) -> dict[str, str]:
    """Of a process that talks to the Hub on loopback, with nothing downloaded before."""
    return {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        **more,
    }


def pulled(
    hub: UploadHub, repo: str, run: RunDir, home: Path, parts: tuple[str, ...], base: Path | None = None
) -> dict[str, Any]:
    """Each part loaded from the Hub answers as it does from the run; `base` is the folder that an adapter belongs on.

    Returns what was found besides: `snapshot`, the student's folder; `rows` by configuration and split.
    """
    gguf = next((str(path) for path in sorted(run.quantized.glob("gguf-*/*.gguf"))), None)
    asked = json.dumps([repo, str(run.path), parts, str(base), gguf])
    command = [sys.executable, "-c", PULL]
    ended = subprocess.run(
        command, input=asked, capture_output=True, text=True, env=environment(hub, home), check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found
