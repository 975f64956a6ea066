"""Whether a model's files are complete here: in a folder, or in the Hub's cache. Reads names, headers and records of
downloads; the contents are compared by distill/serve/model_hashes.py.

The layouts are huggingface_hub's: a snapshot in its cache links to blobs that are named by what the Hub told of them,
a download into a folder keeps that beside the files, and newer versions keep the list of all files at the commit.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.environment import Finding
from distill.errors import InputError
from distill.safetensors_file import expected_bytes, tensors

INDEX = "model.safetensors.index.json"
TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("tiktoken.model",),
    ("tekken.json",),
    ("vocab.json", "merges.txt"),
)
"""Files that make a tokenizer, each group alone."""
READ_IF_PUBLISHED = (
    "chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
"""What a server reads where it exists, and silently does without where it does not."""
PICKLES = ("*.bin", "*.pt", "*.pth")
NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.safetensors")
SHOWN = 5
"""Names told at most of a long list."""

SHA256, GIT_SHA1 = 64, 40
"""Hexadecimal digits of what the Hub tells of a file: sha256 of a large one, git's own hash of a small one."""
TOLD = re.compile(rf"[0-9a-f]{{{SHA256}}}|[0-9a-f]{{{GIT_SHA1}}}")
COMMIT = re.compile(rf"[0-9a-f]{{{GIT_SHA1}}}")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's folder and what the Hub told of it: `told` has the hash of each file whose download was recorded,
    `listed` every file of the repository where known, `incomplete` downloads that did not end."""

    model: str
    folder: Path
    commit: str | None
    told: Mapping[str, str]
    listed: frozenset[str]
    incomplete: tuple[Path, ...]

    @property
    def is_folder(self) -> bool:
        return self.model == str(self.folder)

    def download(self, *names: str) -> str:
        """The command that brings these files again, or all of them."""
        again = "--force-download" if names else ""
        if self.is_folder:
            return download_command("REPOSITORY", self.commit, *names, f"--local-dir {shlex.quote(self.model)}", again)
        return download_command(self.model, self.commit, *names, again)


def download_command(repository: str, revision: str | None, *further: str) -> str:
    """The Hub's own command, as it can be typed here."""
    beside = Path(sys.executable).parent / "hf"
    program = "hf" if shutil.which("hf") or not beside.exists() else str(beside)
    asked = f"--revision {shlex.quote(revision)}" if revision else ""
    return " ".join(part for part in (program, "download", repository, asked, *further) if part)


def located(model: str, revision: str | None) -> ModelFiles | Finding:
    """The files of a folder, or of a Hub id in the cache; a finding where there are none."""
    path = Path(model).expanduser()
    if path.is_dir():
        return _recorded(str(path.resolve()), path.resolve(), _commit_of(path.resolve()))
    if path.is_absolute() or model.startswith(("./", "../", "~")) or model.count("/") != 1:
        return Finding("model", "missing", f"there is no folder {model}", necessary=True)
    snapshot = _snapshot(model, revision or "main")
    if snapshot is None:
        what = f"{model}{f' at {revision}' if revision else ''} is not downloaded"
        return Finding("model", "missing", what, (download_command(model, revision),), necessary=True)
    return _recorded(model, snapshot, snapshot.name)


def _snapshot(model: str, revision: str) -> Path | None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    stored = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model")
    reference = stored / "refs" / revision
    commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else revision
    snapshot = stored / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _commit_of(folder: Path) -> str | None:
    """The commit of a snapshot, or of the weights' download into a folder, config.json's where there are none."""
    if folder.parent.name == "snapshots":
        return folder.name
    names = [*sorted(path.name for path in folder.glob("*.safetensors")), "config.json"]
    commits = [commit for name in names if (commit := _record(folder, name, line=0)) and COMMIT.fullmatch(commit)]
    return commits[0] if commits else None


def _record(folder: Path, name: str, line: int) -> str | None:
    """A line of what a download into a folder left behind: 0 the commit, 1 what the Hub told of the file."""
    try:
        lines = (folder / ".cache/huggingface/download" / f"{name}.metadata").read_text(encoding="utf-8").splitlines()
        return lines[line].strip()
    except (OSError, ValueError, IndexError):
        return None


def _recorded(model: str, folder: Path, commit: str | None) -> ModelFiles:
    listing = _listing(folder, commit)
    told = {}
    for path in sorted(folder.iterdir()):
        linked = path.readlink() if path.is_symlink() else None
        candidates = (
            listing.get(path.name),
            linked.name if linked is not None and linked.parent.name == "blobs" else None,
            _record(folder, path.name, line=1),
        )
        known = next((text for text in candidates if text and TOLD.fullmatch(text)), None)
        if known is not None and path.is_file():
            told[path.name] = known
    return ModelFiles(model, folder, commit, told, frozenset(listing), tuple(_incomplete(folder, set(told.values()))))


