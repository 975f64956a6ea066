"""A real GGUF file through llama.cpp: the same text as the folder it was made of, and what may be missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.contract import Contract
from distill.engines.streaming import Asked, ContextFullError, Ending, Piece, Talker
from distill.engines.streaming_local import LocalTalker
from distill.errors import EndpointError
from distill.records import Message, Sampling

CONTRACT = Contract("deepseek-r1", "<think>\n")
GREEDY = Sampling(temperature=0.0)
QUESTION: list[Message] = [{"role": "user", "content": "What is 2 + 2?"}]


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[[str], Path]) -> Path:
    from tiny_gguf import write_gguf

    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(model_folder("qwen2"), file, template=CONTRACT.chat_template)


# Of 20 tokens: at the 23rd two of this random model's logits are 0.0006 apart, less than 16-bit caches are exact to.
def said(talker: Talker, sampling: Sampling = GREEDY, limit: int | None = 20, seed: int | None = None) -> list[object]:
    return list(talker.reply(QUESTION, Asked(sampling, limit, seed)))


def text(parts: list[object]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Piece))


def test_says_what_the_folder_says(gguf_file: Path, model_folder: Callable[[str], Path]) -> None:
    from distill.engines.streaming_gguf import GgufTalker

    folder = LocalTalker(str(model_folder("qwen2")), CONTRACT, 256)
    file, by_template = GgufTalker(gguf_file, CONTRACT, 256), GgufTalker(gguf_file, None, 256)
    expected = said(folder)
    assert text(expected)
    assert text(said(file)) == text(expected)
    assert text(said(by_template)) == text(expected), "the template in the file is the contract's"
    assert said(file)[-1] == expected[-1]
    sampled = Sampling(temperature=1.0, top_p=0.95)
    assert said(file, sampled, seed=4) == said(file, sampled, seed=4)
    assert said(file, sampled, seed=4) != said(file, sampled, seed=5)


def test_context_limit_and_stop(gguf_file: Path) -> None:
    from distill.engines.streaming_gguf import GgufTalker

    small = GgufTalker(gguf_file, CONTRACT, 30)
    drawn = Sampling(temperature=1.0)
    endings = [said(small, drawn, None, seed)[-1] for seed in range(8)]
    assert any(isinstance(e, Ending) and e.reason == "context" for e in endings)
    assert all(isinstance(e, Ending) and e.tokens is not None and e.tokens < 30 for e in endings)
    with pytest.raises(ContextFullError, match="fills the context of 30"):
        list(small.reply([{"role": "user", "content": "word " * 40}], Asked(GREEDY, None, None)))
    reply = small.reply(QUESTION, Asked(drawn, None, 1))
    next(reply)
    reply.close()
    assert said(small, drawn, None, 1) == said(small, drawn, None, 1), "a reply that was left changes no later one"
    longest = [said(small, drawn, 5, seed)[-1] for seed in range(8)]
    assert Ending("length", 5) in longest


def test_what_a_file_may_lack(gguf_file: Path, tmp_path: Path, model_folder: Callable[[str], Path]) -> None:
    from tiny_gguf import write_gguf

    from distill.engines.streaming_gguf import GgufTalker

    bare = write_gguf(model_folder("qwen2"), tmp_path / "bare.gguf")
    with pytest.raises(EndpointError, match="no chat template"):
        GgufTalker(bare, None, 256)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf_file.read_bytes()[:2_000])
    with pytest.raises(EndpointError, match=r"llama\.cpp cannot load .*broken\.gguf") as raised:
        GgufTalker(broken, CONTRACT, 256)
    assert raised.value.todo


def test_llama_cpp_says_nothing_of_its_own(gguf_file: Path) -> None:
    command = [sys.executable, "-m", "distill.cli", "chat", str(gguf_file), "hi", "--max-tokens", "3"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("<think>\n")
    assert "llama" not in told.stderr
    assert set(told.stderr.splitlines()) <= {"(cut after 3 tokens: --max-tokens)", "(no answer followed)"}


def test_without_llama_cpp_the_command_that_brings_it(tmp_path: Path) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/llama_cpp.py").write_text("raise ImportError('not here')")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    import os

    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'blocked'}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "distill.cli", "chat", str(tmp_path / "x.gguf"), "hi"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert told.returncode == 1
    assert "GGUF files need llama-cpp-python, which is not installed" in told.stderr
    assert "pip install" in told.stderr
    assert "[quantize]" in told.stderr
