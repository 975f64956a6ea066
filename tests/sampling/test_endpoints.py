"""The file of servers: what it may say, and that it is followed while it changes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from distill.errors import SpecError, UsageError
from distill.sampling.endpoints import LiveFile, Place, named, read_places
from sampling.scripted import Scripted


class Built(Scripted):
    def __init__(self, place: Place) -> None:
        super().__init__()
        self.name, self.place = place.name, place


def write(path: Path, *entries: Any) -> Path:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"endpoints": entries}))
    status = path.stat() if path.exists() else None
    beside.replace(path)
    if status is not None:  # a file system's clock may be coarser than this test is fast
        os.utime(path, ns=(status.st_atime_ns + 10**9, status.st_mtime_ns + 10**9))
    return path


def test_servers_of_the_command_line_have_names_without_addresses() -> None:
    assert named(["http://a/v1"]) == [Place("openai", "http://a/v1")]
    assert [place.name for place in named(["http://a/v1", "http://b/v1"])] == ["openai-0", "openai-1"]
    with pytest.raises(UsageError, match="given twice"):
        named(["http://a/v1", "http://a/v1"])


def test_a_file_names_servers(tmp_path: Path) -> None:
    path = write(tmp_path / "e.json", {"name": "r0", "url": "http://a/v1", "model": "m"}, {"url": "http://b/v1"})
    assert read_places(path) == [Place("r0", "http://a/v1", "m"), Place("endpoint-1", "http://b/v1")]


def test_the_key_of_a_server_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "e.json", {"name": "r0", "url": "http://a/v1", "key_file": "serve/key"})
    (place,) = read_places(path)
    with pytest.raises(SpecError, match="the key of r0 cannot be read: No such file"):
        place.key()
    for outside in ("/etc/passwd", "../key"):
        with pytest.raises(SpecError, match="key_file lies outside the folder of this file"):
            read_places(write(tmp_path / "other.json", {"url": "http://a/v1", "key_file": outside}))
    (tmp_path / "serve").mkdir()
    (tmp_path / "serve" / "key").write_text("secret\n")
    assert place.key() == "secret"
    assert Place("r1", "http://b/v1").key() is None
    assert "secret" not in repr(place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "there is no list `endpoints`"),
        ('{"endpoints": {}}', "there is no list `endpoints`"),
        ('{"endpoints": [{"name": "a"}]}', "endpoints.0 has no url"),
        ('{"endpoints": [{"url": "http://a", "adress": "x"}]}', "unknown key 'adress'"),
        ('{"endpoints": [{"url": "http://a", "name": 3}]}', "endpoints.0.name is no text"),
        ('{"endpoints": [{"url": "http://u:p@a/v1"}]}', "the url holds a login"),
        ('{"endpoints": [{"url": "http://a", "name": "r"}, {"url": "http://b", "name": "r"}]}', "the same name"),
        ('{"endpoints": [{"url": "http://a", "name": "r"}, {"url": "http://a", "name": "s"}]}', "the same url"),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=message) as caught:
        read_places(path)
    assert str(path) in caught.value.what
    assert "u:p" not in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        LiveFile(tmp_path / "none.json", Built)


def test_changes_are_who_came_and_who_went(tmp_path: Path) -> None:
    path = write(tmp_path / "e.json", {"name": "a", "url": "http://a"}, {"name": "b", "url": "http://b"})
    roster = LiveFile(path, Built)
    assert roster.changes(["a", "b"]) is None
    write(path, {"name": "b", "url": "http://b"}, {"name": "c", "url": "http://c"})
    came, went = roster.changes(["a", "b"]) or ([], [])
    assert ([engine.name for engine in came], went) == (["c"], ["a"])
    assert roster.changes(["b", "c"]) is None


def test_another_address_is_another_server(tmp_path: Path) -> None:
    path = write(tmp_path / "e.json", {"name": "a", "url": "http://a"})
    roster = LiveFile(path, Built)
    write(path, {"name": "a", "url": "http://elsewhere"})
    came, went = roster.changes(["a"]) or ([], [])
    assert went == ["a"]
    assert [engine.place.url for engine in came if isinstance(engine, Built)] == ["http://elsewhere"]


def test_a_file_that_breaks_changes_nothing_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "e.json", {"name": "a", "url": "http://a"})
    roster = LiveFile(path, Built)
    path.write_text('{"endpoints": [')
    assert roster.changes(["a"]) is None
    assert "the servers stay as they were" in capsys.readouterr().err
    assert roster.changes(["a"]) is None
    assert capsys.readouterr().err == "", "told once"
    path.unlink()
    assert roster.changes(["a"]) is None
