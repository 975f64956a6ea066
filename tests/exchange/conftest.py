"""Stages in this process: what worker processes do is shown elsewhere, and here they would only cost time."""

from __future__ import annotations

import pytest
from verify.in_process import GoldsInProcess, InProcess, LooksInProcess

from distill.filter import in_buckets, stage
from distill.prompts import gold


@pytest.fixture(autouse=True)
def without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gold, "VerifierPool", GoldsInProcess)
    monkeypatch.setattr(stage, "LocalLooking", LooksInProcess)
    monkeypatch.setattr(in_buckets, "VerifierPool", InProcess)
