"""The service's page in a real Chromium: it shows, runs nothing, loads itself again, can be read, fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from report.test_page_in_browser import ARGUMENTS, CHROMIUM, CONTRASTS

from distill.serve.page import REFRESH_SECONDS, Pages
from serve.shown import NOW, STATE, pages, shown

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None, "no Chromium here; `make browser` installs one"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    context.close()


def test_it_shows_and_runs_nothing(page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with shown(pages()) as address:
        page.goto(address + "/?refresh=off")
        page.wait_for_timeout(200)
        assert page.get_by_role("row").count() == 1 + len(STATE.replicas)
        assert page.get_by_role("row", name="replica-0").get_by_text("✓ ready").is_visible()
        assert page.get_by_role("columnheader").count() == 10
        assert page.get_by_role("rowheader").count() == len(STATE.replicas)
        assert page.get_by_role("region", name="Replicas").is_visible()
        assert page.evaluate("window.injected") is None
        assert page.locator("script, img").count() == 0
        assert page.complaints == []
        assert [url for url in asked if not url.endswith("/favicon.ico")] == [address + "/?refresh=off"]


def test_it_loads_itself_again(page: Any) -> None:
    teachers = iter(f"teacher-{number}" for number in range(100))
    live = Pages(lambda: replace(STATE, teacher=next(teachers)), dict, now=lambda: NOW)
    with shown(live) as address:
        page.goto(address)
        assert page.locator("h1").inner_text() == "teacher-0"
        page.locator("h1", has_text="teacher-1").wait_for(timeout=(REFRESH_SECONDS + 10) * 1_000)
        page.get_by_role("link", name="stop that").click()
        page.get_by_text("Stands still").wait_for()
        stood = page.locator("h1").inner_text()
        page.wait_for_timeout((REFRESH_SECONDS + 1) * 1_000)
        assert page.locator("h1").inner_text() == stood


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    with shown(pages()) as address:
        page.goto(address)
        found = page.evaluate(CONTRASTS)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert len(found) > 80
    assert found[0][0] >= 4.5, found[:5]
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(16, 20, 26)")


@pytest.mark.parametrize("width", [320, 768, 1_280])
def test_only_the_table_scrolls_on_a_small_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    with shown(pages()) as address:
        page.goto(address)
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert page.locator("table").evaluate("t => t.getBoundingClientRect().width") > 320
        page.locator(".scroll").focus()
        assert page.evaluate("document.activeElement.className") == "scroll", "it can be scrolled by keys"
