"""The stand-in for vLLM tells what the recorded real one tells, under the same names."""

from __future__ import annotations

import re
from pathlib import Path

from distill.serve.diagnosis import diagnose
from distill.serve.metrics import read
from serve.stand_in import METRICS, OUT_OF_MEMORY

RECORDED = Path(__file__).parents[1] / "recorded" / "vllm-0.32" / "metrics_full.txt"


def test_its_metrics_are_named_and_typed_as_the_recorded_ones() -> None:
    ours = METRICS.format(model="m", running=2, waiting=1, prompt=3, generated=40)
    real = RECORDED.read_text(encoding="utf-8")
    for name, kind in re.findall(r"# TYPE (\S+) (\S+)", ours):
        assert f"# TYPE {name} {kind}" in real
    for name, labels in re.findall(r"^(vllm:\S+?)\{(.*?)\} ", ours, re.MULTILINE):
        kinds = sorted(re.findall(r'(\w+)="', labels))
        theirs = re.search(rf"^{re.escape(name)}\{{(.*?)\}} ", real, re.MULTILINE)
        assert theirs is not None, name
        assert sorted(re.findall(r'(\w+)="', theirs[1])) == kinds


def test_the_service_reads_them_alike() -> None:
    told = read(METRICS.format(model="m", running=2, waiting=1, prompt=3, generated=40))
    assert (told.running, told.waiting, told.prompt_tokens, told.generation_tokens) == (2, 1, 3, 40)
    recorded = read(RECORDED.read_text(encoding="utf-8"))
    assert recorded.generation_tokens
    assert recorded.running is not None


def test_its_last_words_are_read_as_too_little_memory() -> None:
    found = diagnose([OUT_OF_MEMORY], 1)
    assert found.cause == "kv_cache_too_small"
    assert "serve." in found.todo
