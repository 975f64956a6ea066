"""Tokenizers with the control tokens of Qwen2.5, Qwen3 and Llama 3 at the ids they have there, and bytes for text.

The real ones lie on the Hub; what these stand for is where the control tokens are and which of them are special, as the
tokenizer.json of Qwen/Qwen2.5-7B, Qwen/Qwen3-8B-Base and meta-llama/Llama-3.1-8B have it.
"""

from __future__ import annotations

from pathlib import Path

QWEN_WORDS, LLAMA_WORDS = 151_643, 128_000
"""Entries before the control tokens."""

QWEN_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *(f"<|{what}_{end}|>" for what in ("object_ref", "box", "quad", "vision") for end in ("start", "end")),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
QWEN_PLAIN = (
    *("<tool_call>", "</tool_call>"),
    *(f"<|fim_{what}|>" for what in ("prefix", "middle", "suffix", "pad")),
    *("<|repo_name|>", "<|file_sep|>"),
)
QWEN3_PLAIN = (*QWEN_PLAIN, "<tool_response>", "</tool_response>", "<think>", "</think>")
LLAMA_SPECIAL = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
    *(f"<|reserved_special_token_{number}|>" for number in range(3, 248)),
)


def qwen_tokenizer(folder: Path, *, thinks: bool = False) -> Path:
    """Of Qwen2.5; with `thinks` of Qwen3."""
    return _save(folder, QWEN_WORDS, QWEN_SPECIAL, QWEN3_PLAIN if thinks else QWEN_PLAIN, eos="<|endoftext|>", bos=None)


def llama_tokenizer(folder: Path) -> Path:
    return _save(folder, LLAMA_WORDS, LLAMA_SPECIAL, (), eos="<|end_of_text|>", bos="<|begin_of_text|>")


def _save(
    folder: Path, words: int, special: tuple[str, ...], plain: tuple[str, ...], *, eos: str, bos: str | None
) -> Path:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *(f"unused {number}" for number in range(words - len(alphabet)))]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in plain])
    pad = "<|endoftext|>" if bos is None else None
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token=bos, pad_token=pad).save_pretrained(
        folder
    )
    return folder
