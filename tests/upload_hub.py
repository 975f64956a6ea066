"""A Hugging Face Hub on loopback that takes uploads and gives them back: repositories with commits, branches and tags.

Speaks what huggingface_hub 1.x asks for when it creates a repository, uploads by git-LFS (whole files and parts),
commits, tags, lists and downloads; what it does not know is a 404 and is remembered in `unknown`. Its storage outlives
the client: killed publishers meet the same Hub again. Faults can be put in the way of any request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = 10 * 1024 * 1024
"""Bytes from which the Hub keeps a file outside of git, whatever its name."""
LFS_NAMES = re.compile(r"\.(safetensors|parquet|gguf|bin|png)$|(^|/)tokenizer\.json$")
"""Names that the Hub's .gitattributes puts there, as far as publishing meets them."""
FIRST_FILES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
"""What a new repository holds."""
LICENSES = ("mit", "apache-2.0", "llama3.1", "llama3.2", "llama3.3", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
            "cc-by-nc-sa-4.0", "cc-by-sa-3.0", "cc-by-nc-3.0", "cc", "other", "unknown")  # fmt: skip
HEAD = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit: its git object, its bytes, and the sha256 of its content where that lies outside of git."""

    oid: str
    size: int
    lfs: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    parent: str | None
    title: str
    tree: Mapping[str, Entry]


@dataclass(slots=True)
class Repo:
    """One repository; `kind` is model or dataset."""

    kind: str
    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        named = self.branches.get(revision) or self.tags.get(revision)
        return named or (revision if revision in self.commits else None)


@dataclass(slots=True)
class Fault:
    """Stands in the way of the next `times` requests whose method and path match, after `skip` of them have passed.

    `drop` cuts the connection in the middle of the request's body; `lose` after the request was carried out, before
    its answer; a number is a status, of which 403 is how an upload link that has expired answers.
    """

    method: str
    path: str
    how: Literal["drop", "lose"] | int
    times: int = 1
    skip: int = 0
    met: int = 0

    def meets(self, method: str, path: str) -> bool:
        if self.times <= 0 or method != self.method or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        self.met += 1
        return True


def person(name: str, *, role: str = "write", orgs: Mapping[str, str] | None = None, scopes: Any = None) -> Any:
    """What whoami-v2 says of a token: `orgs` maps an organisation to the person's role there, `scopes` an entity's
    name to the permissions that a fine-grained token has on it."""
    token: dict[str, Any] = {"displayName": "publishing", "role": role, "createdAt": "2026-01-01T00:00:00.000Z"}
    if scopes is not None:
        scoped = [
            {"entity": {"_id": entity, "type": "user" if entity == name else "org", "name": entity}, "permissions": of}
            for entity, of in scopes.items()
        ]
        token |= {"role": "fineGrained", "fineGrained": {"canReadGatedRepos": False, "global": [], "scoped": scoped}}
    member = [{"type": "org", "name": org, "roleInOrg": part} for org, part in (orgs or {}).items()]
    return {"type": "user", "id": name, "name": name, "fullname": name, "orgs": member,
            "auth": {"type": "access_token", "accessToken": token}}  # fmt: skip


class UploadHub:
    """`people` maps a token to what whoami-v2 says of it. `part_size` is from which size on files come in parts. With
    `keeps` false the content of such files is hashed as it comes and dropped, so that they may be of any size."""

    def __init__(
        self, folder: Path, people: Mapping[str, Any], part_size: int = 64 * 1024, *, keeps: bool = True
    ) -> None:
        self.folder, self.people, self.part_size, self.keeps = folder, people, part_size, keeps
        self.repos: dict[tuple[str, str], Repo] = {}
        self.git_objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.watching: Callable[[int], None] = lambda number: None
        """Called with the number of every request, in the middle of its body."""
        self.unknown: list[str] = []
        self.stored: Counter[str] = Counter()
        """sha256 → how often such a content arrived whole."""
        self.uploaded_bytes = 0
        self.validated: list[str] = []
        self._numbers = count(1)
        self._uploads: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else every answer's body waits for the client's delayed acknowledgement

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    # --- what tests ask of it ----------------------------------------------------------------------------------------

    def repo(self, name: str, kind: str = "model") -> Repo:
        return self.repos[kind, name]

    def files(self, name: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        """Path → content of a revision."""
        repo = self.repo(name, kind)
        commit = repo.commit_of(revision)
        assert commit is not None, f"{name} has no {revision}"
        return {path: self.content(entry) for path, entry in repo.commits[commit].tree.items()}

    def content(self, entry: Entry) -> bytes:
        return self.git_objects[entry.oid] if entry.lfs is None else (self.folder / entry.lfs).read_bytes()

    def put(self, name: str, files: Mapping[str, bytes], kind: str = "model", *, private: bool = True) -> Repo:
        """A repository that somebody made before, by hand."""
        repo = self.repos[kind, name] = Repo(kind, name, private)
        tree = {path: self._regular(content) for path, content in {**FIRST_FILES, **files}.items()}
        self._commit(repo, "main", "initial commit", tree)
        return repo

    # --- requests ----------------------------------------------------------------------------------------------------

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        path = unquote(parts.path)
        words = [unquote(word) for word in parts.path.strip("/").split("/")]
        size = int(handler.headers.get("Content-Length", 0))
        with self._lock:
            self.requests.append(f"{handler.command} {path}")
            number = len(self.requests)
            fault = next((fault for fault in self.faults if fault.meets(handler.command, path)), None)
        if fault is not None and fault.how == "drop":
            handler.rfile.read(size // 2)
            return self._cut(handler)
        body = handler.rfile.read(size // 2)
        self.watching(number)
        body += handler.rfile.read(size - len(body))
        if len(body) < size:  # whoever sent it is gone
            return self._cut(handler)
        if fault is not None and isinstance(fault.how, int):
            limit = {"RateLimit": '"api";r=0;t=55'} if fault.how == 429 else {}  # as the client's own parser has it
            return _Answer(handler, lost=False).refuse(fault.how, "Fault", "as the test wanted it", headers=limit)
        answer = _Answer(handler, lost=fault is not None)
        if words[0] == "lfs":
            self._upload(answer, words[1:], body)
        else:
            with self._lock:
                self._route(answer, words, parse_qs(parts.query), body)
        if answer.lost:
            self._cut(handler)
        return None

    def _route(self, answer: _Answer, words: list[str], query: dict[str, list[str]], body: bytes) -> None:
        handler = answer.handler
        who = self.people.get(handler.headers.get("Authorization", "").removeprefix("Bearer "))
        if words == ["api", "whoami-v2"]:
            return answer.json(who) if who else answer.refuse(401, "", "Invalid credentials in Authorization header")
        if words == ["api", "validate-yaml"]:
            return self._validate(answer, json.loads(body))
        if words == ["api", "repos", "create"]:
            return self._create(answer, who, json.loads(body))
        kind, name, rest = _target(words)
        repo = self.repos.get((kind, name))
        if repo is None or (repo.private and (who is None or not _may(who, repo.name, "read"))):
            return answer.refuse(404 if who else 401, "RepoNotFound", "Repository not found")
        writes = handler.command not in ("GET", "HEAD") and rest[:1] != ["paths-info"]
        if writes and (who is None or not _may(who, repo.name, "write")):
            return answer.refuse(403, "", "Forbidden: you do not have the rights to write to this repository")
        action = f"_{handler.command.lower()}_{(rest or ['info'])[0].replace('-', '_').removesuffix('.git')}"
        if rest == ["info", "lfs", "objects", "batch"]:
            return self._batch(answer, json.loads(body))
        if not rest or rest[0] == "revision":
            return self._info(answer, repo, rest[1] if rest else "main")
        found = getattr(self, action, None)
        if found is None:
            self.unknown.append(f"{handler.command} /{'/'.join(words)}")
            return answer.refuse(404, "EntryNotFound", "unknown")
        found(answer, repo, rest[1:], query, body)
        return None

    def _create(self, answer: _Answer, who: Any, asked: Any) -> None:
        if who is None:
            return answer.refuse(401, "", "Invalid username or password.")
        owner = asked.get("organization") or who["name"]
        name = f"{owner}/{asked['name']}"
        kind = asked.get("type") or "model"
        if not _may(who, name, "write"):
            return answer.refuse(403, "", f"You don't have the rights to create a {kind} under the namespace {owner}")
        url = f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.repos:
            return answer.refuse(409, "", "You already created this repo", {"url": url})
        self.put(name, {}, kind, private=asked.get("visibility") == "private")
        return answer.json({"url": url, "name": name, "id": name})

    def _put_settings(self, answer: _Answer, repo: Repo, rest: Any, query: Any, body: bytes) -> None:
        asked = json.loads(body)
        repo.private = asked["visibility"] == "private" if "visibility" in asked else bool(asked["private"])
        answer.json({"private": repo.private})

    def _info(self, answer: _Answer, repo: Repo, revision: str) -> None:
        commit = repo.commit_of(revision)
        if commit is None:
            return answer.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        tree = repo.commits[commit].tree
        head = HEAD.match(self.content(tree["README.md"]).decode()) if "README.md" in tree else None
        return answer.json({
            "_id": "x", "id": repo.name, "sha": commit, "private": repo.private, "gated": False, "tags": [],
            "downloads": 0, "likes": 0, "cardData": yaml.safe_load(head[1]) if head else {},
            "siblings": [{"rfilename": path} for path in sorted(tree)],
        })  # fmt: skip

    def _get_tree(self, answer: _Answer, repo: Repo, rest: list[str], query: Any, body: bytes) -> None:
        """Two hundred entries a page, so that the next page is asked for as well."""
        commit = repo.commit_of(rest[0])
        if commit is None:
            return answer.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[0]}")
        below = "".join(f"{part}/" for part in "/".join(rest[1:]).split("/") if part)
        deep = query.get("recursive", ["false"])[0].lower() == "true"
        rows: dict[str, Any] = {}
        for path, entry in sorted(repo.commits[commit].tree.items()):
            if not path.startswith(below):
                continue
            names = path.removeprefix(below).split("/")
            for depth in range(1, len(names) if deep else min(2, len(names))):
                folder = below + "/".join(names[:depth])
                rows[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            if deep or len(names) == 1:
                rows[path] = _row(path, entry)
        if below and not rows:
            return answer.refuse(404, "EntryNotFound", "no such folder")
        first = int(query.get("cursor", ["0"])[0])
        page = list(rows.values())[first : first + 200]
        more = {}
        if first + 200 < len(rows):
            here = urlsplit(answer.handler.path)
            rest_of_query = "&".join(part for part in here.query.split("&") if part and not part.startswith("cursor="))
            link = f"{self.url}{here.path}?{rest_of_query}&cursor={first + 200}"
            more = {"Link": f'<{link}>; rel="next"'}
        return answer.json(page, more)

    def _post_paths_info(self, answer: _Answer, repo: Repo, rest: list[str], query: Any, body: bytes) -> None:
        commit = repo.commit_of(rest[0])
        if commit is None:
            return answer.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[0]}")
        asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
        tree = repo.commits[commit].tree
        rows = [_row(path, tree[path]) for path in asked if path in tree]
        folders = {path for path in asked if any(known.startswith(f"{path}/") for known in tree)}
        rows += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        return answer.json(rows)

    def _get_refs(self, answer: _Answer, repo: Repo, *_: Any) -> None:
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repo.branches.items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repo.tags.items()]
        answer.json({"branches": branches, "tags": tags, "converts": []})

    def _get_commits(self, answer: _Answer, repo: Repo, rest: list[str], *_: Any) -> None:
        rows, sha = [], repo.commit_of(rest[0])
        while sha is not None:
            commit = repo.commits[sha]
            date = "2026-01-01T00:00:00.000Z"
            rows.append({"id": sha, "title": commit.title, "message": "", "authors": [], "date": date})
            sha = commit.parent
        answer.json(rows)

    def _post_branch(self, answer: _Answer, repo: Repo, rest: list[str], query: Any, body: bytes) -> None:
        if rest[0] in repo.branches:
            return answer.refuse(409, "", f"Reference already exists: {rest[0]}")
        start = repo.commit_of(json.loads(body or b"{}").get("startingPoint", "main"))
        if start is None:
            return answer.refuse(404, "RevisionNotFound", "Invalid startingPoint")
        repo.branches[rest[0]] = start
        return answer.json({})

    def _delete_branch(self, answer: _Answer, repo: Repo, rest: list[str], *_: Any) -> None:
        if repo.branches.pop(rest[0], None) is None:
            return answer.refuse(404, "RevisionNotFound", "no such branch")
        return answer.json({})

    def _post_tag(self, answer: _Answer, repo: Repo, rest: list[str], query: Any, body: bytes) -> None:
        tag, commit = json.loads(body)["tag"], repo.commit_of(rest[0])
        if tag in repo.tags:
            return answer.refuse(409, "", f"Tag reference exists already: {tag}")
        if commit is None:
            return answer.refuse(404, "RevisionNotFound", "Invalid revision")
        repo.tags[tag] = commit
        return answer.json({})

    # --- uploads -----------------------------------------------------------------------------------------------------

    def _post_preupload(self, answer: _Answer, repo: Repo, rest: list[str], query: Any, body: bytes) -> None:
        commit = repo.commit_of(rest[0])
        if commit is None:
            return answer.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[0]}")
        tree = repo.commits[commit].tree
        found = []
        for file in json.loads(body)["files"]:
            path, there = file["path"], tree.get(file["path"])
            large = file["size"] >= LARGE or LFS_NAMES.search(path)
            row = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            found.append(row | ({"oid": there.lfs or there.oid} if there else {}))
        return answer.json({"files": found})

    def _batch(self, answer: _Answer, asked: Any) -> None:
        rows = []
        for thing in asked["objects"]:
            row = {"oid": thing["oid"], "size": thing["size"], "authenticated": True}
            if not (self.folder / thing["oid"]).is_file():
                upload = f"{next(self._numbers)}"
                self._uploads[upload] = {"oid": thing["oid"], "size": thing["size"], "parts": {}}
                row["actions"] = {"upload": self._links(upload, thing["size"], asked["transfers"])}
                row["actions"]["verify"] = {"href": f"{self.url}/lfs/verify", "header": {}}
            rows.append(row)
        answer.json({"transfer": "multipart", "objects": rows})

    def _links(self, upload: str, size: int, transfers: list[str]) -> dict[str, Any]:
        if size <= self.part_size or "multipart" not in transfers:
            return {"href": f"{self.url}/lfs/whole/{upload}"}
        parts = {
            f"{number:05d}": f"{self.url}/lfs/part/{upload}/{number}"
            for number in range(1, ceil(size / self.part_size) + 1)
        }
        return {"href": f"{self.url}/lfs/complete/{upload}", "header": {"chunk_size": str(self.part_size), **parts}}

    def _upload(self, answer: _Answer, words: list[str], body: bytes) -> None:
        """What the storage behind the Hub does: it knows links, no tokens."""
        if words[0] == "verify":
            asked = json.loads(body)
            there = self.folder / asked["oid"]
            known = there.is_file() and there.stat().st_size == asked["size"]
            return answer.json({}) if known else answer.refuse(404, "", "no such object")
        upload = self._uploads.get(words[1])
        if upload is None:
            return answer.refuse(403, "", "Request has expired")
        if not self.keeps and words[0] in ("part", "complete"):
            return self._hash(answer, upload, words, body)
        if words[0] == "part":
            with self._lock:
                upload["parts"][int(words[2])] = body
                self.uploaded_bytes += len(body)
            return answer.json({}, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        if words[0] == "whole":
            with self._lock:
                self.uploaded_bytes += len(body)
            return self._store(answer, upload, body)
        told = {int(part["partNumber"]): part["etag"] for part in json.loads(body)["parts"]}
        came = {number: f'"{hashlib.md5(part).hexdigest()}"' for number, part in upload["parts"].items()}
        if told != came:
            return answer.refuse(400, "", "One or more of the specified parts could not be found")
        return self._store(answer, upload, b"".join(upload["parts"][number] for number in sorted(came)))

    def _hash(self, answer: _Answer, upload: dict[str, Any], words: list[str], body: bytes) -> None:
        """What `_upload` does with parts, in any memory: the client sends those of a file in their order."""
        digest = upload.setdefault("digest", hashlib.sha256())
        if words[0] == "part":
            if int(words[2]) != upload.setdefault("next", 1):
                return answer.refuse(400, "", "out of order")
            upload["next"] += 1
            digest.update(body)
            with self._lock:
                self.uploaded_bytes += len(body)
            return answer.json({}, {"ETag": f'"{words[2]}"'})
        if digest.hexdigest() != upload["oid"]:
            return answer.refuse(400, "", "the content is not what its hash says")
        with self._lock:
            self.stored[upload["oid"]] += 1
            with (self.folder / upload["oid"]).open("wb") as file:
                file.truncate(upload["size"])
        return answer.json({})

    def _store(self, answer: _Answer, upload: Mapping[str, Any], content: bytes) -> None:
        sha = hashlib.sha256(content).hexdigest()
        if sha != upload["oid"] or len(content) != upload["size"]:
            return answer.refuse(400, "", "the content is not what its hash says")
        with self._lock:
            self.stored[sha] += 1
            (self.folder / sha).write_bytes(content)
        return answer.json({})

    def _post_commit(self, answer: _Answer, repo: Repo, rest: list[str], query: Any, body: bytes) -> None:
        branch = rest[0]
        if branch not in repo.branches:
            return answer.refuse(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        lines = [json.loads(line) for line in body.splitlines()]
        header, tree = lines[0]["value"], dict(repo.commits[repo.branches[branch]].tree)
        if header.get("parentCommit") not in (None, repo.branches[branch]):
            return answer.refuse(412, "", "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            path = value["path"]
            if line["key"] == "file":
                tree[path] = self._regular(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                there = self.folder / value["oid"]
                if not there.is_file():
                    return answer.refuse(400, "", f"LFS pointer pointed to a file that does not exist: {path}")
                tree[path] = _outside(value["oid"], there.stat().st_size)
            elif line["key"] == "deletedFile" and path in tree:
                del tree[path]
            elif line["key"] == "deletedFolder":
                tree = {known: entry for known, entry in tree.items() if not known.startswith(f"{path.strip('/')}/")}
            else:
                return answer.refuse(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
        sha = self._commit(repo, branch, header["summary"], tree)
        return answer.json({"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{repo.name}/commit/{sha}"})

    def _commit(self, repo: Repo, branch: str, title: str, tree: Mapping[str, Entry]) -> str:
        parent = repo.branches.get(branch)
        sha = hashlib.sha1(f"{repo.kind} {repo.name} {next(self._numbers)} {title}".encode()).hexdigest()
        repo.commits[sha] = Commit(parent, title, dict(tree))
        repo.branches[branch] = sha
        return sha

    def _regular(self, content: bytes) -> Entry:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.git_objects[oid] = content
        return Entry(oid, len(content), None)

    # --- downloads and cards -----------------------------------------------------------------------------------------

    def _get_resolve(self, answer: _Answer, repo: Repo, rest: list[str], query: Any, body: bytes) -> None:
        commit, path = repo.commit_of(rest[0]), "/".join(rest[1:])
        if commit is None:
            return answer.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[0]}")
        entry = repo.commits[commit].tree.get(path)
        if entry is None:
            return answer.refuse(404, "EntryNotFound", "no such file", headers={"X-Repo-Commit": commit})
        told = {"X-Repo-Commit": commit, "ETag": f'"{entry.lfs or entry.oid}"', "Accept-Ranges": "bytes"}
        if entry.lfs is not None:
            told |= {"X-Linked-Etag": f'"{entry.lfs}"', "X-Linked-Size": str(entry.size)}
        return answer.bytes(self.content(entry), told)

    _head_resolve = _get_resolve

    def _validate(self, answer: _Answer, asked: Any) -> None:
        """The rules of the Hub that its documentation names: a licence of its list, a relation of four, results whose
        model has a name."""
        errors = []
        head = HEAD.match(asked["content"])
        try:
            values = yaml.safe_load(head[1]) if head else {}
        except yaml.YAMLError as error:
            values, errors = {}, [f"not YAML: {error}"]
        if not isinstance(values, dict):
            values, errors = {}, ["the metadata is no mapping"]
        licenses = values.get("license", "unknown")
        for name in licenses if isinstance(licenses, list) else [licenses]:
            if name not in LICENSES:
                errors.append(f'"license" must be one of [{", ".join(LICENSES)}]')
        if values.get("license") == "other" and "license_name" not in values:
            errors.append('"license_name" is required where the license is other')
        if values.get("base_model_relation", "finetune") not in ("finetune", "quantized", "adapter", "merge"):
            errors.append('"base_model_relation" must be one of [finetune, quantized, adapter, merge]')
        for model in values.get("model-index") or []:
            if not model.get("name") or not all(r.get("task", {}).get("type") for r in model.get("results", [])):
                errors.append('"model-index" needs names, and results with a task type')
        self.validated.append(asked["content"])
        if errors:
            return answer.json({"errors": [{"message": text} for text in errors], "warnings": []}, status=400)
        return answer.json({"errors": [], "warnings": []})

    # --- sockets -----------------------------------------------------------------------------------------------------

    def _cut(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        try:
            handler.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


@dataclass(slots=True)
class _Answer:
    """The one answer to a request; a `lost` one is worked out and never sent."""

    handler: BaseHTTPRequestHandler
    lost: bool

    def json(self, value: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def refuse(
        self, status: int, code: str, message: str, value: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.json({"error": message, **(value or {})}, told, status)

    def bytes(self, content: bytes, headers: Mapping[str, str]) -> None:
        asked = self.handler.headers.get("Range")
        if not asked:
            return self._send(200, content, headers)
        begin, _, end = asked.removeprefix("bytes=").partition("-")
        first, last = int(begin), min(int(end or len(content) - 1), len(content) - 1)
        told = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self._send(206, content[first : last + 1], told)

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        if self.lost:
            return
        self.handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        if self.handler.command != "HEAD":
            self.handler.wfile.write(content)


def _target(words: list[str]) -> tuple[str, str, list[str]]:
    """(kind, ORG/NAME, what of it) that a path is about."""
    if words[0] == "api":
        return words[1].removesuffix("s"), "/".join(words[2:4]), words[4:]
    kind, words = ("dataset", words[1:]) if words[0] == "datasets" else ("model", words)
    return kind, "/".join(words[:2]).removesuffix(".git"), words[2:]


def _row(path: str, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "oid": entry.oid, "size": entry.size}
    if entry.lfs is not None:
        row["lfs"] = {"oid": entry.lfs, "size": entry.size, "pointerSize": 130}
    return row


def _outside(sha: str, size: int) -> Entry:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n".encode()
    return Entry(hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest(), size, sha)


def _may(who: Any, repo: str, what: Literal["read", "write"]) -> bool:
    owner, token = repo.partition("/")[0], who["auth"]["accessToken"]
    roles = {org["name"]: org["roleInOrg"] for org in who["orgs"]}
    if owner != who["name"] and owner not in roles:
        return False
    if what == "read":
        return True
    if owner in roles and roles[owner] == "read":
        return False
    if token["role"] == "fineGrained":
        scoped = {one["entity"]["name"]: one["permissions"] for one in token["fineGrained"]["scoped"]}
        return "repo.write" in scoped.get(owner, []) or "repo.write" in scoped.get(repo, [])
    return bool(token["role"] == "write")


@contextmanager
def serving(folder: Path, people: Mapping[str, Any], part_size: int = 64 * 1024) -> Iterator[UploadHub]:
    hub = UploadHub(folder, people, part_size)
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
