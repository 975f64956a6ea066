"""The all-reduces, really run by two processes on this machine: when all is well, and when something is broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from distill.probes import Told
from distill.serve import all_reduce, interconnect
from distill.serve.interconnect import all_reduce_command, all_reduce_found, all_reduce_told

WORKERS = 2


def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *replaced: tuple[str, str]) -> None:
    """A copy of the program with something wrong in it takes its place."""
    text = Path(all_reduce.__file__).read_text(encoding="utf-8")
    for old, new in replaced:
        assert old in text, old
        text = text.replace(old, new)
    path = tmp_path / "all_reduce.py"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(all_reduce, "__file__", str(path))


def started(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_sum_and_tell_how_fast() -> None:
    finding = all_reduce_found(sys.executable, "cpu", WORKERS)
    assert finding.state == "ok", finding
    assert finding.what.startswith("2 processes by gloo: the sums are right; 8 MiB at ")


@pytest.mark.slow
def test_a_wrong_sum_is_found_with_its_rank_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = "dist.all_reduce(summed)\n        summed[7] += float(rank == 1 and size == 65536)"
    broken(tmp_path, monkeypatch, ("dist.all_reduce(summed)", spoilt))
    finding = all_reduce_found(sys.executable, "cpu", WORKERS)
    assert (finding.state, finding.what) == ("missing", "the sum of 64 KiB is wrong at rank 1 of 2")


@pytest.mark.slow
def test_a_rank_that_never_comes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = 'if rank == 1:\n        time.sleep(60)\n    store.set(f"arrived/{rank}", "1")'
    broken(tmp_path, monkeypatch, ('store.set(f"arrived/{rank}", "1")', late))
    begun = time.monotonic()
    finding = all_reduce_found(sys.executable, "cpu", WORKERS, seconds=4)
    assert finding.what == "rank 1 of 2 (node 0) did not arrive within 4 s"
    assert finding.state == "missing"
    assert time.monotonic() - begun < 50, "the others did not wait for it"


@pytest.mark.rehearse  # minutes in all; the other tests here show most of it
def test_a_rank_that_stops_in_the_middle_gives_no_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 'store.set(f"begun/{size}/{rank}"'
    stopped = f"if rank == 1 and size == 8192:\n            os.kill(os.getpid(), 19)\n        {begun}"
    broken(tmp_path, monkeypatch, (begun, stopped))
    finding = all_reduce_found(sys.executable, "cpu", WORKERS, seconds=4)
    what = "rank 1 of 2 did not begin the sum of 8 KiB within 4 s; rank 1 gave no sign of life"
    assert (finding.state, finding.what) == ("missing", what)


@pytest.mark.slow
@pytest.mark.parametrize("dying", [1, 0])
def test_a_rank_that_dies_is_named_by_torchs_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dying: int
) -> None:
    begun = 'store.set(f"begun/{size}/{rank}"'
    broken(tmp_path, monkeypatch, (begun, f"if rank == {dying}:\n            os.kill(os.getpid(), 9)\n        {begun}"))
    finding = all_reduce_found(sys.executable, "cpu", WORKERS, seconds=20)
    assert (finding.state, finding.what) == ("missing", f"rank {dying} was ended by signal 9")


@pytest.mark.rehearse  # minutes in all; the other tests here show most of it
def test_a_rank_that_dies_on_another_node_is_named_by_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 'store.set(f"begun/{size}/{rank}"'
    dies = f"if rank == 1 and size == 8192:\n            os.kill(os.getpid(), 9)\n        {begun}"
    broken(tmp_path, monkeypatch, (begun, dies))
    port = interconnect.free_port()
    pair = [
        started(all_reduce_command(sys.executable, "cpu", 1, nodes=2, node=node, port=port, seconds=20))
        for node in (0, 1)
    ]
    (out, _), _ = [process.communicate(timeout=150) for process in pair]
    what = all_reduce_told(Told(out, "exit code 1")).what
    assert what.endswith("rank 1 gave no sign of life"), what


@pytest.mark.rehearse  # minutes in all; the other tests here show most of it
def test_two_nodes_meet_and_one_alone_says_which_is_not_there() -> None:
    port = interconnect.free_port()
    pair = [
        started(all_reduce_command(sys.executable, "cpu", 1, nodes=2, node=node, port=port, seconds=40))
        for node in (0, 1)
    ]
    told = [process.communicate(timeout=150) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], told
    report = json.loads(told[0][0].splitlines()[-1])
    assert report["ok"]
    assert report["world"] == 2
    assert [row["bytes"] for row in report["sizes"]] == list(all_reduce.SIZES["cpu"])
    assert all(row["seconds"] > 0 and row["algorithm"] == row["bytes"] / row["seconds"] for row in report["sizes"])
    assert told[1][0] == "", "only rank 0 speaks"
    alone = started(all_reduce_command(sys.executable, "cpu", 1, nodes=2, node=0, port=port, seconds=2))
    out, _ = alone.communicate(timeout=150)
    assert alone.returncode != 0
    assert all_reduce_told(Told(out, "failed")).what == "rank 1 of 2 (node 1) did not arrive within 2 s"
    lost = started(all_reduce_command(sys.executable, "cpu", 1, nodes=2, node=1, port=port, seconds=2))
    _, err = lost.communicate(timeout=150)
    assert lost.returncode != 0
    assert f"rank 1 does not reach rank 0 at 127.0.0.1:{port} within 2 s" in err


@pytest.mark.rehearse  # minutes in all; the other tests here show most of it
def test_nothing_outlives_a_launcher_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = ("STARTING_SECONDS = 120.0", "STARTING_SECONDS = 12.0")
    never = ('    store.set(f"arrived/{rank}", "1")', "    time.sleep(600)")
    broken(tmp_path, monkeypatch, shorter, never)
    launcher = started(all_reduce_command(sys.executable, "cpu", WORKERS, port=interconnect.free_port(), seconds=0.1))
    deadline = time.monotonic() + 60
    while len(children(launcher.pid)) < WORKERS and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = children(launcher.pid)
    assert len(workers) == WORKERS
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(alive(pid) for pid in workers)


def children(pid: int) -> list[int]:
    """The processes that the launcher started and that run our program."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"all_reduce.py" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (OSError, ValueError):
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_for_several_nodes_it_says_what_to_start_on_each() -> None:
    finding = all_reduce_found("/env/bin/python", "cuda", 8, nodes=2)
    assert finding.state == "note"
    assert len(finding.mend) == 2
    for node, command in enumerate(finding.mend):
        assert command.startswith("/env/bin/python -m torch.distributed.run --nnodes=1 --nproc-per-node=8 ")
        assert f" --device cuda --all-nodes 2 --this-node {node} --workers 8 " in command
        assert " --keeper ADDRESS-OF-NODE-0 --keeper-port 29531 --seconds 300" in command


