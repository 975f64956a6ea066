"""Trackers: the real packages, offline, and read back with their own readers where they have some."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from distill.errors import MissingError, UsageError
from distill.train import trackers as module
from distill.train.trackers import public, trackers

SETTINGS = {
    "learning_rate": 1e-4,
    "student": {"base": "/home/someone/models/qwen", "hf_token": "hf_abcdef"},
    "wandb_api_key": "0123456789",
}
HIDDEN = "(left out)"
SECRETS = ("hf_abcdef", "0123456789", "/home/someone", "someone")


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, key)
    monkeypatch.setitem(sys.modules, name, None)


# --- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"base": "/data/models/qwen-7b"}, {"base": "qwen-7b"}),
        ({"base": "~/models/qwen-7b/"}, {"base": "qwen-7b"}),
        ({"base": "C:\\Users\\me\\qwen"}, {"base": "qwen"}),
        ({"base": Path("/data/qwen")}, {"base": "qwen"}),
        ({"base": "file:///home/me/qwen"}, {"base": "qwen"}),
        ({"base": "Qwen/Qwen2.5-7B", "file": "./data/x.jsonl"}, {"base": "Qwen/Qwen2.5-7B", "file": "./data/x.jsonl"}),
        ({"note": "from /home/me/a.txt and /mnt/b"}, {"note": "from a.txt and b"}),
        ({"url": "https://me:word@host.org/v1?api_key=abc&x=1"}, {"url": "https://host.org/v1?api_key=(left out)&x=1"}),
        ({"api_key": "abc", "HF_TOKEN": "x"}, {"api_key": HIDDEN, "HF_TOKEN": HIDDEN}),
        ({"password": "p", "secret": "s"}, {"password": HIDDEN, "secret": HIDDEN}),
        ({"api_key": None}, {"api_key": None}),
        ({"max_tokens": 4_096, "tokens": 3}, {"max_tokens": 4_096, "tokens": 3}),
        ({"a": {"b": [{"secret": "x"}, "/tmp/y", 2, None]}}, {"a": {"b": [{"secret": HIDDEN}, "y", 2, None]}}),
        ({"ratio": "1/2", "date": "2026/11/25"}, {"ratio": "1/2", "date": "2026/11/25"}),
    ],
)  # fmt: skip
def test_settings_are_shown_without_secrets_and_places(given: dict[str, Any], shown: dict[str, Any]) -> None:
    assert public(given) == shown


# --- one that fails --------------------------------------------------------------------------------------------------


class Broken:
    """Fails when it is told to; counts what is asked of it."""

    fails_in = ""
    asked: tuple[str, ...] = ()
    seen: tuple[Mapping[str, float], ...] = ()

    def __init__(self, *_: Any) -> None:
        self.note("start")

    @staticmethod
    def load() -> None:
        return None

    def note(self, what: str) -> None:
        type(self).asked = (*type(self).asked, what)
        print("chatter on stdout")
        if what == type(self).fails_in:
            raise ConnectionError("no route to /home/someone/host\nsecond line")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        type(self).seen = (*type(self).seen, values)
        self.note(f"log-{step}")

    def close(self) -> None:
        self.note("close")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> type[Broken]:
    kind = type("Broken", (Broken,), {})
    monkeypatch.setattr(module, "_KINDS", {"wandb": kind})
    return kind


def start(folder: Path, name: str = "wandb", **changed: Any) -> list[module.Tracker]:
    options: dict[str, Any] = {"run_name": "/home/someone/runs/first", "run_id": "abc123", "settings": SETTINGS}
    return trackers([name], **{**options, "folder": folder, **changed})


@pytest.mark.parametrize(
    ("fails_in", "asked"),
    [
        ("start", ("start",)),
        ("log-1", ("start", "log-1")),
        ("log-2", ("start", "log-1", "log-2")),
        ("close", ("start", "log-1", "log-2", "close")),
        ("", ("start", "log-1", "log-2", "close")),
    ],
)
def test_a_tracker_that_fails_is_said_once_and_left_out(
    broken: type[Broken], tmp_path: Path, capsys: pytest.CaptureFixture[str], fails_in: str, asked: tuple[str, ...]
) -> None:
    broken.fails_in = fails_in
    found = start(tmp_path)
    assert len(found) == (0 if fails_in == "start" else 1)
    for tracker in found:
        for step in (1, 2):
            tracker.log(step, {"loss": 1.0})
        tracker.close()
        tracker.close()
    assert broken.asked == asked
    told = capsys.readouterr()
    said = "train: wandb failed and is left out from now on, training goes on (ConnectionError: no route to host)"
    assert told.err.count(said) == bool(fails_in)
    assert told.out == "", "stdout is for results"


def test_a_tracker_that_never_ends_does_not_hold_the_training(
    broken: type[Broken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forever, before = threading.Event(), sys.stdout
    monkeypatch.setattr(broken, "close", lambda self: forever.wait(60))
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)
    (tracker,) = start(tmp_path)
    tracker.close()
    assert sys.stdout is before
    forever.set()
    assert "wandb did not finish within 0 s" in capsys.readouterr().err


def test_only_numbers_are_sent(broken: type[Broken], tmp_path: Path) -> None:
    (tracker,) = start(tmp_path)
    values: Any = {"loss": 1, "nan": math.nan, "inf": math.inf, "name": "x", "none": None, "flag": True}
    tracker.log(1, values)
    tracker.log(2, {"nan": math.nan})
    assert broken.seen == ({"loss": 1.0},)


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")]
)
def test_a_missing_package_names_its_command(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(package, monkeypatch)
    if name == "tensorboard":
        without("torch.utils.tensorboard", monkeypatch)
    with pytest.raises(MissingError, match=f"the tracker '{name}' is not installed") as caught:
        start(tmp_path, name)
    assert "pip install 'distill[track]'" in str(caught.value.todo)


def test_an_unknown_tracker_and_none() -> None:
    with pytest.raises(UsageError, match="did you mean 'wandb'"):
        start(Path(), "wandbb")
    assert trackers([], run_name="r", run_id="i", settings={}, folder=Path()) == []


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    script = (
        "import sys; from distill.train.trackers import trackers\n"
        "trackers([], run_name='', run_id='', settings={}, folder=None)\n"
        "print([name for name in ('torch', 'wandb', 'trackio', 'tensorboard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the real ones ---------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from distill.train.trackers import trackers
name, folder, first = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
options = dict(run_id="abc123", settings={settings}, folder=folder, first_step=first)
for tracker in trackers([name], run_name="/home/someone/runs/first", **options):
    for step in range(first + 1, first + 4):
        tracker.log(step, {{"loss": 1 / step, "lr": 0.5}})
    tracker.close()
    print("logged")
"""


