"""Reaching a Ray cluster: a library that may be missing, an address that may not answer.

Knows nothing about what is to run there.
"""

from __future__ import annotations

import socket
from typing import Any

from distill.errors import MissingError, RunError

CONNECT_SECONDS = 10.0


def ray_for(who: str) -> Any:
    """The library. Raises MissingError where it is not installed; `who` is the option that needs it."""
    try:
        import ray
    except ImportError as error:
        raise MissingError(f"{who} needs Ray", todo="pip install 'distill[ray]'") from error
    return ray


def require_answer(address: str | None, setting: str) -> None:
    """Raises RunError where nobody listens at HOST:PORT: Ray itself tries for minutes. `setting` is how the address is
    given, such as `--ray-address`."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise unreachable(str(address), error, setting) from error


def unreachable(address: str, error: Exception, setting: str) -> RunError:
    return RunError(
        "the Ray cluster cannot be reached",
        given=f"{address}: {str(error)[:200]}",
        todo=f"give its address: {setting}auto on one of its machines, or {setting}ray://HEAD:10001",
    )
