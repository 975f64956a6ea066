"""OpenAIEngine against a real vLLM CPU server with SmolLM2: the proof behind the scripted one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings import recorded, same_form
from vllm_server import CASES, CHECKOUT, NAME, PYTHON_VARIABLE, ask, vllm_python, vllm_server

from distill.engines import EndpointError, RefusedError, Reply, Request
from distill.engines.openai import OpenAIEngine
from distill.records import Sampling

MODEL = CHECKOUT / ".cache" / "smollm2"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
SHORT = ("Hi", "What is 2 + 2?", "Name a colour.", "Say yes or no: is water wet?", "Thank you!")
STORY = [{"role": "user", "content": "Tell me a story about a fox."}]

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM: {PYTHON_VARIABLE} is not set, .venv-vllm is not there"),
    pytest.mark.skipif(not MODEL.is_dir(), reason="no .cache/smollm2: run benchmarks/smollm2.py first"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """float32: in bfloat16 the same greedy reply is other words on another CPU."""
    with vllm_server(MODEL, NAME, tmp_path_factory.mktemp("vllm") / "server.log", "--dtype", "float32") as address:
        yield address


def replies(url: str, *requests: Request, model: str = NAME) -> list[Reply]:
    """The replies to these requests, asked at once."""

    async def everything() -> list[Reply]:
        engine = OpenAIEngine(url=url, model=model, timeout=120)
        await engine.start()
        try:
            return await asyncio.gather(*(engine.complete(request) for request in requests))
        finally:
            await engine.close()

    return asyncio.run(everything())


def test_replies_that_stop(url: str) -> None:
    """Which of them stop, and with what answer, differs by machine: a 135M model rounds itself into other words."""
    questions = [FRANCE, *([{"role": "user", "content": text}] for text in SHORT)]
    asked = replies(url, *(Request(str(i), one, Sampling(temperature=0.0), 128) for i, one in enumerate(questions)))
    assert asked[0].prompt_tokens == 37  # the model's own template, default system prompt included
    stopped = [reply for reply in asked if reply.finish_reason == "stop"]
    assert stopped, [reply.text for reply in asked]
    for reply in stopped:
        assert reply.text.strip()
        assert "<|im_end|>" not in reply.text
        assert (reply.reasoning, reply.reasoning_tokens) == (None, None)
        assert reply.completion_tokens is not None
        assert 1 < reply.completion_tokens < 128


def test_a_reply_that_is_cut(url: str) -> None:
    (reply,) = replies(url, Request("a", STORY, Sampling(temperature=0.0), 8))
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 8)


def test_temperature_zero_gives_one_text_and_seeds_decide_otherwise(url: str) -> None:
    greedy = [Request("g", STORY, Sampling(temperature=0.0), 16, seed=seed) for seed in (1, 1, 2)]
    drawn = [Request("d", STORY, Sampling(temperature=1.0), 16, seed=seed) for seed in (1, 1, 2)]
    zero, hot = replies(url, *greedy), replies(url, *drawn)
    assert len({reply.text for reply in zero}) == 1
    assert hot[0].text == hot[1].text != hot[2].text


def test_many_long_prompts_at_once_each_with_its_seed(url: str) -> None:
    """More tokens than vLLM prefills in one step: it must not do one of them in parts (see vllm_server)."""
    long = "one two three four five six seven eight nine ten " * 40
    asked = [
        Request(str(n), [{"role": "user", "content": f"{n} {long}"}], Sampling(temperature=1.0), 4, n)
        for n in range(16)
    ]
    found = replies(url, *asked)
    assert sum(reply.prompt_tokens or 0 for reply in found) > 2 * 2_048
    assert all(reply.completion_tokens for reply in found)


def test_the_settings_of_vllm_have_their_effect(url: str) -> None:
    """top_k stands where vLLM looks for it: with 1 even a hot sample is greedy."""
    greedy, narrowed = replies(
        url,
        Request("g", STORY, Sampling(temperature=0.0), 16),
        Request("k", STORY, Sampling(temperature=1.5, top_k=1, min_p=0.1, repetition_penalty=1.0, top_p=0.9), 16, 3),
    )
    assert narrowed.text == greedy.text


def test_a_model_that_is_not_there(url: str) -> None:
    with pytest.raises(EndpointError, match=f"no model 'other'(.|\n)*which has: {NAME}"):
        replies(url, model="other")


def test_requests_that_are_refused(url: str) -> None:
    with pytest.raises(RefusedError, match="maximum context length"):
        replies(url, Request("a", [{"role": "user", "content": "word " * 3_000}], Sampling(), 16))
    with pytest.raises(RefusedError, match="temperature"):
        replies(url, Request("a", FRANCE, Sampling(temperature=-1.0), 16))


def test_the_recordings_are_still_what_the_server_says(url: str) -> None:
    answers = {case: ask(f"{url}/chat/completions", {"model": NAME, **body}) for case, body in CASES.items()}
    answers["models"] = ask(f"{url}/models")
    for case, answer in answers.items():
        real = recorded(case)
        assert answer.status == real.status, case
        assert same_form(real.body, answer.body) == [], case
        assert same_form(answer.body, real.body) == [], case


def test_nothing_of_the_server_is_left(tmp_path: Path) -> None:
    """A server that cannot start says why, and ends with its whole group."""
    with (
        pytest.raises(RuntimeError, match="the vLLM server ended with"),
        vllm_server(tmp_path / "no-model", "x", tmp_path / "server.log", limit=120),
    ):
        pass
