"""What a diagnosis, a check or the guide tells to set exists; and the table of layouts in the guide is current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from distill.serve_specs import ServeSettings
from distill.teacher_specs import TeacherSpec

CHECKOUT = Path(__file__).resolve().parents[2]
ROOM = CHECKOUT / "distill" / "serve"
GUIDE = CHECKOUT / "docs" / "serve.md"


def test_every_setting_that_is_named_exists() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*ROOM.glob("*.py"), GUIDE)]
    named = {name for text in texts for name in re.findall(r"\bserve\.([a-z][a-z_]*)", text)}
    modules = {path.stem for path in ROOM.glob("*.py")}
    unknown = named - set(ServeSettings.model_fields) - modules - {"md", "py", "json", "name", "vllm_cpu"}
    assert unknown == set()
    assert {"gpu_memory_utilization", "max_model_len", "tensor_parallel"} <= named


def test_every_field_of_a_teacher_that_is_named_exists() -> None:
    texts = "\n".join(path.read_text(encoding="utf-8") for path in ROOM.glob("causes_*.py"))
    for name in ("trust_remote_code", "revision", "reasoning_parser"):
        assert name in TeacherSpec.model_fields
    assert "reasoning_parser" in texts or "reasoning_format" in texts


@pytest.mark.parametrize("option", ["--check", "--dry-run", "--skip", "--slurm", "--launcher", "--ray-address"])
def test_every_option_of_the_guide_is_one(option: str) -> None:
    assert option in GUIDE.read_text(encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-m", "distill.cli", "serve", "--help"], capture_output=True, text=True, check=True
    )
    assert option in told.stdout


def test_the_table_of_layouts_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/layouts.py", "--check"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"least_replicas": 2}, "belong together"),
        ({"least_replicas": 3, "most_replicas": 2}, "least_replicas 3 is more than most_replicas 2"),
        ({"least_replicas": 2, "most_replicas": 3, "replicas": 4}, "replicas 4 is not between 2 and 3"),
        ({"hardware": "many"}, "is not understood"),
        ({"gpu_memory_utilization": 1.2}, "less than or equal to 0.99"),
        ({"environment": {"MY_API_KEY": "x"}}, "looks like a secret"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ServeSettings.model_validate(values)


def test_who_can_reach_it_decides_about_a_key() -> None:
    assert ServeSettings().loopback
    assert ServeSettings(host="127.0.0.1").loopback
    assert not ServeSettings(host="0.0.0.0").loopback
    assert not ServeSettings(launcher="ray").loopback, "replicas are on other machines"
    for values, reason in (({"host": "127.0.0.1"}, "leave it out"), ({"port": 8000}, "endpoints.json tells it")):
        with pytest.raises(ValueError, match=reason):
            ServeSettings.model_validate({"launcher": "ray", **values})
