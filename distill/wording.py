"""Numbers and texts as a reader sees them: durations, sizes, shares, and texts made harmless. Knows nothing of runs."""

from __future__ import annotations

import html
import re

from distill.records import storable

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_UNSEEN = dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFFFE, 0xFFFF], 0xFFFD)
_VISIBLE = str.maketrans({**_PICTURES, 0x7F: 0x2421, **_UNSEEN})
"""Control characters → their pictures (ESC → ␛); C1 codes and those that turn the writing direction → U+FFFD."""

BYTES_PER_CHARACTER = 2
"""Of a cut text at most, markup escapes included: with four bytes a character a page could grow to several MB."""


def displayable(text: str) -> str:
    """A text that is valid UTF-8 and holds nothing a terminal or a browser would obey."""
    return storable(text).replace("\r\n", "\n").translate(_VISIBLE)


_FOLDERS = re.compile(r"(?<![\w:/.<])(?:/[^\s/'\"`]+)+/(?=[^\s/])")
"""The folders of an absolute path, not those of an address or behind a word, as in and/or."""


def without_folders(text: str) -> str:
    """Absolute paths by their last part alone: whose machine it was is nobody's business."""
    return _FOLDERS.sub("", text)


def cut(text: str, limit: int) -> tuple[str, int, str]:
    """(beginning, characters left out, end): two thirds of what fits stand before the gap, since endings tell most.

    What fits is at most `limit` characters, fewer where they take many bytes.
    """
    size = len(html.escape(text[:limit]).encode(errors="replace"))
    allowed = limit if size <= limit * BYTES_PER_CHARACTER else limit * limit * BYTES_PER_CHARACTER // size
    if len(text) <= allowed:
        return text, 0, ""
    tail = allowed // 3
    return text[: allowed - tail], len(text) - allowed, text[len(text) - tail :]


def count(value: float) -> str:
    """With thin spaces between thousands, as in 12 345."""
    return f"{value:,.0f}".replace(",", "\u202f")


def short_count(value: float) -> str:
    """For axes and key figures: 950, 12k, 3.4M, 1.2B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}".removesuffix(".0") + letter
    return f"{value:g}"


def share(value: float | None, digits: int = 1) -> str:
    return "unknown" if value is None else f"{value:.{digits}%}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign: −1.2."""
    return f"{value * 100:+.1f}".replace("-", "\u2212")


def duration(seconds: float | None) -> str:
    """3.2 s, 48 s, 5 min 07 s, 2 h 05 min."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60:02d} min"


def size(value: float | None) -> str:
    """Bytes in decimal units, as disks and downloads count them: 5.1 MB."""
    if value is None:
        return "unknown"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.{1 if value < 100 * unit else 0}f} {name}"
    return f"{value:.0f} B"


def types(elements: dict[str, int]) -> str:
    """`Q4_K 79%, Q6_K 20%, F32 0.3%`: the largest part first, a small one with a digit so that it is not called 0."""
    total = sum(elements.values())
    if not total:
        return "unknown"
    parts = sorted(elements.items(), key=lambda part: (-part[1], part[0]))
    shares = [(name, number / total) for name, number in parts if number]
    return ", ".join(f"{name} {part:.0%}" if part >= 0.01 else f"{name} {max(part, 1e-3):.1%}" for name, part in shares)


def moment(text: str | None) -> str:
    """An ISO time to the minute, in UTC: 2026-11-25 06:07."""
    found = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)", text or "")
    return f"{found[1]} {found[2]}" if found else "unknown"


def span(begin: str, end: str) -> str:
    """From one moment to another, the day once where it is the same."""
    first, last = moment(begin), moment(end)
    return f"{first} to {last[11:] if first[:10] == last[:10] else last}"
