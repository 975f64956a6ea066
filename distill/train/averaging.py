"""The mean of a student's weights over the end of its training, from snapshots that survive a resume.

Snapshots are of their own, not checkpoints: those come when the clock says so, and old ones are removed. Knows nothing
about data, optimizers or what the weights are for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import TrainingError
from distill.files import replacing_folder, sha256_file

if TYPE_CHECKING:
    import torch

SPAN = 0.25
"""Snapshots are spread over this last part of the steps; a choice of ours: OpenMathReasoning, which averaged four
checkpoints, does not say how far they lay apart."""
PART_BYTES = 2 * 2**30
"""Size of a snapshot's files: as much is held in memory while one is written."""
INDEX = "index.json"


def average_steps(steps: int, count: int) -> tuple[int, ...]:
    """After which of `steps` steps a snapshot is taken: `count` of them evenly spaced, the last step included; fewer
    where the training is too short. None for a count of 1, where the end is the student."""
    if count == 1:
        return ()
    distance = steps * SPAN / count
    return tuple(sorted({max(1, round(steps - number * distance)) for number in range(count)}))


class Averager:
    """Snapshots of the trained weights in `folder`, one after each of `steps`, and their mean.

    Weights may be sharded over processes, other ones at the end than at the start: all call every method, the `first`
    one writes, and all read.
    """

    def __init__(self, folder: Path, steps: Sequence[int], *, first: bool = True) -> None:
        self.folder, self.steps, self.first = folder, tuple(steps), first

    def add(self, step: int, model: torch.nn.Module) -> None:
        """Takes the snapshot if one is due after this step. One taken before an interruption is replaced."""
        if step not in self.steps:
            return
        if not self.first:
            for _ in _whole(model):
                pass  # the others' part in putting sharded weights together
            return
        with replacing_folder(self._member(step)) as folder:
            files = {}
            for number, part in enumerate(_parts(_whole(model))):
                name = f"part-{number:05d}.safetensors"
                files[name] = _write(folder / name, part)
            (folder / INDEX).write_text(json.dumps(files), encoding="utf-8")

    def put_mean(self, model: torch.nn.Module) -> None:
        """Gives `model` the mean of all snapshots. Raises TrainingError naming one that is missing or damaged."""
        import torch

        with torch.no_grad():
            parameters = dict(_trained(model))
            for name, mean in self.result():
                parameter = parameters.pop(name, None)
                if parameter is None or parameter.shape != mean.shape:
                    raise _unusable(self.folder, f"{name}, {list(mean.shape)}, is not a weight of this student")
                parameter.copy_(_like(mean.to(parameter.device), parameter))
        if parameters:
            raise _unusable(self.folder, f"nothing for {', '.join(list(parameters)[:4])}")

    def result(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and mean, in float32, of every weight, one at a time. Raises TrainingError like `put_mean`."""
        import torch

        members = [self._checked(step) for step in self.steps]
        if not members:
            raise _unusable(self.folder, "no snapshots are asked for")
        for name in members[0].names:
            mean = torch.zeros(())
            for number, member in enumerate(members, start=1):
                mean = mean + (member[name].float() - mean) / number
            yield name, mean

    def clear(self) -> None:
        if self.first:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _member(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _checked(self, step: int) -> _Member:
        folder = self._member(step)
        try:
            files: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            changed = [name for name, digest in files.items() if sha256_file(folder / name) != digest]
        except (OSError, ValueError, AttributeError) as error:
            raise _unusable(folder, str(error)[:200] or type(error).__name__) from error
        if changed:
            raise _unusable(folder, f"{', '.join(changed)} is not what was written")
        return _Member([folder / name for name in files])


class _Member:
    """One snapshot, read one tensor at a time."""

    def __init__(self, files: Sequence[Path]) -> None:
        from safetensors import safe_open

        self._places: dict[str, Any] = {}
        for file in files:
            opened: Any = safe_open(file, framework="pt")
            self._places.update(dict.fromkeys(opened.keys(), opened))
        self.names = list(self._places)

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._places[name].get_tensor(name)
        return tensor


def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """What is trained, tied weights once: what is frozen is its own mean."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _whole(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every trained weight whole, on the CPU, one at a time."""
    from torch.distributed.tensor import DTensor

    for name, parameter in _trained(model):
        tensor = parameter.detach()
        yield name, (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().contiguous()


def _parts(tensors: Iterator[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    part: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        if part and sum(other.nbytes for other in part.values()) + tensor.nbytes > PART_BYTES:
            yield part
            part = {}
        part[name] = tensor
    yield part


def _write(file: Path, part: dict[str, torch.Tensor]) -> str:
    from safetensors.torch import save_file

    save_file(part, file)
    return sha256_file(file)


def _like(mean: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The mean sharded as the parameter is; every process cuts out its own part."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor):
        return mean
    return distribute_tensor(mean, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _unusable(folder: Path, why: str) -> TrainingError:
    return TrainingError(
        "the mean of the last weights cannot be taken: a snapshot is missing or damaged",
        given=f"{folder}: {why}",
        todo="put that folder back, or train with train.average_checkpoints: 1, which needs none",
    )
