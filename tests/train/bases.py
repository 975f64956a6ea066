"""Small pretrained bases as folders, without think tags as most bases are, and students of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.material import spec

CHATML = ("<|im_start|>", "<|im_end|>", "<|pad|>", "<unk>")
LLAMA = ("<|begin_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|start_header_id|>",
         "<|end_header_id|>", "<|eot_id|>", "<|pad|>")  # fmt: skip
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}


def word_tokenizer(
    folder: Path, *, controls: tuple[str, ...] = CHATML, pad: str | None = "<|pad|>", eos: str = "<|im_end|>"
) -> Path:
    """A tokenizer of bytes with these control tokens: no think tags, as most bases have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(controls))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=pad).save_pretrained(folder)
    return folder


def plain_base(
    folder: Path, *, rows: int | None = None, tied: bool = True, model_type: str = "qwen2", **changed: Any
) -> Path:
    """A small base with a tokenizer of its family and `rows` vocabulary rows."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if model_type == "llama":
        word_tokenizer(folder, controls=LLAMA, eos="<|eot_id|>")
    else:
        word_tokenizer(folder)
    size: int = rows or len(AutoTokenizer.from_pretrained(folder))
    torch.manual_seed(0)
    own = {"head_dim": 16} if model_type == "qwen3" else {}  # it alone would take 128; Qwen2 writes none down
    sizes = {**SIZES, "vocab_size": size, "tie_word_embeddings": tied, **own, **changed}
    config = AutoConfig.for_model(model_type, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def from_base(folder: Path, **changed: Any) -> Any:
    settings = {"architecture": None, "base": str(folder), "tokenizer": None, "template": "chatml"}
    return spec(**{**settings, **changed})
