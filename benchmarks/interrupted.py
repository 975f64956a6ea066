"""Kills a run in every stage at random moments, starts it again each time, and compares its end with an undisturbed
one.

python benchmarks/interrupted.py --base runs/quickstart --kills 20     # `make quickstart` itself; part of make rehearse
python benchmarks/interrupted.py --kills 7 --set quick=true            # in small, its own undisturbed run first

What has to be the same: every count of every stage; the student's weights, if every trace is; and all but five samples
in a thousand: a model in this process rounds by who shares its batch, and where two tokens are as good as even, a batch
of another size may draw the other one. What must not happen: a stage that was done is run again, or something half-made
is left.
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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.ledger import LedgerReader
from distill.specs import STAGES, folder_revision

VARYING = ("seconds", "_lines", "resumed_at", "this_start", "tokens_per_s")
"""Counts of an end that depend on how it was reached."""
MEASURED = (
    *("tokens", "longest", "loss", "heldout_loss", "worst_tensor"),
    *("pass_at_1", "stderr", "interval", "mean_tokens", "unfinished", "difference", "difference_interval"),
)
"""What a single other word of a single sample changes: told, and no count."""
REWORDED = 0.005
"""Share of the samples that may read otherwise. Seen in a run killed 20 times: 1 of 4,000 traces (killed 4 times), and
2 of 1,200 of the teacher's evaluation (killed 5 times)."""
VARYING_OF = {"report": ("bytes",)}
"""The same of one stage alone: the page shows times."""
LEFTOVERS = ("**/*.tmp", "**/*.old", "**/.bf16*", "checkpoints/*/*")
"""What a finished run has nothing of."""
LOOK_SECONDS = 0.02
START_LIMIT = 600.0
"""Seconds after which a start that has not come to the stage is killed wherever it is."""
BETWEEN = "no stage"
"""What a kill has hit where one stage had ended and the next not begun."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: the stage that it hits, and the seconds from when the one that it was meant for began to run.

    Planned for one stage it hits a later one where the first was over sooner.
    """

    stage: str
    after: float


@dataclass(slots=True)
class Outcome:
    """What became of a run that was killed again and again."""

    kills: list[Kill] = field(default_factory=list)
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


def planned(kills: int, seconds: Mapping[str, float], seed: int) -> list[Kill]:
    """In the order of the stages, every stage at least once and long ones more often; `seconds` is what each takes."""
    draw = random.Random(seed)
    chosen = [*STAGES, *draw.choices(STAGES, [seconds[name] for name in STAGES], k=max(0, kills - len(STAGES)))]
    each = {name: seconds[name] / chosen.count(name) for name in STAGES}  # so that all of them fall into the stage
    return [Kill(name, draw.uniform(0, each[name])) for name in STAGES for _ in range(chosen.count(name))]


def disturbed(out: Path, settings: list[str], kills: list[Kill]) -> Outcome:
    """Runs it into `out`, each start killed with SIGKILL as the next of `kills` says, then lets it end."""
    outcome, started = Outcome(), time.monotonic()
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    for kill in [*kills, None]:
        before, earlier = finished_stages(out), starts(out)
        with log.open("ab") as file:
            process = subprocess.Popen(command(out, settings), stdout=file, stderr=file, start_new_session=True)
            if kill is not None and wait_for(process, out, kill, earlier):
                outcome.kills.append(Kill(running_stage(out, earlier) or BETWEEN, kill.after))
                os.killpg(process.pid, signal.SIGKILL)
            outcome.code = process.wait()
        after = finished_stages(out)
        outcome.repeated += [name for name, when in before.items() if after.get(name) != when]
    outcome.seconds = time.monotonic() - started
    return outcome


def wait_for(process: subprocess.Popen[bytes], out: Path, kill: Kill, earlier: Mapping[str, str]) -> bool:
    """Waits until the stage has been running for so long in this start; false when the process ended before.

    A later stage will do where this one was done already, or was over between two looks. `earlier`: what `starts` said
    before this start.
    """
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < START_LIMIT:
        running = running_stage(out, earlier)
        if running is not None and STAGES.index(running) >= STAGES.index(kill.stage):
            break
        time.sleep(LOOK_SECONDS)
    end = time.monotonic() + kill.after
    while process.poll() is None and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    return process.poll() is None


