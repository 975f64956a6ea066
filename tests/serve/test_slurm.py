"""The job file is read by bash, and run for real with stand-ins for Slurm's own commands: Ray itself is no stand-in."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.errors import UsageError
from distill.serve import node, slurm
from distill.serve.slurm import SlurmJob, job_file
from serve.programs import lives, until

JOB = SlurmJob(
    command=("serve", "deepseek-r1", "--out", "/shared/my teacher", "--replicas", "2"),
    out=Path("/shared/my teacher"),
    nodes=4,
    gpus=8,
    python=Path("/opt/distill/bin/python"),
)


def directives(text: str) -> list[str]:
    """As Slurm reads them: up to the first line that is no comment."""
    comments = itertools.takewhile(lambda line: line.startswith("#") or not line, text.splitlines())
    return [line.removeprefix("#SBATCH ") for line in comments if line.startswith("#SBATCH ")]


def test_the_directives() -> None:
    found = directives(job_file(replace(JOB, partition="h200", account="lab")))
    assert found == [
        "--job-name=distill-deepseek-r1",
        "--nodes=4",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--partition=h200",
        "--account=lab",
        "--exclusive",
        f"--chdir={Path.cwd()}",
        "--mem=0",
        "--time=1-00:00:00",
        "--signal=B:TERM@300",
        "--no-kill",
        "--output=/shared/my\\ teacher/logs/slurm-%j.log",
        "--open-mode=append",
    ]


def test_cpus_alone_ask_for_no_gpus() -> None:
    text = job_file(replace(JOB, gpus=0))
    assert not any("gpus" in line for line in directives(text))
    assert "\ngpus=0\n" in text


def test_the_command_is_quoted() -> None:
    text = job_file(JOB)
    given = "serve deepseek-r1 --out '/shared/my teacher' --replicas 2"
    assert f'"$bin/distill" {given} --launcher ray --ray-address "$address"' in text
    assert "\nout='/shared/my teacher'\n" in text
    assert "\nbin=/opt/distill/bin\n" in text
    assert not re.search("@[A-Z]+@", text), "everything was filled in"


def test_nothing_given_becomes_a_directive_or_a_command() -> None:
    text = job_file(replace(JOB, command=("serve", "x\n#SBATCH --uid=0; $(id)"), partition="p\n#SBATCH --uid=0"))
    assert not any("uid" in line.partition("=")[0] for line in directives(text))
    assert directives(text)[0] == "--job-name=distill-x--SBATCH---uid-0----id"
    assert "'x\n#SBATCH --uid=0; $(id)' --launcher ray" in text


def test_no_key_is_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_API_KEY", "HF_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sesame-7")
    assert "sesame" not in job_file(JOB)


@pytest.mark.parametrize(("hours", "written"), [(0.5, "0-00:30:00"), (36.0, "1-12:00:00"), (100.01, "4-04:01:00")])
def test_the_time(hours: float, written: str) -> None:
    assert f"--time={written}" in directives(job_file(replace(JOB, hours=hours)))


@pytest.mark.parametrize("wrong", [{"nodes": 0}, {"gpus": -1}, {"hours": 0.1}, {"out": Path("a\nb")}])
def test_no_such_job(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no such Slurm job"):
        job_file(replace(JOB, **wrong))


@pytest.mark.parametrize("program", [["bash", "-n"], ["shellcheck", "--severity=warning"]])
def test_the_shell_and_its_checker_take_it(program: list[str], tmp_path: Path) -> None:
    if shutil.which(program[0]) is None:
        pytest.skip(f"no {program[0]} here")
    path = tmp_path / "job.sh"
    path.write_text(job_file(JOB))
    told = subprocess.run([*program, str(path)], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


SCONTROL = """#!/bin/bash
[ "$1 $2" = "show hostnames" ] || exit 2
echo "$3" | tr , '\\n'
"""

SRUN = """#!/bin/bash
# Runs the command on this machine, as Slurm would on the node; one whose name begins with `mute` never comes up.
output=/dev/null
while [[ "$1" == --* ]]; do
    case "$1" in
        --nodelist=mute*) sleep 600 & trap 'kill $!; exit 143' TERM; wait; exit ;;
        --output=*) output=${1#--output=} ;;
    esac
    shift
done
exec "$@" >> "$output" 2>&1
"""

RAY = """#!/bin/bash
exec {python} -m ray.scripts.scripts "$@" --num-cpus=1 --object-store-memory=80000000
"""

PYTHON = """#!/bin/bash
exec {python} "$@"
"""

DISTILL = """#!{python}
# The service: says what it was given, and how many nodes it found; ends in its own time when it is asked to.
import json, os, signal, sys, time
def end(*_):
    time.sleep(1)
    print("drained", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
import ray
ray.init(address=sys.argv[-1], log_to_driver=False, logging_level="ERROR")
signal.signal(signal.SIGTERM, end)
told = {{"arguments": sys.argv[1:], "nodes": sum(one["Alive"] for one in ray.nodes()), "pid": os.getpid()}}
with open("{told}.new", "w") as file:
    json.dump(told, file)
os.rename("{told}.new", "{told}")
time.sleep(600)
"""


class Job:
    """A job that runs on this machine."""

    def __init__(self, folder: Path, nodes: list[str], join_seconds: int) -> None:
        self.out, self.told = folder / "the service", folder / "told.json"
        programs = {"scontrol": SCONTROL, "srun": SRUN, "ray": RAY, "python": PYTHON, "distill": DISTILL}
        place = folder / "bin"
        place.mkdir()
        (self.out / "serve").mkdir(parents=True)
        (self.out / "serve" / "ray-token").write_text("of an earlier job, and readable by all")
        for name, text in programs.items():
            filled = text if name in ("scontrol", "srun") else text.format(python=sys.executable, told=self.told)
            (place / name).write_text(filled)
            (place / name).chmod(0o755)
        job = SlurmJob(
            command=("serve", "tiny-r1", "--out", str(self.out)),
            out=self.out,
            nodes=len(nodes),
            gpus=0,
            python=place / "python",
            join_seconds=join_seconds,
        )
        (self.port,) = node.free_ports(1)
        text = job_file(job).replace(f"port={slurm.RAY_PORT}", f"port={self.port}")
        (folder / "job.sh").write_text(text)
        given = {"SLURM_JOB_NODELIST": ",".join(nodes), "SLURM_JOB_ID": "77", "RAY_TMPDIR": str(folder)}
        environment = {**os.environ, **given, "PATH": f"{place}:{os.environ['PATH']}"}
        self.log = folder / "job.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["bash", str(folder / "job.sh")], env=environment, stdout=log, stderr=log, start_new_session=True
            )


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: Ray puts sockets into it."""
    made = Path(f"/tmp/slurm-{os.getpid()}")
    made.mkdir()
    yield made
    for pid in left_of(made):
        os.kill(pid, signal.SIGKILL)  # of a test that failed
    shutil.rmtree(made, ignore_errors=True)


def left_of(folder: Path) -> dict[int, str]:
    """All processes that still have something to do with the folder, and their commands."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
            its = command + (process / "environ").read_text()
        except OSError:
            continue
        if f"{folder}/" in its and lives(int(process.name)):
            found[int(process.name)] = command.replace("\0", " ")
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_serves_on_all_its_nodes_and_drains(folder: Path) -> None:
    pytest.importorskip("ray")
    job = Job(folder, ["gpu1", "gpu2"], 120)
    try:
        until(lambda: job.told.exists() or job.process.poll() is not None, 150)
        assert job.told.exists(), job.log.read_text()
        told = json.loads(job.told.read_text())
        address = f"{node.address()}:{job.port}"
        given = ["serve", "tiny-r1", "--out", str(job.out), "--launcher", "ray", "--ray-address", address]
        assert told["arguments"] == given
        assert told["nodes"] == 2
        assert {path.name for path in (job.out / "logs").iterdir()} >= {"ray-gpu1.log", "ray-gpu2.log"}
        token = job.out / "serve" / "ray-token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert len(token.read_text()) == 64
        os.kill(job.process.pid, signal.SIGTERM)
        time.sleep(0.5)
        os.kill(job.process.pid, signal.SIGTERM)  # again, while it drains
        assert job.process.wait(120) == 7, "the exit code is the service's own"
    finally:
        job.process.kill()
    said = job.log.read_text()
    assert "SIGTERM: the time is up" in said
    assert said.index("drained") < said.index("the service ended with exit code 7")
    assert token.read_text() not in said
    assert left_of(folder) == {}


@pytest.mark.rehearse  # minutes in all; the other tests here show most of it
@pytest.mark.timeout(300)
def test_a_node_that_never_joins_ends_the_job_with_its_reason(folder: Path) -> None:
    pytest.importorskip("ray")
    job = Job(folder, ["gpu1", "mute2"], 30)
    try:
        assert job.process.wait(150) == 1
    finally:
        job.process.kill()
    said = job.log.read_text()
    assert "1 of 2 nodes joined the Ray cluster within 30 s" in said
    assert f"joined: {socket.gethostname()}" in said
    assert "the service was not started" in said
    assert not job.told.exists()
    assert left_of(folder) == {}


@pytest.mark.rehearse  # minutes in all; the other tests here show most of it
@pytest.mark.timeout(120)
def test_a_head_that_never_starts_ends_the_job_with_its_reason(folder: Path) -> None:
    pytest.importorskip("ray")
    job = Job(folder, ["mute1"], 3)
    try:
        assert job.process.wait(60) == 1
    finally:
        job.process.kill()
    assert "the head of the Ray cluster did not start within 3 s" in job.log.read_text()
    assert left_of(folder) == {}


@pytest.mark.rehearse  # minutes in all; the other tests here show most of it
@pytest.mark.timeout(120)
def test_a_job_that_is_ended_while_it_waits_for_its_nodes(folder: Path) -> None:
    pytest.importorskip("ray")
    job = Job(folder, ["mute1"], 600)
    try:
        until(lambda: "head at" in job.log.read_text(), 60)
        os.kill(job.process.pid, signal.SIGTERM)
        assert job.process.wait(60) == 143
    finally:
        job.process.kill()
    assert not job.told.exists()
    assert left_of(folder) == {}
