"""The estimate as a picture: what istiod sends as tenants come, with scoping and without.

Two lines on logarithmic axes are less than a package that draws them.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, floor, log10
from typing import Final
from xml.etree import ElementTree as ET

from authz.estimate.costs import MAX_PUSH, Load, pushes

_WIDTH, _HEIGHT = 800, 500
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 30, 60, 60
_STEPS: Final = 24
_STYLE: Final = "text{font:14px sans-serif;fill:#222} line{stroke:#ddd} path{fill:none}"
_LEAST: Final = 1e-3  # MB a second; less is drawn as this


def svg(load: Load) -> str:
    """A chart from a tenth of the tenants to ten times as many, as text of an SVG file."""
    tenants = sorted(
        {max(1, round(load.tenants * 10 ** (step * 2 / _STEPS - 1))) for step in range(_STEPS + 1)}
    )
    loads = [
        replace(load, tenants=count, changes=load.changes * count / load.tenants)
        for count in tenants
    ]
    lines = {
        ("without Sidecar", "#c0392b"): [_megabytes(one, scoped=False) for one in loads],
        ("with a Sidecar for each tenant", "#2457a6"): [
            _megabytes(one, scoped=True) for one in loads
        ],
        ("one gigabit", "#777"): [MAX_PUSH / 1e6] * len(loads),
    }
    values = [value for line in lines.values() for value in line]
    plane = _Plane(tenants[0], max(tenants[-1], tenants[0] + 1), min(values), max(values))
    size = {"width": str(_WIDTH), "height": str(_HEIGHT), "viewBox": f"0 0 {_WIDTH} {_HEIGHT}"}
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size})
    ET.SubElement(root, "style").text = _STYLE
    _text(root, _LEFT, 24, "What istiod sends, in MB a second")
    _text(root, _LEFT, _HEIGHT - 14, f"tenants of {load.services} services; changes in proportion")
    for value in _powers(plane.low, plane.high):
        y = plane.y(value)
        _line(root, _LEFT, y, _WIDTH - _RIGHT, y)
        _text(root, 8, y + 5, f"{value:,.10g}")
    for value in _powers(plane.first, plane.last):
        x = plane.x(value)
        _line(root, x, _TOP, x, _HEIGHT - _BOTTOM)
        _text(root, x - 8, _HEIGHT - _BOTTOM + 20, f"{value:,.10g}")
    for number, ((name, colour), line) in enumerate(lines.items()):
        points = [
            f"{plane.x(count):.1f},{plane.y(value):.1f}"
            for count, value in zip(tenants, line, strict=True)
        ]
        path = {"d": "M" + "L".join(points), "stroke": colour, "stroke-width": "2"}
        ET.SubElement(root, "path", path)
        label = _text(root, _LEFT + number * 230, 46, f"— {name}")
        label.set("style", f"fill:{colour}")
    return ET.tostring(root, encoding="unicode") + "\n"


class _Plane:
    """Where a number of tenants and of megabytes lies in the picture."""

    def __init__(self, first: float, last: float, low: float, high: float) -> None:
        self.first, self.last = first, last
        self.low, self.high = 10.0 ** floor(log10(low)), 10.0 ** ceil(log10(high))

    def x(self, tenants: float) -> float:
        share = log10(tenants / self.first) / log10(self.last / self.first)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, megabytes: float) -> float:
        share = log10(megabytes / self.low) / log10(self.high / self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _megabytes(load: Load, *, scoped: bool) -> float:
    return max(_LEAST, pushes(load, scoped=scoped).bytes_per_second / 1e6)


def _powers(low: float, high: float) -> Iterator[float]:
    yield from (10.0**power for power in range(ceil(log10(low)), floor(log10(high)) + 1))


def _line(root: ET.Element, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    ET.SubElement(root, "line", {name: f"{value:.1f}" for name, value in ends.items()})


def _text(root: ET.Element, x: float, y: float, said: str) -> ET.Element:
    element = ET.SubElement(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}"})
    element.text = said
    return element
