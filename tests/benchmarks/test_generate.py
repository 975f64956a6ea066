"""The benchmark of generation: its arithmetic, its server's clock, and one small run without peers."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "generate_peers"))
import on_vllm
import relay
import slow_server
from asking import Durable
from contestants import BARE, CONTESTANTS, DISTILL, OWN, Contestant, Settings, require, run

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "generate.py"
spec = importlib.util.spec_from_file_location("generate_benchmark", BENCHMARK)
assert spec is not None
assert spec.loader is not None
generate = importlib.util.module_from_spec(spec)  # tests/generate has its short name
sys.modules[spec.name] = generate
spec.loader.exec_module(generate)

ONE = generate.Run(
    rate=1_000.0,
    seconds=5.0,
    cpu_seconds=4.0,
    process_seconds=8.0,
    process_cpu_seconds=6.0,
    peak_mb=100.0,
    server_cpu_seconds=1.0,
)


def rounds(**rates: list[float]) -> list[dict[str, Any]]:
    """Rounds with these rates; `bare` stands for the bare loop."""
    named = {BARE if name == "bare" else name: found for name, found in rates.items()}
    count = len(next(iter(named.values())))
    return [{name: replace(ONE, rate=found[n]) for name, found in named.items()} for n in range(count)]


def test_a_ratio_is_taken_within_its_round() -> None:
    """A slow minute that meets both leaves it as it is; medians of each would not."""
    found = rounds(distill=[800.0, 80.0, 1_600.0], bare=[1_000.0, 100.0, 2_000.0])
    assert generate.ratio(found, DISTILL, BARE) == pytest.approx(0.8)
    assert generate.ratio(rounds(distill=[1.0, 9.0, 4.0], bare=[1.0, 1.0, 2.0]), DISTILL, BARE) == 2.0


@pytest.mark.parametrize(
    ("rates", "passed"),
    [
        ({"bare": 1_000.0, "Curator": 233.0, "datatrove": 233.0}, [True, True, True]),
        ({"bare": 1_001.0, "Curator": 233.0, "datatrove": 233.0}, [False, True, True]),
        ({"bare": 1_000.0, "Curator": 234.0, "datatrove": 233.0}, [True, False, True]),
        ({"bare": 1_000.0, "Curator": 233.0, "datatrove": 234.0}, [True, True, False]),
        ({"bare": 1_000.0}, [True]),
        ({"AsyncOpenAI": 9_000.0}, []),
    ],
)
def test_every_bar_is_held_by_itself(rates: dict[str, float], passed: list[bool]) -> None:
    found = generate.verdicts(rounds(distill=[700.0], **{name: [rate] for name, rate in rates.items()}))
    assert list(found.values()) == passed


def test_the_bars_are_those_of_the_issue() -> None:
    assert generate.BARS == {"bare aiohttp": 0.7, "Curator": 3.0, "datatrove": 3.0}
    assert on_vllm.BAR == 0.95


def test_the_order_moves_on_by_one() -> None:
    assert [generate.order(["a", "b", "c"], turn) for turn in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_the_table_shows_medians() -> None:
    found = rounds(distill=[500.0, 700.0, 800.0], bare=[1_000.0, 1_000.0, 1_000.0])
    bare, ours = generate.table(found)[1:]
    assert bare.split() == ["bare", "aiohttp", "1000", "1.00", "4.00", "8.0", "6.0", "100", "20%"]
    assert ours.split()[:3] == ["distill", "700", "0.70"]


def test_pairs_on_vllm() -> None:
    pairs = [on_vllm.Pair(distill, 100.0, 10, 10) for distill in (90.0, 94.0, 95.0, 96.0, 97.0)]
    assert list(on_vllm.verdicts(pairs).values()) == [True]
    assert list(on_vllm.verdicts(pairs[:-2]).values()) == [False]
    assert [on_vllm.turns(pair)[0] for pair in range(4)] == [DISTILL, BARE, DISTILL, BARE]
    assert all(set(on_vllm.turns(pair)) == {DISTILL, BARE} for pair in range(2))


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real processes and the real server: all is counted, and nobody is faster than the server allows."""
    (found,) = generate.compare([BARE, DISTILL], runs=1, prompts=40, in_flight=20, delay=0.1)
    for name in (BARE, DISTILL):
        ran = found[name]
        assert 0.19 <= ran.seconds < ran.process_seconds, f"{name}: two turns of 20, 0.1 s each"
        assert ran.rate == pytest.approx(40 / ran.seconds)
        assert ran.cpu_seconds <= ran.process_cpu_seconds
        assert 10 < ran.peak_mb < 2_000
    assert "round 1, distill:" in capsys.readouterr().out


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    generate.write_prompts(tmp_path / "prompts.jsonl", 6)
    with generate.server(0.02, None) as address:
        yield Settings(f"{address}/v1", tmp_path / "prompts.jsonl", 3, 64, "served")


