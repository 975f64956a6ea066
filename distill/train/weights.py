"""Weights of a sharded student: read from a model folder and written to one without any process holding all of them.

Reads and writes safetensors by the names of the model. Knows nothing about tokenizers, contracts or training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import SpecError
from distill.train.parallel import World

if TYPE_CHECKING:
    import torch

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FILE_BYTES = 5 * 10**9
"""Largest file of a model folder; transformers' own default was 5 GB until version 5."""


def on_meta(config: Any, dtype: torch.dtype) -> Any:
    """The model of a transformers configuration with shapes only, to be sharded and then filled by `load_sharded`."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def load_sharded(model: Any, folder: Path, world: World) -> None:
    """Fills a model `on_meta`, sharded or not, from the safetensors of `folder`: each rank reads its own rows alone.

    Vocabulary rows that the files do not have start at the mean of the others. Raises SpecError where the folder does
    not hold this model.
    """
    import torch
    from safetensors import safe_open

    model.to_empty(device=world.device)
    model.tie_weights()  # which to_empty made two
    for part in model.modules():
        if part._non_persistent_buffers_set:  # rotary frequencies: computed, in no file
            model._init_weights(part)
    places = _places(folder)
    vocabulary = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    known: int | None = None
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name not in places:
                raise _wrong(folder, f"{name} is missing")
            with safe_open(places[name], framework="pt") as file:
                saved = file.get_slice(name)
                rows, *rest = saved.get_shape()
                grown = id(weight) in vocabulary and rows < weight.shape[0]
                if rest != list(weight.shape[1:]) or (rows != weight.shape[0] and not grown):
                    raise _wrong(folder, f"{name} has the shape {[rows, *rest]} instead of {list(weight.shape)}")
                own, start = _own_rows(weight)
                stop = min(start + own.shape[0], rows)
                if stop > start:
                    own[: stop - start].copy_(saved[start:stop])
            known = rows if grown else known
    if known is not None:
        mean_rows(model, range(known, model.get_input_embeddings().weight.shape[0]), known, world)


def mean_rows(model: Any, rows: Sequence[int], known: int, world: World) -> None:
    """Sets vocabulary rows, in embeddings and head, to the mean of the first `known` without them."""
    import torch
    import torch.distributed as dist

    fresh = torch.tensor(sorted(rows), device=world.device)
    weights = {id(weight): weight for weight in _vocabulary(model)}
    with torch.no_grad():
        for weight in weights.values():
            own, start = _own_rows(weight)
            here = torch.arange(start, start + own.shape[0], device=world.device)
            given = ~torch.isin(here, fresh)
            learned = given & (here < known)
            summed = torch.cat([own[learned].double().sum(0), learned.sum().double()[None]])
            if hasattr(weight, "to_local"):
                dist.all_reduce(summed)
            own[~given] = (summed[:-1] / summed[-1]).to(own.dtype)


def gather_full_state(
    model: Any, world: World, *, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights by name, one after the other, whole and on the CPU on the first rank; elsewhere an empty tensor stands
    in. All ranks have to go through it. Tied weights come once."""
    import torch

    for name, weight in model.named_parameters():
        found = weight.detach() if dtype is None else weight.detach().to(dtype)
        whole = found.full_tensor() if hasattr(found, "full_tensor") else found
        yield name, whole.cpu() if world.first else torch.empty(0)


def save_weights(model: Any, folder: Path, world: World, *, dtype: torch.dtype, file_bytes: int = FILE_BYTES) -> None:
    """The safetensors of a model folder, with their index where there are several; memory for one file at a time."""
    from safetensors.torch import save_file

    sizes = {name: weight.numel() * dtype.itemsize for name, weight in model.named_parameters()}
    groups = _grouped(sizes, file_bytes)
    names = [f"model-{place + 1:05d}-of-{len(groups):05d}.safetensors" for place in range(len(groups))]
    if len(groups) == 1:
        names = [SINGLE]
    state = gather_full_state(model, world, dtype=dtype)
    for file, group in zip(names, groups, strict=True):
        tensors = dict(next(state) for _ in group)
        if world.first:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file, {"format": "pt"})
    if world.first and len(groups) > 1:
        where = {name: file for file, group in zip(names, groups, strict=True) for name in group}
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    world.barrier()


def _vocabulary(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


def _own_rows(weight: Any) -> tuple[torch.Tensor, int]:
    """This rank's rows of a weight, and the number of the first; FSDP2 deals rows out in order, in equal parts but for
    the last ones (torch.chunk)."""
    if not hasattr(weight, "to_local"):
        return weight, 0
    mesh, rows = weight.device_mesh, weight.shape[0]
    part = -(-rows // mesh.size())
    start = min(mesh.get_local_rank() * part, rows)
    own = weight.to_local()
    assert own.shape[0] == min(part, rows - start), "rows are spread in another way"
    return own, start


def _places(folder: Path) -> dict[str, Path]:
    """Name of a weight → its file."""
    from safetensors import safe_open

    if (folder / INDEX).is_file():
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in found.items()}
    if not (folder / SINGLE).is_file():
        raise _wrong(folder, f"there is no {SINGLE} and no {INDEX}")
    with safe_open(folder / SINGLE, framework="pt") as file:
        return dict.fromkeys(file.keys(), folder / SINGLE)


def _grouped(sizes: dict[str, int], file_bytes: int) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    room = file_bytes
    for name, size in sizes.items():
        if groups[-1] and size > room:
            groups.append([])
            room = file_bytes
        groups[-1].append(name)
        room -= size
    return groups


def _wrong(folder: Path, given: str) -> SpecError:
    return SpecError(
        "the weights of the student's base cannot be used",
        given=f"{folder}: {given}",
        todo="download it again, or name the right folder with --set student_overrides.base=FOLDER",
    )
