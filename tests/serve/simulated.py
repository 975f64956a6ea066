"""A Ray cluster of simulated nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def cluster(*cpus: int) -> Iterator[Any]:
    """A head without cores, and nodes with so many each."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        found.workers = [found.add_node(num_cpus=count) for count in cpus]
        found.wait_for_nodes()
        yield found
    finally:
        found.shutdown()
        ray.shutdown()