def running_stage(out: Path, earlier: Mapping[str, str]) -> str | None:
    """The stage that runs in this start: one that a kill cut short stands as running until it is started again."""
    states = _stages(out).items()
    return next((n for n, s in states if s["state"] == "running" and s["started"] != earlier.get(n)), None)


def starts(out: Path) -> dict[str, str]:
    """Stage → when it was last started."""
    return {name: state["started"] for name, state in _stages(out).items()}


def _stages(out: Path) -> dict[str, Any]:
    manifest = out / "manifest.json"
    stages: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))["stages"] if manifest.is_file() else {}
    return stages


def finished_stages(out: Path) -> dict[str, str]:
    """Stage → when it ended, for those that are done."""
    return {name: state["finished"] for name, state in _stages(out).items() if state["state"] == "done"}


def counts(out: Path, leaving_out: tuple[str, ...] = MEASURED) -> dict[str, Any]:
    """Stage → its counts, without what is no count."""
    return {
        name: _without(state["counts"], (*leaving_out, *VARYING, *VARYING_OF.get(name, ())))
        for name, state in _stages(out).items()
    }


def reworded(first: Path, second: Path) -> tuple[int, int]:
    """Of the samples that two runs or two ledgers have in common, how many read otherwise, and how many there are."""
    one, other = ({t.key: (t.raw, t.raw_reasoning) for t in LedgerReader(place).traces()} for place in (first, second))
    common = one.keys() & other.keys()
    return sum(one[key] != other[key] for key in common), len(common)


def faults(base: Path, out: Path) -> list[str]:
    """What of an undisturbed run is not in the other as it has to be."""
    found = [f"counts: {name}" for name in differing(counts(base), counts(out))]
    if reworded(base / "traces", out / "traces")[0] == 0 and revision(base) != revision(out):
        found.append("the same traces made another student")
    for ledger in sorted({path.parent for path in base.glob("**/part-*.parquet")}):
        changed, common = reworded(ledger, out / ledger.relative_to(base))
        if changed > max(1, REWORDED * common):
            found.append(f"{changed} of {common} samples in {ledger.relative_to(base)} read otherwise")
    return found


def revision(out: Path) -> str:
    return folder_revision(out / "student")


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(part, names) for key, part in value.items() if key not in names}
    return value


def leftovers(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for pattern in LEFTOVERS for path in out.glob(pattern))


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
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    base = given.base or given.out.with_name(f"{given.out.name}-base")
    if not (base / "report.html").is_file():
        subprocess.run(command(base, given.settings), check=True)
    shutil.rmtree(given.out, ignore_errors=True)
    seconds = {name: state["seconds"] for name, state in _stages(base).items()}
    outcome = disturbed(given.out, given.settings, planned(given.kills, seconds, given.seed))
    wrong, left = faults(base, given.out), leftovers(given.out)
    changed, common = reworded(base / "traces", given.out / "traces")
    measured = differing(counts(base, ()), counts(given.out, ()))
    print(
        f"killed {len(outcome.kills)} times: " + ", ".join(f"{kill.stage} {kill.after:.1f} s" for kill in outcome.kills)
    )
    print(f"ended with code {outcome.code} after {outcome.seconds:.0f} s")
    print(f"undisturbed: {scores(base)}\ndisturbed:   {scores(given.out)}")
    print("counts, and what was made of the same traces: " + ("the same" if not wrong else "; ".join(wrong)))
    print(f"traces that read otherwise: {changed} of {common}")
    print("measured: " + ("the same" if not measured else "; ".join(measured)))
    print("finished stages run again: " + (", ".join(outcome.repeated) or "none"))
    print("left over: " + (", ".join(left) or "nothing"))
    return int(bool(outcome.code or wrong or outcome.repeated or left))


if __name__ == "__main__":
    sys.exit(main())
