"""Checkpoints: whole or not there, the newest of the right job found again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_model

from distill.errors import DiskFullError, TrainingError
from distill.train import checkpoints
from distill.train.checkpoints import Position, load, newest, save
from train import many, ranks
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


def test_the_newest_of_the_right_job_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = model()
    state = optimizer(student)
    for step, name in ((1, "mine"), (2, "mine"), (3, "another")):
        save(tmp_path, Position(step, name, 0.0), student, state, keep=9)
    found = newest(tmp_path, "mine")
    assert found is not None
    assert found[1].step == 2
    assert "step-00000003 is of another training and is not used" in capsys.readouterr().err
    assert newest(tmp_path, "third") is None
    assert newest(tmp_path / "nowhere", "mine") is None


def test_what_was_cut_short_is_no_checkpoint(tmp_path: Path) -> None:
    student = model()
    save(tmp_path, Position(1, "job", 0.0), student, optimizer(student), keep=2)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002.99.tmp")
    (tmp_path / "step-00000003").mkdir()
    found = newest(tmp_path, "job")
    assert found is not None
    assert found[1].step == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"step": 2}',
        '{"step": 2, "job": "job", "seconds": 0, "files": {}, "more": 1}',
        '{"step": 2, "job": "job", "seconds": 0, "files": {"lost": 1}}',
        '{"step": 2, "job": "job", "seconds": 0}',
    ],
)
def test_a_position_that_cannot_be_read_is_passed_over(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    student = model()
    for step in (1, 2):
        save(tmp_path, Position(step, "job", 0.0), student, optimizer(student), keep=2)
    (tmp_path / "step-00000002" / "position.json").write_text(text)
    found = newest(tmp_path, "job")
    assert found is not None
    assert found[1].step == 1
    assert "step-00000002 is damaged and is passed over" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata"])
@pytest.mark.parametrize("damage", ["short", "gone"])
def test_one_with_a_damaged_file_is_passed_over(tmp_path: Path, file: str, damage: str) -> None:
    student = model()
    for step in (1, 2):
        path = save(tmp_path, Position(step, "job", 0.0), student, optimizer(student), keep=2)
    if damage == "gone":
        (path / file).unlink()
    else:
        (path / file).write_bytes((path / file).read_bytes()[:-1])
    found = newest(tmp_path, "job")
    assert found is not None
    assert found[1].step == 1


ALIEN = {
    "another size": {"hidden_size": 16},
    "fewer layers": {"num_hidden_layers": 1},
    "more layers": {"num_hidden_layers": 3},
}


@pytest.mark.parametrize("damage", [*ALIEN, "__0_0.distcp", ".metadata", "missing"])
def test_one_that_cannot_be_loaded_says_which(tmp_path: Path, damage: str) -> None:
    student = model()
    path = save(tmp_path, Position(1, "job", 0.0), student, optimizer(student), keep=2)
    if damage in ALIEN:
        student = tiny_model("qwen2", **ALIEN[damage])
    elif damage == "missing":
        (path / "__0_0.distcp").unlink()
    else:
        (path / damage).write_bytes((path / damage).read_bytes()[:100])
    with pytest.raises(TrainingError, match="a checkpoint cannot be loaded") as caught:
        load(path, student, torch.optim.AdamW(student.parameters()))
    assert str(path) in str(caught.value)


def test_only_what_is_trained_is_saved(tmp_path: Path) -> None:
    student = model()
    for name, weight in student.named_parameters():
        weight.requires_grad = "q_proj" in name
    trained = [weight for weight in student.parameters() if weight.requires_grad]
    state = torch.optim.AdamW(trained, lr=0.1)
    for weight in trained:
        weight.grad = torch.ones_like(weight)
    state.step()
    path = save(tmp_path, Position(1, "job", 0.0), student, state, keep=2)
    size = sum(file.stat().st_size for file in path.iterdir())
    assert size < sum(weight.nbytes for weight in student.parameters()) / 2
    other = model(seed=1)
    before = {name: weight.clone() for name, weight in other.named_parameters()}
    for name, weight in other.named_parameters():
        weight.requires_grad = "q_proj" in name
    load(path, other, torch.optim.AdamW([weight for weight in other.parameters() if weight.requires_grad]))
    for name, weight in other.named_parameters():
        expected = student.get_parameter(name) if "q_proj" in name else before[name]
        assert torch.equal(weight, expected), name


def test_more_state_comes_back(tmp_path: Path) -> None:
    student = model()
    position = Position(3, "job", 1.5, {"losses": [1.0, 2.5], "phase": "long"})
    path = save(tmp_path, position, student, optimizer(student), keep=2)
    assert newest(tmp_path, "job") == (path, position)
    assert json.loads((path / "position.json").read_text())["state"]["phase"] == "long"


def test_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The next step after a reload equals the next step without it, moments and step count included."""

    def step(student: Any, state: torch.optim.Optimizer) -> None:
        for number, weight in enumerate(student.parameters()):
            weight.grad = torch.full_like(weight, 0.1 * (number + 1)).cos()
        state.step()

    student = model()
    state = torch.optim.AdamW(student.parameters(), lr=0.01, fused=True)
    step(student, state)
    path = save(tmp_path, Position(1, "job", 0.0), student, state, keep=1)
    step(student, state)
    other = model(seed=1)
    other_state = torch.optim.AdamW(other.parameters(), lr=0.01, fused=True)
    load(path, other, other_state)
    step(other, other_state)
    for name, weight in student.named_parameters():
        assert torch.equal(weight, other.get_parameter(name)), name


