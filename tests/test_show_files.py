"""What `distill show` says about files and folders: specs by path, model folders, quantized files, scores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_model
from tiny_gguf import write_gguf

from distill.errors import InputError, MissingError, SpecError, UsageError
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
    told = lines(tmp_path)
    assert "scheme gguf:q4_k_m: student.gguf, 1.2 MB, 6.17 bits per weight" in told
    assert "types: Q8_0 75.0%, Q4_K 25.0%" in told
    assert "25.0% of the weights are in 4 bits" in told
    facts["file"], facts["types"] = None, {"NF4": 0}
    (tmp_path / "quantization.json").write_text(json.dumps(facts))
    told = lines(tmp_path)
    assert "scheme gguf:q4_k_m: 1.2 MB, 6.17 bits per weight" in told
    assert "None" not in told
    assert "types" not in told, "there are no weights to share"
    (tmp_path / "config.json").write_text(
        '{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": 1}}'
    )
    assert "quantized by bitsandbytes, 4 bits" in lines(tmp_path)


def test_a_gguf_file_by_itself_and_beside_how_it_was_made(
    model_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(model_folder("qwen2"), tmp_path / "tiny.gguf", template="{{ messages }}")
    told = lines(file)
    assert f"GGUF file {file}: {file.stat().st_size / 1e6:.1f} MB" in told
    assert f"  qwen2, {weight_count(model_folder('qwen2')) / 1e6:.1f}M weights, context 256" in told
    assert "types: F32 100.0%" in told
    assert 'stop token "' in told
    assert "with a chat template" in told
    facts = {"scheme": "gguf:f32", "file": "another.gguf", "bytes": 1}
    (tmp_path / "quantization.json").write_text(json.dumps(facts))
    assert lines(file) == told, "that is said of another file"
    (tmp_path / "quantization.json").write_text(json.dumps({**facts, "file": "tiny.gguf"}))
    assert "scheme gguf:f32: tiny.gguf" in lines(file)
    content = file.read_bytes()
    for damaged in (b"GGUF", b"", content[:600], b"GGUF" + bytes(100), content[:2_000]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"tiny\.gguf"):
            lines(file)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingError, match="GGUF files need the package gguf"):
        lines(file)


SCORE: dict[str, Any] = {
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


def test_a_score(tmp_path: Path) -> None:
    score = dict(SCORE)
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


VALID: dict[str, dict[str, Any]] = {
    "config.json": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "dtype": "bfloat16", "num_hidden_layers": 2,
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bits": 4},
    },
    "distill.json": {
        "contract": {"hash": "abc", "template": "chatml", "forced_prefix": "<think>", "system": None}, "student": "t",
    },
    "quantization.json": {
        "scheme": "nf4", "file": "x.gguf", "bytes": 10, "bits_per_weight": 4.5, "types": {"NF4": 8, "BF16": 2},
        "four_bit_share": 0.8,
    },
    "score.json": SCORE,
}  # fmt: skip
ODD = (None, True, 0, -1, 10**400, 1.5, float("nan"), "x", "", [], [1], ["x", None], {}, {"a": "x"}, {"a": 0})


def places(values: Any) -> Iterator[list[str]]:
    """The way to every value inside."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from ([key], *([key, *rest] for rest in places(value)))


def changed(values: Any, place: list[str], odd: Any) -> Any:
    return odd if not place else {**values, place[0]: changed(values[place[0]], place[1:], odd)}


@pytest.mark.parametrize("name", VALID)
def test_a_value_of_a_wrong_type_is_left_out_or_named(name: str, tmp_path: Path) -> None:
    for file, values in VALID.items():
        (tmp_path / file).write_text(json.dumps(values))
    what = tmp_path / name if name == "score.json" else tmp_path
    assert lines(what)
    named = 0
    for place in places(VALID[name]):
        for odd in ODD:
            (tmp_path / name).write_text(json.dumps(changed(VALID[name], place, odd)))
            try:
                assert lines(what), (place, odd)
            except InputError as error:
                named += 1
                assert str(tmp_path / name) in error.what, (place, odd)  # noqa: PT017  # many may be shown instead
    assert named or name == "distill.json", "nothing there is computed with"


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


def test_students_are_listed_by_size_with_what_decides_for_one() -> None:
    told, listed = show("students", rejected=False, reason=None)
    rows = {line.split()[0]: line.split()[1:] for line in listed[1:]}
    assert listed[0].split() == ["student", "weights", "context", "licence", "starts", "from"]
    assert rows["r1-distill-qwen-7b"] == ["7.62B", "131,072", "apache-2.0", "Qwen/Qwen2.5-Math-7B"]
    assert rows["r1-distill-llama-70b"] == ["70.55B", "131,072", "llama3.3", "meta-llama/Llama-3.3-70B-Instruct"]
    assert rows["qwen3-0.6b"][:2] == ["596.0M", "32,768"]
    assert rows["tiny-qwen"] == ["3.2M", "1,024", "MIT", "nothing"]
    assert list(rows)[-1] == "r1-distill-llama-70b"
    assert len({line.rfind(origin) for line, (*_, origin) in zip(listed[1:], rows.values(), strict=True)}) == 1, (
        "aligned"
    )
    assert told["students"]["r1-distill-qwen-7b"] == {
        "description": "DeepSeek-R1's student of 7B weights, from Qwen2.5-Math-7B.",
        "parameters": 7_615_616_512,
        "context": 131_072,
        "license": "apache-2.0",
        "base": "Qwen/Qwen2.5-Math-7B",
        "learning_rate": 8e-5,
    }
