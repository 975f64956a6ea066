"""What stops a training: each guard broken on purpose, and left alone where nothing is wrong."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distill.errors import DiskFullError, TrainingError
from distill.train import guards
from distill.train.guards import LossGuard, bytes_needed, check_disk

TRACES = ["a" * 64, "b" * 64, "c" * 64]


def after(losses: list[float], max_jump: float | None = 1.0) -> LossGuard:
    guard = LossGuard(max_jump)
    for step, loss in enumerate(losses, start=1):
        guard.check(step, loss, 1.0, TRACES)
    return guard


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
@pytest.mark.parametrize("max_jump", [1.0, None])
def test_what_is_no_number_stops_at_the_first_step_already(loss: float, norm: float, max_jump: float | None) -> None:
    with pytest.raises(TrainingError, match="the loss is not a number at step 1") as caught:
        LossGuard(max_jump).check(1, loss, norm, TRACES)
    assert caught.value.given == "traces aaaaaaaaaaaa, bbbbbbbbbbbb, cccccccccccc"
    assert "learning_rate" in str(caught.value.todo)


def test_a_jump_names_step_loss_median_traces_and_what_to_do() -> None:
    guard = after([2.0] * 20)
    with pytest.raises(TrainingError) as caught:
        guard.check(21, 3.5, 1.0, TRACES, [1.0, 7.25, 2.25])
    assert (
        caught.value.what == "the loss jumps to 3.500 at step 21, 1.500 above the median 2.000 of the 20 steps before"
    )
    assert caught.value.given == "traces bbbbbbbbbbbb (7.250), cccccccccccc (2.250), aaaaaaaaaaaa (1.000)"
    for word in ("distill show", "filter.keep", "learning_rate", "max_loss_jump: null"):
        assert word in str(caught.value.todo)


def test_a_trace_without_a_number_is_named_first() -> None:
    with pytest.raises(TrainingError) as caught:
        LossGuard(1.0).check(1, math.nan, 1.0, TRACES, [9.0, math.nan, 10.0])
    assert caught.value.given == "traces bbbbbbbbbbbb (nan), cccccccccccc (10.000), aaaaaaaaaaaa (9.000)"


def test_at_most_eight_traces_are_named() -> None:
    with pytest.raises(TrainingError) as caught:
        LossGuard(1.0).check(1, math.nan, 1.0, [f"{n:064d}" for n in range(64)], [float(n) for n in range(64)])
    assert str(caught.value.given).count("(") == 8


@pytest.mark.parametrize(("steps", "stops"), [(19, False), (20, True)])
def test_nothing_is_compared_before_there_are_twenty_steps(steps: int, stops: bool) -> None:
    guard = after([2.0] * steps)
    if stops:
        with pytest.raises(TrainingError, match="jumps"):
            guard.check(steps + 1, 9.0, 1.0, TRACES)
    else:
        guard.check(steps + 1, 9.0, 1.0, TRACES)


@pytest.mark.parametrize(("loss", "stops"), [(3.0, False), (3.001, True)])
def test_the_jump_counts_from_the_median(loss: float, stops: bool) -> None:
    guard = after([2.0] * 30)
    if stops:
        with pytest.raises(TrainingError, match="above the median"):
            guard.check(31, loss, 1.0, TRACES)
    else:
        guard.check(31, loss, 1.0, TRACES)


def test_a_training_that_learns_and_wavers_is_left_alone() -> None:
    """A loss that falls from 3 to 0.4 over 500 steps, with batches that differ by 0.3 (one in twenty by 0.8)."""
    rng = random.Random(0)
    level = [0.4 + 2.6 * math.exp(-step / 80) for step in range(500)]
    after([max(0.0, base + rng.gauss(0, 0.3 if rng.random() < 0.95 else 0.4)) for base in level])


def test_the_median_follows_the_last_hundred_steps_alone() -> None:
    """After the fall what would have been nothing in the beginning is a jump."""
    guard = after([5.0] * 200 + [1.0] * 100)
    with pytest.raises(TrainingError, match=r"median 1.000 of the 100 steps"):
        guard.check(301, 3.0, 1.0, TRACES)


def test_one_spike_that_was_let_through_does_not_raise_the_level() -> None:
    """A mean of 25 losses with one of 60 among them would be 4.3 and let 4 pass."""
    state = after([2.0] * 24, None)
    state.check(25, 60.0, 1.0, TRACES)
    guard = LossGuard.from_json(state.to_json(), 1.0)
    with pytest.raises(TrainingError, match=r"median 2\.000"):
        guard.check(26, 4.0, 1.0, TRACES)


def test_null_lets_jumps_pass() -> None:
    guard = after([2.0] * 50, None)
    guard.check(51, 100.0, 1.0, TRACES)


def test_a_loss_that_stopped_the_training_is_not_remembered() -> None:
    guard = after([2.0] * 20)
    before = guard.to_json()
    with pytest.raises(TrainingError):
        guard.check(21, 9.0, 1.0, TRACES)
    with pytest.raises(TrainingError):
        guard.check(21, math.nan, 1.0, TRACES)
    assert guard.to_json() == before


def test_a_resumed_training_stops_where_an_unstopped_one_does() -> None:
    rng = random.Random(1)
    losses = [2 + rng.random() for _ in range(130)]
    whole = after(losses)
    first = after(losses[:57])
    resumed = LossGuard.from_json(json.loads(json.dumps(first.to_json())), 1.0)
    for step, loss in enumerate(losses[57:], start=58):
        resumed.check(step, loss, 1.0, TRACES)
    assert resumed.to_json() == whole.to_json()
    assert len(resumed.to_json()["losses"]) == 100
    told = []
    for guard in (whole, resumed):
        with pytest.raises(TrainingError) as caught:
            guard.check(131, 9.0, 1.0, TRACES)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_a_resumed_training_that_forgot_would_let_a_jump_pass() -> None:
    """What the state is for: without it there are twenty steps after every start in which anything goes."""
    guard = LossGuard.from_json(after([2.0] * 40).to_json(), 1.0)
    with pytest.raises(TrainingError, match="jumps"):
        guard.check(41, 4.0, 1.0, TRACES)


# --- the disk --------------------------------------------------------------------------------------------------------


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> list[Path]:
    asked: list[Path] = []

    def usage(path: Any) -> Usage:
        asked.append(Path(path))
        assert Path(path).exists(), "the real one cannot be asked about a folder that is not there"
        return Usage(10 * free, 9 * free, free)

    monkeypatch.setattr(guards.shutil, "disk_usage", usage)
    return asked


def test_too_little_space_names_what_is_needed_and_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = with_free(monkeypatch, 17_940_000_000)
    with pytest.raises(DiskFullError) as caught:
        check_disk(tmp_path / "run" / "checkpoints", 20_000_000_000, "training")
    assert caught.value.what == "the disk has too little space for training: 20.0 GB are needed, 17.9 GB are free"
    assert "keep_checkpoints" in str(caught.value.todo)
    assert "--out" in str(caught.value.todo)
    assert asked == [tmp_path]
    check_disk(tmp_path / "run", 17_940_000_000, "training")
    with pytest.raises(DiskFullError):
        check_disk(tmp_path / "run", 17_940_000_001, "training")


def test_a_real_disk_that_is_too_small(tiny_disk: Path) -> None:
    check_disk(tiny_disk / "run", 100_000, "training")
    with pytest.raises(DiskFullError, match=r"for training: 0\.3 MB are needed"):
        check_disk(tiny_disk / "run", 300_000, "training")


def test_the_bytes_of_a_full_training() -> None:
    """Two checkpoints kept and a third being written, each 3 × 4 bytes a weight; two students of 2 bytes a weight."""
    assert bytes_needed(1_000_000_000, 1_000_000_000, "mixed", 2) == 3 * 12_000_000_000 + 4_000_000_000 + 40_000_000
    assert bytes_needed(10**9, 10**9, "fp32", 2) == bytes_needed(10**9, 10**9, "mixed", 2)
    assert bytes_needed(10**9, 10**9, "bf16", 2) == 3 * 6_000_000_000 + 4_000_000_000 + 40_000_000
    averaged = bytes_needed(10**9, 10**9, "mixed", 1, 4)
    assert averaged == 2 * 12_000_000_000 + 4 * 4_000_000_000 + 4_000_000_000 + 40_000_000
    assert bytes_needed(10**9, 10**7, "mixed", 2) == 3 * 120_000_000 + 4_000_000_000 + 40_000_000


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_lies_on_the_disk_is_what_was_predicted(tmp_path: Path, precision: Any) -> None:
    """The real loop with its real checkpoints, and a student written beside them."""
    import torch
    from conftest import tiny_model

    from distill.train.student import save_student
    from train.material import CONTRACT, PLAIN, job, loop_on, tokenizer

    student = tiny_model("qwen2", hidden_size=160, intermediate_size=320)  # of a tensor's 1 KB of header little is left
    if precision == "bf16":
        student.to(torch.bfloat16)
    settings = PLAIN.model_copy(update={"checkpoint_steps": 1, "precision": precision})
    loop_on(student, job(tmp_path / "checkpoints", settings=settings)).run()
    for name in ("untrained", "student"):
        save_student(student, tokenizer(), CONTRACT, tmp_path / name, facts={})
    count = student.num_parameters()
    predicted = bytes_needed(count, count, precision, 2) - guards.OTHER_BYTES
    one = 3 * count * (2 if precision == "bf16" else 4)  # written and gone again by now
    weights = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.suffix in (".safetensors", ".distcp"))
    assert weights == pytest.approx(predicted - one, rel=0.1)
