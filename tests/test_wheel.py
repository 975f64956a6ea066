"""The built wheel on its own: specs and the embedded teacher travel inside it, nothing generic lands beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from distill import specs

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_holds_every_spec_and_nothing_generic(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"distill"}
    for kind in ("teachers", "students", "data", "recipes"):
        for name in specs.names(kind):
            assert f"distill/specs/{kind}/{name}.yaml" in names
    assert "distill/specs/teachers/tiny-r1/model.safetensors" in names
    assert {f"distill/report/{name}" for name in ("page.html.j2", "traces.html.j2", "style.css")} <= set(names)
    assert {"distill/serve/page.html.j2", "distill/serve/vllm_cpu.py", "distill/serve/guard.py"} <= set(names)


def test_runs_from_an_empty_folder_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """Installed without the checkout. Dependencies come from this environment by a path file: they are not tested."""
    environment, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    dependencies = Path(pytest.__file__).parent.parent
    assert not (dependencies / "distill").exists()
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    run = lambda *a: subprocess.run(  # noqa: E731
        [environment / "bin/distill", *a], cwd=empty, capture_output=True, text=True, check=False
    )
    shown = run("show", "teachers")
    assert shown.returncode == 0, shown.stderr
    assert "tiny-r1" in shown.stdout
    where = run("show", "tiny-r1").stdout
    assert str(packages / "distill/specs/teachers/tiny-r1.yaml") in where
    options = ("--prompts", "arithmetic", "--teacher", "tiny-r1", "--limit", "2", "--max-tokens", "16", "--out", "run")
    made = run("generate", *options)
    assert made.returncode == 0, made.stderr
    assert (empty / "run/traces/part-00000.parquet").is_file()
