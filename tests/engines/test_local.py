"""The engine in this process: many requests at once, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model

from distill.engines import EndpointError, RefusedError, Reply, Request, batching
from distill.engines import local as local_module
from distill.engines.local import LocalEngine
from engines.asking import replies_to, request, with_engine

Folder = Callable[[str], Path]


def an_engine(folder: Path, batch: int = 4) -> LocalEngine:
    return LocalEngine(str(folder), name="local/tiny", batch=batch)


def answers(folder: Path, requests: list[Request], *, batch: int = 4) -> list[Reply]:
    return replies_to(an_engine(folder, batch), requests)


@pytest.mark.parametrize(
    ("has", "device", "dtype"),
    [
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, "cpu", "auto"),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, "cpu", "auto"),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False, "avx2": True}, "cpu", "float32"),
        ({"architecture": "arm64", "bf16": True}, "cpu", "auto"),
        ({"architecture": "arm64", "bf16": False}, "cpu", "float32"),
        ({"architecture": "x86_64", "avx512_bf16": False}, "cuda", "auto"),
    ],
)
def test_a_cpu_that_emulates_bfloat16_computes_in_float32(
    has: dict[str, Any], device: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert local_module.compute_dtype(device) == dtype


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_model_is_loaded_in_that_type(
    native: bool, dtype: torch.dtype, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bfloat16"
    shutil.copytree(model_folder("qwen2"), folder)
    tiny_model("qwen2").to(torch.bfloat16).save_pretrained(folder)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    async def loaded(engine: LocalEngine) -> torch.dtype:
        return next(engine._model.parameters()).dtype  # type: ignore[no-any-return]

    assert with_engine(an_engine(folder), loaded) == dtype


@pytest.mark.parametrize(("architecture", "count"), [("qwen2", 40), ("deepseek_v3", 8)])
def test_many_at_once_are_answered_each_with_its_own(model_folder: Folder, architecture: str, count: int) -> None:
    requests = [request("word " * (i % 9 + 1), seed=i, tokens=i % 7 + 3) for i in range(count)]
    replies = answers(model_folder(architecture), requests)
    assert [r.completion_tokens for r in replies if r.finish_reason == "length"] == [
        q.max_tokens for q, r in zip(requests, replies, strict=True) if r.finish_reason == "length"
    ]
    assert {reply.endpoint for reply in replies} == {"local/tiny"}
    assert all(reply.honoured == asked.sampling for asked, reply in zip(requests, replies, strict=True))
    assert len({reply.text for reply in replies}) > 0.7 * count
    alone = [answers(model_folder(architecture), [asked], batch=1)[0] for asked in requests[::17]]
    assert alone == replies[::17], "a reply does not depend on the batch it was drawn in"


def test_a_prompt_is_the_chat_template_with_one_bos(model_folder: Folder) -> None:
    from transformers import AutoTokenizer

    folder = model_folder("qwen2")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    message = [{"role": "user", "content": "How many?"}]
    ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=True)["input_ids"]
    assert answers(folder, [request("How many?")])[0].prompt_tokens == len(ids)
    assert ids.count(tokenizer.bos_token_id) == 1


def test_tokens_before_the_closing_tag_are_counted_and_stop_tokens_left_out(
    model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, stop = 725, 720
    script = {0: [5, 6, 7, close, 8, stop], 1: [close, 9, stop], 2: [5, 6, 7], 3: [stop]}
    monkeypatch.setattr(local_module, "generate", lambda *_, **__: iter(sorted(script.items())))
    requests = [request("a " * (i + 1)) for i in range(4)]
    replies = answers(model_folder("qwen2"), requests)
    assert [r.reasoning_tokens for r in replies] == [3, 0, None, None]
    assert [r.completion_tokens for r in replies] == [6, 3, 3, 1]
    assert [r.finish_reason for r in replies] == ["stop", "stop", "length", "stop"]
    assert "</think>" in replies[0].text, "the tags are text, for the contract to read"
    assert all("end▁of▁sentence" not in r.text for r in replies)
    assert replies[3].text == ""


def test_too_long_a_prompt_is_refused_and_a_reply_ends_with_the_context(model_folder: Folder) -> None:
    async def ask(engine: LocalEngine) -> list[Any]:
        asked = [request("short"), request("word " * 300), request("short", tokens=5_000)]
        return await asyncio.gather(*(engine.complete(r) for r in asked), return_exceptions=True)

    first, second, third = with_engine(an_engine(model_folder("qwen2")), ask)
    assert isinstance(first, Reply)
    assert isinstance(second, RefusedError)
    assert "leaves no room in the model's 256" in str(second)
    assert isinstance(third, Reply)
    assert third.prompt_tokens + third.completion_tokens <= 256


def test_a_reply_without_an_end_is_cut_where_the_context_is(
    model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "stop_ids", lambda model, tokenizer: [])
    monkeypatch.setattr(local_module.LocalEngine, "_reply", lambda self, waiting, ids: (waiting, len(ids)))
    ((waiting, count),) = answers(model_folder("qwen2"), [request("short", tokens=5_000)])
    assert len(waiting.ids) + count == 256


def test_batches_are_of_prompts_of_similar_length(model_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[list[int]] = []
    inner = local_module.generate

    def noting(model: Any, rows: Any, *more: Any, **named: Any) -> Any:
        widths.append([len(row.prompt) for row in rows])
        return inner(model, rows, *more, **named)

    monkeypatch.setattr(local_module, "generate", noting)
    monkeypatch.setattr(batching, "GATHER_SECONDS", 1.0)
    mixed = [request("word " * (1 + 7 * (place % 2) + place % 3), tokens=2, seed=place) for place in range(16)]
    answers(model_folder("qwen2"), mixed)
    assert [len(found) for found in widths] == [4] * 4
    in_order = [width for found in widths for width in found]
    assert in_order == sorted(in_order), "all that wait are sorted, then cut into batches"


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty", "repetition_penalty"])
def test_settings_it_would_ignore_are_refused(model_folder: Folder, name: str) -> None:
    with pytest.raises(EndpointError, match=f"the local engine has no {name}"):
        answers(model_folder("qwen2"), [request("q", **{name: 1.1})])


def start(folder: Path) -> None:
    asyncio.run(LocalEngine(str(folder)).start())


def test_what_cannot_be_loaded_says_so(model_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="cannot be loaded"):
        start(tmp_path / "nothing")
    for damage in ("config.json", "tokenizer.json", "model.safetensors"):
        folder = tmp_path / damage
        shutil.copytree(model_folder("qwen2"), folder)
        content = (folder / damage).read_bytes()
        (folder / damage).write_bytes(content[: len(content) // 2])
        with pytest.raises(EndpointError, match="cannot be loaded"):
            start(folder)
    folder = tmp_path / "weights missing"
    shutil.copytree(model_folder("qwen2"), folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(EndpointError, match="cannot be loaded"):
        start(folder)


@pytest.mark.parametrize(
    ("file", "text"),
    [("tokenizer.json", '{"model": {}}'), ("tokenizer.json", "{}"), ("config.json", "{}"), ("model.safetensors", "")],
)
def test_a_damaged_file_is_no_traceback(model_folder: Folder, tmp_path: Path, file: str, text: str) -> None:
    shutil.copytree(model_folder("qwen2"), tmp_path / "m")
    (tmp_path / "m" / file).write_text(text)
    with pytest.raises(EndpointError, match="cannot be loaded") as caught:
        start(tmp_path / "m")
    assert type(caught.value.__cause__).__name__ in str(caught.value.given)


@pytest.mark.parametrize("error", [KeyError("added_tokens"), ValueError(), ValueError("\n"), Exception("from Rust\nx")])
def test_whatever_a_library_raises_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", fails)
    with pytest.raises(EndpointError, match="cannot be loaded") as caught:
        start(tmp_path)
    assert str(caught.value.given).startswith(type(error).__name__)
    assert "\n" not in str(caught.value.given)


def test_a_model_that_cannot_chat_is_refused(model_folder: Folder, tmp_path: Path) -> None:
    shutil.copytree(model_folder("qwen2"), tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").unlink()
    with pytest.raises(EndpointError, match="no chat template"):
        start(tmp_path / "m")


def test_a_template_that_refuses_the_messages_says_so(model_folder: Folder, tmp_path: Path) -> None:
    shutil.copytree(model_folder("qwen2"), tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ raise_exception('System role not supported') }}")
    with pytest.raises(EndpointError, match="System role not supported"):
        answers(tmp_path / "m", [request("one")])


def test_close_cancels_whoever_waits_also_those_not_looked_at_yet(model_folder: Folder) -> None:
    async def run() -> list[Any]:
        engine = LocalEngine(str(model_folder("qwen2")), batch=1)
        await engine.start()
        many = 3 * engine.capacity
        waiting = [asyncio.create_task(engine.complete(request("q", tokens=200, seed=i))) for i in range(many)]
        await asyncio.sleep(0)
        await asyncio.wait_for(waiting[0], 60)
        await engine.close()
        return list(await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60))

    results = asyncio.run(run())
    assert isinstance(results[0], Reply)
    kinds = {type(result) for result in results}
    assert kinds == {Reply, asyncio.CancelledError}


def test_a_cancelled_request_is_not_run(model_folder: Folder) -> None:
    async def use(engine: LocalEngine) -> Reply:
        given_up = asyncio.create_task(engine.complete(request("given up", tokens=200)))
        await asyncio.sleep(0)
        given_up.cancel()
        return await engine.complete(request("kept", tokens=3))

    assert with_engine(an_engine(model_folder("qwen2")), use).completion_tokens == 3


def test_a_failure_of_the_model_belongs_to_those_who_wait_for_it(
    model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(local_module, "generate", broken)
    with pytest.raises(EndpointError, match="the model failed while generating"):
        answers(model_folder("qwen2"), [request("q")])


def test_stop_tokens_come_from_the_generation_config_or_the_tokenizer(tmp_path: Path, tokenizer_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    model = tiny_model("qwen2")
    for configured, expected in ((720, [720]), ([720, 719], [720, 719]), (None, [720])):
        model.generation_config.eos_token_id = configured
        assert local_module.stop_ids(model, tokenizer) == expected


def test_a_model_of_several_stop_tokens_ends_at_each(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model_folder("qwen2"), tmp_path / "m")
    free = answers(model_folder("qwen2"), [request("q", temperature=0.0, tokens=8)])[0]
    assert free.finish_reason == "length"
    path = tmp_path / "m" / "generation_config.json"
    config = json.loads(path.read_text())
    torch.manual_seed(0)
    seen: list[list[int]] = []
    inner = local_module.generate

    def spying(*args: Any, **kwargs: Any) -> Any:
        for index, ids in inner(*args, **kwargs):
            seen.append(ids)
            yield index, ids

    monkeypatch.setattr(local_module, "generate", spying)
    answers(model_folder("qwen2"), [request("q", temperature=0.0, tokens=8)])
    path.write_text(json.dumps({**config, "eos_token_id": [720, seen[0][4]]}))
    ended = answers(tmp_path / "m", [request("q", temperature=0.0, tokens=8)])[0]
    assert ended.finish_reason == "stop"
    assert ended.completion_tokens == seen[0].index(seen[0][4]) + 1
