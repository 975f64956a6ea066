"""Small models as a copy, a download into a folder and the Hub's cache leave them; huggingface_hub writes its own
records here."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub._local_folder import write_download_metadata
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache

from distill.serve.model_files import INDEX

COMMIT, OTHER = "56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad", "0" * 40
ID = "someone/Model-R1"


def safetensors(*names: str) -> bytes:
    header = {name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]} for i, name in enumerate(names)}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(struct.pack("<2f", i, 1.5) for i in range(len(names)))


FILES: Mapping[str, bytes] = {
    "config.json": b'{"model_type": "qwen2"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    INDEX: json.dumps(
        {"weight_map": {"a": "w-1.safetensors", "b": "w-1.safetensors", "c": "w-2.safetensors"}}
    ).encode(),
    "w-1.safetensors": safetensors("a", "b"),
    "w-2.safetensors": safetensors("c"),
}


def told(name: str, content: bytes) -> str:
    """What the Hub tells of a file: sha256 of what it keeps apart, else git's hash."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def folder(place: Path, files: Mapping[str, bytes] = FILES) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


def downloaded(place: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """A folder as `hf download --local-dir` leaves it."""
    folder(place, files)
    for name, content in files.items():
        write_download_metadata(local_dir=place, filename=name, commit_hash=COMMIT, etag=told(name, content))
    return place


def cached(tmp_path: Path, files: Mapping[str, bytes] = FILES, *, listed: bool = False) -> Path:
    """The Hub's cache as a download leaves it; the folder of the repository in it."""
    stored = tmp_path / "hub" / "models--someone--Model-R1"
    snapshot = stored / "snapshots" / COMMIT
    for place in (snapshot, stored / "blobs", stored / "refs"):
        place.mkdir(parents=True, exist_ok=True)
    (stored / "refs" / "main").write_text(COMMIT)
    for name, content in files.items():
        (stored / "blobs" / told(name, content)).write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{told(name, content)}")
    if listed:
        entries = {
            name: TreeCacheEntry(len(content), told("", content), told(name, content), len(content))
            if name.endswith(".safetensors") else TreeCacheEntry(len(content), told(name, content))
            for name, content in files.items()
        }  # fmt: skip
        write_tree_cache(str(stored), COMMIT, entries)
    return stored
