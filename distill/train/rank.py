"""What torchrun starts on each GPU: runs a module, and writes down how it ended, for the launcher to tell.

`python -m distill.train.rank MODULE ARGUMENTS`. torchrun itself reports every failure with exit code 1, and nothing of
the ranks that it stopped. Knows nothing about training.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
import traceback
from pathlib import Path

from distill.errors import FAILED, INTERRUPTED, DistillError

OUTCOMES = "DISTILL_OUTCOMES"
"""Environment variable: the folder where each rank leaves `rank-N.json`."""


def main(arguments: list[str]) -> int:
    """Runs `arguments[0]` as a module with the others; returns its exit code."""
    place = Path(os.environ[OUTCOMES]) / f"rank-{int(os.environ['RANK']):05d}.json"
    _write(place, {"pid": os.getpid()})
    code, said = _run(arguments)
    _write(place, {"pid": os.getpid(), "code": code, "said": said, "ended": time.time()})
    return code


def _run(arguments: list[str]) -> tuple[int, str]:
    sys.argv = list(arguments)
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            return FAILED, end.code
        return end.code or 0, ""
    except DistillError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code, str(error)
    except KeyboardInterrupt:
        return INTERRUPTED, "interrupted before anything was saved"
    except BaseException as error:  # noqa: BLE001 (whatever it was is told)
        traceback.print_exc()
        return FAILED, f"{type(error).__name__}: {error}"
    return 0, ""


def _write(place: Path, outcome: dict[str, object]) -> None:
    temporary = place.with_suffix(".tmp")
    temporary.write_text(json.dumps(outcome), encoding="utf-8")
    temporary.replace(place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
