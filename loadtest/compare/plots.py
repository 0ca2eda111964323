"""What the page shows: each plot with its title and a sentence on how to read it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from loadtest.compare import svg
from loadtest.compare.results import PARTS, View
from loadtest.compare.schedule import Point
from loadtest.compare.svg import Bar, Line, Value, duration
from loadtest.result import Spread

PALETTE: Final = 8
PART_COLOURS: Final = {name: number for number, name in enumerate(PARTS, start=PALETTE)}
_PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
_LABELLED: Final = (50.0, 90.0, 99.0, 99.9)


class Plot(NamedTuple):
    """One figure of the page."""

    title: str
    text: str
    drawn: str


def plots(view: View) -> Iterator[Plot]:
    """All of them."""
    for point in dict.fromkeys((*view.closed[:1], view.common)):
        yield _percentiles(view, point)
    if len(view.open) > 1:
        yield _by_rate(view, "p50_us", "Median latency at fixed rates")
        yield _by_rate(view, "p99_us", "p99 latency at fixed rates")
    yield _cpu(view)
    if view.closed:
        yield _throughput(view)


def colour(view: View, variant: str) -> int:
    """A variant's number in the palette."""
    return view.variants.index(variant) % PALETTE


def _percentiles(view: View, point: Point) -> Plot:
    def scale(percentile: float) -> float:
        return -math.log10(1 - percentile / 100)

    drawn = []
    for variant in view.variants:
        values = []
        found = view.percentiles(variant, point, _PERCENTILES)
        for at, value in zip(_PERCENTILES, (max(it, 1.0) for it in found), strict=True):
            tip = f"{variant}: p{at:g} {duration(value)}"
            values.append(Value(scale(at), value, value, value, tip))
        drawn.append(Line(colour(view, variant), values))
    ticks = [(scale(at), f"p{at:g}") for at in _LABELLED]
    title = f"Latency by percentile, {point}"
    return Plot(
        title,
        (
            "Fixed rate; counted from when each request was to start."
            if point.rate
            else "Each answer begins the next request."
        )
        + " Medians of the repeats.",
        svg.lines(drawn, ticks, "share of requests that were faster", title),
    )


def _by_rate(view: View, figure: str, title: str) -> Plot:
    drawn = []
    for variant in view.variants:
        values = []
        for point in view.open:
            spread = view.spread(variant, point, figure)
            got = view.spread(variant, point, "requests_per_second").median
            tip = f"{variant}: {duration(spread.median)} at {point}, {got:,.0f}/s answered"
            middle, least, most = (max(each, 1.0) for each in _of(spread))
            values.append(Value(math.log10(point.rate), middle, least, most, tip))
        drawn.append(Line(colour(view, variant), values))
    ticks = [(math.log10(point.rate), f"{point.rate:g}") for point in view.open]
    text = "Median of the repeats, with the least and the most. Steep means: cannot keep up."
    return Plot(title, text, svg.lines(drawn, ticks, "requests per second", title))


def _cpu(view: View) -> Plot:
    groups = []
    for point in dict.fromkeys((*view.closed[:1], view.common, *view.closed[-1:])):
        bars = []
        for variant in view.variants:
            parts = []
            for figure, name in PARTS.items():
                if view.has(variant, point, figure):
                    spread = view.spread(variant, point, figure)
                    tip = f"{variant}, {name}: {spread} µs at {point}"
                    parts.append(Value(PART_COLOURS[figure], *_of(spread), tip))
            total = sum(part.value for part in parts)
            bars.append(Bar(variant, parts, f"{total:,.0f} µs"))
        groups.append((str(point), bars))
    title = "CPU per request"
    text = "Two sidecars and whom each of them asks; neither app nor clients. Medians."
    return Plot(title, text, svg.bars(groups, title))


def _throughput(view: View) -> Plot:
    groups = []
    for point in view.closed:
        bars = []
        for variant in view.variants:
            spread = view.spread(variant, point, "requests_per_second")
            tip = f"{variant}, {point}: {spread}/s"
            part = Value(colour(view, variant), *_of(spread), tip)
            bars.append(Bar(variant, [part], f"{spread.median:,.0f}/s"))
        groups.append((str(point), bars))
    title = "Requests per second, as many as there can be"
    text = "Closed loop: each answer begins the next request. Median, with the least and the most."
    return Plot(title, text, svg.bars(groups, title))


def _of(spread: Spread) -> tuple[float, float, float]:
    return spread.median, spread.least, spread.most
