"""A Slurm job that starts a Ray cluster over its nodes and serves a teacher on it: its file, the wait for its nodes.

    python -m distill.serve.slurm HOST:PORT NODES SECONDS

is what the job itself calls: it returns once so many nodes have joined the cluster. Knows nothing about teachers; the
command to run is given.
"""

from __future__ import annotations

import logging
import math
import shlex
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from distill.clusters import CONNECT_SECONDS, ray_for
from distill.errors import DistillError, RunError, UsageError

DRAIN_SECONDS = 300
"""From the signal that the time is up to its end: for replies that are being written, and then all processes."""
END_SECONDS = 120
"""Of that, what the service and Ray take for their own end."""
RAY_PORT = 6379
"""Ray's own default. Jobs that share nodes need different ones."""
RAY_STOP_SECONDS = 40
"""Ray drains a node for up to 30 s when it is asked to end (its `ray start --block`)."""


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """What the job file is made of."""

    command: tuple[str, ...]
    """`serve TEACHER …` as given to distill, without --launcher and --ray-address."""
    out: Path
    """The service's own folder, on a file system that all nodes see."""
    nodes: int
    gpus: int
    """On each node; 0 for CPUs alone."""
    python: Path
    """The interpreter of distill's environment, `ray` and `distill` beside it, at the same place on all nodes."""
    hours: float = 24.0
    join_seconds: int = 600
    """How long the nodes may take to join."""
    drain: int = DRAIN_SECONDS
    """Seconds before the end at which the service is told to drain."""
    partition: str | None = None
    account: str | None = None


def job_file(job: SlurmJob) -> str:
    """The text of a file for `sbatch`. Raises UsageError for numbers that no job can have."""
    if job.nodes < 1 or job.gpus < 0 or job.hours * 3600 <= 2 * job.drain or "\n" in str(job.out):
        given = f"{job.nodes} nodes, {job.gpus} GPUs on each, {job.hours:g} hours, {str(job.out)!r}"
        todo = "give at least one node, a quarter of an hour, and a folder of one line"
        raise UsageError("there is no such Slurm job", given=given, todo=todo)
    name = next((part for part in job.command[1:] if not part.startswith("-")), "teacher")
    out = job.out.absolute()
    options = [
        f"--job-name=distill-{_plain(Path(name).stem)}",
        f"--nodes={job.nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={job.gpus}"] if job.gpus else []),
        *([f"--partition={_plain(job.partition)}"] if job.partition else []),
        *([f"--account={_plain(job.account)}"] if job.account else []),
    ]
    values = {
        "OPTIONS": "\n".join(f"#SBATCH {option}" for option in options),
        "TIME": _time(job.hours),
        "HERE": str(Path.cwd()).replace(" ", "\\ "),
        "DRAIN": str(job.drain),
        "LOG": f"{out}/logs/slurm-%j.log".replace(" ", "\\ "),
        "OUT": shlex.quote(str(out)),
        "BIN": shlex.quote(str(job.python.absolute().parent)),
        "PORT": str(RAY_PORT),
        "JOIN": str(job.join_seconds),
        "GPUS": str(job.gpus),
        "STOP": str(RAY_STOP_SECONDS),
        "COMMAND": shlex.join(job.command),
    }
    text = TEMPLATE
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


