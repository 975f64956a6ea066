"""What `distill show` says about files and folders: specs by path, model folders, quantized files, scores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_model

from distill.errors import InputError, SpecError, UsageError
from distill.show import show
from distill.show_files import path_shown, spec_kind, weight_count

CHECKOUT = Path(__file__).resolve().parent.parent


def lines(what: str | Path | None) -> str:
    return "\n".join(show(None if what is None else str(what), rejected=False, reason=None)[1])


def test_without_an_argument_the_kinds_and_how_to_go_on() -> None:
    told = lines(None)
    for kind in ("teachers", "students", "data", "recipes"):
        count = len(list((CHECKOUT / kind).glob("*.yaml")))
        assert f"{kind:<10} {count:>3}, such as " in told
    result = subprocess.run([sys.executable, "-m", "distill.cli", "show", "--json"], capture_output=True, check=True)
    assert "tiny-qwen" in json.loads(result.stdout)["students"]


@pytest.mark.parametrize("kind", ["teachers", "students", "data", "recipes"])
def test_every_shipped_spec_is_recognised_by_its_keys_elsewhere(kind: str, tmp_path: Path) -> None:
    for file in (CHECKOUT / kind).glob("*.yaml"):
        copy = tmp_path / file.name
        copy.write_bytes(file.read_bytes())
        assert spec_kind(copy) == spec_kind(file) == kind, file.name


def test_a_spec_file_is_checked(tmp_path: Path) -> None:
    good, bad, broken = (tmp_path / f"{name}.yaml" for name in ("good", "bad", "broken"))
    good.write_text("name: mine\ntemplate: chatml\nbase: some/model\n")
    assert "thinks: true" in lines(good), "defaults are written out"
    bad.write_text("name: mine\ntemplate: chatml\nbase: some/model\nforced_prefx: x\n")
    with pytest.raises(SpecError, match="line 4: unknown key 'forced_prefx'"):
        lines(bad)
    broken.write_text("name: [unclosed\n")
    with pytest.raises(SpecError, match="line 2: not YAML"):
        lines(broken)


def test_a_name_of_several_kinds_shows_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from distill import specs

    (tmp_path / "students").mkdir()
    (tmp_path / "students/gsm8k.yaml").write_text("name: gsm8k\ntemplate: chatml\nbase: some/model\n")
    roots = [*specs.spec_roots(), tmp_path]
    monkeypatch.setattr(specs, "spec_roots", lambda: roots)
    told = lines("gsm8k")
    assert "# students: " in told
    assert "# data: " in told
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert "# data: " in lines("gsm8k"), "a name is a spec's before it is a folder's"
    assert "model ./gsm8k" in lines("./gsm8k") or "model gsm8k" in lines("./gsm8k")


def test_a_model_folder(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = model_folder("qwen2")
    count = sum(weights.numel() for weights in tiny_model("qwen2").parameters())
    told = lines(folder)
    assert weight_count(folder) == count
    assert f"Qwen2ForCausalLM, {count / 1e6:.1f}M weights" in told
    assert "2 layers, hidden 32, 2 heads (2 key-value), vocabulary 768, context 256" in told
    assert "no distill.json" in told
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    contract = {"hash": "abc", "template": "chatml", "forced_prefix": "<think>\n", "instruction": {}, "system": None}
    (tmp_path / "distill.json").write_text(json.dumps({"contract": contract, "student": "tiny", "teacher": "r1"}))
    told = lines(tmp_path)
    assert 'contract abc: template chatml, forced prefix "<think>\\n", no system prompt' in told
    assert "student tiny, teacher r1" in told


def test_a_quantized_folder_says_what_its_weights_really_are(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "scheme": "gguf:q4_k_m",
        "file": "student.gguf",
        "bytes": 1_234_567,
        "bits_per_weight": 6.17,
        "types": {"Q4_K": 250, "Q8_0": 750},
        "four_bit_share": 0.25,
    }
    (tmp_path / "quantization.json").write_text(json.dumps(facts))
    (tmp_path / "student.gguf").write_bytes(b"GGUF")
    told = lines(tmp_path)
    assert "scheme gguf:q4_k_m: student.gguf, 1.2 MB, 6.17 bits per weight" in told
    assert "types: Q8_0 75.0%, Q4_K 25.0%" in told
    assert "25.0% of the weights are in 4 bits" in told
    assert lines(tmp_path / "student.gguf") == told
    (tmp_path / "config.json").write_text(
        '{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": 1}}'
    )
    assert "quantized by bitsandbytes, 4 bits" in lines(tmp_path)


def test_a_score(tmp_path: Path) -> None:
    score: dict[str, Any] = {
        "name": "student",
        "model": {"model": "tiny", "revision": "0123", "quantization": None},
        "contract": "abcd",
        "conditions": {
            "benchmark": "arithmetic:test",
            "sampling": {"temperature": 0.6, "top_p": 0.95, "top_k": None},
            "max_tokens": 32_768,
            "verifier": "v",
        },
        "problems": 2,
        "samples": 8,
        "pass_at_1": 0.5,
        "interval": [0.25, 0.75],
        "unfinished": 0.125,
        "mean_tokens": None,
        "seconds": 12.3,
        "per_problem": {"a": 1.0, "b": 0.0},
    }
    file = tmp_path / "student.json"
    file.write_text(json.dumps(score))
    told = lines(file)
    assert "score of student: pass@1 50.0% (95%: 25.0% – 75.0%), 2 problems × 4 samples" in told
    assert "temperature 0.6, top_p 0.95, at most 32,768 tokens" in told
    assert "top_k" not in told
    assert "never right on 1 problems" in told
    del score["interval"]
    file.write_text(json.dumps(score))
    with pytest.raises(InputError, match="interval"):
        lines(file)


def test_what_is_no_such_thing(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert path_shown(other) is None
    assert path_shown(tmp_path) is None
    with pytest.raises(UsageError, match="nothing is called"):
        lines(other)
    with pytest.raises(UsageError, match="about a run's traces"):
        show("students", rejected=True, reason=None)
    other.write_text("{")
    with pytest.raises(InputError, match=r"other\.json cannot be read"):
        lines(other)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"nothing like it")
    with pytest.raises(InputError, match="no safetensors file"):
        lines(tmp_path)
