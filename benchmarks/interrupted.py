"""Kills a run at random moments, starts it again each time, and compares its end with that of an undisturbed one.

python benchmarks/interrupted.py --base runs/quickstart --kills 20     # `make quickstart` itself; part of make rehearse
python benchmarks/interrupted.py --kills 5 --set quick=true            # in small, its own undisturbed run first

What has to be the same: every count of every stage. What must not happen: a stage that was done is run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VARYING = ("seconds", "mean_tokens", "_lines", "bytes", "resumed_at", "loss", "heldout_loss", "pass_at_1", "stderr")
"""Counts that are no counts: times and what follows from the order in which sums of floats are formed; they are shown
beside each other instead of compared, and a test compares the student's weights after a resumed training."""
SETTLE_SECONDS = 0.2


@dataclass(slots=True)
class Outcome:
    """What became of a run that was killed again and again."""

    kills: list[float] = field(default_factory=list)
    """Seconds after its start at which each start was killed."""
    repeated: list[str] = field(default_factory=list)
    """Stages that were done and were run again all the same."""
    code: int = 0
    seconds: float = 0.0


def command(out: Path, settings: list[str]) -> list[str]:
    """The command that is killed: the make target, or with settings what stands behind it."""
    if not settings:
        return ["make", "quickstart", f"RUN={out}"]
    changes = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "distill.cli", "run", "quickstart", *changes, "--out", str(out)]


def disturbed(out: Path, settings: list[str], kills: int, longest: float, seed: int) -> Outcome:
    """Runs it into `out`; its first `kills` starts die by SIGKILL between 0 and `longest` seconds after they began."""
    draw, outcome, started = random.Random(seed), Outcome(), time.monotonic()
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    while True:
        before = finished_stages(out)
        with log.open("ab") as file:
            process = subprocess.Popen(command(out, settings), stdout=file, stderr=file, start_new_session=True)
            limit = draw.uniform(0, longest) if len(outcome.kills) < kills else None
            try:
                outcome.code = process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                outcome.kills.append(limit or 0.0)
                time.sleep(SETTLE_SECONDS)
        after = finished_stages(out)
        outcome.repeated += [name for name, when in before.items() if after.get(name) != when and name != "report"]
        if limit is None or process.returncode != -signal.SIGKILL:
            outcome.seconds = time.monotonic() - started
            return outcome


def finished_stages(out: Path) -> dict[str, str]:
    """Stage → when it ended, for those that are done."""
    manifest = out / "manifest.json"
    if not manifest.is_file():
        return {}
    stages = json.loads(manifest.read_text(encoding="utf-8"))["stages"]
    return {name: state["finished"] for name, state in stages.items() if state["state"] == "done"}


def counts(out: Path) -> dict[str, Any]:
    """Stage → its counts, without what is no count."""
    stages = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["stages"]
    return {name: _plain(state["counts"]) for name, state in stages.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if key not in VARYING and not _measured(key)}
    return value


def _measured(key: str) -> bool:
    return key.startswith(("difference", "interval", "unfinished"))


def differing(first: dict[str, Any], second: dict[str, Any], path: str = "") -> list[str]:
    """Dotted keys in which two counts differ, with both values."""
    found = []
    for key in dict.fromkeys((*first, *second)):
        a, b, place = first.get(key), second.get(key), f"{path}.{key}" if path else str(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differing(a, b, place)
        elif a != b:
            found.append(f"{place}: {a} and {b}")
    return found


def scores(out: Path) -> str:
    found = {
        path.stem: json.loads(path.read_text())["pass_at_1"] for path in sorted((out / "evaluations").glob("*.json"))
    }
    return ", ".join(f"{name} {value:.1%}" for name, value in found.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="an undisturbed run of the same settings (default: make one)")
    parser.add_argument("--out", type=Path, default=Path("runs/interrupted"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=60.0, help="seconds that a start lives at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    base = given.base or given.out.with_name(f"{given.out.name}-base")
    if not (base / "report.html").is_file():
        subprocess.run(command(base, given.settings), check=True)
    shutil.rmtree(given.out, ignore_errors=True)
    outcome = disturbed(given.out, given.settings, given.kills, given.longest, given.seed)
    different = differing(counts(base), counts(given.out))
    print(f"killed {len(outcome.kills)} times, after " + ", ".join(f"{second:.0f}" for second in outcome.kills) + " s")
    print(f"ended with code {outcome.code} after {outcome.seconds:.0f} s")
    print(f"undisturbed: {scores(base)}\ndisturbed:   {scores(given.out)}")
    print("counts: " + ("the same" if not different else "; ".join(different)))
    print("finished stages run again: " + (", ".join(outcome.repeated) or "none"))
    return int(bool(outcome.code or different or outcome.repeated or len(outcome.kills) < given.kills))


if __name__ == "__main__":
    sys.exit(main())
