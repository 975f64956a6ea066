"""The mean of the last weights: what one would compute by hand, also after an interruption, and never of less."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from conftest import tiny_model

from distill.errors import DiskFullError, TrainingError
from distill.train import averaging
from distill.train.averaging import Averager, average_steps
from train.material import model

STEPS = (3, 5, 7)


def moved(student: Any, seed: int) -> Any:
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=drawn).to(parameter.dtype))
    return student


def weights(student: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in student.named_parameters()}


def snapshots(folder: Path, student: Any) -> list[dict[str, torch.Tensor]]:
    """One after each of STEPS and none at other steps; returns what was trained at those."""
    averager, found = Averager(folder, STEPS), []
    for step in range(1, 8):
        averager.add(step, moved(student, step))
        if step in STEPS:
            found.append(weights(student))
    return found


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [
        (100, 4, (81, 88, 94, 100)),
        (100, 1, ()),
        (10, 2, (9, 10)),
        (3, 4, (2, 3)),
        (1, 4, (1,)),
        (1_000, 2, (875, 1_000)),
    ],
)
def test_snapshots_are_evenly_spaced_over_the_last_quarter(steps: int, count: int, expected: tuple[int, ...]) -> None:
    assert average_steps(steps, count) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("part_bytes", [1, 50_000, 2**31])
def test_it_is_the_mean_by_hand(
    tmp_path: Path, dtype: torch.dtype, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(averaging, "PART_BYTES", part_bytes)
    student = model().to(dtype)
    taken = snapshots(tmp_path, student)
    result = dict(Averager(tmp_path, STEPS).result())
    assert result.keys() == taken[0].keys()
    for name, mean in result.items():
        by_hand = torch.stack([one[name].double() for one in taken]).mean(0)
        assert mean.dtype == torch.float32
        assert torch.allclose(mean.double(), by_hand, atol=1e-6), name
    Averager(tmp_path, STEPS).put_mean(student)
    for name, parameter in student.named_parameters():
        assert torch.equal(parameter, result[name].to(dtype)), name


def test_tied_weights_are_kept_once_and_stay_tied(tmp_path: Path) -> None:
    student = tiny_model("qwen2", tie_word_embeddings=True)
    taken = snapshots(tmp_path, student)
    assert "lm_head.weight" not in taken[0]
    Averager(tmp_path, STEPS).put_mean(student)
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    by_hand = torch.stack([one["model.embed_tokens.weight"] for one in taken]).mean(0)
    assert torch.allclose(student.get_input_embeddings().weight, by_hand, atol=1e-6)


def test_only_what_is_trained_is_kept(tmp_path: Path) -> None:
    student = model()
    student.get_input_embeddings().requires_grad_(False)
    frozen = student.get_input_embeddings().weight.clone()
    averager = Averager(tmp_path, (1, 2))
    for step in (1, 2):
        averager.add(step, student)
    assert "model.embed_tokens.weight" not in dict(averager.result())
    averager.put_mean(student)
    assert torch.equal(student.get_input_embeddings().weight, frozen)


def test_an_interrupted_training_goes_on_with_what_was_kept(tmp_path: Path) -> None:
    """Killed after step 6 and resumed at step 4: the snapshot after step 5 is taken again."""
    student = model()
    first = Averager(tmp_path, STEPS)
    checkpoint: Any = None
    for step in range(1, 7):
        first.add(step, moved(student, step))
        if step == 3:
            early = weights(student)
        if step == 4:
            checkpoint = copy.deepcopy(student)
    resumed, late = Averager(tmp_path, STEPS), []
    for step in range(5, 8):
        resumed.add(step, moved(checkpoint, step + 100))  # other weights than in the first attempt
        if step in STEPS:
            late.append(weights(checkpoint))
    for name, mean in resumed.result():
        by_hand = torch.stack([one[name] for one in (early, *late)]).mean(0)
        assert torch.allclose(mean, by_hand, atol=1e-6), name


def test_a_writer_that_was_killed_leaves_no_half_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(averaging, "PART_BYTES", 1)
    student, averager = model(), Averager(tmp_path, (1, 2))
    averager.add(1, student)
    written = averaging._write

    def killed(file: Path, part: Any) -> str:
        if file.name == "part-00003.safetensors":
            raise KeyboardInterrupt
        return written(file, part)

    monkeypatch.setattr(averaging, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        averager.add(2, student)
    with pytest.raises(TrainingError, match="step-00000002"):
        list(averager.result())


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def _remove(file: Path) -> None:
    file.unlink()


def _index(file: Path) -> None:
    (file.parent / "index.json").write_text("[")


@pytest.mark.parametrize("damage", [_truncate, _flip, _remove, _index])
def test_a_damaged_snapshot_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    student = model()
    snapshots(tmp_path, student)
    before = weights(student)
    damage(tmp_path / "step-00000005" / "part-00000.safetensors")
    with pytest.raises(TrainingError, match="missing or damaged") as caught:
        Averager(tmp_path, STEPS).put_mean(student)
    assert "step-00000005" in str(caught.value)
    assert all(torch.equal(tensor, weights(student)[name]) for name, tensor in before.items()), "untouched"


def test_a_missing_snapshot_is_named_and_none_is_no_mean(tmp_path: Path) -> None:
    student = model()
    averager = Averager(tmp_path, (1, 2))
    averager.add(1, student)
    with pytest.raises(TrainingError, match="step-00000002"):
        averager.put_mean(student)
    with pytest.raises(TrainingError, match="no snapshots are asked for"):
        Averager(tmp_path, ()).put_mean(student)


def test_snapshots_of_another_student_are_refused(tmp_path: Path) -> None:
    averager = Averager(tmp_path, (1,))
    averager.add(1, model())
    with pytest.raises(TrainingError, match="is not a weight of this student"):
        averager.put_mean(tiny_model("qwen2", hidden_size=16))
    index = tmp_path / "step-00000001" / "index.json"
    index.write_text(json.dumps({}))
    with pytest.raises(TrainingError, match=r"nothing for model\.embed_tokens"):
        averager.put_mean(model())


def test_a_full_disk_is_named(tiny_disk: Path) -> None:
    averager = Averager(tiny_disk, (1,))
    with pytest.raises(DiskFullError):
        averager.add(1, model().double())
    assert not any(path.name.startswith("step-") for path in tiny_disk.iterdir())


def test_it_is_gone_when_cleared(tmp_path: Path) -> None:
    averager = Averager(tmp_path / "average", (1,))
    averager.add(1, model())
    averager.clear()
    averager.clear()
    assert not (tmp_path / "average").exists()


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_sharded_weights_are_kept_whole_and_come_back_sharded(tmp_path: Path) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    student = model()
    taken = snapshots(tmp_path, student)
    fully_shard(student)
    Averager(tmp_path, STEPS).put_mean(student)
    for name, parameter in student.named_parameters():
        assert isinstance(parameter, DTensor)
        assert torch.allclose(parameter.full_tensor(), torch.stack([one[name] for one in taken]).mean(0), atol=1e-6)
    again = Averager(tmp_path / "sharded", (1,))
    again.add(1, student)
    assert all(
        torch.equal(tensor, dict(student.named_parameters())[name].full_tensor()) for name, tensor in again.result()
    )


def test_one_process_of_many_writes(tmp_path: Path) -> None:
    other = Averager(tmp_path, (1,), first=False)
    other.add(1, model())
    other.clear()
    assert not any(tmp_path.iterdir())
