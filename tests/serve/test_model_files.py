"""Models in a folder and in the Hub's cache: whole ones, and each way in which they are not. The layouts are those that
huggingface_hub itself writes (its own functions write them here), the weights small real safetensors files."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub._local_folder import get_local_download_paths, write_download_metadata

from distill.environment import Finding
from distill.errors import InputError
from distill.serve import model_files, model_hashes
from distill.serve.model_files import INDEX, ModelFiles, located, model_found, weight_files
from distill.serve.model_hashes import hashes_found
from serve.model_folders import COMMIT, FILES, ID, OTHER, cached, downloaded, folder, safetensors, told

DOWNLOAD = f"hf download {ID} --revision {COMMIT}"


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own, and `hf` on the PATH."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/hf").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def there(model: str | Path, revision: str | None = None) -> ModelFiles:
    files = located(str(model), revision)
    assert isinstance(files, ModelFiles), files
    return files


def looked(model: str | Path, revision: str | None = None, *, trust: bool = False) -> list[Finding]:
    return model_found(there(model, revision), revision=revision, trust_remote_code=trust)


def missing(findings: list[Finding]) -> Finding:
    (finding,) = findings
    assert (finding.topic, finding.state, finding.necessary) == ("model", "missing", True), finding
    return finding


# --- where it lies ----------------------------------------------------------------------------------------------------


def test_a_model_that_is_not_downloaded_comes_with_the_exact_command(tmp_path: Path) -> None:
    finding = located(ID, COMMIT)
    assert isinstance(finding, Finding)
    assert (finding.state, finding.what, finding.mend) == (
        "missing",
        f"{ID} at {COMMIT} is not downloaded",
        (DOWNLOAD,),
    )
    finding = located(ID, None)
    assert isinstance(finding, Finding)
    assert finding.mend == (f"hf download {ID}",)
    cached(tmp_path)
    assert there(ID).commit == there(ID, "main").commit == there(ID, COMMIT).commit == COMMIT
    assert isinstance(located(ID, OTHER), Finding), "another revision of it is there"
    for none in (str(tmp_path / "none"), "./none", "../none", "none", "a/b/c"):
        finding = located(none, None)
        assert isinstance(finding, Finding)
        assert (finding.what, finding.mend) == (f"there is no folder {none}", ())


@pytest.mark.parametrize("listed", [False, True])
def test_a_whole_model_in_the_cache(tmp_path: Path, listed: bool) -> None:
    stored = cached(tmp_path, listed=listed)
    (finding,) = looked(ID, COMMIT)
    assert finding.state == "ok"
    assert "weight files: 2," in finding.what
    files = there(ID)
    assert files.told == {name: told(name, content) for name, content in FILES.items()}
    by_path = there(stored / "snapshots" / COMMIT)
    assert (by_path.told, by_path.commit, by_path.listed) == (files.told, COMMIT, files.listed)
    finding = hashes_found(files, tmp_path / "memory.json")
    assert (finding.topic, finding.state, finding.what) == (
        "hashes",
        "ok",
        "6 files are what the Hub has, by their hashes",
    )


def test_a_whole_model_in_a_folder(tmp_path: Path) -> None:
    files = there(downloaded(tmp_path / "model"))
    assert (files.commit, files.told) == (COMMIT, {name: told(name, content) for name, content in FILES.items()})
    assert looked(tmp_path / "model", COMMIT)[0].state == "ok"
    assert hashes_found(files, tmp_path / "memory.json").state == "ok"
    bare = there(folder(tmp_path / "bare"))
    assert (bare.commit, bare.told) == (None, {})
    assert looked(tmp_path / "bare", COMMIT)[0].state == "ok"
    finding = hashes_found(bare, tmp_path / "memory.json")
    assert (finding.state, "contents were not" in finding.what) == ("note", True)


# --- what may lack ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "w-2.safetensors"])
def test_each_file_that_a_server_reads_is_missed(tmp_path: Path, name: str) -> None:
    without = {kept: content for kept, content in FILES.items() if kept != name}
    finding = missing(looked(folder(tmp_path / "model", without)))
    assert finding.what == f"{tmp_path / 'model'}: lacks {name}"
    assert finding.mend == (f"hf download REPOSITORY --local-dir {tmp_path / 'model'}",)
    cached(tmp_path, without)
    finding = missing(looked(ID, COMMIT))
    assert (finding.what, finding.mend) == (f"{ID}: lacks {name}", (DOWNLOAD,))


def test_what_the_repository_has_and_a_server_would_silently_do_without(tmp_path: Path) -> None:
    stored = cached(tmp_path, listed=True)
    (stored / "snapshots" / COMMIT / "generation_config.json").unlink()
    assert missing(looked(ID)).what == f"{ID}: lacks generation_config.json"
    shutil.rmtree(stored / "trees")
    assert looked(ID)[0].state == "ok", "nobody told that there is one"


def test_other_tokenizers_and_weights_without_an_index(tmp_path: Path) -> None:
    kept = {name: content for name, content in FILES.items() if name not in (INDEX, "tokenizer.json")}
    for names in (("tokenizer.model",), ("vocab.json", "merges.txt"), ("tekken.json",)):
        place = folder(tmp_path / names[0], {**kept, **dict.fromkeys(names, b"x")})
        assert looked(place)[0].state == "ok"
        (place / names[-1]).unlink()
        assert "lacks tokenizer.json" in missing(looked(place)).what
    place = folder(tmp_path / "numbered", {name: FILES[name] for name in ("config.json", "tokenizer.json")})
    assert missing(looked(place)).what.endswith("lacks *.safetensors")
    for number in (1, 3):
        (place / f"model-{number:05}-of-00003.safetensors").write_bytes(safetensors("a"))
    assert missing(looked(place)).what.endswith("lacks model-00002-of-00003.safetensors")
    (place / "model-00002-of-00003.safetensors").write_bytes(safetensors("b"))
    assert looked(place)[0].state == "ok"


def test_weights_that_can_run_code_are_refused(tmp_path: Path) -> None:
    kept = {name: FILES[name] for name in ("config.json", "tokenizer.json")}
    for name in ("pytorch_model.bin", "consolidated.00.pth", "model.pt"):
        finding = missing(looked(folder(tmp_path / name, {**kept, name: b"x"})))
        assert "which can run code when loaded: safetensors only" in finding.what
    assert looked(folder(tmp_path / "both", {**FILES, "pytorch_model.bin": b"x"}))[0].state == "ok"


@pytest.mark.parametrize(
    "index", [b"{", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": {"a": "../w.safetensors"}}',
              b'{"weight_map": {"a": 3}}', b'{"weight_map": []}'],
)  # fmt: skip
def test_an_index_that_is_none(tmp_path: Path, index: bytes) -> None:
    with pytest.raises(InputError, match="is no index of weight files"):
        weight_files(folder(tmp_path / "model", {**FILES, INDEX: index}))


# --- what may be broken -----------------------------------------------------------------------------------------------


def test_files_that_are_cut_or_are_none_or_another(tmp_path: Path) -> None:
    whole = FILES["w-1.safetensors"]
    for content, reason in (
        (whole[:-1], f"w-1.safetensors has {len(whole) - 1:,} bytes, its header says {len(whole):,}"),
        (whole + b"x", f"w-1.safetensors has {len(whole) + 1:,} bytes, its header says {len(whole):,}"),
        (whole[:20], "w-1.safetensors is no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "w-1.safetensors is no safetensors file"),
        (b"", "w-1.safetensors is no safetensors file"),
        (FILES["w-2.safetensors"], f"w-1.safetensors lacks 2 tensors that {INDEX} places there, such as a"),
    ):
        place = downloaded(tmp_path / "model", {**FILES, "w-1.safetensors": content})
        finding = missing(looked(place))
        assert finding.what == f"{place}: {reason}"
        again = f"hf download REPOSITORY --revision {COMMIT} w-1.safetensors --local-dir {place} --force-download"
        assert finding.mend == (again,)
    stored = cached(tmp_path)
    (stored / "blobs" / told("w-1.safetensors", whole)).write_bytes(whole[:-1])
    assert missing(looked(ID)).mend == (f"{DOWNLOAD} w-1.safetensors --force-download",)


def test_a_flipped_bit_is_found_by_its_hash_alone(tmp_path: Path) -> None:
    stored = cached(tmp_path)
    for name in ("w-2.safetensors", "tokenizer.json"):
        blob = stored / "blobs" / told(name, FILES[name])
        content = bytearray(FILES[name])
        content[-3] ^= 1
        blob.write_bytes(content)
        assert looked(ID)[0].state == "ok"
        finding = hashes_found(there(ID), tmp_path / f"{name}.memory")
        assert (finding.state, finding.what) == ("missing", f"not what the Hub has: {name}")
        assert finding.mend == (f"{DOWNLOAD} {name} --force-download",)
        blob.write_bytes(FILES[name])


def test_a_download_that_did_not_end(tmp_path: Path) -> None:
    stored = cached(tmp_path)
    (stored / "blobs" / f"{told('w-2.safetensors', FILES['w-2.safetensors'])}.ab12cd34.incomplete").touch()
    (stored / "blobs" / ("c" * 64)).touch()
    (stored / "blobs" / f"{'c' * 64}.ab12cd34.incomplete").touch()
    assert looked(ID)[0].state == "ok", "left over: the files themselves are here, one of another revision"
    cut = stored / "blobs" / f"{'a' * 64}.ab12cd34.incomplete"
    cut.touch()
    finding = missing(looked(ID))
    assert finding.what == f"{ID}: downloads that did not end: {cut.name}"
    assert finding.mend == (DOWNLOAD, f"rm {cut}")
    cached_again = cached(tmp_path / "second", listed=True)
    shutil.copytree(cached_again / "trees", stored / "trees")
    ok, note = looked(ID)
    assert (ok.state, note.state) == ("ok", "note"), "the list tells that nothing lacks"
    assert cut.name in note.what
    (stored / "snapshots" / COMMIT / "w-1.safetensors").unlink()
    assert missing(looked(ID)).what == f"{ID}: lacks w-1.safetensors; downloads that did not end: {cut.name}"


def test_a_download_into_a_folder_that_did_not_end(tmp_path: Path) -> None:
    place = downloaded(tmp_path / "model")
    paths = get_local_download_paths(place, "w-2.safetensors")
    left = paths.incomplete_path(told("w-2.safetensors", FILES["w-2.safetensors"]))
    left.touch()
    assert looked(place)[0].state == "ok", "left over: the file itself is here"
    left.rename(paths.incomplete_path("b" * 64))
    assert "downloads that did not end" in missing(looked(place)).what


def test_another_commit_than_the_wanted_one(tmp_path: Path) -> None:
    place = downloaded(tmp_path / "model")
    finding = missing(looked(place, OTHER))
    assert finding.what == f"{place}: is commit {COMMIT}, {OTHER} is wanted"
    assert finding.mend == (f"hf download REPOSITORY --revision {OTHER} --local-dir {place}",)
    assert looked(place, "main")[0].state == "ok", "a branch moves"
    write_download_metadata(place, "config.json", OTHER, told("config.json", FILES["config.json"]))
    ok, note = looked(place, COMMIT)
    assert (ok.state, note.state, note.what) == ("ok", "note", f"files of 2 commits lie in {place}")


def test_code_of_the_models_own_is_noted(tmp_path: Path) -> None:
    config = {"auto_map": {"AutoConfig": "configuration_deepseek.C", "AutoModel": "modeling_deepseek.M"}}
    place = folder(tmp_path / "model", {**FILES, "config.json": json.dumps(config).encode()})
    ok, note = looked(place)
    assert (ok.state, note.state) == ("ok", "note")
    assert "(configuration_deepseek.py, modeling_deepseek.py); it is not run" in note.what
    assert "is run (configuration_deepseek.py" in looked(place, trust=True)[1].what


# --- hashing ----------------------------------------------------------------------------------------------------------


def test_what_was_hashed_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = model_hashes._digest

    def watched(path: Path, *rest: object) -> str:
        hashed.append(path.name)
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(model_hashes, "_digest", watched)
    place, memory = downloaded(tmp_path / "model"), tmp_path / "out/serve/model_files.json"
    assert hashes_found(there(place), memory).state == "ok"
    assert sorted(hashed) == sorted(FILES)
    hashed.clear()
    assert hashes_found(there(place), memory).state == "ok"
    assert hashed == []
    status = (place / "w-1.safetensors").stat()
    (place / "w-1.safetensors").write_bytes(FILES["w-1.safetensors"][:-1] + b"x")
    os.utime(place / "w-1.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert hashes_found(there(place), memory).what == "not what the Hub has: w-1.safetensors"
    assert hashed == ["w-1.safetensors"]
    hashed.clear()
    (place / "copy").write_bytes(FILES["w-1.safetensors"])
    os.utime(place / "copy", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    (place / "copy").rename(place / "w-1.safetensors")
    assert hashes_found(there(place), memory).state == "ok", "another inode, though size and time are the same"
    assert hashed == ["w-1.safetensors"]
    for nonsense in ("{", "[1]", json.dumps({str(place / "w-1.safetensors"): [1, 2, 3]})):
        memory.write_text(nonsense)
        assert hashes_found(there(place), memory).state == "ok"


def test_a_hashing_that_is_cut_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, memory = downloaded(tmp_path / "model"), tmp_path / "memory.json"
    real = model_hashes._digest

    def cut(path: Path, *rest: object) -> str:
        if path.name == "tokenizer.json":
            raise KeyboardInterrupt
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(model_hashes, "_digest", cut)
    monkeypatch.setattr(model_hashes, "MOST_THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        hashes_found(there(place), memory)
    kept = {Path(path).name for path in json.loads(memory.read_text())}
    assert "w-1.safetensors" in kept, "the largest first"
    assert "tokenizer.json" not in kept


def test_a_hashing_that_is_stopped_leaves_its_file(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (3 * model_hashes.BLOCK))
    stop, read = threading.Event(), []

    def count(bytes_read: int) -> None:
        read.append(bytes_read)
        stop.set()

    model_hashes._digest(tmp_path / "large", 64, count, stop)
    assert read == [model_hashes.BLOCK]


def test_a_memory_that_cannot_be_kept_only_costs_time(tmp_path: Path) -> None:
    place = downloaded(tmp_path / "model")
    (tmp_path / "file").touch()
    assert hashes_found(there(place), tmp_path / "file/memory.json").state == "ok"


def test_weights_that_nobody_told_of_and_files_that_no_server_reads(tmp_path: Path) -> None:
    place = downloaded(tmp_path / "model", {**FILES, "pytorch_model.bin": b"x"})
    (place / "pytorch_model.bin").write_bytes(b"y")
    assert hashes_found(there(place), tmp_path / "memory.json").state == "ok", "no server loads that"
    (place / ".cache/huggingface/download/w-1.safetensors.metadata").write_text("nonsense\n")
    finding = hashes_found(there(place), tmp_path / "memory.json")
    assert (finding.state, finding.what) == (
        "note", "5 files are what the Hub has; it has told nothing of w-1.safetensors",
    )  # fmt: skip


def test_the_download_is_named_as_it_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(model_files.sys, "executable", str(tmp_path / "python"))  # type: ignore[attr-defined]
    assert model_files.download_command("a/b", None) == "hf download a/b"
    (tmp_path / "sub").mkdir()
    monkeypatch.setattr(model_files.sys, "executable", str(tmp_path / "sub/python"))  # type: ignore[attr-defined]
    (tmp_path / "sub/hf").touch(mode=0o755)
    assert model_files.download_command("a/b", "r 1") == f"{tmp_path / 'sub/hf'} download a/b --revision 'r 1'"