def _listing(folder: Path, commit: str | None) -> dict[str, str]:
    """Every file of the repository at this commit → what the Hub told of it; empty where that was not kept."""
    kept = folder.parent.parent if folder.parent.name == "snapshots" else folder / ".cache" / "huggingface"
    try:
        files: Mapping[str, Any] = json.loads((kept / "trees" / f"{commit}.json").read_text(encoding="utf-8"))["files"]
        return {name: str(entry.get("lfs_sha256") or entry["blob_id"]) for name, entry in files.items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return {}


def _incomplete(folder: Path, complete: set[str]) -> Iterator[Path]:
    """Downloads that did not end, but for leftovers of files that are here: `[NAME.]HASH[.RANDOM].incomplete`."""
    snapshot = folder.parent.name == "snapshots"
    place = folder.parent.parent / "blobs" if snapshot else folder / ".cache/huggingface/download"
    for path in sorted(place.rglob("*.incomplete")):
        hashes = [part for part in path.name.split(".") if TOLD.fullmatch(part)]
        if not any(part in complete or (snapshot and (place / part).exists()) for part in hashes):
            yield path


def model_found(files: ModelFiles, *, revision: str | None, trust_remote_code: bool) -> list[Finding]:
    """Whether everything that a server reads is here, and every weight file as long as its header says."""
    lacking, broken, remarks = [], [], []
    config = _json(files.folder / "config.json")
    if config is None:
        lacking.append("config.json")
    if not any(all((files.folder / name).is_file() for name in group) for group in TOKENIZERS):
        lacking.append("tokenizer.json")
    shards = weight_files(files.folder)
    if not shards and any(path for pattern in PICKLES for path in files.folder.glob(pattern)):
        what = (
            f"{files.folder} holds only pickled weights (.bin, .pt), which can run code when loaded: safetensors only"
        )
        return [Finding("model", "missing", what, necessary=True)]
    lacking += [name for name in shards if not (files.folder / name).is_file()] or ([] if shards else ["*.safetensors"])
    lacking += [name for name in READ_IF_PUBLISHED if name in files.listed and not (files.folder / name).is_file()]
    lacking = list(dict.fromkeys(lacking))
    wrong = [*_wrong_shards(files.folder, [name for name in shards if name not in lacking])]
    broken = [name for name, _ in wrong]
    if lacking:
        remarks.append(f"lacks {some(lacking)}")
    if wrong:
        remarks.append("; ".join(reason for _, reason in wrong[:SHOWN]))
    if files.incomplete and (lacking or not files.listed):
        remarks.append(f"downloads that did not end: {some([p.name for p in files.incomplete])}")
    if revision and COMMIT.fullmatch(revision) and files.commit not in (None, revision):
        remarks.append(f"is commit {files.commit}, {revision} is wanted")
    if remarks:
        mends = _mends(files, lacking, broken, revision)
        return [Finding("model", "missing", f"{files.model}: {'; '.join(remarks)}", mends, necessary=True)]
    total = sum((files.folder / name).stat().st_size for name in shards)
    what = f"{files.folder}: weight files: {len(shards)}, {total / 1e9:.1f} GB, each as long as its header says"
    return [Finding("model", "ok", what, necessary=True), *_notes(files, config or {}, trust_remote_code)]


def _mends(files: ModelFiles, lacking: Sequence[str], broken: Sequence[str], revision: str | None) -> tuple[str, ...]:
    if revision and COMMIT.fullmatch(revision) and files.commit not in (None, revision):
        where = f"--local-dir {shlex.quote(files.model)}" if files.is_folder else ""
        return (download_command("REPOSITORY" if files.is_folder else files.model, revision, where),)
    mends = [files.download(*broken)] if broken else []
    if lacking or not broken:
        mends.append(files.download())
    if files.incomplete and not lacking and not files.listed:  # it may have been another revision's
        mends.append(f"rm {' '.join(shlex.quote(str(path)) for path in files.incomplete)}")
    return tuple(mends)


def weight_files(folder: Path) -> list[str]:
    """The safetensors files that a server loads, also those that are not here: by the index, by the numbers in their
    names, else all. Raises InputError for an index that is none."""
    if (folder / INDEX).is_file():
        index = _json(folder / INDEX)
        named = index.get("weight_map") if index is not None else None
        names = set(named.values()) if isinstance(named, dict) else set()
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise InputError(f"{folder / INDEX} is no index of weight files", todo="download or copy it again")
        return sorted(names)
    names = {path.name for path in folder.glob("*.safetensors")}
    for told in [NUMBERED.fullmatch(name) for name in names]:
        if told is not None:
            names |= {f"{told[1]}-{number:05}-of-{told[3]}.safetensors" for number in range(1, int(told[3]) + 1)}
    return sorted(names)


def _wrong_shards(folder: Path, shards: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(file, reason) of each that is cut, is none, or lacks tensors that the index places there."""
    index = _json(folder / INDEX) or {}
    placed: dict[str, set[str]] = {}
    for tensor, name in index.get("weight_map", {}).items():
        placed.setdefault(name, set()).add(tensor)
    for name in shards:
        try:
            wanted, have = expected_bytes(folder / name), (folder / name).stat().st_size
            absent = placed.get(name, set()) - {tensor.name for tensor in tensors(folder / name)}
        except InputError:
            yield name, f"{name} is no safetensors file"
            continue
        if wanted != have:
            yield name, f"{name} has {have:,} bytes, its header says {wanted:,}"
        elif absent:
            yield name, f"{name} lacks {len(absent)} tensors that {INDEX} places there, such as {min(absent)}"


def _notes(files: ModelFiles, config: Mapping[str, Any], trust_remote_code: bool) -> Iterator[Finding]:
    if config.get("auto_map"):
        code = ", ".join(sorted({str(value).partition(".")[0] + ".py" for value in config["auto_map"].values()}))
        what = f"config.json names code of the model's own ({code}); it is not run: vLLM's own class is used"
        if trust_remote_code:
            what = f"code of the model's own is run ({code}), as the teacher's spec says: read it first"
        yield Finding("model", "note", what)
    commits = {_record(files.folder, name, line=0) for name in files.told} - {None}
    if len(commits) > 1:
        yield Finding("model", "note", f"files of {len(commits)} commits lie in {files.folder}", (files.download(),))
    if files.incomplete and files.listed:
        names = some([path.name for path in files.incomplete])
        yield Finding("model", "note", f"beside it lie downloads that did not end, of nothing that is needed: {names}")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def some(names: Sequence[str]) -> str:
    """The first of many names, and how many more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
