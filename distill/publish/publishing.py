"""`distill publish`: from a run to its repositories. Joins content, preflight and the transaction, and tells of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill import wording
from distill.errors import InputError
from distill.files import write_json
from distill.progress import say
from distill.publish import content, preflight
from distill.publish.content import Wanted
from distill.publish.facts import Facts, gathered
from distill.publish.licences import UNKNOWN, Conflict, Terms, terms
from distill.publish.publication import Publication
from distill.publish.transaction import Published, Transaction
from distill.rundir import RunDir
from distill.specs import Recipe

WORK = "publishing"
"""Folder of a run with what was written for the Hub alone."""
PUBLISHED = "published.json"
"""In it: repository of the student → parts that went to the Hub beside it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`license` is what to offer the student under, by default its base's; `license_file` goes beside the weights;
    `base` is the base's name on the Hub, where the student's spec does not tell it; `prompts_license` and
    `teacher_license` are those of prompts and of a teacher whose own are not known; `old_versions` lets `public` show
    earlier private versions too."""

    repo: str
    public: bool = False
    anyway: bool = False
    replace: bool = False
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    license: str | None = None
    license_file: Path | None = None
    base: str | None = None
    old_versions: bool = False
    prompts_license: str | None = None
    teacher_license: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be published: all files, and what speaks against it. `parts` are those of the run; `conflicts` the
    licences' that are about them."""

    publication: Publication
    conflicts: tuple[Conflict, ...]
    failed_gates: tuple[str, ...]
    public: bool
    parts: tuple[str, ...]

    @property
    def cards(self) -> dict[str, str]:
        """By repository."""
        return {part.repo: part.card for part in self.publication.parts}

    def values(self) -> dict[str, Any]:
        repositories = {
            part.repo: {
                "kind": part.kind,
                "bytes": part.size,
                "files": {file.path: {"bytes": file.size, "sha256": file.sha256} for file in part.files},
                "card": part.card,
            }
            for part in self.publication.parts
        }
        against = [*self.failed_gates, *map(str, self.conflicts)]
        return {"public": self.public, "repositories": repositories, "against": against}

    def lines(self) -> Iterator[str]:
        for part in self.publication.parts:
            seen = "public" if self.public else "private"
            yield f"{part.url} ({part.what}, {seen}): {len(part.files)} files, {wording.size(part.size)}"
            yield from (f"  {wording.size(file.size):>10}  {file.path}" for file in part.files)
        for part in self.publication.parts:
            yield f"--- README.md of {part.url}"
            yield part.card
        for gate in self.failed_gates:
            yield f"stands in the way: gate: {gate}"
        for conflict in self.conflicts:
            yield f"stands in the way: licence: {conflict}"


def planned(recipe: Recipe, run: RunDir, asked: Asked) -> Planned:
    """Everything but the Hub itself: no token is needed, nothing is sent.

    Raises RunError for a stage that is not done, UsageError for parts and names that cannot be, PublishError for
    something private in a file.
    """
    parts = content.chosen_parts(run, _wanted(asked, None))
    preflight.stages_done(recipe, run, parts)
    facts = _with_licences(gathered(recipe, run, asked.base), asked)
    preflight.adapter_has_base(facts, parts)
    text = _licence_text(asked, run, facts)
    conditions = _terms(facts, asked, text is not None)
    wanted = _wanted(asked, text, _published(run, asked.repo))
    publication = content.publication(facts, run, parts, wanted, conditions, run.path / WORK)
    preflight.names(publication, asked.base)
    preflight.private(publication, _token(), run)
    failed = preflight.gates(facts, parts, content.weight_files(run, facts))
    about = {"traces"} if parts == ["traces"] else {"student", *(["traces"] if "traces" in parts else [])}
    conflicts = tuple(conflict for conflict in conditions.conflicts if conflict.about in about)
    return Planned(publication, conflicts, tuple(failed), asked.public, tuple(parts))


