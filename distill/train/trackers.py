"""Metrics of a training, sent to TensorBoard, Weights & Biases or Trackio. Knows nothing about what they mean.

None of the three decides anything: metrics.jsonl, which the stage writes, is the record. What fails here is said once
and left out from then on; training goes on.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol

from distill.errors import MissingError, UsageError, near
from distill.progress import say

PROJECT = "distill"
CLOSE_SECONDS = 60.0
"""How long a tracker may take to send what it still holds once training is over; the student is saved by then."""
_SECRET = re.compile(r"(?:^|_)(?:token|key|secret|password|credentials?|authorization|cookie)$", re.IGNORECASE)
_HIDDEN = "(left out)"
_PATH = re.compile(r"(?<![\w.:/~-])(?:file://|~)?(?:/[^\s/,;:'\"()\[\]{}]+)+/?|(?<!\w)[A-Za-z]:\\[^\s,;'\"]+")
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY = re.compile(r"(?<=[?&])([\w-]*(?:token|key|secret|password|signature)[\w-]*)=[^&\s#]+", re.IGNORECASE)


class Tracker(Protocol):
    """Takes numbers by name; `step` counts finished optimizer steps."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def trackers(
    names: Iterable[str], *, run_name: str, run_id: str, settings: Mapping[str, Any], folder: Path, first_step: int = 0
) -> list[Tracker]:
    """One tracker per name, their files below `folder`; `settings` are shown beside the curves, cleaned by `public`.

    `run_id` is the same for every start of one job, so that a resumed one goes on in the same curves; `first_step` is
    the number of steps done before. Raises MissingError, with the command that installs it, for a package that is not
    there. A tracker that cannot start for another reason (no login, no network) is said and left out.
    """
    found: list[Tracker] = []
    shown, run_name = public(settings), _clean(run_name)
    for name in dict.fromkeys(names):
        if name not in _KINDS:
            raise UsageError(f"there is no tracker '{name}'{near(name, list(_KINDS))}", todo="; ".join(_KINDS))
        kind = _KINDS[name]
        with _installed(name):
            kind.load()
        careful = _Careful(name, lambda kind=kind: kind(run_name, run_id, shown, folder, first_step))  # type: ignore[misc]
        if careful.works:
            found.append(careful)
    return found


def public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without secrets and without absolute paths, which tell user names and machines: of a path only its last
    part is left, of an address no login and no key."""
    return {
        str(key): _HIDDEN if _SECRET.search(str(key)) and value else _clean(value) for key, value in settings.items()
    }


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return public(value)
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return _PATH.sub(_last_part, _QUERY.sub(r"\1=" + _HIDDEN, _LOGIN.sub("", value)))
    return value if isinstance(value, bool | int | float) or value is None else str(value)


def _last_part(found: re.Match[str]) -> str:
    return PureWindowsPath(found[0]).name  # takes both kinds of slash


@contextlib.contextmanager
def _installed(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingError(
            f"the tracker '{name}' is not installed",
            given=str(error),
            todo="pip install 'distill[track]', or take it out of train.trackers",
        ) from error


class _Careful:
    """A tracker that can fail without harm: the first failure is said, and nothing more is asked of it."""

    def __init__(self, name: str, start: Callable[[], Tracker]) -> None:
        self.name = name
        self._tracker: Tracker | None = None
        self._tracker = self._try(start)

    @property
    def works(self) -> bool:
        return self._tracker is not None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        tracker = self._tracker
        numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
        if tracker is not None and numbers:
            self._try(lambda: tracker.log(step, numbers))

    def close(self) -> None:
        """Sends what is left, for at most CLOSE_SECONDS."""
        tracker = self._tracker
        if tracker is None:
            return
        closing = threading.Thread(target=lambda: self._caught(tracker.close), name=f"close-{self.name}", daemon=True)
        with contextlib.redirect_stdout(sys.stderr):  # here, not in the thread: it may outlast this call
            closing.start()
            closing.join(CLOSE_SECONDS)
        if closing.is_alive():
            say(f"train: {self.name} did not finish within {CLOSE_SECONDS:.0f} s; metrics.jsonl has everything")
        self._tracker = None

    def _try(self, what: Callable[[], Any]) -> Any:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            return self._caught(what)

    def _caught(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except Exception as error:  # noqa: BLE001  # whatever these libraries raise, training goes on
            first = next(iter(str(error).strip().splitlines()), "")
            told = f"{type(error).__name__}: {_clean(first[:200])}" if first else type(error).__name__
            say(f"train: {self.name} failed and is left out from now on, training goes on ({told})")
            self._tracker = None
            return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _TensorBoard:
    """Event files in FOLDER/tensorboard: `tensorboard --logdir FOLDER/tensorboard`."""

    def __init__(self, run_name: str, run_id: str, settings: Mapping[str, Any], folder: Path, first_step: int) -> None:
        import json

        writer = self.load()
        place = str(folder / "tensorboard" / run_id)
        self._writer: Any = writer(place, purge_step=first_step + 1 if first_step else None)
        self._writer.add_text(
            "settings", f"    {json.dumps({'run': run_name, **settings}, sort_keys=True)}", first_step
        )

    @staticmethod
    def load() -> Any:
        from torch.utils.tensorboard.writer import SummaryWriter

        return SummaryWriter

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run of the project `distill` under the user's own login and WANDB_* variables.

    Of itself wandb also sends the command line, the working folder, the host's name, the repository and the list of
    installed packages: all of that is turned off.
    """

    def __init__(self, run_name: str, run_id: str, settings: Mapping[str, Any], folder: Path, first_step: int) -> None:
        wandb = self.load()
        folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            finish_timeout=CLOSE_SECONDS,
        )
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run_name,
            id=run_id,
            resume="allow",
            config=dict(settings),
            dir=str(folder),
            settings=quiet,
        )

    @staticmethod
    def load() -> Any:
        import wandb

        return wandb

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """A run of the project `distill` in Trackio's own local store, or where the user's TRACKIO_* variables say; a Space
    made for it is private."""

    def __init__(self, run_name: str, run_id: str, settings: Mapping[str, Any], folder: Path, first_step: int) -> None:
        trackio = self.load()
        options: dict[str, Any] = {"embed": False, "private": True, "auto_log_cpu": False, "auto_log_gpu": False}
        # in a context of its own: what trackio finds as its current run at exit it finishes, with a line on stdout
        self._run: Any = contextvars.copy_context().run(
            trackio.init, PROJECT, name=f"{run_name}-{run_id}", resume="allow", config=dict(settings), **options
        )

    @staticmethod
    def load() -> Any:
        import trackio

        return trackio

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


_KINDS: Mapping[str, Any] = {"tensorboard": _TensorBoard, "wandb": _WandB, "trackio": _Trackio}
