"""Durable file operations: replacement is all or nothing, hashes are stable, a lock has one holder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import FAILED, DiskFullError, LockedError
from distill.files import (
    FileLock,
    canonical_json,
    disk_full_is_clear,
    now,
    replacing,
    replacing_folder,
    sha256_file,
    sha256_of,
    sha256_tree,
    write_json,
    write_text,
)

ROOT = Path(__file__).parents[1]


def everything(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, hidden ones too, with its content (None for a folder)."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


# --- replacing -------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent, "another file system could not be renamed from"
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert everything(tmp_path) == {"new": None, "new/file": b"whole"}


def test_a_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        reader = path.open()
    with reader:
        assert reader.read() == "old", "whoever is reading goes on with the old one, not with a mixture"
    assert everything(tmp_path) == {"file": b"new"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EIO, "broken")])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, replacing(path) as temporary:  # noqa: PT012  # the error belongs inside
        temporary.write_text("half")
        raise error
    assert caught.value is error
    assert everything(tmp_path) == {"file": b"old"}


def test_forgetting_to_write_is_an_error_not_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert everything(tmp_path) == {"file": b"old"}


def test_a_file_is_synced_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    steps: list[tuple[str, str]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        kind = "folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file"
        steps.append((kind, path.read_text()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "new")
    assert steps == [("file", "old"), ("folder", "new")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: Path, code: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(DiskFullError, match="disk is full") as caught, replacing(path) as temporary:  # noqa: PT012  # as above
        temporary.write_text("half")
        raise OSError(code, os.strerror(code))
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == FAILED
    assert everything(tmp_path) == {"file": b"old"}


def test_other_errors_of_the_system_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_full_is_clear(tmp_path):
        raise PermissionError(errno.EACCES, "no")


# --- replacing folders -----------------------------------------------------------------------------------------------


def old_folder(path: Path) -> Path:
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "a").write_text("old a")
    (path / "gone").write_text("old b")
    return path


OLD = {"folder": None, "folder/sub": None, "folder/sub/a": b"old a", "folder/gone": b"old b"}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = old_folder(tmp_path / "folder")
    with replacing_folder(path) as temporary:
        (temporary / "deep" / "er").mkdir(parents=True)
        (temporary / "deep" / "er" / "b").write_text("new")
        assert (path / "gone").read_text() == "old b"
    assert everything(tmp_path) == {
        "folder": None,
        "folder/deep": None,
        "folder/deep/er": None,
        "folder/deep/er/b": b"new",
    }


def test_a_folder_appears_where_there_was_none_read_only_files_included(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "x" / "folder") as temporary:
        (temporary / "a").write_text("a")
        (temporary / "a").chmod(0o444)
    assert everything(tmp_path) == {"x": None, "x/folder": None, "x/folder/a": b"a"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_folder(tmp_path: Path, error: BaseException) -> None:
    path = old_folder(tmp_path / "folder")
    with pytest.raises(type(error)), replacing_folder(path) as temporary:  # noqa: PT012  # as above
        (temporary / "half").write_text("half")
        raise error
    assert everything(tmp_path) == OLD


def test_the_old_folder_comes_back_when_the_last_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_folder(tmp_path / "folder")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(DiskFullError), replacing_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert everything(tmp_path) == OLD


def test_every_file_and_folder_is_synced_before_the_folder_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "folder", list[str]()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(place.name)
        assert path.exists() == (place == tmp_path)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing_folder(path) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a").write_text("a")
        (temporary / "b").write_text("b")
    assert set(synced) >= {"sub", "a", "b"}
    assert synced[-1] == tmp_path.name


# --- JSON and hashes -------------------------------------------------------------------------------------------------


def test_json_files_are_readable_and_refuse_what_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"name": "思考", "n": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "name": "思考",\n  "n": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": float("nan")})
    assert "思考" in path.read_text(encoding="utf-8")


def test_canonical_json_is_pinned() -> None:
    """Every hash and identity rests on it."""
    value = {"b": [1, 1.0, 0.1, None, True], "a": "é\n\ud800", "é": {}}
    assert canonical_json(value) == '{"a":"\\u00e9\\n\\ud800","b":[1,1.0,0.1,null,true],"\\u00e9":{}}'
    assert sha256_of(["a", 1]) == "135f17a475a61afdeeaf3759ad2e45ad1c7abb192395abe47e41fc8e395dc1a9"
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), min_size=1, max_size=5), st.randoms())
def test_hashes_do_not_depend_on_the_order_of_keys(value: dict[str, Any], rng: Any) -> None:
    keys = list(value)
    rng.shuffle(keys)
    assert sha256_of({key: value[key] for key in keys}) == sha256_of(value)
    assert sha256_of({**value, "another key": 1}) != sha256_of(value)


def test_a_tree_hash_covers_names_and_contents_but_not_hidden_files(tmp_path: Path) -> None:
    def tree(name: str, files: dict[str, str]) -> str:
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return sha256_tree(tmp_path / name)

    base = {"b": "1", "a/x": "2", "a/y": "3"}
    one = tree("one", base)
    assert one == "7e36aeeb8f79cf741a5fb079f122af7f7368d1d33be090d08b366423805ad460"
    assert tree("two", dict(reversed(base.items()))) == one
    assert tree("three", {**base, ".lock": "x", ".cache/z": "y", "a/.hidden": "z"}) == one
    others = [
        tree("content", {**base, "b": "2"}),
        tree("name", {"c": "1", "a/x": "2", "a/y": "3"}),
        tree("swapped", {"b": "1", "a/x": "3", "a/y": "2"}),
        tree("moved", {"b": "1", "x": "2", "a/y": "3"}),
        tree("more", {**base, "d": ""}),
    ]
    assert len({one, *others}) == 6
    assert sha256_tree(tmp_path / "one" / "b") == sha256_file(tmp_path / "one" / "b")
    assert sha256_file(tmp_path / "one" / "b") == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


def test_now_is_utc_and_sorts() -> None:
    first, second = now(), now()
    assert first.endswith("+00:00")
    assert len(first) == len(second) == len("2026-11-23T23:00:00.000+00:00")
    assert first <= second


# --- locks -----------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from distill.files import FileLock
with FileLock(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_has_one_holder_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    with FileLock(path, "run") as held:
        assert path.read_text().startswith(f"process {os.getpid()} on ")
        with (
            pytest.raises(LockedError, match="another process is writing to this run") as caught,
            FileLock(path, "run"),
        ):
            pass
        assert f"held by process {os.getpid()} on " in str(caught.value)
        assert caught.value.exit_code == FAILED
        with held:
            pass
    with FileLock(path, "run"):
        pass


def test_a_lock_dies_with_its_process_even_by_kill(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"held by process {holder.pid} on "):
            FileLock(path, "run").acquire()
        holder.kill()
    with FileLock(path, "run"):
        assert path.read_text().startswith(f"process {os.getpid()} on ")


def test_an_error_while_holding_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(ValueError, match="no"), FileLock(path, "run"):
        raise ValueError("no")
    FileLock(path, "run").acquire().release()


def test_a_lock_that_cannot_be_written_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(DiskFullError):
            FileLock(tmp_path / ".lock", "run").acquire()
    FileLock(tmp_path / ".lock", "run").acquire().release()


def test_a_file_system_without_locks_is_not_taken_for_another_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr("distill.files.fcntl.flock", unsupported)
    with pytest.raises(OSError, match="No locks available") as caught:
        FileLock(tmp_path / ".lock", "run").acquire()
    assert not isinstance(caught.value, LockedError)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
