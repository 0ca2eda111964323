"""The mesh at a glance, as one HTML page that needs nothing else: no script, no network.

Names come from clusters and proxies, whose owners may call things as they like: all are escaped.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Final

from authz.doctor.finding import Finding, Rule
from authz.doctor.summary import Report

_STYLE: Final = Path(__file__).with_name("overview.css")
_ALLOWED: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_SHOWN: Final = 3
"""Workloads of one finding that are named at once; the others, when somebody asks."""


def overview(report: Report, now: float) -> str:
    """The page; `now` is in seconds since the epoch."""
    when = dt.datetime.fromtimestamp(now, dt.UTC).isoformat(" ", "minutes")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_ALLOWED}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>authz doctor</title>
<style>{_STYLE.read_text("utf-8")}</style>
</head>
<body><main>
<h1>What is in force</h1>
<p class="soft">authz doctor, {when} UTC. A square is a pod: green, nothing was found; red,
something was; grey, it was not examined. Point at it for its name.</p>
<ul class="counts">{"".join(_counts(report))}</ul>
<h2>Namespaces</h2>
<div class="mesh">{"".join(_namespaces(report))}</div>
<h2>Findings</h2>
{_findings(report.findings)}
{_list("Could not be looked at", report.unreadable)}
{_list("Not examined", (f"{name}: {why}" for name, why in sorted(report.skipped.items())))}
{_list("Notes", report.notes)}
{_list("Versions", _versions(report))}
</main></body>
</html>
"""


def _counts(report: Report) -> Iterator[str]:
    counted = {
        "proxies examined": len(report.proxies),
        "findings": len(report.findings),
        "could not be looked at": len(report.unreadable),
        "not examined": len(report.skipped),
    }
    for name, count in counted.items():
        bad = count and name in {"findings", "could not be looked at"}
        yield f"<li{' class=bad' if bad else ''}><b>{count:,}</b>{name}</li>"


def _namespaces(report: Report) -> Iterator[str]:
    """One box for each, the worst first."""
    pods: dict[str, dict[str, str]] = defaultdict(dict)  # why each was not examined
    without = {it.workload: it.what for it in report.findings if it.where == "pod"}
    for name, why in (
        report.skipped | without | {proxy.workload: "" for proxy in report.proxies}
    ).items():
        pods[_space(name)][name] = why
    rules: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for it in report.findings:
        rules[it.workload].add(it.rule.value)
        counts[_space(it.workload)] += 1
    for space in sorted({*pods, *counts}, key=lambda it: (-counts[it], it)):
        yield _namespace(space, pods.get(space, {}), rules, counts[space])


def _namespace(
    space: str, pods: Mapping[str, str], rules: Mapping[str, set[str]], count: int
) -> str:
    squares = []
    for name, why in sorted(pods.items()):
        kind = "bad" if name in rules else "quiet" if why else "good"
        said = ", ".join(sorted(rules.get(name, ()))) or why or "nothing found"
        squares.append(f'<i class="{kind}" title="{escape(f"{name}: {said}")}"></i>')
    kind = "bad" if count else "good" if any(not why for why in pods.values()) else "quiet"
    return (
        f'<section class="{kind}"><h3>{escape(space)}</h3>'
        f'<p class="soft">{len(pods):,} pods, {count:,} findings</p>'
        f'<div class="pods">{"".join(squares)}</div></section>'
    )


def _findings(findings: Iterable[Finding]) -> str:
    """A row for each hole, with all that have it."""
    holes: dict[tuple[Rule, str, str], list[str]] = defaultdict(list)
    for it in findings:
        holes[it.rule, it.where, it.what].append(it.workload)
    if not holes:
        return '<p class="soft">None.</p>'
    rows = "".join(
        f"<tr><td>{escape(rule.value)}<td>{_workloads(names)}<td>{escape(where)}<td>{escape(what)}"
        f"<td>{escape(rule.why)}<td>{escape(rule.mend)}</tr>"
        for (rule, where, what), names in sorted(
            holes.items(), key=lambda it: (-len(it[1]), it[0][0].value, it[0][1:])
        )
    )
    heads = "".join(
        f"<th>{it}" for it in ("rule", "workloads", "where", "what", "why it matters", "to mend it")
    )
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _workloads(names: list[str]) -> str:
    shown = escape(", ".join(names[:_SHOWN]))
    if len(names) <= _SHOWN:
        return shown
    every = "".join(f"<li>{escape(name)}</li>" for name in names)
    more = f"{len(names) - _SHOWN:,} more"
    return f"<details><summary>{shown} and {more}</summary><ul>{every}</ul></details>"


def _list(title: str, texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def _versions(report: Report) -> Iterator[str]:
    for what, counts in (("Istio", report.versions), ("revision", report.revisions)):
        for name, count in counts.items():
            yield f"{what} {name}: {count:,} proxies"


def _space(workload: str) -> str:
    return workload.partition("/")[0]
