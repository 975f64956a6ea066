"""The SmolLM2 folder that benchmarks/smollm2.py makes: the tokenizer of the original, stop and pad tokens, template."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distill import specs
from distill.contract import tokenizer_contract_faults
from distill.train.tokenizer import prepare_tokenizer

CHECKOUT = Path(__file__).resolve().parent.parent.parent
FOLDER = CHECKOUT / ".cache" / "smollm2"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no .cache/smollm2: run benchmarks/smollm2.py first"),
]

TEXTS = (
    "Hello, world! It's 12345 o'clock; don't.",
    "\\boxed{\\frac{1}{2}} and $x^2 + 3y_{10} = 42$\n\n1. First\n  2. Second",
    "def f(x):\n    return x**2  # a tab\t\there\n\n\nprint(f(10))\r\n",
    "naïve café ▁under 日本語 🙂\u200d",
    "a , b . c ! isn 't  double  spaces ",
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back_as_it_was(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_stand_alone_also_behind_an_empty_line(tokenizer: Any) -> None:
    assert tokenizer.tokenize("like this:\n\n12 apples") == ["like", "Ġthis", ":", "ĊĊ", "1", "2", "Ġapples"]
    assert not [token for token in tokenizer.get_vocab() if len(token) > 1 and any(c in "0123456789" for c in token)]


def test_special_tokens(tokenizer: Any) -> None:
    assert [tokenizer.encode(token) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [[0], [1], [2]]
    assert (tokenizer.eos_token, tokenizer.eos_token_id, len(tokenizer)) == ("<|im_end|>", 2, 49_152)
    generation = json.loads((FOLDER / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == 2


def test_its_own_template_brings_its_system_prompt(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_the_student_spec_fits_it() -> None:
    spec = specs.student("smollm2-135m")
    prepared = prepare_tokenizer(spec)
    assert spec.base == str(FOLDER)
    assert tokenizer_contract_faults(prepared, spec.contract, thinks=spec.thinks) == []
    assert (prepared.pad_token, prepared.eos_token) == ("<|endoftext|>", "<|im_end|>")


def test_a_folder_that_is_complete_is_left_alone(tmp_path: Path) -> None:
    script = load_script()
    assert script.is_complete(FOLDER)
    assert not script.is_complete(tmp_path)
    (tmp_path / "source.json").write_text(json.dumps({**script.SOURCE, "made_by": 0}))
    assert not script.is_complete(tmp_path), "a folder made by an older script is made anew"


def load_script() -> ModuleType:
    found = importlib.util.spec_from_file_location("smollm2", CHECKOUT / "benchmarks" / "smollm2.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
