"""The figures of a comparison as a table, and what they do not say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from loadtest.compare.report import PARTS, View

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

_SMALL: Final = ("p50_us", "p90_us", "p99_us", "p99.9_us")


def columns(view: View) -> list[str]:
    """Heads."""
    heads = ["variant"]
    if view.closed:
        first, last = view.closed[0], view.closed[-1]
        heads += [f"{first}: p50 µs", f"{first}: p99 µs", f"{last}: requests/s"]
    heads += [f"{view.common}: {name} µs" for name in ("p50", "p90", "p99", "p99.9")]
    return [*heads, f"{view.common}: CPU µs of Envoys", f"{view.common}: CPU µs of service"]


def rows(view: View) -> Iterator[list[str]]:
    """Medians, with the least and the most in brackets."""
    for variant in view.variants:
        row = [variant]
        if view.closed:
            first, last = view.closed[0], view.closed[-1]
            row += [str(view.spread(variant, first, each)) for each in ("p50_us", "p99_us")]
            row.append(str(view.spread(variant, last, "requests_per_second")))
        row += [str(view.spread(variant, view.common, each)) for each in _SMALL]
        *envoys, authz = PARTS
        spent = [view.spread(variant, view.common, each).median for each in envoys]
        row.append(f"{sum(spent):,.0f}")
        known = view.has(variant, view.common, authz)
        row.append(str(view.spread(variant, view.common, authz)) if known else "-")
        yield row


def markdown(view: View) -> str:
    """Everything for a README: where it was measured, the table, and what it does not say."""
    heads = columns(view)
    out = [f"- {name}: {f'`{said}`' if name == 'command' else said}" for name, said in view.facts()]
    out += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    out += [f"| {' | '.join(row)} |" for row in rows(view)]
    out += ["", "What the numbers do not say:", "", *(f"- {each}" for each in NOT_SAID)]
    return "\n".join(out)
