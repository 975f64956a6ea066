"""The benchmark of the filter: its corpus is the same everywhere and holds what it says; its bars; a small run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
spec = importlib.util.spec_from_file_location("filter_benchmark", BENCHMARKS / "filter.py")
assert spec is not None
assert spec.loader is not None
benchmark = importlib.util.module_from_spec(spec)  # tests/filter has its short name
sys.modules[spec.name] = benchmark
spec.loader.exec_module(benchmark)
corpus = benchmark.filter_corpus


def test_the_corpus_holds_what_it_says() -> None:
    rows = list(corpus.rows(1_200))
    assert rows[:400] == list(corpus.rows(400))
    planted = Counter(row.planted for row in rows)
    assert 40 <= planted["near"] <= 80
    assert 5 <= planted["contaminated"] <= 25
    assert sum(row.identical for row in rows) <= 0.3 * len(rows)
    assert all(row.identical == (f"\\boxed{{{row.gold}}}" in row.answer) for row in rows)
    assert 0.7 * len(rows) < sum(row.right for row in rows) < 0.9 * len(rows)
    sizes = [len(row.text.split()) for row in rows]
    assert 150 <= sum(sizes) / len(sizes) <= 300
    assert len({row.question for row in rows}) == len(rows) / corpus.SAMPLES
    assert not {row.question for row in rows} & set(corpus.evaluation())


def test_the_corpus_is_the_same_in_another_process() -> None:
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import filter_corpus as c; print(hash_of(c))"
    code = "import hashlib\ndef hash_of(c): return hashlib.sha256(repr(list(c.rows(60))).encode()).hexdigest()\n" + code
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "12"
    }
    assert len(told) == 1


def rounds(**seconds: list[float]) -> list[dict[str, object]]:
    """All peers take 10 s each, distill filter as told."""
    peers = [name for name, who in benchmark.CONTESTANTS.items() if who.peer]
    ours = {"text": "distill filter", "no_text": "distill filter, no text"}
    count = len(next(iter(seconds.values())))
    return [
        {
            **{name: benchmark.Run(10.0, 0, 0) for name in peers},
            **{ours[name]: benchmark.Run(found[n], 0, 0) for name, found in seconds.items()},
        }
        for n in range(count)
    ]


def test_a_bar_is_the_median_over_rounds_of_the_peers_total_by_ours() -> None:
    assert list(benchmark.verdicts(rounds(text=[15.0, 14.0, 90.0], no_text=[30.0, 31.0, 29.0])).items()) == [
        ("the peers' total is 2.00 times distill filter, wanted 2.0", True),
        ("the peers' total is 1.00 times distill filter, no text, wanted 1.0", True),
    ]
    assert list(benchmark.verdicts(rounds(text=[15.1], no_text=[30.1])).values()) == [False, False]
    assert benchmark.verdicts([{"distill filter": benchmark.Run(1.0, 0, 0)}]) == {}


@pytest.mark.parametrize(
    ("name", "stage", "least"), [("distill's near-duplicates", "near", 0.8), ("8-gram set", "contaminated", 0.7)]
)
def test_a_contestant_finds_what_was_planted(tmp_path: Path, name: str, stage: str, least: float) -> None:
    corpus.write(tmp_path, 400)
    planted = {row["id"] for row in corpus.read(tmp_path) if row["planted"] == stage}
    found = benchmark.measure(name, tmp_path, {stage: planted})
    assert found.seconds > 0
    assert found.planted >= least * len(planted) > 0


def test_a_contestant_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"evaluation\.jsonl"):
        benchmark.measure("8-gram set", tmp_path, {"contaminated": set()})
