"""A worker to be launched: `python -m train.launched RUN` does what RUN/do says on its rank."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from distill.errors import GateError, Interrupted, TrainingError
from distill.train.parallel import joined


def main(run: Path) -> None:
    rank = int(os.environ["RANK"])
    what = json.loads((run / "do").read_text()).get(str(rank), "train")
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    with joined() as world:
        print(f"rank {rank} speaks", file=sys.stderr)
        total = world.total(rank + 1.0)
        (run / f"total-{rank}").write_text(f"{total} {world.size} {world.device}")
        if what == "fail":
            raise TrainingError("the loss is not a number", given="trace 7")
        if what == "crash":
            raise RuntimeError("something broke")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "gate":
            raise GateError("a gate did not pass")
        if what == "stay":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while what in ("wait", "hang", "stay"):
            time.sleep(0.1)
            if what == "wait" and world.any(bool(stop)):
                (run / f"saved-{rank}").touch()
                raise Interrupted("training stopped, saved")


def told(run: Path) -> list[Any]:
    return [path.read_text().split() for path in sorted(run.glob("total-*"))]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
