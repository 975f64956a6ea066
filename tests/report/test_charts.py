"""Charts: the same bytes for the same numbers, colours left to the page, nothing drawn from nothing, no text obeyed."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import pairwise

import pytest

from distill import wording
from distill.report import charts

GROUPS = [Counter({40: 5, 80: 20, 120: 3}), Counter({256: 9})]
ROWS = [("teacher", 0.97, 0.95, 0.98, False), ("student", 0.86, 0.83, 0.89, True)]
DRAWN = {
    "lengths": lambda: charts.lengths("lengths", "Lengths", GROUPS),
    "losses": lambda: charts.losses("losses", "Loss", [(10, 2.0), (20, 1.0)], [(20, 1.5)]),
    "intervals": lambda: charts.intervals("intervals", "Scores", ROWS),
    "durations": lambda: charts.durations("durations", "Time", {"prompts": 0.2, "generate": 4_000.0}),
}


def parsed(svg: str | None) -> ElementTree.Element:
    assert svg is not None
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_is_markup_for_a_page(name: str) -> None:
    svg = DRAWN[name]()
    root = parsed(svg)
    assert svg is not None
    assert svg == DRAWN[name](), "the same bytes again"
    assert root.get("role") == "img"
    assert root.get("viewBox", "").startswith(f"0 0 {charts.WIDTH} ")
    assert root.get("aria-labelledby") == root[0].get("id") == f"{name}-title"
    assert not {"width", "height"} & set(root.attrib), "the page decides how large it is"
    assert all(part.startswith(f"{name}-") for part in ids(svg)), "two charts share a page"
    assert "#0" not in svg, "a stand-in colour was left"
    assert "var(--first)" in svg
    assert not any(
        word in svg for word in ("metadata", "<?xml", "<style", "xlink", "http:", "DejaVu", "matplotlib.org")
    )
    marks = [part for part in root.iter() if part.get("class") == "mark"]
    assert marks
    assert all(any(child.tag in ("path", "use") for child in mark.iter()) for mark in marks)


def ids(svg: str) -> list[str]:
    return [part.split('"')[0] for part in svg.split(' id="')[1:]]


def test_without_numbers_there_is_no_chart() -> None:
    assert charts.lengths("x", "", [Counter(), Counter()]) is None
    assert charts.losses("x", "", [], []) is None
    assert charts.intervals("x", "", []) is None
    assert charts.durations("x", "", {}) is None


def test_hostile_names_stay_text() -> None:
    name = "</svg><script>alert(1)</script>$x^2$\x1b"
    svg = charts.intervals("scores", name, [(name, 0.5, 0.4, 0.6, False)])
    root = parsed(svg)
    assert not any(part.tag == "script" for part in root.iter())
    assert any("</svg><script>aler" in (part.text or "") for part in root.iter("text"))


def test_a_single_point_and_a_single_length_are_drawn() -> None:
    assert "<use" in str(charts.losses("one", "", [(1, 2.0)], []))
    assert parsed(charts.lengths("one", "", [Counter({0: 1, 1: 1})])) is not None


def test_long_replies_fall_into_few_bars() -> None:
    svg = charts.lengths("long", "", [Counter(dict.fromkeys(range(0, 32768, 7), 1))])
    assert svg is not None
    assert len(svg) < 12_000


# --- words -----------------------------------------------------------------------------------------------------------


def test_words_for_numbers() -> None:
    assert [wording.duration(s) for s in (None, 3.21, 48.4, 307, 7_500)] == [
        "unknown", "3.2 s", "48 s", "5 min 07 s", "2 h 05 min",
    ]  # fmt: skip
    assert [wording.size(b) for b in (12, 5_125_832, 1.5e11)] == ["12 B", "5.1 MB", "150 GB"]
    assert wording.count(1_234_567) == "1\u202f234\u202f567"
    assert wording.types({"F32": 3, "Q4_K": 790, "Q6_K": 207}) == "Q4_K 79%, Q6_K 21%, F32 0.3%"
    assert wording.points(-0.0123) == "−1.2"
    assert wording.span("2026-11-25T06:07:10.8+00:00", "2026-11-25T07:00:00+00:00") == "2026-11-25 06:07 to 07:00"


def test_a_text_is_cut_in_the_middle_and_loses_nothing_unsaid() -> None:
    text = "".join(map(str, range(5_000)))
    begin, left, end = wording.cut(text, 300)
    assert len(begin) + left + len(end) == len(text)
    assert text.startswith(begin)
    assert text.endswith(end)
    assert wording.cut("short", 300) == ("short", 0, "")
    for wide in ("你" * 5_000, "<" * 5_000, "😀" * 5_000):
        begin, left, end = wording.cut(wide, 300)
        assert len(begin) + left + len(end) == 5_000
        assert len((begin + end).encode()) <= 2 * 300


def test_what_a_terminal_would_obey_is_shown_as_a_sign() -> None:
    shown = wording.displayable("\x1b[31m\x00\x7f\x9b \ud800 a\r\nb\rc\td \u202e")
    assert shown == "␛[31m␀␡\ufffd \ufffd a\nb␍c\td \ufffd"
    shown.encode()


def test_quantities_on_axes_never_stand_twice() -> None:
    shown = [wording.short_count(v) for v in (0, 2.5, 950, 12_000, 12_500, 3_400_000)]
    assert all(a != b for a, b in pairwise(shown))
