"""Brings a publication to the Hub so that nobody ever sees half of it.

Every repository is made private and gathered on a branch of its own, in commits of some files each. When all of them
hold what they should, by hash, main takes it over in one commit without a byte being sent again; then come the tag, and
visibility at the very end. All state is on the Hub: a start after an interruption, on any machine, looks at what is
there and sends what is missing. Knows nothing about what the files are.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import wording
from distill.errors import PublishError
from distill.progress import say
from distill.publish.asking import TRIES, asked, conflicts, explained, wait, worth_another
from distill.publish.publication import LINEAGE_FILE, OWN_FILES, STAGING, File, Part, Publication

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FILES_PER_COMMIT = 50
"""The Hub's documentation advises fewer than 100 (huggingface.co/docs/hub/storage-limits)."""
BYTES_PER_COMMIT = 25 * 1000**3
"""Five shards of the usual size: the client sends five files at a time. Those that arrived stay on the Hub though the
others of their commit did not, and are not sent again."""
TOLD_BEFORE = 10**9
"""Bytes of a batch that takes long enough to be told of before it is sent."""
VERSION = re.compile(r"v(\d+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as the Hub tells of it: bytes, and the sha256 of its content or its name as a git object."""

    size: int
    lfs: str | None
    git_oid: str


@dataclass(frozen=True, slots=True)
class There:
    """A repository as it was looked at. `main` is the commit there; `published` whether main holds this very part."""

    exists: bool
    private: bool = True
    main: str = ""
    tree: Mapping[str, Seen] | None = None
    tags: Mapping[str, str] | None = None
    run: str | None = None
    """Id of the run that an earlier publication put there; None where no publication did."""
    foreign: tuple[str, ...] = ()
    """Files that no publication of ours put there, and those of ours that somebody changed since."""

    def holds(self, part: Part) -> bool:
        """Whether main holds the part's files and no others."""
        shown = {path: seen for path, seen in (self.tree or {}).items() if path not in OWN_FILES}
        return self.exists and shown.keys() == {f.path for f in part.files} and not missing(part, shown)

    def tag_of_main(self) -> str | None:
        """The version that main is tagged with."""
        found = [name for name, commit in (self.tags or {}).items() if commit == self.main and VERSION.fullmatch(name)]
        return min(found, default=None)

    @property
    def earlier(self) -> tuple[str, ...]:
        """Versions that lie there besides what main shows."""
        return tuple(
            sorted(
                name for name, commit in (self.tags or {}).items() if VERSION.fullmatch(name) and commit != self.main
            )
        )


@dataclass(frozen=True, slots=True)
class Published:
    """How a part ended: its tag, and the bytes of the files that were sent for it now."""

    part: Part
    tag: str
    commit: str
    sent_files: int
    sent_bytes: int


class Transaction:
    """One publication on its way. `pause` is called to wait; tests wait for nothing."""

    def __init__(
        self,
        api: HfApi,
        publication: Publication,
        pause: Callable[[float], None] = time.sleep,
        *,
        replace: bool = False,
    ) -> None:
        """`replace`: also what others put into a repository of ours since, and what another run's publication did."""
        self.api, self.publication, self.pause, self.replace = api, publication, pause, replace

    def look(self, part: Part) -> There:
        """Raises PublishError where the Hub does not answer."""
        from huggingface_hub.errors import RepositoryNotFoundError

        info = self._ask(
            f"looking at {part.repo}",
            lambda: self._or_none(lambda: self.api.repo_info(part.repo, repo_type=part.kind), RepositoryNotFoundError),
        )
        if info is None:
            return There(False)
        refs = self._ask(f"looking at {part.repo}", lambda: self.api.list_repo_refs(part.repo, repo_type=part.kind))
        main = next((ref.target_commit for ref in refs.branches if ref.name == "main"), info.sha)
        tree = self.tree(part, main)
        tags = {ref.name: ref.target_commit for ref in refs.tags}
        told = self._lineage(part, main, tree)
        run = str(told["run"]) if told is not None else None
        foreign = self._foreign(part, main, tree, tags, told)
        return There(True, bool(info.private), main, tree, tags, run, foreign)

    def run(self, *, public: bool) -> list[Published]:
        """All parts, or an error that says where it stopped; then nothing of an unfinished part is on any main.

        Raises PublishError.
        """
        begun = [(part, self.look(part)) for part in self.publication.parts]
        sent = {part.repo: self._gather(part, there) for part, there in begun}
        ended = []
        for part, _ in begun:
            there = self._show(part)
            tag = there.tag_of_main() or self._tag(part, there)
            ended.append(Published(part, tag, there.main, *sent[part.repo]))
        for part in self.publication.parts:  # only now, when everything else is there
            self._clear(part)
            if public:
                self._make_public(part)
        return ended

    # --- gathering ---------------------------------------------------------------------------------------------------

    def _gather(self, part: Part, there: There) -> tuple[int, int]:
        """(files, bytes) that were sent until the part's branch held all of it."""
        if there.holds(part):
            return 0, 0
        if there.exists and not there.private:
            say(f"publish: {part.repo} is public: its branch {part.staging} can be read while it is gathered")
        self._ask(
            f"creating {part.repo}",
            lambda: self.api.create_repo(part.repo, repo_type=part.kind, private=True, exist_ok=True),
        )
        self._ask(
            f"opening a branch in {part.repo}",
            lambda: self.api.create_branch(part.repo, branch=part.staging, repo_type=part.kind, exist_ok=True),
        )
        progress = _Progress(part)
        failures = 0
        for _ in count():
            wanted = missing(part, self.tree(part, part.staging))
            progress.stands(wanted)
            if not wanted:
                return progress.files, progress.bytes
            for batch in batches(wanted):
                progress.sends(batch)
                try:
                    self._commit(part, batch)
                except Exception as error:
                    seconds = 0.0 if conflicts(error) else worth_another(error)
                    failures += 1
                    if seconds is None or failures == TRIES:
                        raise explained(f"sending {batch[0].path} to {part.repo}", error) from error
                    wait(f"sending to {part.repo}", error, failures, seconds, self.pause)
                    break  # and look at what has arrived all the same
                failures = 0
                progress.sent(batch)
        raise AssertionError

    def _commit(self, part: Part, batch: Sequence[File]) -> None:
        """One batch of files onto the part's branch. Its large files stay on the Hub even where the commit fails."""
        from huggingface_hub import CommitOperationAdd

        operations = [_adding(CommitOperationAdd, file) for file in batch]
        self.api.create_commit(
            part.repo,
            operations,
            commit_message=f"{len(batch)} files",
            repo_type=part.kind,
            revision=part.staging,
        )

    # --- showing -----------------------------------------------------------------------------------------------------

    def _show(self, part: Part) -> There:
        """Main takes the part over from its branch, in one commit; what main holds then is looked at once more."""
        for number in range(1, TRIES + 1):
            there = self.look(part)
            if there.holds(part):
                return there
            if there.foreign and not (self.replace and there.run is not None):
                raise taken(part, there)
            try:
                self._take_over(part, there)
            except Exception as error:
                seconds = 0.0 if conflicts(error) else worth_another(error)
                if seconds is None or number == TRIES:
                    raise explained(f"showing {part.repo}", error) from error
                wait(f"showing {part.repo}", error, number, seconds, self.pause)
        wrong = missing(part, self.tree(part, "main"))
        raise PublishError(
            f"{part.repo} does not hold what was sent",
            given=", ".join(file.path for file in wrong[:5]) or "files that nobody sent",
            todo="start the same command again",
        )

    def _take_over(self, part: Part, there: There) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        gathered, old = self.tree(part, part.staging), there.tree or {}
        operations: list[Any] = []
        for file in missing(part, old):
            if gathered[file.path].lfs is not None:
                operations.append(CommitOperationCopy(file.path, file.path, src_revision=part.staging))
            else:
                operations.append(_adding(CommitOperationAdd, file))
        kept = {file.path for file in part.files} | set(OWN_FILES)
        operations += [CommitOperationDelete(path, is_folder=False) for path in sorted(old) if path not in kept]
        self.api.create_commit(
            part.repo,
            operations,
            commit_message=f"{part.what} of {self.publication.run}",
            repo_type=part.kind,
            parent_commit=there.main,
        )

    def _tag(self, part: Part, there: There) -> str:
        """The next version, on the commit that was looked at."""
        for number in count(
            1 + max((int(found[1]) for found in map(VERSION.fullmatch, there.tags or {}) if found), default=0)
        ):
            tag = f"v{number}"
            self._ask(
                f"tagging {part.repo}",
                lambda tag=tag: self.api.create_tag(  # type: ignore[misc]
                    part.repo, tag=tag, revision=there.main, repo_type=part.kind, exist_ok=True
                ),
            )
            refs = self._ask(f"looking at {part.repo}", lambda: self.api.list_repo_refs(part.repo, repo_type=part.kind))
            if any(ref.name == tag and ref.target_commit == there.main for ref in refs.tags):
                return tag
        raise AssertionError

    def _clear(self, part: Part) -> None:
        """Removes this part's branch, and those that earlier starts with other files left."""
        refs = self._ask(f"looking at {part.repo}", lambda: self.api.list_repo_refs(part.repo, repo_type=part.kind))
        for name in [ref.name for ref in refs.branches if ref.name.startswith(STAGING)]:
            from huggingface_hub.errors import RevisionNotFoundError

            self._ask(
                f"removing a branch of {part.repo}",
                lambda name=name: self._or_none(  # type: ignore[misc]
                    lambda: self.api.delete_branch(part.repo, branch=name, repo_type=part.kind), RevisionNotFoundError
                ),
            )

    def _make_public(self, part: Part) -> None:
        info = self._ask(f"looking at {part.repo}", lambda: self.api.repo_info(part.repo, repo_type=part.kind))
        if info.private:
            self._ask(
                f"making {part.repo} public",
                lambda: self.api.update_repo_settings(part.repo, repo_type=part.kind, private=False),
            )

    # --- looking -----------------------------------------------------------------------------------------------------

    def tree(self, part: Part, revision: str) -> dict[str, Seen]:
        """Path → file of a revision."""

        from huggingface_hub import RepoFile

        def listed() -> dict[str, Seen]:
            found = self.api.list_repo_tree(part.repo, recursive=True, revision=revision, repo_type=part.kind)
            return {
                item.path: Seen(item.size, item.lfs.sha256 if item.lfs else None, item.blob_id)
                for item in found
                if isinstance(item, RepoFile)
            }

        tree: dict[str, Seen] = self._ask(f"listing {part.repo}", listed)
        return tree

    def _lineage(self, part: Part, commit: str, tree: Mapping[str, Seen]) -> dict[str, Any] | None:
        """What the publication that made this commit says of itself; None where none did."""
        if LINEAGE_FILE not in tree:
            return None
        try:
            value = json.loads(self._content(part, LINEAGE_FILE, commit))
        except ValueError:
            return None
        return value if isinstance(value, dict) and "run" in value else None

    def _foreign(
        self,
        part: Part,
        commit: str,
        tree: Mapping[str, Seen],
        tags: Mapping[str, str],
        told: Mapping[str, Any] | None,
    ) -> tuple[str, ...]:
        """A commit with a version's tag is a publication's own. What another holds is compared with what the last
        publication says that it put there: somebody may have added a picture since, or written into the card."""
        shown = sorted(path for path in tree if path not in OWN_FILES)
        if told is None:
            return tuple(shown)
        if any(VERSION.fullmatch(name) and target == commit for name, target in tags.items()):
            return ()
        ours = {path: (file.sha256, file.git_oid) for path, file in ((f.path, f) for f in part.files)}
        files = told.get("files")
        named = files if isinstance(files, dict) else {}

        def own(path: str) -> bool:
            seen = tree[path]
            if path == LINEAGE_FILE or (path in ours and (seen.lfs or seen.git_oid) in ours[path]):
                return True
            if path not in named:
                return False
            found = seen.lfs or hashlib.sha256(self._content(part, path, commit)).hexdigest()
            return bool(found == named[path])

        return tuple(path for path in shown if not own(path))

    def _content(self, part: Part, path: str, commit: str) -> bytes:
        """Of a small file."""

        def fetched() -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                place = self.api.hf_hub_download(
                    part.repo, path, repo_type=part.kind, revision=commit, local_dir=folder
                )
                return Path(place).read_bytes()

        content: bytes = self._ask(f"looking at {part.repo}", fetched)
        return content

    def _ask(self, what: str, call: Callable[[], Any]) -> Any:
        return asked(what, call, self.pause)

    @staticmethod
    def _or_none(call: Callable[[], Any], absent: type[Exception]) -> Any:
        try:
            return call()
        except absent:
            return None


def _adding(operation: Any, file: File) -> Any:
    """An addition that knows its hash, so that the client does not read a large file once more for it."""
    content = file.content if isinstance(file.content, bytes) else str(file.content)
    added = operation(path_in_repo=file.path, path_or_fileobj=content)
    added.upload_info.sha256 = bytes.fromhex(file.sha256)
    return added


def missing(part: Part, tree: Mapping[str, Seen]) -> list[File]:
    """Files of a part that a listing does not hold with the same content."""
    return [file for file in part.files if not _arrived(file, tree.get(file.path))]


def _arrived(file: File, seen: Seen | None) -> bool:
    if seen is None or seen.size != file.size:
        return False
    return seen.lfs == file.sha256 if seen.lfs is not None else seen.git_oid == file.git_oid


def batches(files: Sequence[File]) -> Iterator[list[File]]:
    """In the order given, each of at most FILES_PER_COMMIT files and, but for a single one, BYTES_PER_COMMIT."""
    batch: list[File] = []
    for file in files:
        if batch and (len(batch) == FILES_PER_COMMIT or sum(f.size for f in batch) + file.size > BYTES_PER_COMMIT):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def taken(part: Part, there: There) -> PublishError:
    if there.run is not None:
        what = f"{part.repo} was changed on the Hub since it was published"
        todo = "take those changes into the run's own files, or drop them with --replace: no tag keeps them"
    else:
        what = f"{part.repo} holds files that no publication put there"
        todo = "choose another name with --repo, or move them away on the Hub: they would be lost"
    listed = ", ".join(there.foreign[:5]) + (" and more" if len(there.foreign) > 5 else "")
    return PublishError(what, given=listed, todo=todo)


class _Progress:
    """Lines about what was sent: files, bytes, rate, what is left."""

    def __init__(self, part: Part) -> None:
        self.part, self.started = part, time.monotonic()
        self.files = self.bytes = 0
        self._there = 0

    def stands(self, wanted: Sequence[File]) -> None:
        self._there = self.part.size - sum(file.size for file in wanted)

    def sends(self, batch: Sequence[File]) -> None:
        size = sum(file.size for file in batch)
        if size < TOLD_BEFORE:
            return
        rate = self.bytes / max(time.monotonic() - self.started, 1e-3)
        others = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
        takes = f", about {wording.duration(size / rate)}" if self.bytes >= TOLD_BEFORE else ""
        say(f"publish: {self.part.repo}: sending {batch[-1].path}{others}, {wording.size(size)}{takes}")

    def sent(self, batch: Sequence[File]) -> None:
        size = sum(file.size for file in batch)
        self.files, self.bytes, self._there = self.files + len(batch), self.bytes + size, self._there + size
        rate = self.bytes / max(time.monotonic() - self.started, 1e-3)
        left = (self.part.size - self._there) / max(rate, 1.0)
        say(
            f"publish: {self.part.repo}: {wording.size(self._there)} of {wording.size(self.part.size)} there, "
            f"{wording.size(rate)}/s" + (f", about {wording.duration(left)} left" if left >= 1 else "")
        )
