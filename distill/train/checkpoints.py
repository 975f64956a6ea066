"""Checkpoints of a training job: atomic folders, the newest usable one found again. Knows nothing about data."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from distill.errors import TrainingError
from distill.files import replacing_folder


@dataclass(frozen=True, slots=True)
class Position:
    """Where a job stands: finished optimizer steps, and the job (recipe, data, student) it belongs to."""

    step: int
    job: str
    seconds: float


def save(folder: Path, position: Position, model: Any, optimizer: Any, *, keep: int) -> Path:
    """Writes `step-NNNNNNNN/` atomically, then removes the oldest beyond `keep`."""
    import torch
    from safetensors.torch import save_model

    target = folder / f"step-{position.step:08d}"
    with replacing_folder(target) as temporary:
        save_model(model, str(temporary / "model.safetensors"))
        torch.save(optimizer.state_dict(), temporary / "optimizer.pt")
        (temporary / "position.json").write_text(json.dumps(asdict(position)), encoding="utf-8")
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def newest(folder: Path, job: str) -> tuple[Path, Position] | None:
    """The latest checkpoint of this job; those of another one (other recipe, data or student) do not count."""
    for path in reversed(_all(folder)):
        try:
            position = Position(**json.loads((path / "position.json").read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            continue  # damaged: an older one serves
        if position.job == job:
            return path, position
    return None


def load(path: Path, model: Any, optimizer: Any) -> None:
    """Puts weights and optimizer state back. Raises TrainingError when they do not belong to this model."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(model, str(path / "model.safetensors"))
        optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
    except (RuntimeError, ValueError, OSError, EOFError, SafetensorError, UnpicklingError) as error:
        raise TrainingError(
            "a checkpoint cannot be loaded",
            given=f"{path}: {str(error)[:200]}",
            todo="remove that folder and start again",
        ) from error


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / "position.json").is_file())
