"""The figures of a comparison as a table, and what they do not say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from loadtest.compare.results import PARTS, View
from loadtest.compare.schedule import Point

NOT_SAID: Final = """\
One machine does everything: clients, app, both sidecars and the service share its cores, and so \
slow each other down. Differences and ratios carry over, absolute latencies do not.
One pair of namespaces asks the same again and again: caches are warm, as behind a busy sidecar. \
First sight and many namespaces are measured by `python -m loadtest hotpath`.
The variants do not give the same. A static secret never expires, is the same for every \
destination, is known to whoever reads the Envoy configuration, and counts whoever presents it; \
`no authorization` protects nothing.
The shared hop between the sidecars is left out, though not its identity, and there is no network \
between anybody.
Envoy is the upstream build with one worker thread and without Istio's own filters, telemetry and \
access log, which cost each variant alike.
High percentiles of short runs rest on few requests: p99.9 needs thousands.
""".splitlines()

_LATENCIES: Final = {
    "p50 µs": "p50_us",
    "p90 µs": "p90_us",
    "p99 µs": "p99_us",
    "p99.9 µs": "p99.9_us",
}
_RATE: Final = ("requests/s", "requests_per_second")
_CPU: Final = {f"CPU µs, {name}": figure for figure, name in PARTS.items()}


def _cells(view: View) -> dict[tuple[Point, str], str]:
    """What the table shows: head by load and figure, each once."""
    wanted = [(view.common, head, figure) for head, figure in (_LATENCIES | _CPU).items()]
    if view.closed:
        first, last = view.closed[0], view.closed[-1]
        latencies = [(first, head, _LATENCIES[head]) for head in ("p50 µs", "p99 µs")]
        wanted = [*latencies, (last, *_RATE), *wanted]
    return {(point, figure): f"{point}: {head}" for point, head, figure in wanted}


def columns(view: View) -> list[str]:
    """Heads."""
    return ["variant", *_cells(view).values()]


def rows(view: View) -> Iterator[list[str]]:
    """Medians, with the least and the most in brackets."""
    for variant in view.variants:
        yield [
            variant,
            *(
                str(view.spread(variant, point, figure))
                if view.has(variant, point, figure)
                else "-"
                for point, figure in _cells(view)
            ),
        ]


def markdown(view: View) -> str:
    """Everything for a README: where it was measured, the table, and what it does not say."""
    heads = columns(view)
    out = [f"- {name}: {f'`{said}`' if name == 'command' else said}" for name, said in view.facts()]
    out += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    out += [f"| {' | '.join(row)} |" for row in rows(view)]
    out += ["", "What the numbers do not say:", "", *(f"- {each}" for each in NOT_SAID)]
    return "\n".join(out)


def brief(view: View) -> tuple[str, list[dict[str, str]]]:
    """A title and medians that fit on a terminal."""
    point = view.common
    wanted = {"p50 µs": "p50_us", "p99 µs": "p99_us"} | dict(
        zip(("client Envoy", "server Envoy", "service"), PARTS, strict=True)
    )
    return f"At {point}; CPU in µs per request", [
        {"variant": variant}
        | {
            head: f"{view.spread(variant, point, figure).median:,.0f}"
            if view.has(variant, point, figure)
            else "-"
            for head, figure in wanted.items()
        }
        for variant in view.variants
    ]
