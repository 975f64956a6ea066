"""Interpreters of other environments, as distill meets them: with modules that this one has not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def with_modules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `sys.executable` one that finds what is put into the folder that is returned, before all else."""
    modules, python = folder / "modules", folder / "python-with-modules"
    modules.mkdir(exist_ok=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{modules}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return modules
