"""The service's page, JSON and metrics, asked for over the loopback."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from html.parser import HTMLParser
from http.client import HTTPResponse
from typing import Any, get_args

import pytest

from distill.errors import UsageError
from distill.serve.metrics import merged
from distill.serve.page import SIGNS, Pages, number, serving, share, span
from distill.serve.state import ReplicaState, ServiceState, State, own_metrics
from serve.shown import BUSY, FULL, NOW, STATE, pages, shown


def get(url: str, host: str | None = None) -> HTTPResponse:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    answer: HTTPResponse = opener.open(urllib.request.Request(url, headers={"Host": host} if host else {}), timeout=20)
    return answer


class Rows(HTMLParser):
    """The cells of a table's body, as text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._open = False
        self.feed(page.partition("<tbody>")[2].partition("</tbody>")[0])

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


def test_a_row_says_what_a_replica_does() -> None:
    with shown(pages()) as address, get(address + "/") as answer:
        page = answer.read().decode()
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
    rows = Rows(page).rows
    address = "http://10.0.0.1:8000/v1"
    assert rows[0] == ["replica-0", "✓ ready", "2 h 05 min", address, "1\u202f234", "16", "4", "8.8%", "0", "–"]
    assert rows[1][:9] == ["replica-1", "! stuck", "1 min", "http://10.0.0.2:8000/v1", "3.2", "0", "0", "0%", "2"]
    assert rows[2] == ["replica-2", "✕ failed", "5 s", "–", "–", "–", "–", "–", "5", STATE.replicas[2].last_error]
    assert [row[1].split(" ")[1] for row in rows] == [replica.state for replica in STATE.replicas]
    assert "<title>1 of 7 ready: deepseek-r1</title>" in page
    assert "Started <time datetime=" in page
    assert "3 d 4 h ago</time>, process 4711" in page
    totals = dict(re.findall(r'<dd id="(\w+)">([^<]*)</dd>', page))
    assert totals == {"rate": "1\u202f238", "running": "16", "waiting": "4", "generated": "223", "restarts": "8"}


def test_a_service_without_replicas_has_a_page() -> None:
    page = pages(replace(STATE, replicas=())).html()
    assert "No replica has been started yet." in page
    assert "<title>0 of 0 ready" in page
    assert '<dd id="rate">–</dd>' in page


def test_whatever_a_server_wrote_is_text() -> None:
    page = pages(replace(STATE, teacher="<b>r1</b>\ud800")).html()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;window.injected = 1&lt;/script&gt;" in page
    assert "\ufffd[31mred\ufffdbackwards" in page, "neither colours nor another direction"
    assert "<h1>&lt;b&gt;r1&lt;/b&gt;\ufffd</h1>" in page
    assert "full\n  to do" in page, "lines stay lines"


def test_it_needs_nothing_from_elsewhere() -> None:
    page = pages().html()
    assert re.findall(r"(?:src|href|url|@import)\s*[=(]\s*[\"']?([^\"'>\s)]+)", page) == [
        "x",
        "/?refresh=off",
        "/state",
        "/metrics",
    ]


def test_it_loads_itself_again_unless_asked_not_to() -> None:
    with shown(pages()) as address:
        moving, still = (get(address + path).read().decode() for path in ("/", "/?refresh=off"))
    assert '<meta http-equiv="refresh" content="5">' in moving
    assert 'http-equiv="refresh"' not in still
    assert '<a href="/?refresh=off">stop that</a>' in moving
    assert '<a href="/">load it again every 5 seconds</a>' in still


def test_state_as_json() -> None:
    with shown(pages()) as address, get(address + "/state") as answer:
        assert answer.headers["Content-Type"].startswith("application/json")
        content = json.loads(answer.read())
    assert content == json.loads(json.dumps(STATE.to_json()))
    assert content["format"] == 1
    assert (content["teacher"], content["since"], content["pid"]) == ("deepseek-r1", STATE.since, 4_711)
    first = content["replicas"][0]
    assert first["reading"]["waiting"] == 4
    assert first["reading"]["finished"]["stop"] == 2
    assert {
        key: first[key] for key in ("name", "state", "url", "restarts", "tokens_per_second", "pid", "last_error")
    } == {
        "name": "replica-0",
        "state": "ready",
        "url": "http://10.0.0.1:8000/v1",
        "restarts": 0,
        "tokens_per_second": 1_234.5,
        "pid": 11,
        "last_error": None,
    }
    assert content["totals"] == {
        "ready": 1,
        "restarts": 8,
        "tokens_per_second": 1_237.75,
        "running": 16,
        "waiting": 4,
        "generation_tokens": 223,
    }


