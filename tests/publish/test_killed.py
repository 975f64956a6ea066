"""A publisher that is killed at any moment and started again, here or elsewhere: the Hub ends as if undisturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from upload_hub import UploadHub, serving

from distill.rundir import RunDir
from publish.conftest import PEOPLE
from publish.pulling import environment
from publish.test_publishing import REPO


def contents(hub: UploadHub) -> dict[tuple[str, str, str], dict[str, bytes]]:
    """Every file of main and of v1, by repository."""
    return {
        (repo.kind, repo.name, revision): hub.files(repo.name, repo.kind, revision)
        for repo in hub.repos.values()
        for revision in ("main", "v1")
    }


def start(run: RunDir, hub: UploadHub, home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "distill.cli", "publish", str(run.path), "--repo", REPO, "--public"]
    told: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment(hub, home), **told)


def undisturbed(finished: RunDir, tmp_path: Path) -> tuple[dict[tuple[str, str, str], dict[str, bytes]], int]:
    """What the Hub holds after one start, and the requests that it took."""
    run = RunDir(shutil.copytree(finished.path, tmp_path / "alone" / "run"))
    with serving(tmp_path / "alone-hub", PEOPLE) as hub:
        process = start(run, hub, tmp_path / "home")
        assert process.wait(300) == 0, process.stdout.read() if process.stdout else ""
        return contents(hub), len(hub.requests)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
        pytest.param(20, marks=[pytest.mark.rehearse, pytest.mark.timeout(1_800)]),
    ],
)
def test_killed_at_random_requests_it_ends_byte_identical(finished: RunDir, tmp_path: Path, kills: int) -> None:
    """Each start is killed in the middle of a request that is drawn from all that one start makes; every other start is
    of a copy of the run elsewhere, as on another machine."""
    wanted, requests = undisturbed(finished, tmp_path)
    draw = random.Random(kills)
    runs = [RunDir(shutil.copytree(finished.path, tmp_path / name / "run")) for name in ("here", "there")]
    with serving(tmp_path / "hub", PEOPLE) as hub:
        killed = 0
        for number in range(kills):
            at = len(hub.requests) + draw.randint(1, max(2, requests // 3))
            process = start(runs[number % 2], hub, tmp_path / "home")

            def kill(request: int, at: int = at, process: subprocess.Popen[str] = process) -> None:
                if request >= at and process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()

            hub.watching = kill
            killed += process.wait(300) == -signal.SIGKILL
        hub.watching = lambda request: None
        process = start(runs[0], hub, tmp_path / "home")
        assert process.wait(300) == 0, process.stdout.read() if process.stdout else ""
        assert killed >= kills // 2, "most starts were killed before they were done"
        assert contents(hub) == wanted
        assert set(hub.stored.values()) == {1}, "a large file arrived whole twice"
        assert all(list(repo.branches) == ["main"] and list(repo.tags) == ["v1"] for repo in hub.repos.values())
        assert not any(repo.private for repo in hub.repos.values())


def test_until_the_end_nobody_sees_a_part_of_it(finished: RunDir, tmp_path: Path, hub: UploadHub) -> None:
    """At every request main is empty or whole, no repository is public before all are tagged."""
    from distill.pipeline import recipe_of
    from distill.publish import publishing

    run = RunDir(shutil.copytree(finished.path, tmp_path / "run"))
    seen: list[str] = []

    def look(request: int) -> None:
        for repo in list(hub.repos.values()):
            shown = [path for path in repo.commits[repo.branches["main"]].tree if path != ".gitattributes"]
            if shown and "README.md" not in shown:
                seen.append(f"{repo.name} without its card")
            if shown and not {"lineage.json", "recipe.yaml"} <= set(shown):
                seen.append(f"{repo.name} in part")
            if not repo.private and not all(other.tags for other in hub.repos.values()):
                seen.append(f"{repo.name} public too early")

    hub.watching = look
    publishing.publish(recipe_of(run), run, publishing.Asked(REPO, public=True))
    assert seen == []