@pytest.mark.parametrize(
    ("told", "what"),
    [
        (Told("", "no answer within 9 s"), "no answer within 9 s"),
        (Told("loading\n"), "rank 0 reported nothing"),
        (Told('{"ok": tr'), "rank 0 reported nothing"),
        (Told('{"ok": false, "what": "cold"}\n', "exit code 1"), "cold"),
        (Told('{"ok": true}', "exit code 1"), '{"ok": true} (exit code 1)'),
        (Told("ImportError: no torch\n\n", "exit code 1"), "ImportError: no torch (exit code 1)"),
        (Told('{"ok": false, "what": "reset by peer"}\nRoot Cause:\n rank : 1 (local)\n exitcode : -9 (pid: 7)', "x"),
         "rank 1 was ended by signal 9"),
        (Told('{"ok": false, "what": "late"}\nRoot Cause:\n rank : 0 (local)\n exitcode : 1 (pid: 7)', "x"), "late"),
        (Told("Root Cause (first):\n  rank      : 3 (local_rank: 3)\n  exitcode  : 2 (pid: 7)\n", "x"),
         "rank 3 ended with exit code 2"),
    ],
)  # fmt: skip
def test_whatever_comes_back_has_a_reason(told: Told, what: str) -> None:
    finding = all_reduce_told(told)
    assert (finding.state, finding.what, finding.necessary) == ("missing", what, True)
    assert finding.mend


def test_the_sizes_go_from_a_kilobyte_to_what_the_device_bears() -> None:
    assert (all_reduce.SIZES["cuda"][0], all_reduce.SIZES["cuda"][-1]) == (2**10, 2**28)
    assert (all_reduce.SIZES["cpu"][0], all_reduce.SIZES["cpu"][-1]) == (2**10, 2**23)
    speed = all_reduce._speed(8_000, 2.0, 8)
    assert (speed["algorithm"], speed["bus"]) == (4_000, 7_000)
