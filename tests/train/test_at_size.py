"""Counting memory on fake tensors: against sums done by hand, and the real path at the students' real sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig

from distill.errors import SpecError
from distill.train.at_size import Counter, Layout, measure


def config(**changed: int) -> AutoConfig:
    sizes = {
        "vocab_size": 4_096,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return AutoConfig.for_model("qwen2", **{**sizes, **changed}, tie_word_embeddings=False)


def test_storages_are_counted_while_they_are_there() -> None:
    counter = Counter()
    with counter:
        first = torch.zeros(1_000)
        assert counter.now == 4_000
        view = first.view(10, 100)[3:]
        assert counter.now == 4_000
        second = view * 2
        del first
        assert counter.now == 4_000 + 2_800
        del view
        assert counter.now == 2_800
        assert counter.peak_and_restart() == 6_800
        second.untyped_storage().resize_(0)
        assert counter.now == 0
        second.untyped_storage().resize_(5_000)
        assert counter.peak_and_restart() == 5_000
        del second
        assert counter.now == 0
    assert counter.now == 0


@pytest.mark.parametrize("ranks", [1, 8, 64])
def test_a_rank_holds_its_share(ranks: int) -> None:
    found = measure(config(), Layout(ranks, tokens=64))
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        weights = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config()).parameters())
    assert found.parameters == pytest.approx(4 * weights / ranks, rel=0.02)
    assert found.gradients == pytest.approx(4 * weights / ranks, rel=0.02)
    assert found.optimizer == pytest.approx(8 * weights / ranks, rel=0.02)
    assert not torch.distributed.is_initialized()


def test_tokens_are_shared_by_context_parallel_ranks() -> None:
    alone, shared = (measure(config(), Layout(8, count, tokens=8_192)).activations for count in (1, 4))
    assert alone / 4 <= shared < alone / 4 * 1.15  # a gathered layer, of which each has its own, counts in


def test_checkpointing_keeps_less() -> None:
    less, more = (measure(config(), Layout(8, tokens=8_192, checkpointing=on)).activations for on in (True, False))
    assert more > 4 * less


@pytest.mark.parametrize(
    ("ranks", "precision", "kinds"),
    [
        (1, "mixed", {torch.bfloat16}),  # under autocast queries and keys come in float32
        (1, "bf16", {torch.bfloat16}),
        (8, "mixed", {torch.bfloat16}),
        (1, "fp32", set()),
        (8, "fp32", set()),
    ],
)
def test_the_kernel_gets_what_flash_attention_takes(
    monkeypatch: pytest.MonkeyPatch, ranks: int, precision: Any, kinds: set[torch.dtype]
) -> None:
    from torch.nn.attention import varlen

    seen, real = set(), varlen.varlen_attn

    def noting(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **more: Any) -> Any:
        seen.update({query.dtype, key.dtype, value.dtype})
        return real(query, key, value, *args, **more)

    monkeypatch.setattr(varlen, "varlen_attn", noting)
    measure(config(), Layout(ranks, tokens=64, precision=precision))
    assert seen == kinds


def test_heads_have_to_divide() -> None:
    with pytest.raises(SpecError, match="cannot be shared"):
        measure(config(), Layout(8, 8))