def test_a_contestant_that_asks_too_little_does_not_count(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="7 wanted, 6 stored"):
        generate.measure(CONTESTANTS[BARE], settings, tmp_path / "run" / "out", 7)


def test_a_contestant_that_fails_is_told(settings: Settings, tmp_path: Path) -> None:
    lost = replace(settings, url="http://127.0.0.1:9/v1")
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1.*Connect call failed"):
        run(CONTESTANTS[BARE], lost, tmp_path / "run" / "out")


def test_the_server_keeps_the_time(settings: Settings) -> None:
    address = settings.url.removesuffix("/v1")
    generate.ask(f"{address}/begin", {"expected": 2, "pid": os.getpid()})
    with pytest.raises(HTTPError):
        generate.ask(f"{address}/v1/chat/completions", {"model": "served", "messages": []})  # Curator's look
    generate.ask(f"{address}/v1/models")
    assert generate.ask(f"{address}/measured")["requests"] == 0
    before = time.time()
    for _ in range(2):
        reply = generate.ask(f"{address}/v1/chat/completions", {"messages": [{"role": "user", "content": "?"}]})
    told, after = generate.ask(f"{address}/measured"), time.time()
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert told["requests"] == told["replies"] == 2
    assert before <= told["first"] < told["first"] + told["seconds"] <= after
    assert told["seconds"] >= 0.04, "two answers, one after the other"
    generate.ask(f"{address}/begin", {"expected": 2, "pid": os.getpid()})
    assert generate.ask(f"{address}/measured")["replies"] == 0


def test_cpu_seconds_are_those_of_the_process() -> None:
    own = os.times()
    assert slow_server.cpu_seconds(os.getpid()) == pytest.approx(sum(own[:4]), abs=0.1)
    assert slow_server.cpu_seconds(2**22 + 1) == 0.0, "a process that is gone"


def test_the_relay_keeps_the_time(settings: Settings, tmp_path: Path) -> None:
    port = int(settings.url.rpartition(":")[2].partition("/")[0])
    with relay.Relay(port) as between:
        through = replace(settings, url=f"http://127.0.0.1:{between.port}/v1")
        generate.ask(f"{through.url}/models")
        assert between.noted.requests == 0
        assert between.noted.last == 0.0
        told = run(CONTESTANTS[BARE], through, tmp_path / "run" / "out")
        assert told["stored"] == between.noted.requests == 6
        assert 0.04 <= between.noted.seconds < 5, "two turns of three, 0.02 s each"
        last = between.noted.last
        generate.ask(f"{through.url}/models")
        assert between.noted.last == last, "only replies to chat completions end the time"


@pytest.mark.slow
def test_both_ask_the_same_seeds(settings: Settings, tmp_path: Path) -> None:
    """What distill asked goes to the bare loop with the seeds of its ledger."""
    from contestants import PREPARING, SEEDS

    out = tmp_path / "run" / "out"
    run(PREPARING, settings, out)
    run(CONTESTANTS[DISTILL], settings, out)
    run(SEEDS, settings, out)
    rows = [json.loads(line) for line in (out / "asked.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [json.loads(line)["question"] for line in settings.prompts.read_text(encoding="utf-8").splitlines()]
    assert sorted(row["question"] for row in rows) == sorted(asked)
    assert len({row["seed"] for row in rows}) == len(rows)


def test_a_file_is_appended_to_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor))
    rows = [{"id": str(n % 100), "usage": {"completion_tokens": 2}} for n in range(150)]
    with Durable(tmp_path / "replies.jsonl") as file:
        for row in rows[:64]:
            file.append(row)
        deadline = time.monotonic() + 0.4
        while not synced and time.monotonic() < deadline:
            time.sleep(0.01)
        assert synced, "64 records are a group, before the half second is over"
        for row in rows[64:]:
            file.append(row)
    assert file.stored() == (100, 200), "each reply once"
    assert len(synced) >= 2, "and the rest when it is closed"


def test_who_may_take_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require([BARE, DISTILL])
    with pytest.raises(SystemExit, match="no such contestant: httpx"):
        require(["httpx"])
    monkeypatch.setitem(CONTESTANTS, "Curator", Contestant("curator_run.py", tmp_path / "python"))
    with pytest.raises(SystemExit, match="make bench-peers"):
        require([BARE, "Curator"])
    assert Path(sys.executable) == OWN
