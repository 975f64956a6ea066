"""A whole run in small, and a Hub on loopback to publish it to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from upload_hub import UploadHub, person, serving

from distill import specs
from distill.pipeline import run_recipe
from distill.rundir import RunDir

SMALL = {
    "prompts.0.limit": 24,
    "train.epochs": 1,
    "train.batch_size": 8,
    "evaluate.prompts.0.limit": 6,
    "evaluate.samples": 1,
    "evaluate.max_tokens": 64,
    "filter.keep": "all",
    "filter.heldout": 0.2,
    "evaluate.min_pass_at_1": None,
    "quantize.schemes": ["nf4", "gguf:q8_0", "gguf:q4_k_m"],
    "quantize.limit": 2,
    "quantize.samples": 1,
    "quantize.min_difference": None,
}
TOKEN = "hf_" + "a" * 34
READER = "hf_" + "b" * 34
NARROW = "hf_" + "c" * 34
PEOPLE = {
    TOKEN: person("someone", orgs={"org": "admin", "club": "read"}),
    READER: person("someone", role="read"),
    NARROW: person("someone", orgs={"org": "admin"}, scopes={"someone": ["repo.content.read", "repo.write"]}),
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Never changed by a test: see `run`."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "small")
    run_recipe(specs.recipe("quickstart", SMALL), run)
    return run


@pytest.fixture
def run(finished: RunDir, tmp_path: Path) -> RunDir:
    """A copy of the finished run that a test may break."""
    return RunDir(shutil.copytree(finished.path, tmp_path / "run"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """The Hub of this test, which the client in this process talks to by LFS."""
    from huggingface_hub import constants

    with serving(tmp_path / "hub", PEOPLE, 512 * 1024) as running:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"  # made of the endpoint at its import
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running