def really(name: str, folder: Path, first: int = 0, **environment: str) -> None:
    """Logs three steps in a process of its own, as these libraries keep state for a whole process."""
    told = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT.format(settings=SETTINGS), name, str(folder), str(first)]
    done = subprocess.run(command, env=told, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "logged\n", (done.stdout, done.stderr)


def everything_below(folder: Path, ending: str) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob(f"*{ending}")) if path.is_file())


@needs("tensorboard")
def test_tensorboard_gives_back_what_was_logged_also_over_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    really("tensorboard", tmp_path)
    really("tensorboard", tmp_path, first=2)  # stopped after the third step, with a checkpoint of the second
    read = EventAccumulator(str(tmp_path / "tensorboard" / "abc123"))
    read.Reload()
    assert {event.step: event.value for event in read.Scalars("loss")} == pytest.approx({n: 1 / n for n in range(1, 6)})
    assert [event.step for event in read.Scalars("lr")] == [1, 2, 3, 4, 5]
    (text,) = {event.tensor_proto.string_val[0] for event in read.Tensors("settings/text_summary")}
    shown = json.loads(text)
    assert (shown["learning_rate"], shown["student"]["base"]) == (1e-4, "qwen")
    content = everything_below(tmp_path, "")
    assert content
    assert not [secret for secret in SECRETS if secret.encode() in content]


def records_of(content: bytes) -> Iterator[bytes]:
    """The records of an offline W&B file: LevelDB's log format, blocks of 32 KiB, behind 7 bytes of its own."""
    place, held = 7, b""
    while place + 7 <= len(content):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        held += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield held
            held = b""


@needs("wandb")
def test_wandb_offline_holds_what_was_logged_and_nothing_about_the_machine(tmp_path: Path) -> None:
    from wandb.proto import wandb_internal_pb2

    really("wandb", tmp_path, WANDB_MODE="offline", WANDB_API_KEY="", WANDB_DIR=str(tmp_path))
    (file,) = tmp_path.rglob("*.wandb")
    records = [wandb_internal_pb2.Record.FromString(data) for data in records_of(file.read_bytes())]
    history = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [(row["_step"], row["loss"], row["lr"]) for row in history] == [(n, 1 / n, 0.5) for n in (1, 2, 3)]
    (run,) = (record.run for record in records if record.HasField("run"))
    assert (run.run_id, run.project, run.display_name) == ("abc123", "distill", "first")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["learning_rate"] == 1e-4
    assert config["student"] == {"base": "qwen", "hf_token": "(left out)"}
    told = file.read_bytes() + everything_below(tmp_path, ".txt") + everything_below(tmp_path, ".json")
    assert not [secret for secret in (*SECRETS, str(tmp_path), sys.executable) if secret.encode() in told]
    assert not list(tmp_path.rglob("requirements.txt"))
    assert not list(tmp_path.rglob("wandb-metadata.json"))


@needs("trackio")
def test_trackio_gives_back_what_was_logged_also_over_a_resume(tmp_path: Path) -> None:
    store = {"TRACKIO_DIR": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1"}
    really("trackio", tmp_path, **store)
    really("trackio", tmp_path, first=3, **store)
    script = (
        "import json, trackio\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "(run,) = trackio.Api().runs('distill')\n"
        "rows = SQLiteStorage.get_logs('distill', run.name, run_id=run.id)\n"
        "print(json.dumps([run.name, run.config, [[row['step'], row['loss'], row['lr']] for row in rows]]))\n"
    )
    told = {**os.environ, **store}
    done = subprocess.run([sys.executable, "-c", script], env=told, capture_output=True, text=True, check=True)
    name, config, rows = json.loads(done.stdout.splitlines()[-1])
    assert name == "first-abc123"
    assert config["student"] == {"base": "qwen", "hf_token": "(left out)"}
    assert rows == [[n, 1 / n, 0.5] for n in range(1, 7)]
    content = everything_below(tmp_path / "store", "")
    assert content
    assert not [secret for secret in SECRETS if secret.encode() in content]
