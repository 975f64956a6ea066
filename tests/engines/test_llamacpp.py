"""The engine of GGUF files: many sequences at once in a few places, the file's own template and stop tokens, and what
it says about files that are none."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quantize.material import a_student, changed_json

from distill import environment
from distill.contract import TEMPLATES
from distill.engines import EndpointError, RefusedError, Reply, Request, llamacpp
from distill.engines.llamacpp import Decoder, GgufModel, LlamaCppEngine
from distill.hardware import Memory
from distill.quantize import gguf_writer
from engines.asking import replies_to, request, with_engine


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random student with a context of 256 tokens."""
    folder = a_student(tmp_path_factory.mktemp("gguf") / "student")
    changed_json(folder / "config.json", lambda config: config.update(max_position_embeddings=256))
    out = folder.parent / "student.gguf"
    gguf_writer.convert(folder, out, pre="qwen2", name="student")
    return out


def an_engine(file: Path, batch: int = 3) -> LlamaCppEngine:
    return LlamaCppEngine(file, name="llama.cpp/tiny", batch=batch)


def answers(file: Path, requests: list[Request], *, batch: int = 3) -> list[Reply]:
    return replies_to(an_engine(file, batch), requests)


def test_more_requests_than_places_are_all_answered_each_to_its_own_limit(file: Path) -> None:
    asked = [request("word " * (n % 5), tokens=3 + n % 7, seed=n) for n in range(20)]
    for reply, wanted in zip(answers(file, asked), asked, strict=True):
        assert reply.completion_tokens is not None
        assert reply.completion_tokens <= wanted.max_tokens
        assert reply.finish_reason == "stop" or reply.completion_tokens == wanted.max_tokens
        assert reply.honoured == wanted.sampling
        assert reply.endpoint == "llama.cpp/tiny"
    lengths = {reply.prompt_tokens for reply in answers(file, asked)}
    assert len(lengths) == 5


def test_the_seed_decides_and_temperature_zero_needs_none(file: Path) -> None:
    def text(*requests: Request) -> list[str]:
        return [reply.text for reply in answers(file, list(requests), batch=1)]

    first, again, other = text(request("a", seed=1), request("a", seed=1), request("a", seed=2))
    assert first == again != other
    greedy = text(request("a", seed=1, temperature=0.0), request("a", seed=2, temperature=0.0))
    assert greedy[0] == greedy[1]


def test_a_stop_token_ends_the_reply_and_is_not_in_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = iter([5, 6, 720])
    monkeypatch.setattr(Decoder, "_drawn", lambda self, slots: [next(turns) for _ in slots])
    (reply,) = answers(file, [request("a")])
    assert (reply.finish_reason, reply.completion_tokens) == ("stop", 3)
    assert "end" not in reply.text


def test_tokens_before_the_closing_tag_are_counted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = iter([5, 6, 725, 7, 720])
    monkeypatch.setattr(Decoder, "_drawn", lambda self, slots: [next(turns) for _ in slots])
    (reply,) = answers(file, [request("a")])
    assert (reply.reasoning_tokens, reply.completion_tokens) == (2, 5)
    assert "</think>" in reply.text


def test_a_reply_in_slices_is_the_reply_in_one_piece(file: Path) -> None:
    whole = replace(request("a", tokens=24, temperature=0.0), token_ids=True)

    async def in_slices(engine: LlamaCppEngine) -> Reply:
        reply = await engine.complete(replace(whole, max_tokens=5))
        while reply.finish_reason == "length" and (reply.completion_tokens or 0) < 24:
            left = min(7, 24 - (reply.completion_tokens or 0))
            reply = await engine.complete(replace(whole, max_tokens=left, goes_on_from=reply.token_ids))
        return reply

    assert [with_engine(an_engine(file), in_slices)] == answers(file, [whole])


