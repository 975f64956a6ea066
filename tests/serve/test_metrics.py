"""What vLLM's metrics tell, held against pages recorded from a real server; pages put together; tokens per second."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from vllm_server import vllm_python

from distill.errors import InputError
from distill.serve.metrics import Rates, Reading, merged, read
from distill.serve.prometheus_text import families
from distill.serve.state import ReplicaState, ServiceState, own_metrics

RECORDED = Path(__file__).parents[1] / "recorded" / "vllm-0.32"
FULL = (RECORDED / "metrics_full.txt").read_text(encoding="utf-8")
BUSY = (RECORDED / "metrics_busy.txt").read_text(encoding="utf-8")
STATE = ServiceState(
    teacher="deepseek-r1",
    since=1.0,
    pid=7,
    replicas=(ReplicaState("replica-0", "ready", 2.0, restarts=3), ReplicaState('odd"\n\\name', "stuck", 4.0)),
)
PROBE = {"prompt_tokens": 31, "completion_tokens": 1}
"""The request by which `vllm_server` sees that the server is there: "Hi", one token."""


def test_a_reading_is_what_the_replies_themselves_said() -> None:
    replies = json.loads((RECORDED / "metrics_usage.json").read_text(encoding="utf-8"))
    used = [*replies, PROBE]
    assert read(FULL) == Reading(
        generation_tokens=sum(reply["completion_tokens"] for reply in used),
        prompt_tokens=sum(reply["prompt_tokens"] for reply in used),
        running=0,
        waiting=0,
        kv_usage=0.0,
        preemptions=0,
        finished={"stop": 2, "length": 2, "abort": 0, "error": 0, "repetition": 0},
    )
    assert [reply["finish_reason"] for reply in replies] == ["stop", "stop", "length"]


def test_a_busy_server_tells_what_runs_and_what_waits() -> None:
    busy = read(BUSY)
    assert (busy.running, busy.waiting) == (16, 4)
    assert busy.kv_usage == pytest.approx(16 / 181), "16 requests of one block each; block 0 is not for use"


def test_engines_of_a_replica_are_added_up() -> None:
    """As with data parallel 2: every series twice, told apart by the label `engine`."""
    other = BUSY.replace('engine="0"', 'engine="1"').replace("0.08839779005524862", "0.5")
    twice, once = read(BUSY + "\n".join(line for line in other.splitlines() if line.startswith("vllm:"))), read(BUSY)
    assert twice.generation_tokens == 2 * (once.generation_tokens or 0) > 0
    assert twice.prompt_tokens == 2 * (once.prompt_tokens or 0) > 0
    assert (twice.running, twice.waiting) == (32, 8)
    assert twice.kv_usage == pytest.approx((16 / 181 + 0.5) / 2)
    assert twice.finished == {reason: 2 * count for reason, count in once.finished.items()}


def test_what_a_server_does_not_tell_is_not_zero() -> None:
    assert read("# nothing\nvllm:num_requests_running NaN\n") == Reading()
    assert read("vllm:num_preemptions_total 3.0\n") == Reading(preemptions=3)
    with pytest.raises(InputError, match="line 1"):
        read("<html>Bad gateway</html>")


def series(page: str) -> list[tuple[str, frozenset[tuple[str, str]], str]]:
    return [(s.name, frozenset(s.labels), s.value) for family in families(page) for s in family.samples]


def test_pages_become_one_and_nothing_is_lost() -> None:
    page = merged({"a": FULL, "b": BUSY}, own_metrics(STATE))
    names = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), "a family twice"
    expected = series(own_metrics(STATE))
    for replica, text in (("a", FULL), ("b", BUSY)):
        expected += [(name, labels | {("replica", replica)}, value) for name, labels, value in series(text)]
    assert Counter(series(page)) == Counter(expected)
    assert 'vllm:generation_tokens_total{replica="b",engine="0",model_name="smollm2"} 198.0' in page.splitlines()


def test_own_metrics_tell_states() -> None:
    found = {(name, labels): value for name, labels, value in series(own_metrics(STATE))}
    first, second = ("replica", "replica-0"), ("replica", 'odd"\n\\name')
    assert found["distill_replica_up", frozenset({first})] == "1"
    assert found["distill_replica_up", frozenset({second})] == "0"
    assert found["distill_replica_restarts_total", frozenset({first})] == "3"
    states = {labels for (name, labels), value in found.items() if name == "distill_replica_state" and value == "1"}
    assert states == {frozenset({first, ("state", "ready")}), frozenset({second, ("state", "stuck")})}
    assert sum(name == "distill_replica_state" for name, _ in found) == 2 * 7


def test_a_page_that_cannot_be_read_does_not_take_the_others_with_it() -> None:
    page = merged({"a": "a 1\nbroken\n", "b\nc": "x{", "d": "d 4\n"}, "own 0\n")
    assert series(page) == [("own", frozenset(), "0"), ("d", frozenset({("replica", "d")}), "4")]
    assert "# a: left out, line 2 is no Prometheus text" in page
    assert "# b c: left out, line 1" in page
    with pytest.raises(InputError):
        merged({}, "broken")


def test_replicas_that_disagree_leave_a_valid_page() -> None:
    texts = {
        "a": "# TYPE x gauge\nx 1\nx 2\n",
        "b": "# TYPE x counter\nx 3\n",
        "c": '# TYPE x gauge\nx{replica="z"} 4\n',
    }
    page = merged(texts, "")
    assert series(page) == [
        ("x", frozenset({("replica", "a")}), "1"),
        ("x", frozenset({("replica", "c"), ("exported_replica", "z")}), "4"),
    ]
    assert "# b: x left out, a counter among gauges" in page


def test_a_replica_cannot_say_it_again_for_the_service() -> None:
    own = own_metrics(STATE)
    page = merged({"replica-0": own.replace('replica="replica-0"', 'of="x"')}, own)
    assert len(set(series(page))) == len(series(page))
    again = merged({"replica-0": "# TYPE distill_replica_up gauge\ndistill_replica_up 0\n"}, own)
    up = [
        value for name, labels, value in series(again) if labels == {("replica", "replica-0")} and name.endswith("up")
    ]
    assert up == ["1"], "what the service itself says counts"


@pytest.mark.vllm
def test_prometheus_own_parser_reads_the_page(tmp_path: Path) -> None:
    python = vllm_python()
    assert python is not None, "no vLLM here: make vllm"
    path = tmp_path / "metrics.prom"
    path.write_text(merged({"a": FULL, "b": BUSY}, own_metrics(STATE)), encoding="utf-8")
    script = (
        "import json, sys\nfrom prometheus_client.parser import text_string_to_metric_families as read\n"
        "page = open(sys.argv[1], encoding='utf-8', newline='').read()\n"
        "print(json.dumps([[s.name, s.labels, s.value] for family in read(page) for s in family.samples]))\n"
    )
    done = subprocess.run([python, "-c", script, str(path)], capture_output=True, text=True, check=True)
    theirs = [(name, tuple(sorted(labels.items())), value) for name, labels, value in json.loads(done.stdout)]
    ours = [(name, tuple(sorted(labels)), float(value)) for name, labels, value in series(path.read_text("utf-8"))]
    assert sorted(theirs) == sorted(ours)


def counted(tokens: int) -> Reading:
    return Reading(generation_tokens=tokens)


def test_rates_are_tokens_over_the_time_between_readings() -> None:
    rates = Rates()
    assert rates.tokens_per_second("a", 0.0) is None
    rates.note("a", counted(1_000), 10.0)
    assert rates.tokens_per_second("a", 10.0) is None, "one reading tells no rate"
    rates.note("a", counted(1_500), 15.0)
    rates.note("b", counted(0), 15.0)
    assert rates.tokens_per_second("a", 15.0) == pytest.approx(100.0)
    assert rates.tokens_per_second("a", 20.0) == pytest.approx(50.0), "nothing new since"
    assert rates.tokens_per_second("b", 20.0) is None


def test_two_readings_at_one_moment_tell_no_rate() -> None:
    rates = Rates()
    rates.note("a", counted(1), 5.0)
    rates.note("a", counted(9), 5.0)
    assert rates.tokens_per_second("a", 5.0) is None
    assert rates.tokens_per_second("a", 6.0) == pytest.approx(8.0)


def test_rates_forget_what_is_older_than_a_minute() -> None:
    rates = Rates()
    for second in range(0, 200, 5):
        rates.note("a", counted(second * (10 if second <= 100 else 100)), float(second))
    # from 135 to 195 s: 100 tokens/s
    assert rates.tokens_per_second("a", 195.0) == pytest.approx(100.0)
    assert rates.tokens_per_second("a", 254.9) is None, "only the last reading is within a minute"
    assert len(rates._gains["a"]) <= 13, "readings are not kept"


def test_a_restart_never_makes_a_rate_negative() -> None:
    rates = Rates()
    for at, tokens in ((0.0, 5_000), (10.0, 6_000), (20.0, 0), (30.0, 300), (40.0, 700)):
        rates.note("a", counted(tokens), at)
        rate = rates.tokens_per_second("a", at)
        assert rate is None or rate >= 0
    assert rates.tokens_per_second("a", 40.0) == pytest.approx((1_000 + 0 + 300 + 400) / 40)
    rates.note("a", counted(100), 50.0)  # again, and this time it has worked before it was asked
    assert rates.tokens_per_second("a", 50.0) == pytest.approx((1_000 + 300 + 400 + 100) / 50)


def test_rates_of_a_server_that_does_not_tell() -> None:
    rates = Rates()
    rates.note("a", Reading(), 0.0)
    rates.note("a", counted(10), 1.0)
    rates.note("a", Reading(), 2.0)
    rates.note("a", counted(30), 3.0)
    assert rates.tokens_per_second("a", 3.0) == pytest.approx(10.0)
    rates.forget("a")
    assert rates.tokens_per_second("a", 3.0) is None
    rates.note("a", counted(90), 4.0)
    assert rates.tokens_per_second("a", 4.0) is None, "what was forgotten is not the one before"
