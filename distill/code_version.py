"""Which code is at work: the version, and in a checkout its commit and whether files were changed since.

Asks git, where there is one; knows nothing about what the code does.
"""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from distill import __version__

CHANGED = "+changes"
"""Behind a commit whose files were edited and not committed."""


@functools.lru_cache(maxsize=1)
def code_version() -> str:
    """`0.1.0`, or of a checkout `0.1.0 828caacd8a11` with CHANGED behind it where files of distill differ from it."""
    place = Path(__file__).resolve().parents[1]
    if not (place / ".git").exists():
        return __version__
    commit = _git(place, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return __version__
    changed = _git(
        place,
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        "distill",
        "teachers",
        "students",
        "data",
        "recipes",
    )
    return f"{__version__} {commit}{CHANGED if changed else ''}"


def _git(place: Path, *words: str) -> str:
    """What git says, empty where it is not there or does not answer."""
    try:
        told = subprocess.run(  # noqa: S603  # words of our own
            ["git", "-C", str(place), *words],  # noqa: S607  # wherever the user has it
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip()