def test_totals_of_replicas_that_tell_nothing_are_unknown() -> None:
    totals = ServiceState("r1", NOW, 1, (ReplicaState("a", "starting", NOW),)).totals
    assert (totals.running, totals.waiting, totals.generation_tokens, totals.tokens_per_second) == (None,) * 4


def test_metrics_are_the_merged_page() -> None:
    with shown(pages()) as address, get(address + "/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.read().decode()
    assert text == merged({"replica-0": BUSY, "replica-1": FULL}, own_metrics(STATE)) == pages().metrics()
    assert 'distill_replica_state{replica="replica-1",state="stuck"} 1' in text.splitlines()


def test_every_request_asks_anew() -> None:
    states = iter([STATE, replace(STATE, teacher="another")])
    live = Pages(lambda: next(states), dict, now=lambda: NOW)
    with shown(live) as address:
        names = [json.loads(get(address + "/state").read())["teacher"] for _ in range(2)]
    assert names == ["deepseek-r1", "another"]


@pytest.mark.parametrize("host", ["localhost:80", "LOCALHOST", "127.0.0.1:9", "[::1]:8000"])
def test_names_of_this_machine_are_answered(host: str) -> None:
    with shown(pages()) as address:
        assert get(address + "/state", host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "[::2]:1"])
def test_another_name_that_leads_here_is_not(host: str) -> None:
    with shown(pages()) as address:
        for path in ("/", "/state", "/metrics"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                get(address + path, host)
            assert caught.value.code == 421
            assert b"deepseek" not in caught.value.read()


def test_a_page_for_other_machines_answers_to_any_name() -> None:
    with shown(pages(), "0.0.0.0") as address:
        assert get(address.replace("0.0.0.0", "127.0.0.1") + "/state", "gpu1.cluster:1").status == 200


def test_nothing_else_is_there() -> None:
    with shown(pages()) as address:
        for path, method, code in (("/key", "GET", 404), ("/../key", "GET", 404), ("/state", "POST", 405)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                    urllib.request.Request(address + path, method=method), timeout=20
                )
            assert caught.value.code == code


def test_a_taken_port_is_told() -> None:
    async def twice() -> None:
        async with serving(pages()) as address, serving(pages(), port=int(address.rpartition(":")[2])):
            pass

    with pytest.raises(UsageError, match="cannot be shown") as caught:
        asyncio.run(twice())
    assert "another port" in (caught.value.todo or "")


def test_the_address_is_free_again_afterwards() -> None:
    async def after_each_other() -> None:
        async with serving(pages()) as address:
            port = int(address.rpartition(":")[2])
        async with serving(pages(), port=port) as again:
            assert again == address

    asyncio.run(after_each_other())


def test_every_state_has_a_sign_of_its_own() -> None:
    assert set(SIGNS) == set(get_args(State)) == {replica.state for replica in STATE.replicas}
    assert len(set(SIGNS.values())) == len(SIGNS)


@pytest.mark.parametrize(
    ("shown_as", "value"),
    [
        ("–", number(None)), ("0", number(0)), ("3.2", number(3.25)), ("12", number(12.4)), ("7", number(7.0)),
        ("1\u202f234\u202f567", number(1_234_567)),
        ("–", share(None)), ("0%", share(0.0)), ("0.3%", share(0.003)), ("88%", share(0.884)), ("100%", share(1.0)),
        ("0 s", span(-3)), ("59 s", span(59.4)), ("1 min", span(60)), ("59 min", span(3_599)),
        ("1 h 00 min", span(3_600)), ("23 h 59 min", span(86_399)), ("1 d 0 h", span(86_400)),
    ],
)  # fmt: skip
def test_numbers_for_readers(shown_as: str, value: str) -> None:
    assert value == shown_as


def test_it_brings_in_no_server_until_it_serves() -> None:
    script = (
        "import sys, distill.serve.page; sys.exit(any(name in sys.modules for name in ('aiohttp', 'jinja2', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
