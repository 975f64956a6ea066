"""A publication against a Hub on loopback, by the real client: what arrives, in which order, and what goes wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from upload_hub import Fault, UploadHub, person, serving

from distill.errors import PublishError
from distill.publish.publication import File, Part, Publication, in_order
from distill.publish.transaction import Transaction

TOKEN = "hf_" + "a" * 34
MODEL, DATA = "org/student", "org/student-traces"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[UploadHub]:
    with serving(tmp_path / "hub", {TOKEN: person("someone", orgs={"org": "admin"})}) as running:
        yield running


@pytest.fixture(autouse=True)
def lfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback Hub speaks LFS; the client decides by this switch."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def material(folder: Path, seed: int = 1) -> Publication:
    """A student of three shards and some small files, and a dataset of one file."""
    draw = random.Random(seed)
    folder.mkdir(exist_ok=True)
    names = {f"model-{n:05d}-of-00003.safetensors": 150_000 + n for n in (1, 2, 3)} | {"config.json": 900}
    for name, size in names.items():
        (folder / name).write_bytes(draw.randbytes(size))
    (folder / "train.parquet").write_bytes(draw.randbytes(70_000))
    told = json.dumps({"run": "mine"}).encode()
    model = [File.of(name, folder / name) for name in names]
    model += [File.of("README.md", b"---\nlicense: mit\n---\n# student\n"), File.of("lineage.json", told)]
    data = [File.of("data/train.parquet", folder / "train.parquet"), File.of("lineage.json", told)]
    return Publication("mine", (
        Part(MODEL, "model", "the student", in_order(model)),
        Part(DATA, "dataset", "traces", in_order(data)),
    ))  # fmt: skip


def transaction(hub: UploadHub, publication: Publication, waited: list[float] | None = None) -> Transaction:
    from huggingface_hub import HfApi

    pause = waited.append if waited is not None else lambda seconds: None
    return Transaction(HfApi(endpoint=hub.url, token=TOKEN), publication, pause)


def expected(part: Part) -> dict[str, bytes]:
    return {file.path: file.read() for file in part.files}


def shown(hub: UploadHub, part: Part, revision: str = "main") -> dict[str, bytes]:
    files = hub.files(part.repo, part.kind, revision)
    return {path: content for path, content in files.items() if path != ".gitattributes"}


def test_everything_arrives_under_one_tag_private_and_without_a_trace_of_the_work(
    hub: UploadHub, tmp_path: Path
) -> None:
    publication = material(tmp_path / "files")
    ended = transaction(hub, publication).run(public=False)
    assert [(one.tag, one.part.repo) for one in ended] == [("v1", MODEL), ("v1", DATA)]
    for part in publication.parts:
        repo = hub.repo(part.repo, part.kind)
        assert shown(hub, part) == shown(hub, part, "v1") == expected(part)
        assert repo.private
        assert list(repo.branches) == ["main"]
        assert repo.commits[repo.commits[repo.branches["main"]].parent or ""].tree.keys() == {".gitattributes"}
    assert set(hub.stored.values()) == {1}, "what main took over was not sent again"
    assert not hub.unknown


def test_it_waits_as_long_as_the_hub_asks(hub: UploadHub, tmp_path: Path) -> None:
    hub.faults.append(Fault("POST", "/commit/distill", 429))
    waited: list[float] = []
    transaction(hub, material(tmp_path / "files"), waited).run(public=False)
    assert waited == [55.0]


def test_a_client_that_is_set_offline_says_so_at_once(
    hub: UploadHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    waited: list[float] = []
    with pytest.raises(PublishError, match="set to stay offline") as caught:
        transaction(hub, material(tmp_path / "files"), waited).run(public=False)
    assert caught.value.todo == "unset HF_HUB_OFFLINE"
    assert waited == []


def test_what_the_storage_says_is_told_without_its_address() -> None:
    from distill.publish.asking import explained, worth_another

    over = ValueError("LFS batch API returned errors:\n`You have exceeded your storage, see https://host/plan?key=abc`")
    assert worth_another(over) is None
    told = str(explained("sending a.bin to org/x", over))
    assert "You have exceeded your storage, see …" in told
    assert "host" not in told
    assert worth_another(RuntimeError("Internal error: 503 Service Unavailable")) == 0.0, "as Xet's client tells it"
    assert worth_another(ConnectionError("Network error")) == 0.0


def test_a_second_publication_of_the_same_sends_nothing(hub: UploadHub, tmp_path: Path) -> None:
    publication = material(tmp_path / "files")
    transaction(hub, publication).run(public=False)
    before, asked = hub.uploaded_bytes, len(hub.requests)
    again = transaction(hub, publication).run(public=False)
    assert [(one.tag, one.sent_files) for one in again] == [("v1", 0), ("v1", 0)]
    assert hub.uploaded_bytes == before
    written = [request for request in hub.requests[asked:] if not request.startswith(("GET", "HEAD"))]
    assert not written


def test_a_changed_publication_replaces_its_own_files_under_the_next_tag(hub: UploadHub, tmp_path: Path) -> None:
    first = material(tmp_path / "files")
    transaction(hub, first).run(public=False)
    model, data = first.parts
    kept = [file for file in model.files if file.path != "config.json"]
    changed = Part(MODEL, "model", "the student", in_order([*kept, File.of("new.json", b"{}")]))
    sent = hub.uploaded_bytes
    ended = transaction(hub, Publication("mine", (changed, data))).run(public=False)
    assert [one.tag for one in ended] == ["v2", "v1"]
    assert shown(hub, changed) == expected(changed)
    assert shown(hub, model, "v1") == expected(model)
    assert hub.uploaded_bytes == sent


def test_visibility_comes_after_everything_else(hub: UploadHub, tmp_path: Path) -> None:
    publication = material(tmp_path / "files")
    transaction(hub, publication).run(public=True)
    assert not any(hub.repo(part.repo, part.kind).private for part in publication.parts)
    writes = [request for request in hub.requests if not request.startswith(("GET", "HEAD"))]
    assert [request.split("/")[-1] for request in writes[-1:]] == ["settings"]
    first = next(number for number, request in enumerate(writes) if request.endswith("settings"))
    assert not any("/tag/" in request or "/commit/" in request for request in writes[first:])


FAULTS = {
    "a commit whose answer is lost": [Fault("POST", "/commit/distill", "lose")],
    "the showing commit whose answer is lost": [Fault("POST", "/commit/main", "lose")],
    "a part cut in the middle": [Fault("PUT", "/lfs/part", "drop", times=3, skip=1)],
    "limits on the rate": [Fault("POST", "/preupload/", 429, times=2), Fault("POST", "/api/repos/create", 429)],
    "a server that fails": [Fault("POST", "/commit/", 500, times=2), Fault("GET", "/refs", 503, times=2)],
    "links that have expired": [Fault("PUT", "/lfs/part", 403, times=2, skip=2)],
    "a completion that fails": [Fault("POST", "/lfs/complete", 500, times=2)],
    "a branch that moved": [Fault("POST", "/commit/", 412, times=2)],
    "a tag whose answer is lost": [Fault("POST", "/tag/", "lose")],
    "a creation whose answer is lost": [Fault("POST", "/api/repos/create", "lose"), Fault("POST", "/branch/", "lose")],
    "a listing that breaks": [Fault("GET", "/tree/", "drop", times=3)],
    "a removal whose answer is lost": [Fault("DELETE", "/branch/", "lose")],
}


@pytest.mark.parametrize("faults", [pytest.param(faults, id=name) for name, faults in FAULTS.items()])
def test_what_goes_wrong_on_the_way_changes_nothing_in_the_end(
    hub: UploadHub, tmp_path: Path, faults: list[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's own pauses
    hub.faults += faults
    publication = material(tmp_path / "files")
    ended = transaction(hub, publication).run(public=True)
    for part in publication.parts:
        assert shown(hub, part) == shown(hub, part, "v1") == expected(part)
        assert list(hub.repo(part.repo, part.kind).branches) == ["main"]
        assert list(hub.repo(part.repo, part.kind).tags) == ["v1"]
    assert {one.tag for one in ended} == {"v1"}
    assert set(hub.stored.values()) == {1}, "no large file arrived whole twice"
    assert all(fault.met for fault in faults)
