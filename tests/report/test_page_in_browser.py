"""The page in a real Chromium: it loads and runs nothing, every chart draws, it fits a phone and follows dark mode."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distill import specs
from distill.ledger import LedgerReader
from distill.report import stage
from distill.rundir import RunDir
from report import material

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SECTIONS = (
    "overview", "funnel", "rejections", "lengths", "loss", "accuracy", "sizes", "time", "traces", "provenance",
)  # fmt: skip
CHARTS = {"lengths", "reasoning", "loss", "accuracy", "time"}
DRAWN_MARKS = """() => Object.fromEntries([...document.querySelectorAll('.chart')].map(chart => [
    chart.dataset.chart,
    [...chart.querySelectorAll('svg .mark')].filter(mark => {
        const box = mark.getBoundingClientRect();
        const shape = mark.querySelector('path, use');
        const style = shape && getComputedStyle(shape);
        const painted = style && [style.fill, style.stroke].some(p => p.startsWith('rgb') && p !== 'rgba(0, 0, 0, 0)');
        return painted && box.width + box.height > 2 && box.right > 0;
    }).length]))"""
CONTRASTS = """() => {
    const lightness = text => {
        const parts = text.match(/[\\d.]+/g).slice(0, 3).map(Number).map(c => c / 255);
        const [r, g, b] = parts.map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = node => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    return [...document.querySelectorAll('body *')].filter(node =>
        [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())
        && node.checkVisibility({visibilityProperty: true})).map(node => {
        const style = getComputedStyle(node), back = lightness(ground(node));
        const front = lightness(node instanceof SVGElement ? style.fill : style.color);
        const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
        return [ratio, node.tagName + '.' + node.getAttribute('class') + ': ' + node.textContent.trim().slice(0, 40)];
    }).sort((a, b) => a[0] - b[0]);
}"""


@dataclass
class Visit:
    """A page that is open, and everything that went wrong or out while it was."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path, *, width: int = 1_280, scheme: str = "light") -> Any:
        self.page.set_viewport_size({"width": width, "height": 800})
        self.page.emulate_media(color_scheme=scheme)
        self.page.goto(path.resolve().as_uri())
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None, "no Chromium here; `make browser` installs one"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    context = browser.new_context()
    seen = Visit(context.new_page())
    seen.page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
    seen.page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
    seen.page.on("dialog", lambda dialog: seen.complaints.append(f"dialog: {dialog.message}"))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    yield seen
    context.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run, _ = material.finished(tmp_path_factory.mktemp("whole") / "run")
    stage.run(material.RECIPE, run)
    return run


def report(run: RunDir) -> Path:
    return run.path / "report.html"


def test_it_loads_nothing_and_complains_of_nothing(visit: Visit, whole: RunDir) -> None:
    page = visit.open(report(whole))
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_timeout(200)
    assert visit.complaints == []
    assert visit.requests == [report(whole).resolve().as_uri()]
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    for name in SECTIONS:
        assert page.locator(f"#{name}").bounding_box()["height"] > 20, name


def test_every_chart_is_drawn(visit: Visit, whole: RunDir) -> None:
    page = visit.open(report(whole))
    marks = page.evaluate(DRAWN_MARKS)
    assert set(marks) == CHARTS
    assert all(marks.values()), marks
    assert marks["accuracy"] == 2 * 5
    assert marks["time"] == 6
    assert page.locator("svg[role=img]").count() == len(CHARTS)
    assert page.get_by_role("img", name=re.compile("Time per stage: prompts 1 min 15 s")).count() == 1
    bars = page.evaluate("[...document.querySelectorAll('.funnel .fill')].map(b => b.getBoundingClientRect().width)")
    assert bars == sorted(bars, reverse=True)
    assert bars[-1] > 20


def test_a_chart_without_marks_would_be_seen(visit: Visit, whole: RunDir, tmp_path: Path) -> None:
    """The check above, checked: emptied shapes, shapes outside of the picture and colours that are none all fail it."""
    source = report(whole).read_text(encoding="utf-8")
    mutations = {
        "no shapes": re.sub(r'(<g class="mark">).*?</g>', r"\1</g>", source, flags=re.DOTALL),
        "no colours": source.replace("--first:", "--other:").replace("--second:", "--another:"),
        "hidden": source.replace("</style>", ".chart { display: none }</style>"),
    }
    for name, mutation in mutations.items():
        assert mutation != source, name
        (tmp_path / "mutated.html").write_text(mutation, encoding="utf-8")
        marks = visit.open(tmp_path / "mutated.html").evaluate(DRAWN_MARKS)
        assert not all(marks.values()), name


def test_a_run_without_data_shows_empty_states_in_place_of_charts(visit: Visit, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "empty")
    stage.run(specs.Recipe(name="bare"), run)
    page = visit.open(report(run), width=375)
    assert page.evaluate(DRAWN_MARKS) == {}
    assert {e.get_attribute("data-empty") for e in page.locator("[data-empty]").all()} == CHARTS
    assert all(e.is_visible() for e in page.locator(".empty").all())
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert visit.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(visit: Visit, whole: RunDir, scheme: str) -> None:
    page = visit.open(report(whole), scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 300
    assert found[0][0] >= 4.5, found[:5]


def test_charts_and_page_follow_the_readers_colours(visit: Visit, whole: RunDir) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = visit.open(report(whole), scheme=scheme)
        colours[scheme] = page.evaluate(
            "['body', '.mark path', '.chart text', '.figure', '.badge'].map(s => { const c = "
            "getComputedStyle(document.querySelector(s)); return [c.backgroundColor, c.color, c.fill] }).flat()"
        )
    pairs = list(zip(colours["light"], colours["dark"], strict=True))
    assert sum(light != dark for light, dark in pairs) >= 8, pairs


@pytest.mark.parametrize("width", [320, 375, 768])
def test_nothing_sticks_out_of_a_small_screen(visit: Visit, whole: RunDir, width: int) -> None:
    page = visit.open(report(whole), width=width)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.evaluate("innerWidth") == width
    outside = page.evaluate(
        "[...document.querySelectorAll('main h2, main p, .chart svg, .funnel li, .text, .figure')].filter(e => "
        "e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    table = page.locator("#accuracy .scroll")
    assert table.evaluate("t => t.scrollWidth > t.clientWidth"), "a wide table scrolls by itself"
    size = page.evaluate(
        "Math.min(...[...document.querySelectorAll('.chart text')].map(t => t.getBoundingClientRect().height))"
    )
    assert size > 8, "labels of charts can still be read"


def test_a_hostile_teacher_puts_nothing_into_the_page(visit: Visit, whole: RunDir) -> None:
    page = visit.open(report(whole))
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_timeout(200)
    assert page.evaluate("window.injected") is None
    assert page.evaluate("document.querySelectorAll('script, img, iframe, object, [onload], [onerror]').length") == 0
    assert page.evaluate("document.querySelectorAll('style').length") == 1
    assert page.evaluate("[...document.querySelectorAll('.trace')].every(t => t.parentElement.id === 'traces')")
    assert page.evaluate("document.querySelectorAll('main > section').length") == len(SECTIONS) - 1
    shown = page.locator(".trace .text", has_text="window.injected = 1; alert(1)").first
    assert shown.is_visible()
    assert "你好，世界" in shown.text_content()
    assert "␛[31mred" in shown.text_content()


def test_the_policy_stops_even_an_unescaped_script(visit: Visit, whole: RunDir, tmp_path: Path) -> None:
    source = report(whole).read_text(encoding="utf-8")
    path = tmp_path / "unescaped.html"
    path.write_text(source.replace("</main>", f"{material.HOSTILE}</main>", 1), encoding="utf-8", errors="replace")
    page = visit.open(path)
    page.wait_for_timeout(200)
    assert page.evaluate("document.querySelectorAll('script').length") == 1, "it is in the page"
    assert page.evaluate("window.injected") is None
    assert any("Content Security Policy" in complaint for complaint in visit.complaints)


def test_the_funnel_says_what_the_ledger_holds(visit: Visit, whole: RunDir) -> None:
    page = visit.open(report(whole))
    traces = list(LedgerReader(whole.traces).traces())

    def shown(step: str) -> int:
        text = page.locator(f"[data-step='{step}'] .number").inner_text()
        return int("".join(re.findall(r"\d", text)))

    assert shown("Traces answered") == sum(trace.finish_reason != "error" for trace in traces)
    assert shown("Finished whole") == sum(trace.finish_reason == "stop" for trace in traces)
    lost = page.locator("[data-step='Traces answered'] .note").inner_text()
    assert f"{sum(trace.finish_reason == 'error' for trace in traces)} failed" in lost


def test_links_lead_to_their_sections(visit: Visit, whole: RunDir) -> None:
    page = visit.open(report(whole))
    page.emulate_media(reduced_motion="reduce")  # a click into the midst of a scroll meets another place
    for name in SECTIONS[1:]:
        page.locator(f"nav a[href='#{name}']").click()
        page.wait_for_url(f"**#{name}")
        assert page.evaluate(f"document.querySelector(':target').id === '{name}'")
    assert visit.complaints == []


def test_it_prints_in_dark_mode_too(visit: Visit, whole: RunDir) -> None:
    page = visit.open(report(whole), scheme="dark")
    page.emulate_media(media="print", color_scheme="light")
    assert page.locator("nav").is_hidden()
    assert page.pdf(format="A4")[:4] == b"%PDF"
