"""torchrun as a child: real processes that work, fail, die and are stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distill.errors import DONE, GATE, INTERRUPTED, TrainingError, UsageError
from distill.train.launch import Placement, command, node_commands, start
from train import launched

WORKER = "train.launched"
TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker lies among the tests."""
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def asked(run: Path, **do: str) -> Path:
    run.mkdir(exist_ok=True)
    (run / "do").write_text(json.dumps({name.removeprefix("rank"): what for name, what in do.items()}))
    return run


@pytest.mark.parametrize("placement", [Placement(8), Placement(2, 4, 3, "node0:1234"), Placement(1, 1, 0)])
def test_torchrun_takes_the_command(tmp_path: Path, placement: Placement) -> None:
    from torch.distributed.run import get_args_parser

    line = command(tmp_path / "a run", placement, tmp_path / "logs")
    assert line[:3] == [sys.executable, "-m", "torch.distributed.run"]
    taken = get_args_parser().parse_args(line[3:])
    assert taken.nproc_per_node == str(placement.gpus)
    assert taken.nnodes == str(placement.nodes)
    assert taken.node_rank == (placement.node_rank or 0)
    assert (taken.module, taken.training_script) == (True, "distill.train.rank")
    assert taken.training_script_args == ["distill.train.worker", str(tmp_path / "a run")]
    assert taken.master_addr == ("node0" if placement.master else "127.0.0.1")
    if placement.master:
        assert taken.master_port == 1234


def test_the_ranks_work_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = asked(tmp_path / "run")
    assert start(run, Placement(2), worker=WORKER) == DONE
    assert launched.told(run) == [["3.0", "2", "cpu"], ["3.0", "2", "cpu"]]
    said = capfd.readouterr().err
    assert "no GPU here; 2 processes share" in said
    assert "rank 0 speaks" in said
    assert "rank 1 speaks" not in said
    logs = {path.parent.name: path.read_text() for path in run.glob("logs/train-node-0/*/attempt_0/*/stderr.log")}
    assert {rank: "speaks" in text for rank, text in logs.items()} == {"0": True, "1": True}


FAILURES = {
    "fail": ("the loss is not a number", "stay"),
    "crash": ("RuntimeError: something broke", "stay"),
    "die": ("killed, perhaps for memory", "hang"),
}
"""What rank 1 does → what is told of it, and what rank 0 does meanwhile: torchrun gives one that hangs 30 seconds."""


@pytest.mark.parametrize(
    "how", ["fail", pytest.param("die", marks=pytest.mark.rehearse), pytest.param("crash", marks=pytest.mark.slow)]
)
def test_the_first_rank_that_failed_is_told(tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The other one hangs, as in a collective whose partner is gone, and is ended, without mercy if it has to be."""
    expected, meanwhile = FAILURES[how]
    run = asked(tmp_path / "run", rank0=meanwhile, rank1=how)
    with pytest.raises(TrainingError, match="rank 1 failed") as caught:
        start(run, Placement(2), worker=WORKER, grace=2)
    assert expected in str(caught.value)
    assert "rank 1 speaks" in str(caught.value)
    assert "ChildFailedError" not in capfd.readouterr().err


@pytest.mark.slow
def test_other_exit_codes_are_passed_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = asked(tmp_path / "run", rank0="gate", rank1="gate")
    assert start(run, Placement(2), worker=WORKER, grace=2) == GATE
    assert "a gate did not pass" in capfd.readouterr().err


def started(run: Path, grace: int) -> subprocess.Popen[Any]:
    """A launcher of its own, to be sent signals, once both ranks are at work."""
    code = (
        "import sys; from pathlib import Path; from distill.train.launch import *\n"
        f"sys.exit(start(Path({str(run)!r}), Placement(2), worker={WORKER!r}, grace={grace}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(launched.told(run)) < 2 or not all(launched.told(run)):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.1)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_ranks_save_when_the_cluster_stops_them(tmp_path: Path, number: signal.Signals) -> None:
    run = asked(tmp_path / "run", rank0="wait", rank1="wait")
    process = started(run, 30)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, said
    assert {path.name for path in run.glob("saved-*")} == {"saved-0", "saved-1"}
    assert "the ranks save and end" in said


@pytest.mark.rehearse  # the tests above and below show most of it
def test_ranks_save_when_every_process_gets_the_signal(tmp_path: Path) -> None:
    """As a cluster does that sends it to all of a job."""
    run = asked(tmp_path / "run", rank0="wait", rank1="wait")
    process = started(run, 30)
    everyone, found = [process.pid], [process.pid]
    while found:
        tasks = [Path(f"/proc/{pid}/task/{pid}/children") for pid in found]
        found = [int(pid) for task in tasks for pid in task.read_text().split()]
        everyone += found
    assert len(everyone) >= 4
    for pid in everyone:
        os.kill(pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, said
    assert {path.name for path in run.glob("saved-*")} == {"saved-0", "saved-1"}


@pytest.mark.slow
def test_a_second_signal_leaves_nothing_behind(tmp_path: Path) -> None:
    run = asked(tmp_path / "run", rank0="hang", rank1="hang")
    process = started(run, 300)
    pids = [json.loads(path.read_text())["pid"] for path in run.glob("logs/train-node-0/rank-*.json")]
    assert len(pids) == 2
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    until = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    """A zombie that nobody has waited for is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_several_nodes_are_told_what_to_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert start(tmp_path / "my run", Placement(8, 4), worker=WORKER) == DONE
    said = capfd.readouterr().err
    line = f"distill train '{tmp_path / 'my run'}' --gpus 8 --nodes 4 --node-rank 2 --master FIRST_HOST:29500"
    assert line in said
    assert node_commands(tmp_path, Placement(8, 2, master="a:1"))[1].endswith("--node-rank 1 --master a:1")
    assert not (tmp_path / "my run").exists()


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        (Placement(0), "at least 1"),
        (Placement(2, 2, 2, "a:1"), "no such node"),
        (Placement(2, 2, 0), "need the first one's address"),
        (Placement(2, 2, 0, "node0"), "--master is HOST:PORT"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, placement: Placement, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        start(tmp_path, placement, worker=WORKER)


def test_more_gpus_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="fewer GPUs") as caught:
        start(tmp_path, Placement(8), worker=WORKER)
    assert "--gpus 8, found 2" in str(caught.value)
