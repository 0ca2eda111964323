"""What routes do to our filters, or to our header, after we have answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from authz.doctor.dump import MANAGER, Json, Workload
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.listeners import chains


def routes(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """Routes that override our filters or set or remove the token's header."""
    for config in (*workload.routes, *_inline(workload)):
        for rule, what in _overrides(config, expected):
            yield Finding(workload.name, f"routes {config.get('name', '')}", what, rule)


def _inline(workload: Workload) -> Iterator[Json]:
    """Routes that are written into a listener."""
    for listener in workload.listeners:
        for _, chain in chains(listener):
            for it in chain.get("filters", ()):
                if it.get("name") == MANAGER and "route_config" in it.get("typed_config", {}):
                    yield it["typed_config"]["route_config"]


def _overrides(
    value: Any, expected: Expected, host: str = "every host"
) -> Iterator[tuple[Rule, str]]:
    """At any depth: of all hosts, one host, a route or one of its destinations."""
    match value:
        case list():
            for item in value:
                yield from _overrides(item, expected, host)
        case dict():
            if "domains" in value:
                host = ", ".join(value["domains"][:3])
            yield from _here(value, expected, host)
            for item in value.values():
                yield from _overrides(item, expected, host)


def _here(value: Json, expected: Expected, host: str) -> Iterator[tuple[Rule, str]]:
    for name in sorted(expected.ours & value.get("typed_per_filter_config", {}).keys()):
        yield Rule.ROUTE_OVERRIDE, f"{name} is overridden for {host}"
    for it in value.get("request_headers_to_add", ()):
        if it.get("header", {}).get("key", "").lower() in expected.token_headers:
            yield Rule.ROUTE_HEADER, f"{it['header']['key']} is set for {host}"
    for name in value.get("request_headers_to_remove", ()):
        if name.lower() in expected.token_headers:
            yield Rule.ROUTE_HEADER, f"{name} is removed for {host}"
