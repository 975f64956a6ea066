"""A Hugging Face folder of a tiny Qwen2 with a byte-level BPE tokenizer, written as a GGUF file in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Name in transformers → name in GGUF, of what a layer holds."""
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(folder: Path, file: Path, *, template: str | None = None) -> Path:
    """Only what llama.cpp needs. `template` is put into the file as its chat template."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])
    _add_tokenizer(writer, folder, config)
    if template is not None:
        writer.add_chat_template(template)
    for name, tensor in _tensors(folder):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _tensors(folder: Path) -> list[tuple[str, Any]]:
    from safetensors.torch import load_file

    found = []
    for name, tensor in load_file(folder / "model.safetensors").items():
        stem, _, last = name.rpartition(".")
        if stem in WHOLE:
            target = WHOLE[stem]
        else:
            _, _, number, part = stem.split(".", 3)
            target = f"blk.{number}.{TENSORS[part]}"
        found.append((f"{target}.{last}", tensor.float().numpy()))
    return found


def _add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    import gguf

    model = json.loads((folder / "tokenizer.json").read_text())
    added = {token["id"]: token for token in model["added_tokens"]}
    words = {number: word for word, number in model["model"]["vocab"].items()}
    words |= {number: token["content"] for number, token in added.items()}
    tokens, types = [], []
    for number in range(config["vocab_size"]):
        tokens.append(words.get(number, f"[PAD{number}]"))
        special = number in added and added[number]["special"]
        kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
        plain = gguf.TokenType.NORMAL if number in words else gguf.TokenType.UNUSED
        types.append(kind if number in added else plain)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
