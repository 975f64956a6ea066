"""What must not leave this machine is found in every kind of file, and named without being shown."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.publish.publication import File, Part
from distill.publish.scan import Needles, leaks, needles

SECRET = "hf_" + "S3cret" * 6
FOUND = Needles(
    {"your token of the Hub": SECRET.encode()},
    {"the folder of the run": b"/data/jane/runs/x"},
    {"your user name": b"jane"},
)


def found(path: str, content: Path | bytes) -> list[str]:
    part = Part("org/x", "model", "student", (File.of(path, content),))
    told = [str(leak) for leak in leaks(part, FOUND)]
    assert not any(SECRET in text or "jane" in text for text in told), "what was found is never shown"
    return [text.rpartition(": ")[2] for text in told]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"use {SECRET} here", ["your token of the Hub", "a token of the Hub"]),
        ("see /data/jane/runs/x/student", ["the folder of the run", "your user name"]),
        ("made by jane.", ["your user name"]),
        ("model: `/mnt/secret-project/base`", ["a folder of this machine"]),
        ("in /home/bob/models", ["a folder of a user"]),
        ("C:\\Users\\bob\\x", ["a folder of a user"]),
        ("http://10.0.0.12:8000/v1", ["an address of a private network"]),
        ("at http://me:pass@host/v1", ["an address with a login"]),
        ("AKIAABCDEFGHIJKLMNOP", ["an AWS key"]),
        ("-----BEGIN RSA PRIVATE KEY-----", ["a private key"]),
    ],
)
def test_a_text_that_gives_something_away(text: str, what: list[str]) -> None:
    assert sorted(found("README.md", text.encode())) == sorted(what)


@pytest.mark.parametrize(
    "text",
    [
        "janet and her 10.5 apples",
        "version 10.0.1",
        "v1.10.0.12 of it",
        "https://huggingface.co/org/x",
        "[a](https://a.b/c/d), and/or",
    ],
)
def test_a_text_that_gives_nothing_away(text: str) -> None:
    assert found("README.md", text.encode()) == []


def test_who_publishes_under_a_name_may_show_it() -> None:
    content = b"# jane/x\n[x](https://huggingface.co/jane/x) by jane"
    for repo, told in (("jane/x", 0), ("org/jane-7b", 0), ("org/x", 1)):
        assert len(leaks(Part(repo, "model", "student", (File.of("README.md", content),)), FOUND)) == told


def test_a_vocabulary_may_hold_paths() -> None:
    assert found("tokenizer.json", b'{"a": "/usr/bin/env"}') == []


def test_a_trace_may_name_a_person_and_a_folder_but_no_key(tmp_path: Path) -> None:
    def parquet(text: str) -> Path:
        path = tmp_path / "t.parquet"
        table = pa.table({"messages": [[{"role": "user", "content": text}]], "n": [1]})
        pq.write_table(table, path)
        return path

    assert found("t.parquet", parquet("jane has 3 apples in /home/bob")) == []
    assert found("t.parquet", parquet(f"the key is {SECRET}")) == ["your token of the Hub", "a token of the Hub"]
    assert found("t.parquet", parquet("saved in /data/jane/runs/x")) == ["the folder of the run"]


def test_headers_of_weights_are_looked_through(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"from": "/data/jane/runs/x"}}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 10)
    assert "the folder of the run" in found("m.safetensors", path)
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF" + b"\0" * 40 + b"general.source /data/jane/runs/x")
    assert "the folder of the run" in found("m.gguf", gguf)


def test_what_is_looked_for_is_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_API_KEY", "value-of-the-key")
    monkeypatch.setenv("LOGNAME", "jane-doe")
    monkeypatch.setattr("socket.gethostname", lambda: "workstation-7")
    looked_for = needles(SECRET, tmp_path / "run")
    assert looked_for.secrets["the value of $MY_API_KEY"] == b"value-of-the-key"
    assert looked_for.secrets["your token of the Hub"] == SECRET.encode()
    assert looked_for.places["the folder of the run"] == str(tmp_path / "run").encode()
    assert looked_for.names == {"your user name": b"jane-doe", "the name of this machine": b"workstation-7"}
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.setattr("socket.gethostname", lambda: "localhost")
    assert needles(None, tmp_path).names == {}