@pytest.mark.slow
def test_another_number_of_ranks_goes_on(tmp_path: Path) -> None:
    """Saved by 1, 2 and 4 ranks; loaded by 1 (from 2 and 4), 2 (from 1) and 4 (from 1 and 2)."""
    one, two, four = (tmp_path / name for name in ("one", "two", "four"))
    many.saved_and_reloaded(one, [])
    by_two = ranks.run(2, many.saved_and_reloaded, two, [one])
    by_four = ranks.run(4, many.saved_and_reloaded, four, [one, two])
    by_one = many.saved_and_reloaded(tmp_path / "again", [two, four])
    assert len(list(two.glob("step-00000001/*.distcp"))) == 2
    assert len(list(four.glob("step-00000001/*.distcp"))) == 4
    whole = many.trained([dataclasses.replace(many.GOING_ON, steps=2)])[0]
    for rank in (*by_two, *by_four, by_one):
        for told in rank:
            assert told["losses"][0] == pytest.approx(whole["losses"][1], rel=1e-5)
            for name, values in whole["weights"].items():
                np.testing.assert_allclose(told["weights"][name], values, atol=1e-5, err_msg=name)


def test_all_of_them_go_at_the_end(tmp_path: Path) -> None:
    student = model()
    save(tmp_path / "c", Position(1, "job", 0.0), student, optimizer(student), keep=2)
    checkpoints.remove_all(tmp_path / "c")
    checkpoints.remove_all(tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("taken", [0, 250_000])
def test_a_full_disk_is_named_and_leaves_the_earlier_checkpoint(tiny_disk: Path, taken: int) -> None:
    """The disk fills in the middle, or at once."""
    student = model()
    state = optimizer(student)
    earlier = tiny_disk / "step-00000001"
    earlier.mkdir()
    (earlier / "position.json").write_text('{"step": 1, "job": "job", "seconds": 0, "files": {}}')
    (tiny_disk / "ballast").write_bytes(b"0" * taken)
    with pytest.raises(DiskFullError, match="the disk is full"):
        save(tiny_disk, Position(2, "job", 0.0), student, state, keep=1)
    assert [path.name for path in tiny_disk.iterdir() if path.is_dir()] == ["step-00000001"]
