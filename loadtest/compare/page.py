"""One HTML page that needs nothing else: no script, no network, light or dark as one likes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Final

from authz.config import Transport
from loadtest.compare import table
from loadtest.compare.plots import PART_COLOURS, Plot, colour, plots
from loadtest.compare.results import PARTS, View
from loadtest.compare.svg import duration
from loadtest.compare.variants import PLAIN

_STYLE: Final = Path(__file__).with_name("page.css")


def page(view: View) -> str:
    """The page."""
    notes = {each["name"]: each["note"] for each in view.report["variants"]}
    keys = "".join(
        f'<li title="{escape(notes[name])}">{_swatch(colour(view, name))}{escape(name)}</li>'
        for name in view.variants
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>tenant-authz: what authorization costs</title>
<style>{_STYLE.read_text()}</style>
</head>
<body><main>
<h1>What authorization between two sidecars costs</h1>
<p class="soft">The same HTTP requests through two real Envoys, signed in the first and verified in
the second, with one way of authorization or another.<br>{_where(view)}</p>
{"".join(map(_warning, view.warnings()))}
<section class="tiles">{"".join(_tiles(view))}</section>
<ul class="legend">{keys}</ul>
<section class="plots">{"".join(map(_figure, plots(view)))}</section>
<section class="card"><h2>In numbers</h2>
<p class="soft">Medians of the repeats, with the least and the most.</p>
<div class="wide">{_table(view)}</div></section>
<section class="card"><h2>The variants</h2><dl>{_pairs(notes.items())}</dl></section>
<section class="card"><h2>What the numbers do not say</h2>
<ul>{"".join(f"<li>{_code(each)}</li>" for each in table.NOT_SAID)}</ul></section>
<section class="card"><h2>How they were made</h2><dl>{_pairs(view.facts())}</dl></section>
</main></body>
</html>
"""


def _where(view: View) -> str:
    here = view.report["machine"]
    facts = (f"Envoy {view.report['envoy']}", f"{here['cpus']} x {here['cpu']}", here["date"][:10])
    return " · ".join(f'<span class="fact">{escape(fact)}</span>' for fact in facts)


def _warning(text: str) -> str:
    return f'<p class="warning" role="alert">{escape(text)}</p>'


def _tiles(view: View) -> Iterator[str]:
    """What most people want to know, where it was measured."""
    point = view.common
    ours, theirs = (f"tenant-authz, {each}" for each in (Transport.HTTP2, Transport.GRPCIO))
    if ours not in view.variants:
        return
    p50, p99 = (view.spread(ours, point, figure).median for figure in ("p50_us", "p99_us"))
    yield _tile(duration(p50), f"median with {ours}, at {point}")
    yield _tile(duration(p99), "its p99")
    if PLAIN in view.variants:
        added = p50 - view.spread(PLAIN, point, "p50_us").median
        yield _tile(f"+ {duration(added)}", "over no authorization at all, median, both directions")
    if theirs in view.variants:
        cost, more = (view.spread(each, point, "authz_us").median for each in (ours, theirs))
        yield _tile(f"1/{more / cost:.1f}", "of the CPU that the service takes over grpcio")


def _tile(value: str, text: str) -> str:
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>'


def _figure(plot: Plot) -> str:
    parts = ""
    if any(f'"mark c{number}"' in plot.drawn for number in PART_COLOURS.values()):
        keys = (f"<li>{_swatch(PART_COLOURS[each])}{name}</li>" for each, name in PARTS.items())
        parts = f'<ul class="parts">{"".join(keys)}</ul>'
    return (
        f"<figure><h2>{escape(plot.title)}</h2><figcaption>{escape(plot.text)}</figcaption>"
        f"{parts}{plot.drawn}</figure>"
    )


def _swatch(number: int) -> str:
    return f'<i class="c{number}"></i>'


def _table(view: View) -> str:
    def cell(text: str) -> str:
        value, _, rest = text.partition(" (")
        spread = f"<small>{escape(rest.rstrip(')'))}</small>" if rest else ""
        return f"<td>{escape(value)}{spread}</td>"

    heads = "".join(f"<th>{escape(head)}</th>" for head in table.columns(view))
    rows = (f"<tr>{''.join(map(cell, row))}</tr>" for row in table.rows(view))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in pairs)


def _code(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
