"""OpenAIEngine against a real vLLM CPU server with SmolLM2: the proof behind the scripted one."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from recordings import recorded, same_form, same_stream, without_numbers
from vllm_server import (
    CASES,
    CHECKOUT,
    KEY,
    NAME,
    PROMPT,
    PYTHON_VARIABLE,
    REASONING_CASES,
    Answer,
    answers,
    ask,
    vllm_python,
    vllm_server,
    with_think_tokens,
)

from distill.engines import EndpointError, RefusedError, Reply, Request, TokenIds
from distill.engines.openai import OpenAIEngine
from distill.filter.judging import Judge
from distill.judge_specs import JudgeSettings
from distill.ledger import LedgerReader
from distill.records import Prompt, Sampling
from distill.verify.judge import SHOWN, VOTES, read_vote

T = TypeVar("T")
MODEL = CHECKOUT / ".cache" / "smollm2"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
SHORT = ("Hi", "What is 2 + 2?", "Name a colour.", "Say yes or no: is water wet?", "Thank you!")
EMOJI = [{"role": "user", "content": "Repeat this line three times: 🧮🦊 思考 🎉 “so”"}]
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


@pytest.fixture(scope="module")
def parsing_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that cuts the reasoning out of its chats, of a model that writes </think> for "of"; it wants a key."""
    folder = tmp_path_factory.mktemp("parsing")
    model = with_think_tokens(MODEL, folder / "model")
    options = ("--dtype", "float32", "--reasoning-parser", "deepseek_r1")
    with vllm_server(model, NAME, folder / "server.log", *options, key=KEY) as address:
        yield address


def using(url: str, work: Callable[[OpenAIEngine], Awaitable[T]], **options: Any) -> T:
    async def everything() -> T:
        engine = OpenAIEngine(**{"url": url, "model": NAME, "timeout": 120, **options})
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(everything())


def replies(url: str, *requests: Request, **options: Any) -> list[Reply]:
    """The replies to these requests, asked at once."""

    async def all_of_them(engine: OpenAIEngine) -> list[Reply]:
        return list(await asyncio.gather(*(engine.complete(request) for request in requests)))

    return using(url, all_of_them, **options)


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


def drifted(found: dict[str, Answer]) -> dict[str, list[str]]:
    """Case → where the form of a server's answer is not the recorded one, in either direction."""
    faults: dict[str, list[str]] = {}
    for case, answer in found.items():
        real = recorded(case)
        if case == "metrics":
            same = sorted(without_numbers(answer.body)) == sorted(without_numbers(real.body))
            faults[case] = [] if same else ["other lines"]
        else:
            compare = same_stream if isinstance(real.body, list) else same_form
            faults[case] = compare(real.body, answer.body) + compare(answer.body, real.body)
        if answer.status != real.status:
            faults[case].append(f"status {answer.status}, recorded {real.status}")
    return {case: told for case, told in faults.items() if told}


def test_the_recordings_are_still_what_the_server_says(url: str) -> None:
    assert drifted(answers(url, CASES)) == {}


def test_the_recordings_of_a_server_that_parses_too(parsing_url: str) -> None:
    assert drifted(answers(parsing_url, REASONING_CASES, KEY)) == {}


# --- slices --------------------------------------------------------------------------------------------------------


async def in_slices(engine: OpenAIEngine, request: Request, slices: tuple[int, ...]) -> Reply:
    """The reply to `request` in slices of these lengths, over and over."""
    turns, reply = itertools.cycle(slices), None
    while reply is None or (reply.finish_reason == "length" and (reply.completion_tokens or 0) < request.max_tokens):
        left = request.max_tokens - ((reply.completion_tokens or 0) if reply is not None else 0)
        begun = reply.token_ids if reply is not None else None
        reply = await engine.complete(replace(request, goes_on_from=begun, max_tokens=min(left, next(turns))))
        assert reply.token_ids is not None
    return reply


