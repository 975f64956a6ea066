"""Models that lie here as examinees: a model folder for transformers or a GGUF file for llama.cpp, each under the
contract beside its weights."""

from __future__ import annotations

import json
from pathlib import Path

from distill import gguf_file, specs
from distill.contract import Contract
from distill.engines import Engine
from distill.engines.llamacpp import LlamaCppEngine
from distill.engines.local import LocalEngine
from distill.errors import InputError
from distill.examine.examination import Examinee
from distill.files import sha256_file
from distill.records import TeacherIdentity
from distill.sampling.subjects import model_subject

MODEL_CONTRACT = "distill.json"


def model_examinee(place: Path, name: str, recipe: specs.Recipe, *, known_as: str | None = None) -> Examinee:
    """A model folder, a GGUF file, or a folder that holds one; samples carry `known_as` where it is given.

    Raises InputError when there is no model, or no contract beside it.
    """
    settings = recipe.evaluate
    file = gguf_in(place)
    contract = model_contract(file.parent if file else place)
    revision = sha256_file(file)[:16] if file else specs.folder_revision(place)
    subject = model_subject(
        TeacherIdentity(known_as or name, revision),
        contract,
        settings.sampling.sampling(recipe.seed),
        min(settings.max_tokens, gguf_file.metadata(file).context_length if file else context_of(place)),
    )
    engine: Engine = (
        LlamaCppEngine(file, name=f"llama.cpp/{name}", batch=settings.concurrency)
        if file
        else LocalEngine(str(place), name=f"local/{name}", batch=settings.concurrency)
    )
    return Examinee(name, subject, engine, settings.concurrency, contract.hash)


def gguf_in(place: Path) -> Path | None:
    """The GGUF file that a path names or that is the only one in the folder; None for another model folder.

    Raises InputError for a folder with several.
    """
    if place.is_file():
        return place
    files = sorted(place.glob("*.gguf"))
    if len(files) > 1:
        raise InputError(
            f"{place} holds {len(files)} GGUF files", given=", ".join(file.name for file in files), todo="name one"
        )
    return files[0] if files and not (place / "config.json").is_file() else None


def context_of(folder: Path) -> int:
    """Tokens that a model has for prompt and reply together. Raises InputError for a folder without a config."""
    try:
        length: int = json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} is no model folder: its config.json cannot be read", given=str(error)) from error
    return length


def model_contract(folder: Path) -> Contract:
    """The contract a student was saved with. Raises InputError when the folder has none."""
    path = folder / MODEL_CONTRACT
    if not path.is_file():
        raise InputError(
            f"{folder} does not say under which contract it was trained (no {MODEL_CONTRACT})",
            todo="evaluate a student that distill trained, or serve the model and give its URL",
        )
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["contract"]
        return Contract(saved["template"], saved["forced_prefix"], saved["instruction"] or None, saved["system"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read: {type(error).__name__}: {error}", todo="restore it, or train the student again"
        ) from error
