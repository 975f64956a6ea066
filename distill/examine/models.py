"""Models that lie here as examinees: a model folder for transformers or a GGUF file for llama.cpp, each under the
contract beside its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from distill import gguf_file, specs
from distill.contract import CONTRACT_FILE, Contract
from distill.engines import Engine
from distill.engines.llamacpp import LlamaCppEngine
from distill.engines.local import LocalEngine
from distill.errors import InputError, UsageError
from distill.examine.examination import Examinee
from distill.files import sha256_once
from distill.prompts.stage import read_prompts
from distill.records import Prompt, TeacherIdentity
from distill.rundir import RunDir
from distill.sampling.subjects import model_subject


def model_examinee(place: Path, name: str, recipe: specs.Recipe, *, known_as: str | None = None) -> Examinee:
    """A model folder, a GGUF file, or a folder that holds one; samples carry `known_as` where it is given.

    Raises UsageError when it is none of these, InputError when no contract lies beside it.
    """
    settings = recipe.evaluate
    file = gguf_in(place)
    contract = model_contract(file.parent if file else place)
    revision = sha256_once(file)[:16] if file else specs.folder_revision(place)
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


def run_around(place: Path) -> RunDir | None:
    """The run that a model lies in, as its student or one of its quantized files."""
    folders = place.resolve().parents[:3]
    return next((RunDir(folder) for folder in folders if (folder / "recipe.yaml").is_file()), None)


def prompts_around(place: Path) -> Iterator[Prompt]:
    """What a model inside a run may have been trained on, which it must not be examined on; nothing for others."""
    around = run_around(place)
    return read_prompts(around.prompts) if around is not None and around.prompts.is_file() else iter(())


def gguf_in(place: Path) -> Path | None:
    """The GGUF file at or inside `place`, None for a Hugging Face folder. Raises UsageError where it is not clear."""
    if place.is_file():
        if place.suffix.lower() != ".gguf":
            raise UsageError(f"{place} is no GGUF file", todo="give a .gguf file, a model folder, a run or a URL")
        return place
    if (place / "config.json").is_file():
        return None
    found = sorted(path for path in place.iterdir() if path.suffix.lower() == ".gguf")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{place} holds {len(found)} GGUF files", given=names, todo="give one of them")
    if not found:
        todo = "give a run, a folder with config.json or one .gguf file in it, a .gguf file or a URL"
        raise UsageError(f"{place} is no model folder: neither config.json nor a .gguf file is in it", todo=todo)
    return found[0]


def context_of(folder: Path) -> int:
    """Tokens that a model has for prompt and reply together. Raises InputError for a folder without a config."""
    try:
        length: int = json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} is no model folder: its config.json cannot be read", given=str(error)) from error
    return length


def model_contract(folder: Path) -> Contract:
    """The contract a student was saved with. Raises InputError when the folder has none."""
    path = folder / CONTRACT_FILE
    if not path.is_file():
        raise InputError(
            f"{folder} does not say under which contract it was trained (no {CONTRACT_FILE})",
            todo="evaluate a student that distill trained, or serve the model and give its URL",
        )
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["contract"]
        return Contract(saved["template"], saved["forced_prefix"], saved["instruction"] or None, saved["system"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read: {type(error).__name__}: {error}", todo="restore it, or train the student again"
        ) from error
