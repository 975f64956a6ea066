"""Charts as SVG markup to be put inside a page: small, the same bytes for the same numbers, coloured by the page.

matplotlib draws in stand-in colours, which become CSS variables, so that a chart follows the page into dark mode. Knows
nothing about runs.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distill.wording import displayable, duration, short_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 420
"""Of a chart in units of its own; text of 12 units can still be read on a phone, where it shrinks to four fifths."""
BINS = 24
INK, MUTED, RULE, FIRST, SECOND, SOFT = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", FIRST: "first", SECOND: "second", SOFT: "soft"}
"""Stand-in colour → CSS variable of the page."""
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
}

Points = Sequence[tuple[float, float]]


class Canvas:
    """One chart being drawn; `svg` is its markup once the block is left."""

    def __init__(self) -> None:
        self.svg = ""
        self.axes: Axes
        self._marks = 0

    def mark(self, artist: Any) -> None:
        """Names what stands for data, so that a test can tell it from axes and labels."""
        artist.set_gid(f"mark-{self._marks}")
        self._marks += 1


@contextmanager
def drawing(name: str, title: str, height: int) -> Iterator[Canvas]:
    """A canvas of WIDTH × `height` with one pair of axes; `name` is unique within a page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    canvas = Canvas()
    settings: Any = {**SETTINGS, "svg.hashsalt": name}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # text stays text: the reader's browser has that sign
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout=ConstrainedLayoutEngine(w_pad=2 / 72, h_pad=3 / 72))
        canvas.axes = figure.add_subplot()
        yield canvas
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    canvas.svg = inlined(out.getvalue(), name, title)


def inlined(svg: str, name: str, title: str) -> str:
    """An SVG file as an element of a page: no prolog, no style sheet, no fixed size, ids of its own."""
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r'\bid="mark-(\d+)"', r'class="mark"', svg)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    title = f'<title id="{name}-title">{escape(displayable(title))}</title>'
    return f'<svg {box[0]} role="img" aria-labelledby="{name}-title">{title}' + svg[svg.index(">") + 1 :].strip()


def lengths(name: str, title: str, groups: Sequence[Counter[int]]) -> str | None:
    """Shares of two groups by length in tokens, the first filled, the second as an outline. None without a length."""
    longest = max((length for group in groups for length in group), default=0)
    if not longest:
        return None
    step = max(1, -(-(longest + 1) // BINS))
    edges = [place * step for place in range(-(-(longest + 1) // step) + 1)]
    with drawing(name, title, 220) as canvas:
        first: dict[str, Any] = {"fill": True, "facecolor": SOFT, "edgecolor": FIRST, "linewidth": 1}
        second: dict[str, Any] = {"edgecolor": SECOND, "linewidth": 2.2}
        for group, look in zip(groups, (first, second), strict=False):
            if group:
                bars = Counter[int]()
                for length, number in group.items():
                    bars[length // step] += number
                shares = [bars[place] / group.total() for place in range(len(edges) - 1)]
                canvas.mark(canvas.axes.stairs(shares, edges, **look))
        canvas.axes.set(xlabel="tokens", xlim=(0, edges[-1] * 1.01), ylim=(0, None))
        _axis(canvas.axes.xaxis, short_count, 5)
        _axis(canvas.axes.yaxis, lambda value: f"{value:.0%}", 4)
        canvas.axes.grid(visible=False, axis="x")
    return canvas.svg


def losses(name: str, title: str, loss: Points, heldout: Points) -> str | None:
    """Training loss as a line, held-out loss as a dashed one with points. None when neither was logged."""
    if not loss and not heldout:
        return None
    with drawing(name, title, 240) as canvas:
        for points, colour, style, marker in ((loss, FIRST, "-", ""), (heldout, SECOND, (0, (4, 2)), "o")):
            if points:
                steps, values = zip(*points, strict=True)
                marker = marker or ("o" if len(points) == 1 else "")
                (line,) = canvas.axes.plot(
                    steps, values, color=colour, linestyle=style, linewidth=2, marker=marker, markersize=4.5
                )
                canvas.mark(line)
        canvas.axes.set(xlabel="step", ylim=(0, None), xlim=(0, None))
        _axis(canvas.axes.xaxis, short_count, 5)
        _axis(canvas.axes.yaxis, lambda value: f"{value:.3g}", 5)
        canvas.axes.grid(visible=False, axis="x")
    return canvas.svg


def intervals(name: str, title: str, rows: Sequence[tuple[str, float, float, float, bool]]) -> str | None:
    """A dot and its interval for every (name, value, low, high, whether it stands out), from the top. None for none."""
    if not rows:
        return None
    with drawing(name, title, 58 + 30 * len(rows)) as canvas:
        for place, (_, value, low, high, stands_out) in enumerate(rows):
            colour = SECOND if stands_out else FIRST
            (line,) = canvas.axes.plot(
                [low, high], [place, place], color=colour, linewidth=2, marker="|", markersize=10
            )
            shape = "D" if stands_out else "o"
            (dot,) = canvas.axes.plot([value], [place], color=colour, marker=shape, markersize=7)
            canvas.mark(line)
            canvas.mark(dot)
        _named_rows(canvas.axes, [row[0] for row in rows])
        canvas.axes.set(xlim=(-0.03, 1.03), xlabel="pass@1 with its 95% interval")
        _axis(canvas.axes.xaxis, lambda value: f"{value:.0%}", 5)
    return canvas.svg


def durations(name: str, title: str, seconds: Mapping[str, float]) -> str | None:
    """A bar for every stage, its time written behind it. None when no stage has ended."""
    if not any(seconds.values()):
        return None
    with drawing(name, title, 26 + 30 * len(seconds)) as canvas:
        longest = max(seconds.values())
        for place, value in enumerate(seconds.values()):
            canvas.mark(canvas.axes.barh(place, max(value, longest / 400), height=0.55, color=FIRST)[0])
            canvas.axes.text(value + longest * 0.02, place, duration(value), va="center", color=INK)
        _named_rows(canvas.axes, list(seconds))
        canvas.axes.set(xlim=(0, longest * 1.28), xticks=[])
        canvas.axes.spines["bottom"].set_visible(False)
    return canvas.svg


def _named_rows(axes: Axes, names: Sequence[str]) -> None:
    shown = [displayable(name) for name in names]
    shown = [name if len(name) <= 20 else name[:19] + "…" for name in shown]
    axes.set_yticks(range(len(names)), shown)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _axis(axis: Any, wording: Callable[[float], str], most: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: wording(value)))