def test_greedy_in_slices_is_greedy_in_one_piece(url: str) -> None:
    """Text, ids, counts and ending; slices of one token end within characters as well."""
    wanted = [(STORY, 96, (16,)), (STORY, 96, (48,)), (FRANCE, 64, (5, 31, 2)), (EMOJI, 48, (1,)), (EMOJI, 64, (7, 2))]

    async def both(engine: OpenAIEngine) -> list[tuple[Reply, Reply]]:
        await engine.check_continuation()
        asked = [Request("s", messages, Sampling(temperature=0.0), n, token_ids=True) for messages, n, _ in wanted]
        whole = await asyncio.gather(*(engine.complete(request) for request in asked))
        cut = [in_slices(engine, request, slices) for request, (_, _, slices) in zip(asked, wanted, strict=True)]
        return list(zip(whole, await asyncio.gather(*cut), strict=True))

    found = [*using(url, both, continues=True)]
    wanted = [(EMOJI, 32, (3, 1))]
    found += using(url, both, continues=True, stream=True)
    for whole, sliced in found:
        assert sliced == whole
    assert {whole.finish_reason for whole, _ in found} == {"stop", "length"}
    assert any(not whole.text.isascii() for whole, _ in found), "a slice ended within a character"


def test_a_reply_in_slices_has_its_reasoning_where_the_parser_puts_it(parsing_url: str) -> None:
    """Each by an engine of its own, which has seen no chat when it goes on."""
    request = Request("s", FRANCE, Sampling(temperature=0.0), 64, token_ids=True)
    options: dict[str, Any] = {"api_key": KEY, "continues": True}
    (whole,) = replies(parsing_url, request, **options)
    assert (whole.text, whole.reasoning) == (" France is Paris.", "The capital")
    for tokens in (1, 2, 3, 5):
        (first,) = replies(parsing_url, replace(request, max_tokens=tokens), **options)
        (rest,) = replies(parsing_url, replace(request, goes_on_from=first.token_ids), **options)
        assert rest == whole, tokens


def test_control_tokens_are_in_the_text_whether_it_was_cut_or_not(url: str) -> None:
    """vLLM would leave them out of a chat, and its /detokenize cannot: see SHOW_ALL."""
    opening, so_far = 1, "<|im_start|><|im_start|>"
    body = {"model": NAME, "messages": FRANCE, "max_tokens": 2, "temperature": 0, "allowed_token_ids": [opening]}
    shown = ask(f"{url}/chat/completions", {**body, "skip_special_tokens": False, "return_token_ids": True}).body
    assert shown["choices"][0]["message"]["content"] == so_far
    assert ask(f"{url}/chat/completions", body).body["choices"][0]["message"]["content"] == ""
    begun = TokenIds(tuple(shown["prompt_token_ids"]), tuple(shown["choices"][0]["token_ids"]))
    (reply,) = replies(url, Request("s", [], Sampling(temperature=0.0), 4, goes_on_from=begun), continues=True)
    assert reply.text.startswith(so_far)
    assert reply.token_ids is not None
    assert reply.token_ids.prompt == tuple(PROMPT)


def test_progress_counts_the_tokens_of_all(url: str) -> None:
    async def around(engine: OpenAIEngine) -> tuple[float | None, float | None]:
        await engine.probe()
        before = await engine.progress()
        await engine.complete(Request("p", STORY, Sampling(temperature=0.0), 8))
        await asyncio.sleep(0.2)  # vLLM counts behind the reply
        return before, await engine.progress()

    before, after = using(url, around)
    assert before is not None
    assert after == before + 8


def test_a_judge_is_held_to_the_form_of_its_votes(url: str, tmp_path: Path) -> None:
    """The form alone: a 135M model repeats the words of the form as its analysis, and such a vote is not read."""
    settings = JudgeSettings(
        teacher=url, model=NAME, votes=5, stop_early=False, again=0, max_tokens=160, sampling={"temperature": 0.7}
    )
    prompt = Prompt("What is 2+2?", kind="math", answer="4")
    with Judge(settings, tmp_path, seed=1) as judge:
        judge.outcomes([(prompt, r"The answer is \boxed{4}."), (prompt, "It is five.")])
    replies = list(LedgerReader(tmp_path).traces())
    finished = [reply.raw for reply in replies if reply.finish_reason == "stop"]
    assert len(replies) == 10
    assert finished, [reply.raw for reply in replies]
    for text in finished:
        said = json.loads(text)
        assert list(said) == ["analysis", "correctness"]
        assert said["correctness"] in VOTES
        assert read_vote(text) in (None, said["correctness"])
        assert read_vote(text) is None or not said["analysis"].startswith(SHOWN)
    assert all(reply.raw.lstrip().startswith("{") for reply in replies)


def test_nothing_of_the_server_is_left(tmp_path: Path) -> None:
    """A server that cannot start says why, and ends with its whole group."""
    with (
        pytest.raises(RuntimeError, match="the vLLM server ended with"),
        vllm_server(tmp_path / "no-model", "x", tmp_path / "server.log", limit=120),
    ):
        pass
