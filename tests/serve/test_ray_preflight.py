"""What every machine of a Ray cluster has to have, looked at there; and numbers added up across two of them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from distill.errors import MissingError
from distill.serve import preflight
from distill.serve.launching import Need
from distill.serve.on_ray import RayLauncher
from distill.serve.ray_preflight import require_all_reduce, require_everywhere
from serve.simulated import cluster
from serve.test_starting import model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_each_machine_is_looked_at_and_named_with_what_it_lacks(tmp_path: Path) -> None:
    folder = model(tmp_path)

    def need(where: Path, memory: int = 1) -> preflight.Need:
        return preflight.Need("cpu", str(where), sys.executable, tmp_path / "svc", memory=memory)

    async def looks(address: str) -> None:
        launcher = RayLauncher(address)
        try:
            ray = await launcher.cluster()
            await require_everywhere(ray, need(folder), ("vllm",))
            with pytest.raises(MissingError) as refused:
                await require_everywhere(ray, need(tmp_path / "nowhere"), ("vllm",))
            assert "3 of 3 machines of the Ray cluster are not ready to serve" in str(refused.value)
            assert str(refused.value).count("model: ") >= 3
            with pytest.raises(MissingError, match=r"memory: .* GB wanted"):
                await require_everywhere(ray, need(folder, memory=10**15), ("vllm",))
        finally:
            await launcher.close()

    with cluster(1, 1) as nodes:
        asyncio.run(looks(nodes.address))


def test_the_processes_of_two_machines_add_up_numbers_together_or_it_is_said_that_they_cannot(tmp_path: Path) -> None:
    async def adds(address: str) -> None:
        launcher = RayLauncher(address)
        two = Need(2, 0, 1, "cpu")
        try:
            await require_all_reduce(launcher, two, sys.executable, 1, tmp_path / "logs")
            with pytest.raises(MissingError, match=r"the machines cannot add up numbers together: .* exit code"):
                await require_all_reduce(launcher, two, "/bin/false", 1, tmp_path / "logs")
            await require_all_reduce(launcher, Need(1, 0, 1, "cpu"), "/bin/false", 1, tmp_path / "logs")
        finally:
            await launcher.close()

    with cluster(1, 1) as nodes:
        asyncio.run(adds(nodes.address))
