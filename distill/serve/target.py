"""Whom to serve: a teacher's spec, a model folder, and where its weights lie. Knows nothing about hardware."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from distill import specs
from distill.errors import InputError, UsageError
from distill.serve_specs import ServeSettings
from distill.teacher_architecture import TeacherArchitecture
from distill.teacher_specs import TeacherSpec

CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Target:
    """A teacher as vLLM is told of it."""

    spec: TeacherSpec
    folder: Path | None
    """Where the weights lie; None: a Hub id, looked for in the Hub's cache."""
    architecture: TeacherArchitecture | None

    @property
    def location(self) -> str:
        return str(self.folder) if self.folder is not None else self.spec.model

    @property
    def served_name(self) -> str:
        """The name under which clients ask for it: that of `generate`'s own requests."""
        return self.spec.name if self.spec.is_folder else self.spec.model

    @property
    def revision(self) -> str | None:
        return self.spec.revision


def find(teacher: str, settings: ServeSettings, overrides: dict[str, object] | None = None) -> Target:
    """The teacher of a spec's name or path, or of a model folder.

    Raises SpecError for an unknown name, UsageError where nothing says where the weights lie, InputError for a folder
    that holds no model.
    """
    here = Path(teacher).expanduser()
    if here.is_dir() and teacher not in specs.names("teachers"):  # a folder of that name here changes nothing
        spec = TeacherSpec(name=here.resolve().name, model=str(here.resolve()))
    else:
        spec = specs.teacher(teacher, overrides)
    folder = _folder(spec, settings)
    if folder is None and "/" not in spec.model:
        raise _nowhere(spec)
    return Target(spec, folder, spec.architecture or (None if folder is None else architecture_in(folder)))


def _folder(spec: TeacherSpec, settings: ServeSettings) -> Path | None:
    given = settings.model_folder
    if given is None:
        return Path(spec.model) if spec.is_folder else None
    if not given.is_dir():
        raise UsageError(f"there is no folder {given}", todo=f"give the folder that {spec.name}'s weights lie in")
    return given.resolve()


def _nowhere(spec: TeacherSpec) -> UsageError:
    if spec.url is not None:
        todo = f"`distill generate --teacher {spec.name}` asks it; to serve a model, name one with weights"
        return UsageError(
            f"{spec.name} is a provider's own service at {spec.url}: there is nothing to serve", todo=todo
        )
    return UsageError(f"nothing says where the weights of {spec.name} lie", todo="give their folder: --model FOLDER")


def architecture_in(folder: Path) -> TeacherArchitecture | None:
    """What a folder's config.json says of the model's sizes, None for an architecture that is not known here.

    Raises InputError where there is no config.json that can be read.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no model folder: its {CONFIG} cannot be read", given=str(error)) from error
    try:
        return TeacherArchitecture.from_config(config)
    except ValueError:
        return None