TEMPLATE = """\
#!/bin/bash
# Serves a teacher on a Ray cluster that lives as long as this job. Made by `distill serve`; start it with
#     sbatch THIS_FILE
# Where it answers stands in endpoints.json of the folder below, which `distill generate --endpoints` follows.
#
@OPTIONS@
# Whole nodes, with all their memory: the weights pass through it.
#SBATCH --exclusive
# What the command below names without a whole path lies here.
#SBATCH --chdir=@HERE@
#SBATCH --mem=0
#SBATCH --time=@TIME@
# So many seconds before the end, and when the job is preempted, this shell alone (B) gets SIGTERM: the service then
# takes no new requests and lets those finish that are under way.
#SBATCH --signal=B:TERM@@DRAIN@
# A node that fails ends its replicas alone. They are placed anew where there is room.
#SBATCH --no-kill
# Slurm writes no log into a folder that does not exist, and does not say so.
#SBATCH --output=@LOG@
#SBATCH --open-mode=append
# To be started again by itself after preemption, take one # off. Nothing is lost by it: what was sampled is on disk
# with `generate`, which waits for endpoints.json to name servers again.
##SBATCH --requeue

set -euo pipefail

out=@OUT@
bin=@BIN@
port=@PORT@
gpus=@GPUS@
# What stands before each command on each node, where distill is in a container: for example
#     inside=(apptainer exec --nv --bind "$out" distill.sif)
inside=()

mkdir -p "$out/logs" "$out/serve"

# Whoever reaches a Ray cluster without a token can run anything on it. The nodes read this one from the shared folder.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$out/serve/ray-token"
(umask 077 && rm -f "$RAY_AUTH_TOKEN_PATH" && od -An -N32 -tx1 /dev/urandom | tr -d ' \\n' > "$RAY_AUTH_TOKEN_PATH")

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address="$("${inside[@]}" "$bin/python" -c 'from distill.serve.node import address; print(address())'):$port"
echo "$(date -Is) job $SLURM_JOB_ID: Ray on ${nodes[*]}, head at $address"

steps=()
current=""
stopping=""

# Waits until these processes are gone, @STOP@ s at most.
gone() {
    local until=$((SECONDS + @STOP@)) step alive
    while ((SECONDS < until)); do
        alive=""
        for step in "$@"; do kill -0 "$step" 2>/dev/null && alive=1; done
        [ -n "$alive" ] || return 0
        sleep 0.2
    done
}

# Ends all steps, the head last: a node that cannot reach it any more waits for it.
end_ray() {
    kill -TERM "${steps[@]:1}" 2>/dev/null || true
    gone "${steps[@]:1}"
    kill -TERM "${steps[0]}" 2>/dev/null || true
    gone "${steps[@]}"
    kill -KILL "${steps[@]}" 2>/dev/null || true
}
trap end_ray EXIT

# A shell runs its traps only between commands, unless it waits for one in the background: see `attended`.
on_term() {
    echo "$(date -Is) SIGTERM: the time is up, or the job is preempted"
    stopping=1
    [ -z "$current" ] || kill -TERM "$current" 2>/dev/null || true
}
trap on_term TERM

# Runs a command that gets the SIGTERM of this shell. Its exit code is the command's own: a wait that the trap cut short
# is begun again, and the last one tells.
attended() {
    [ -z "$stopping" ] || return 143
    "$@" &
    current=$!
    [ -z "$stopping" ] || kill -TERM "$current" 2>/dev/null || true
    wait "$current" || true
    while kill -0 "$current" 2>/dev/null; do wait "$current" || true; done
    wait "$current"
}

# One step on each node, with all of its CPUs: srun would bind a task to a single one.
on_node() {
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" --no-kill --overlap --cpu-bind=none \\
        --output="$out/logs/ray-$node.log" --open-mode=append \\
        "${inside[@]}" "$bin/ray" start --num-gpus="$gpus" --disable-usage-stats --block "$@" &
    steps+=($!)
}

on_node "${nodes[0]}" --head --node-ip-address="${address%:*}" --port="$port" --include-dashboard=false
for node in "${nodes[@]:1}"; do
    on_node "$node" --address="$address"
done

attended "${inside[@]}" "$bin/python" -m distill.serve.slurm "$address" "${#nodes[@]}" @JOIN@ || {
    code=$?
    echo "the service was not started; what Ray said stands in $out/logs/ray-NODE.log"
    exit "$code"
}

code=0
attended "${inside[@]}" "$bin/distill" @COMMAND@ --launcher ray --ray-address "$address" || code=$?
echo "$(date -Is) the service ended with exit code $code"
exit "$code"
"""


def await_nodes(address: str, count: int, seconds: float) -> None:
    """Returns once `count` nodes have joined the cluster at `address`. Raises RunError when they do not in time."""
    ray = ray_for("this job")
    logging.getLogger("ray").setLevel(logging.ERROR)
    until = time.monotonic() + seconds
    if not _answers(address, until):
        raise RunError(
            f"the head of the Ray cluster did not start within {seconds:.0f} s",
            given=address,
            todo="look into ray-NODE.log of the first node",
        )
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        while len(joined := _joined(ray)) < count:
            if time.monotonic() >= until:
                raise RunError(
                    f"{len(joined)} of {count} nodes joined the Ray cluster within {seconds:.0f} s",
                    given="joined: " + ", ".join(sorted(joined)),
                    todo="look into ray-NODE.log of the others: can they reach the head, and have they the same Ray?",
                )
            time.sleep(0.5)
    finally:
        ray.shutdown()


def _answers(address: str, until: float) -> bool:
    host, _, port = address.rpartition(":")
    while time.monotonic() < until:
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError:
            time.sleep(0.5)
        else:
            return True
    return False


def _joined(ray: object) -> list[str]:
    """The names of all nodes that live."""
    nodes: list[dict[str, object]] = ray.nodes()  # type: ignore[attr-defined]
    return [str(one["NodeManagerHostname"]) for one in nodes if one["Alive"]]


def _time(hours: float) -> str:
    """As Slurm writes it: D-HH:MM:SS."""
    minutes = math.ceil(hours * 60)
    return f"{minutes // 1440}-{minutes // 60 % 24:02d}:{minutes % 60:02d}:00"


def _plain(word: str) -> str:
    """A word for a line that no shell reads, and that is no place for anything else."""
    plain = "".join(letter if letter.isalnum() or letter in "-_.+@" else "-" for letter in word)
    return plain.strip("-") or "teacher"


def main(arguments: list[str]) -> int:
    address, count, seconds = arguments
    try:
        await_nodes(address, int(count), float(seconds))
    except DistillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