def test_the_file_says_how_it_is_talked_to(file: Path) -> None:
    model = GgufModel(file)
    try:
        assert TEMPLATES["deepseek-r1"].stop == "<｜end▁of▁sentence｜>"
        assert model.render([{"role": "user", "content": "2 + 2?"}]) == (
            "<｜begin▁of▁sentence｜><｜User｜>2 + 2?<｜Assistant｜><think>\n"
        )
        ids = model.encode("<｜User｜>2 + 2?<｜Assistant｜><think>\n")
        assert ids[0] == 722, "a special token in the text is one token, and no BOS token is put before it"
        assert model.decode(model.encode("Größe 北京 🙂")) == "Größe 北京 🙂"
        assert 720 in model.stops
    finally:
        model.close()


def test_a_prompt_that_fills_the_context_is_refused_and_a_long_one_leaves_the_rest(file: Path) -> None:
    async def ask(engine: LlamaCppEngine) -> int | None:
        with pytest.raises(RefusedError, match="leaves no room in the model's 256"):
            await engine.complete(request("1 " * 300))
        reply = await engine.complete(request("1 " * 100, tokens=1_000))
        assert (reply.prompt_tokens or 0) + (reply.completion_tokens or 0) <= 256
        return reply.completion_tokens

    assert with_engine(an_engine(file), ask)


def test_a_setting_it_would_ignore_is_refused(file: Path) -> None:
    with pytest.raises(EndpointError, match="no presence_penalty"):
        answers(file, [request("a", presence_penalty=0.5)])


def test_closing_cancels_who_still_waits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    inner = Decoder._fill

    def slow(self: Decoder) -> list[int]:
        steps.append(1)
        time.sleep(0.01)
        return inner(self)

    monkeypatch.setattr(Decoder, "_fill", slow)

    async def run() -> None:
        engine = LlamaCppEngine(file, batch=1)
        await engine.start()
        waiting = [asyncio.ensure_future(engine.complete(request("a", tokens=200, seed=n))) for n in range(6)]
        while not steps:
            await asyncio.sleep(0.01)
        before = len(steps)
        await engine.close()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in done)
        assert len(steps) - before < 20, "after the current step, not after the current reply"

    asyncio.run(asyncio.wait_for(run(), 60))


def test_more_rows_than_llama_cpp_runs_at_once(file: Path) -> None:
    assert len(answers(file, [request("a", tokens=1, seed=n) for n in range(300)], batch=300)) == 300


@pytest.mark.parametrize("content", [None, b"", b"GGUF\x03\x00\x00\x00", b"no such thing"])
def test_a_file_that_llama_cpp_cannot_load_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EndpointError, match=r"x\.gguf"):
        answers(path, [request("a")])


def test_a_failing_decode_fails_its_requests_and_no_more(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Decoder, slots: list[int]) -> list[int]:
        raise RuntimeError("llama_decode returned -3")

    monkeypatch.setattr(Decoder, "_drawn", broken)
    with pytest.raises(EndpointError, match="failed while generating") as caught:
        answers(file, [request("a")])
    assert "llama_decode returned -3" in (caught.value.given or "")


def test_without_llama_cpp_the_command_that_brings_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(llamacpp, "_api", [])
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(ImportError, match="llama-cpp-python, which is not installed") as caught:
        llamacpp.api()
    assert environment.install_command("quantize") in str(caught.value)


def test_no_more_sequences_than_the_memory_holds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llamacpp.places(10, None) > 1_000
    assert llamacpp.places(7, 100) == 10
    assert llamacpp.places(1_000, 100) == 1, "one is tried in any case"
    model = GgufModel(file)
    assert model.kv_bytes == 2 * 2 * 5 * 128, "five layers of two heads with 64 values, keys and values"
    model.close()
    widths: list[int] = []
    inner = Decoder.__init__

    def noting(self: Decoder, *arguments: Any) -> None:
        inner(self, *arguments)
        widths.append(self.width)

    monkeypatch.setattr(Decoder, "__init__", noting)
    monkeypatch.setattr(llamacpp, "memory", lambda: Memory(None, 2 * 256 * 2_560 * 10 // 7 + 1))
    assert len(answers(file, [request(str(n)) for n in range(5)], batch=4)) == 5
    assert widths
    assert max(widths) == 2
