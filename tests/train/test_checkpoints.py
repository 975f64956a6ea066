"""Checkpoints: whole or not there, the newest of the right job found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model

from distill.errors import DiskFullError, TrainingError
from distill.train import checkpoints
from distill.train.checkpoints import Position, load, newest, save
from train.material import model


def optimizer(student: Any) -> torch.optim.Optimizer:
    found = torch.optim.AdamW(student.parameters(), lr=0.1)
    for parameter in student.parameters():
        parameter.grad = torch.ones_like(parameter)
    found.step()
    return found


def test_weights_and_optimizer_come_back(tmp_path: Path) -> None:
    student = model()
    state = optimizer(student)
    path = save(tmp_path, Position(7, "job", 1.5), student, state, keep=2)
    assert path.name == "step-00000007"
    other = model(seed=1)
    other_state = torch.optim.AdamW(other.parameters(), lr=0.3)
    load(path, other, other_state)
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    first, second = state.state_dict()["state"], other_state.state_dict()["state"]
    assert all(torch.equal(first[n]["exp_avg"], second[n]["exp_avg"]) for n in first)
    assert newest(tmp_path, "job") == (path, Position(7, "job", 1.5))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    student = model()
    state = optimizer(student)
    for step in (1, 2, 30, 4):
        save(tmp_path, Position(step, "job", 0.0), student, state, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000030"]


def test_the_newest_of_the_right_job_counts(tmp_path: Path) -> None:
    student = model()
    state = optimizer(student)
    for step, name in ((1, "mine"), (2, "mine"), (3, "another")):
        save(tmp_path, Position(step, name, 0.0), student, state, keep=9)
    found = newest(tmp_path, "mine")
    assert found is not None
    assert found[1].step == 2
    assert newest(tmp_path, "third") is None
    assert newest(tmp_path / "nowhere", "mine") is None


def test_what_was_cut_short_is_no_checkpoint(tmp_path: Path) -> None:
    student = model()
    save(tmp_path, Position(1, "job", 0.0), student, optimizer(student), keep=2)
    half = tmp_path / ".step-00000002.99.tmp"
    half.mkdir()
    (half / "position.json").write_text('{"step": 2, "job": "job", "seconds": 0.0}')
    (tmp_path / "step-00000003").mkdir()
    found = newest(tmp_path, "job")
    assert found is not None
    assert found[1].step == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 2}', '{"step": 2, "job": "job", "seconds": 0, "more": 1}'])
def test_a_position_that_cannot_be_read_is_passed_over(tmp_path: Path, text: str) -> None:
    student = model()
    for step in (1, 2):
        save(tmp_path, Position(step, "job", 0.0), student, optimizer(student), keep=2)
    (tmp_path / "step-00000002" / "position.json").write_text(text)
    found = newest(tmp_path, "job")
    assert found is not None
    assert found[1].step == 1


@pytest.mark.parametrize("damage", ["another size", "model.safetensors", "optimizer.pt", "missing"])
def test_one_that_cannot_be_loaded_says_which(tmp_path: Path, damage: str) -> None:
    student = model()
    path = save(tmp_path, Position(1, "job", 0.0), student, optimizer(student), keep=2)
    if damage == "another size":
        student = tiny_model("qwen2", hidden_size=16)
    elif damage == "missing":
        (path / "optimizer.pt").unlink()
    else:
        (path / damage).write_bytes((path / damage).read_bytes()[:100])
    with pytest.raises(TrainingError, match="a checkpoint cannot be loaded") as caught:
        load(path, student, torch.optim.AdamW(student.parameters()))
    assert str(path) in str(caught.value)


def test_all_of_them_go_at_the_end(tmp_path: Path) -> None:
    student = model()
    save(tmp_path / "c", Position(1, "job", 0.0), student, optimizer(student), keep=2)
    checkpoints.remove_all(tmp_path / "c")
    checkpoints.remove_all(tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("taken", [0, 250_000])
def test_a_full_disk_is_named_and_leaves_the_earlier_checkpoint(tiny_disk: Path, taken: int) -> None:
    """The disk fills in the middle of the optimizer's state (torch) or of the weights (safetensors)."""
    student = model()
    state = optimizer(student)
    earlier = tiny_disk / "step-00000001"
    earlier.mkdir()
    (earlier / "position.json").write_text('{"step": 1, "job": "job", "seconds": 0}')
    (tiny_disk / "ballast").write_bytes(b"0" * taken)
    with pytest.raises(DiskFullError, match="the disk is full"):
        save(tiny_disk, Position(2, "job", 0.0), student, state, keep=1)
    assert [path.name for path in tiny_disk.iterdir() if path.is_dir()] == ["step-00000001"]
