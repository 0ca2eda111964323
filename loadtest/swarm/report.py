"""What Locust's own HTML report lacks: whether the run was good, and what happened when."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from loadtest.swarm.result import Result

_ROOT: Final = '<div id="root">'
"""Where Locust draws the rest (locust/webui, report.html)."""


class Happened(NamedTuple):
    """Something that a shape did; times are in seconds since the epoch."""

    what: str
    began: float
    ended: float


def verdict(result: Result, broken: Sequence[str]) -> str:
    """HTML: whether the run was good, its numbers, and every reason if not."""
    word, colour = ("FAILED", "#b3261e") if broken else ("GOOD", "#12734f")
    reasons = "".join(f"<li>{escape(it)}</li>" for it in broken)
    return (
        f'<h2 style="color:{colour}">{word}: {escape(str(result))}</h2>'
        f"{f'<ul>{reasons}</ul>' if broken else ''}"
    )


def timeline(events: Sequence[Happened], began: float, ended: float) -> str:
    """HTML: the run as a line on which events stand, and the same as a list."""
    if not events:
        return "<p>Nothing was changed meanwhile.</p>"
    length = max(ended - began, 1e-3)
    marks, rows = [], []
    for number, it in enumerate(events, 1):
        left, right = (min(max((at - began) / length, 0), 1) * 1000 for at in it[1:])
        marks.append(
            f'<rect x="{left:.1f}" y="6" width="{max(right - left, 3):.1f}" height="18" '
            f'fill="#d9730d" opacity="0.6"><title>{escape(it.what)}</title></rect>'
            f'<text x="{left:.1f}" y="38" font-size="12">{number}</text>'
        )
        rows.append(
            f"<li>{escape(it.what)}: from {it.began - began:.1f} s to {it.ended - began:.1f} s</li>"
        )
    return (
        f'<svg viewBox="0 0 1010 42" role="img" aria-label="what happened when" width="100%">'
        f'<line x1="0" y1="15" x2="1000" y2="15" stroke="currentColor"/>{"".join(marks)}</svg>'
        f"<ol>{''.join(rows)}</ol>"
    )


def put(file: Path, *parts: str) -> bool:
    """Put the parts above what Locust draws; whether the report had the place for them."""
    text = file.read_text()
    section = (
        '<section style="font:16px/1.5 system-ui,sans-serif;max-width:1240px;margin:0 auto;'
        f'padding:16px 24px">{"".join(parts)}</section>'
    )
    if text.count(_ROOT) != 1:
        return False
    file.write_text(text.replace(_ROOT, section + _ROOT))
    return True
