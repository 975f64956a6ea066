"""Batched sampling: greedy rows equal transformers' own, sampled rows follow the exact truncated distribution."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES, tiny_model

from distill.engines import decoding
from distill.engines.decoding import Draw, Row, generate
from distill.records import Sampling

PAD, STOP = 721, 720
GREEDY = Sampling(temperature=0.0)
R1 = Sampling(temperature=0.6, top_p=0.95)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("qwen2")


def prompts(count: int = 7) -> list[list[int]]:
    """Of lengths 3 to 23, in no order."""
    generator = torch.Generator().manual_seed(1)
    lengths = [(5 * i) % 23 + 3 for i in range(count)]
    return [torch.randint(0, 700, (n,), generator=generator).tolist() for n in lengths]


def rows(sampling: Sampling, *, tokens: int = 20, count: int = 7) -> list[Row]:
    return [Row(prompt, tokens, sampling, seed) for seed, prompt in enumerate(prompts(count))]


def finished(model: Any, batch: Sequence[Row], stops: Sequence[int] = (STOP,)) -> list[list[int]]:
    found = dict(generate(model, batch, stops, PAD))
    return [found[index] for index in range(len(batch))]


# --- against transformers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_rows_equal_transformers_own_generate(architecture: str) -> None:
    model = tiny_model(architecture)
    batch = rows(GREEDY)
    ours = finished(model, batch)
    for row, new in zip(batch, ours, strict=True):
        prompt = torch.tensor([list(row.prompt)])
        with torch.inference_mode():
            theirs = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=20,
                eos_token_id=STOP,
                pad_token_id=PAD,
            )
        assert new == theirs[0, len(row.prompt) :].tolist()
    assert len({tuple(new) for new in ours}) == len(ours), "the rows do not all say the same"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_does_not_depend_on_who_shares_its_batch(architecture: str) -> None:
    model = tiny_model(architecture)
    batch = rows(Sampling(temperature=1.0, top_p=0.9))
    together = finished(model, batch)
    assert finished(model, batch[::-1]) == together[::-1]
    assert [finished(model, [row])[0] for row in batch] == together
    assert finished(model, batch[2:5]) == together[2:5]


# --- ends ----------------------------------------------------------------------------------------------------------


def test_each_row_has_its_own_limit_and_starts_alike_whatever_it_is(model: Any) -> None:
    limits = [1, 4, 9, 17, 30]
    batch = [Row(prompts()[0], limit, R1, 5) for limit in limits]
    new = finished(model, batch, stops=())
    assert [len(ids) for ids in new] == limits
    assert all(ids == new[-1][: len(ids)] for ids in new), "the limit is no part of what a sample is"


def test_a_stop_token_ends_a_row_and_is_its_last(model: Any) -> None:
    free = finished(model, rows(GREEDY), stops=())
    stops = [free[0][3], free[1][7]]
    ended = finished(model, rows(GREEDY), stops=stops)
    for without, ids in zip(free, ended, strict=True):
        first = min((without.index(stop) for stop in stops if stop in without), default=len(without) - 1)
        assert ids == without[: first + 1]
    assert len(ended[0]) <= 4


def test_finished_rows_leave_the_batch_and_are_told_at_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    forward = model.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    batch = [Row(prompts()[0], tokens, GREEDY, None) for tokens in (2, 2, 10, 10, 10, 10, 10, 10)]
    given = generate(model, batch, (), PAD)
    assert [next(given)[0], next(given)[0]] == [0, 1]
    assert len(sizes) == 2, "they are given before the next step"
    assert len(list(given)) == 6
    assert sizes == [8, 8, *[6] * 8], "two of eight are worth taking out"


def test_few_finished_rows_stay_until_it_is_worth_it(model: Any) -> None:
    batch = [Row(prompts()[0], tokens, R1, tokens) for tokens in range(1, 25)]
    new = finished(model, batch, stops=())
    assert [len(ids) for ids in new] == list(range(1, 25))
    assert [finished(model, [row], stops=())[0] for row in batch[::5]] == new[::5]


def test_cancelled_stops_before_the_next_step(model: Any) -> None:
    batch = [Row(prompts()[0], tokens, GREEDY, None) for tokens in (2, 9)]
    asked = itertools.count()
    assert [index for index, _ in generate(model, batch, (), PAD, cancelled=lambda: next(asked) >= 4)] == [0]
    assert next(asked) == 5
    assert list(generate(model, batch, (), PAD, cancelled=lambda: True)) == []


def test_the_same_seed_draws_the_same_and_another_does_not(model: Any) -> None:
    prompt = prompts()[0]
    draws = [finished(model, [Row(prompt, 20, R1, seed)], stops=())[0] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    torch.manual_seed(3)
    first = finished(model, [Row(prompt, 20, R1, None)], stops=())
    second = finished(model, [Row(prompt, 20, R1, None)], stops=())
    torch.manual_seed(3)
    assert first == finished(model, [Row(prompt, 20, R1, None)], stops=()) != second


# --- the distribution ----------------------------------------------------------------------------------------------


def exact(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The truncated distribution by transformers' own warpers, in vLLM's order: no use of the code under test."""
    from transformers.generation import logits_process as warpers

    chain: list[Any] = []
    if sampling.temperature is not None:
        chain.append(warpers.TemperatureLogitsWarper(sampling.temperature))
    if sampling.min_p is not None:
        chain.append(warpers.MinPLogitsWarper(sampling.min_p))
    if sampling.top_k is not None:
        chain.append(warpers.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None:
        chain.append(warpers.TopPLogitsWarper(sampling.top_p))
    scores = logits.double()[None]
    for warper in chain:
        scores = warper(torch.zeros(1, 1, dtype=torch.long), scores)
    return torch.softmax(scores, -1)[0]


def drawn(logits: torch.Tensor, sampling: Sampling, count: int) -> torch.Tensor:
    """Frequencies of tokens over evenly spread uniform numbers: inverting a distribution has no noise of its own."""
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    draw = Draw.of([Row([0], 1, sampling, None)] * count, logits.device)
    tokens = torch.cat(
        [
            draw.select(part).tokens(logits.repeat(len(part), 1), uniforms[part])
            for part in torch.arange(count).split(500)
        ]
    )
    return torch.bincount(tokens, minlength=len(logits)).double() / count


SETTINGS = [
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(temperature=1.7),
    Sampling(temperature=0.6, top_p=0.95),
    Sampling(top_p=0.3),
    Sampling(top_p=0.0001),
    Sampling(top_k=1),
    Sampling(top_k=7),
    Sampling(min_p=0.2),
    Sampling(min_p=1.0),
    Sampling(temperature=1.3, top_p=0.9, top_k=11, min_p=0.05),
    Sampling(top_p=0.5, top_k=3),
    Sampling(top_p=0.6, min_p=0.3),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("vocabulary", [40, 700])
def test_tokens_follow_the_truncated_distribution(sampling: Sampling, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(vocabulary, generator=generator) * 2
    count = 2_000
    wanted, found = exact(logits, sampling), drawn(logits, sampling, count)
    assert set(found.nonzero().flatten().tolist()) <= set(wanted.nonzero().flatten().tolist()), "nothing cut is drawn"
    assert float((found - wanted).abs().max()) <= 1.01 / count, "each token has its share, to the width of one draw"


@pytest.mark.parametrize("candidates", [8, 64])
def test_a_nucleus_wider_than_the_candidates_is_not_cut(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "CANDIDATES", candidates)
    logits = torch.linspace(1, 0, 300)  # nearly flat
    for sampling in (
        Sampling(),
        Sampling(top_p=0.9),
        Sampling(top_k=200),
        Sampling(min_p=0.5),
        Sampling(top_k=200, top_p=0.8),
        Sampling(min_p=0.5, top_p=0.8),
    ):
        wanted, found = exact(logits, sampling), drawn(logits, sampling, 1_000)
        assert int((wanted > 0).sum()) > candidates
        assert float((found - wanted).abs().max()) <= 1.01 / 1_000


def test_rows_of_a_batch_keep_their_own_settings() -> None:
    logits = torch.tensor([[0.0, 1.0, 5.0, 2.0]] * 5)
    settings = [GREEDY, Sampling(top_k=1), Sampling(), Sampling(top_k=2), Sampling(temperature=100.0)]
    draw = Draw.of([Row([0], 1, sampling, None) for sampling in settings], logits.device)
    last = torch.full((5,), 1 - 1e-9, dtype=torch.float64)
    assert draw.tokens(logits, last).tolist() == [2, 2, 0, 3, 0], "the unlikeliest that each allows"
    assert draw.tokens(logits, torch.zeros(5, dtype=torch.float64)).tolist() == [2, 2, 2, 2, 2]
    part = draw.select(torch.tensor([4, 0]))
    assert part.tokens(logits[:2], last[:2]).tolist() == [0, 2]
