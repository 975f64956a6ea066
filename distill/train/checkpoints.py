"""Checkpoints of a training job: atomic folders, the newest usable one found again; one format for any number of ranks.

Weights and optimizer state stand in torch's distributed format: every rank writes and reads what it holds, and another
number of ranks reads the same files. Only weights that are trained are saved. Knows nothing about data.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from distill.errors import TrainingError
from distill.files import disk_full_is_clear, replacing_folder
from distill.progress import say
from distill.train.parallel import World

if TYPE_CHECKING:
    import torch

ALONE = World()
POSITION = "position.json"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a job stands: finished optimizer steps, the job (recipe, data, student) it belongs to, seconds spent, and
    whatever else has to be known to go on, as JSON."""

    step: int
    job: str
    seconds: float
    state: Mapping[str, Any] = field(default_factory=dict)


def save(folder: Path, position: Position, module: Any, optimizer: Any, *, keep: int, world: World = ALONE) -> Path:
    """Writes `step-NNNNNNNN/` atomically, then removes the oldest beyond `keep`. All ranks call it, on one folder."""
    target = folder / f"step-{position.step:08d}"
    tensors = _tensors(module, optimizer)
    if world.first:
        with replacing_folder(target) as temporary:
            _write(world.shared(temporary), tensors, world)
            sizes = {path.name: path.stat().st_size for path in temporary.iterdir()}
            text = json.dumps({**asdict(position), "files": sizes})
            (temporary / POSITION).write_text(text, encoding="utf-8")
        for old in _all(folder)[:-keep]:
            shutil.rmtree(old)
    else:
        _write(world.shared(None), tensors, world)
    world.barrier()
    return target


def newest(folder: Path, job: str, *, world: World = ALONE) -> tuple[Path, Position] | None:
    """The latest checkpoint of this job; those of another one (other recipe, data or student) do not count, and what
    is damaged is passed over. All ranks get the same answer."""
    return world.shared(_newest(folder, job) if world.first else None)  # type: ignore[no-any-return]


def load(path: Path, module: Any, optimizer: Any, *, world: World = ALONE) -> None:
    """Puts weights and optimizer state back. Raises TrainingError when they do not belong to this model."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        _read(path, module, optimizer, world)
    except (CheckpointException, RuntimeError, ValueError, OSError, EOFError, KeyError, UnpicklingError) as error:
        raise TrainingError(
            "a checkpoint cannot be loaded",
            given=f"{path}: {_cause(error)[:300]}",
            todo="remove that folder and start again",
        ) from error


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _newest(folder: Path, job: str) -> tuple[Path, Position] | None:
    for path in reversed(_all(folder)):
        try:
            found = json.loads((path / POSITION).read_text(encoding="utf-8"))
            sizes = found.pop("files")
            position = Position(**found)
            damaged = [name for name, size in sizes.items() if (path / name).stat().st_size != size]
        except (ValueError, TypeError, KeyError, AttributeError, OSError):
            damaged = [POSITION]
        if damaged:
            say(f"train: the checkpoint {path} is damaged and is passed over ({damaged[0]})")
        elif position.job == job:
            return path, position
        else:
            say(f"train: the checkpoint {path} is of another training and is not used")
    return None


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / POSITION).is_file())


def _weights(module: Any) -> dict[str, torch.Tensor]:
    """What is trained, by its name in the model; tied weights once."""
    from distill.train.loss import StudentLoss

    model = module.model if isinstance(module, StudentLoss) else module
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _tensors(module: Any, optimizer: Any) -> dict[str, Any]:
    """Everything under names of its own: `weights.NAME`, `optimizer.NAME.STATE`."""
    weights = _weights(module)
    states = {
        f"optimizer.{name}.{key}": value
        for name, weight in weights.items()
        for key, value in optimizer.state.get(weight, {}).items()
    }
    return {**{f"weights.{name}": weight.detach() for name, weight in weights.items()}, **states}


def _write(folder: Path, tensors: dict[str, Any], world: World) -> None:
    """This rank's part. Any rank's failure is raised on all."""
    from torch.distributed.checkpoint import state_dict_saver as saver
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    with disk_full_is_clear(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            saver.save(tensors, storage_writer=FileSystemWriter(folder), no_dist=world.mesh is None)
        except CheckpointException as error:  # not an Exception, and says little about the cause
            cause, _ = next(iter(error.failures.values()))
            raise cause from error


def _read(path: Path, module: Any, optimizer: Any, world: World) -> None:
    from torch.distributed.checkpoint import state_dict_loader as loader
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    reader = FileSystemReader(path)
    saved = reader.read_metadata().state_dict_metadata
    weights = _weights(module)
    tensors: dict[str, Any] = {f"weights.{name}": weight.detach() for name, weight in weights.items()}
    of_state: dict[str, tuple[torch.Tensor, str]] = {}
    for name, weight in weights.items():
        begin = f"optimizer.{name}."
        for key in (key for key in saved if key.startswith(begin) and "." not in key.removeprefix(begin)):
            of_state[key] = weight, key.removeprefix(begin)
            tensors[key] = _room_for(saved[key], weight)
    differing = sorted(saved.keys() ^ tensors.keys())
    if differing:
        raise ValueError(f"it is of another model: {len(differing)} names differ, among them {differing[0]}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        loader.load(tensors, storage_reader=reader, no_dist=world.mesh is None)
    optimizer.state.clear()
    on_device = {weight for group in optimizer.param_groups if group.get("fused") for weight in group["params"]}
    for key, (weight, state) in of_state.items():
        value = tensors[key]
        if weight in on_device:  # where torch's fused kernels want even the number of steps
            value = value.to(weight.device)
        optimizer.state[weight][state] = value


def _room_for(saved: Any, weight: torch.Tensor) -> torch.Tensor:
    """An empty tensor for an optimizer state: spread like its weight where it has its shape, else whole on the CPU."""
    import torch

    if saved.size == weight.shape:
        return torch.zeros_like(weight, dtype=saved.properties.dtype, requires_grad=False)
    return torch.zeros(saved.size, dtype=saved.properties.dtype)


def _cause(error: BaseException) -> str:
    failures = getattr(error, "failures", None)
    return str(next(iter(failures.values()))[0] if failures else error)