def publish(recipe: Recipe, run: RunDir, asked: Asked, pause: Callable[[float], None] = time.sleep) -> list[Published]:
    """Raises as `planned` does, GateError for a gate or licence that stands in the way, PublishError where the Hub
    refuses or fails; the same command goes on."""
    from huggingface_hub import HfApi

    with run.lock():
        plan = planned(recipe, run, asked)
        preflight.refuse(plan.failed_gates, plan.conflicts, anyway=asked.anyway)
        api = HfApi(token=_token())
        transaction = Transaction(api, plan.publication, pause, replace=asked.replace)
        who = preflight.owner(api, plan.publication, pause)
        preflight.cards(api, plan.publication, pause)
        preflight.there(transaction, public=asked.public, replace=asked.replace, old_versions=asked.old_versions)
        say(f"publish: {wording.size(plan.publication.size)} in {len(plan.publication.parts)} repositories, as {who}")
        ended = transaction.run(public=asked.public)
        _remember(run, asked.repo, plan.parts)
        return ended


def told(published: list[Published], *, public: bool) -> tuple[dict[str, Any], list[str]]:
    """What was published, as values and as lines."""
    from huggingface_hub import constants

    values = {
        one.part.repo: {
            "url": f"{constants.ENDPOINT}/{one.part.url}",
            "tag": one.tag,
            "commit": one.commit,
            "public": public,
            "files_sent": one.sent_files,
            "bytes_sent": one.sent_bytes,
        }
        for one in published
    }
    lines = []
    for one in published:
        sent = "nothing sent: it was there"
        if one.sent_files:
            sent = f"{one.sent_files} files, {wording.size(one.sent_bytes)} sent"
        seen = "public" if public else "private"
        lines.append(f"{values[one.part.repo]['url']} at {one.tag} ({seen}): {sent}")
    return {"published": values}, lines


def _wanted(asked: Asked, text: bytes | None, published: tuple[str, ...] = ()) -> Wanted:
    return Wanted(asked.repo, asked.only, asked.without, text, published)


def _published(run: RunDir, repo: str) -> tuple[str, ...]:
    """Parts of the run that earlier publications brought to repositories of that name."""
    place = run.path / WORK / PUBLISHED
    found = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    return tuple(found.get(repo, ()))


def _remember(run: RunDir, repo: str, parts: Sequence[str]) -> None:
    place = run.path / WORK / PUBLISHED
    found = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    place.parent.mkdir(exist_ok=True)
    write_json(place, {**found, repo: sorted({*found.get(repo, ()), *parts})})


def _terms(facts: Facts, asked: Asked, has_text: bool) -> Terms:
    licences = {source.name: source.license for source in facts.sources}
    return terms(
        teacher=facts.teacher.license,
        base=facts.student.license if facts.student is not None else "mit",  # nothing is said of a student
        prompts=licences,
        name=asked.repo.partition("/")[2],
        licence_text=has_text,
        chosen=asked.license,
    )


def _with_licences(facts: Facts, asked: Asked) -> Facts:
    """Licences that specs do not tell, as the user tells them."""
    sources = tuple(
        replace(source, license=asked.prompts_license) if source.license in (None, UNKNOWN) else source
        for source in facts.sources
    )
    teacher = facts.teacher
    if teacher.license in (None, UNKNOWN):
        teacher = teacher.model_copy(update={"license": asked.teacher_license})
    return replace(facts, sources=sources, teacher=teacher)


def _licence_text(asked: Asked, run: RunDir, facts: Facts) -> bytes | None:
    """Of the base, from the file that was named or the base's folder. Raises InputError for one that is not there."""
    if asked.license_file is not None:
        try:
            return asked.license_file.read_bytes()
        except OSError as error:
            raise InputError(f"--license-file {asked.license_file}: {error.strerror}", todo="check the path") from error
    base = Path(facts.student.base) if facts.student is not None and facts.student.base else None
    places = [base / name for name in ("LICENSE", "LICENSE.txt", "LICENSE.md")] if base is not None else []
    return next((place.read_bytes() for place in places if place.is_file()), None)


def _token() -> str | None:
    from huggingface_hub import get_token

    return os.environ.get("HF_TOKEN") or get_token()
