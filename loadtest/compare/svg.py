"""Plots as SVG, by hand: lines over a scale, and bars. Colours and fonts are the page's.

Everything that stands for a value has the class `mark`, a tooltip, and is counted in the plot's
`data-marks`, so that a test can see that all of them are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 560
_HEIGHT: Final = 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 46
_BAR, _GAP, _GROUP_GAP = 15, 4, 16
_NAMES: Final = 184
_VALUES: Final = 70


class Value(NamedTuple):
    """A point of a line, or the length of a bar, with the range of its repeats."""

    at: float
    """Where on the horizontal scale; of bars, the number of the colour."""
    value: float
    least: float
    most: float
    tip: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a plot; `colour` is a number of the page's palette."""

    colour: int
    values: Sequence[Value]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar made of parts, one after the other."""

    name: str
    parts: Sequence[Value]
    said: str
    """Written at its end."""


def duration(microseconds: float) -> str:
    """For people."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def lines(
    drawn: Sequence[Line],
    ticks: Sequence[tuple[float, str]],
    x_title: str,
    title: str,
    write: Callable[[float], str] = duration,
) -> str:
    """Lines over `ticks`, with a logarithmic vertical scale."""
    values = [value for line in drawn for value in line.values]
    low = min(value.least for value in values) / 1.15
    high = max(value.most for value in values) * 1.15
    left, right = ticks[0][0], ticks[-1][0]

    def x(at: float) -> float:
        share = (at - left) / (right - left) if right > left else 0.5
        return _LEFT + 12 + share * (WIDTH - _LEFT - _RIGHT - 24)

    def y(value: float) -> float:
        share = math.log(value / low) / math.log(high / low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    out = []
    for tick in _decades(low, high):
        out.append(_rule(_LEFT, y(tick), WIDTH - _RIGHT, y(tick)))
        out.append(_text(_LEFT - 8, y(tick) + 4, write(tick), "tick end"))
    for at, said in ticks:
        out.append(_rule(x(at), _HEIGHT - _BOTTOM, x(at), _HEIGHT - _BOTTOM + 5))
        out.append(_text(x(at), _HEIGHT - _BOTTOM + 19, said, "tick middle"))
    out.append(_text((WIDTH + _LEFT) / 2, _HEIGHT - 6, x_title, "axis middle"))
    for line in drawn:
        places = " ".join(f"{x(v.at):.1f},{y(v.value):.1f}" for v in line.values)
        out.append(f'<polyline class="line c{line.colour}" points="{places}"/>')
    for line in drawn:
        for value in line.values:
            across, up = x(value.at), y(value.value)
            if value.most > value.least:
                whisker = f'x1="{across:.1f}" x2="{across:.1f}"'
                out.append(
                    f'<line class="whisker c{line.colour}" {whisker} '
                    f'y1="{y(value.least):.1f}" y2="{y(value.most):.1f}"/>'
                )
            out.append(
                f'<circle class="mark c{line.colour}" cx="{across:.1f}" cy="{up:.1f}" r="4.5">'
                f"<title>{escape(value.tip)}</title></circle>"
            )
    return _svg(out, _HEIGHT, title, len(values))


def bars(groups: Sequence[tuple[str, Sequence[Bar]]], title: str) -> str:
    """Bars in groups, one group below the other; a group's name stands above it."""
    every = [bar for _, group in groups for bar in group]
    longest = max(_length(bar) for bar in every) or 1
    scale = (WIDTH - _NAMES - _VALUES) / longest
    out, down, count = [], 6.0, 0
    for name, group in groups:
        if name:
            out.append(_text(0, down + 13, name, "group"))
            down += 22
        for bar in group:
            out.append(_text(_NAMES - 8, down + _BAR - 3, bar.name, "tick end"))
            across = float(_NAMES)
            for part in bar.parts:
                wide = max(part.value * scale, 0.5)
                out.append(
                    f'<rect class="mark c{part.at:g}" x="{across:.1f}" y="{down:.1f}" '
                    f'width="{wide:.1f}" height="{_BAR}" rx="2">'
                    f"<title>{escape(part.tip)}</title></rect>"
                )
                if len(bar.parts) == 1 and part.most > part.least:
                    middle = down + _BAR / 2
                    ends = (_NAMES + part.least * scale, _NAMES + part.most * scale)
                    out.append(
                        f'<line class="range" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" '
                        f'y1="{middle:.1f}" y2="{middle:.1f}"/>'
                    )
                across += wide
                count += 1
            end = max(across, _NAMES + _length(bar) * scale)
            out.append(_text(end + 6, down + _BAR - 3, bar.said, "value"))
            down += _BAR + _GAP
        down += _GROUP_GAP
    return _svg(out, down - _GROUP_GAP + 4, title, count)


def _length(bar: Bar) -> float:
    return max(sum(part.value for part in bar.parts), *(part.most for part in bar.parts[:1]))


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten, or powers alone where that would be too many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [
            step * 10.0**power
            for power in range(first, last + 1)
            for step in steps
            if low <= step * 10.0**power <= high
        ]
        if len(found) <= 9:
            break
    return found


def _svg(content: Iterable[str], height: float, title: str, marks: int) -> str:
    return (
        f'<svg class="plot" role="img" aria-label="{escape(title)}" data-marks="{marks}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}">' + "".join(content) + "</svg>"
    )


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="rule" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, said: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(said)}</text>'
