"""What routes may do: where they lead, by what they choose, and what they change afterwards.

Envoy: config.route.v3 (route.proto, route_components.proto). Filters are asked with the cluster
that the route chose, so an outbound route may choose by whatever it likes; not so at a hop, where
many tenants' requests come by, and not where the caller names the cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from authz.doctor.expected import Known
from authz.doctor.finding import Rule
from authz.doctor.shape import Odd, Shape, each, harmless, message, one_of, short

_LEADS: Final = re.compile(
    r"outbound\|\d+\|[^|]*\|[^|]+|PassthroughCluster|BlackHoleCluster"
    r"|UnknownService"  # of an HTTPRoute that may not lead there: no proxy has such a cluster
)
_CHOSEN_BY: Final = frozenset({":authority", ":method", "k-network-hash", "knative-serving-tag"})
"""Headers that Knative's own routes at gateways choose by."""

_COUNTS: Final = harmless("it is for statistics and traces")
_WAITS: Final = harmless("it is about how long and how often, not where to")
_BACK: Final = harmless("it is about responses")
_SELECTS: Final = harmless("filters are asked with the cluster that was chosen")
_LATER: Final = harmless("the proxy of the next hop judges what arrives there")

_OVERRIDES: Final = {
    "envoy.filters.http.cors": harmless("it answers browsers' questions"),
    "envoy.filters.http.fault": harmless("it delays or refuses"),
    "istio.stats": _COUNTS,
    "envoy.filters.http.stateful_session": harmless("it chooses among a cluster's endpoints"),
}


@cache
def inbound(known: Known, cluster: str) -> Shape:
    """The routes of a chain that leads to the app: all to one cluster, unchanged."""
    rule = Rule.ROUTE_CHOICE
    action = {
        "cluster": one_of(rule, cluster),
        "timeout": _WAITS,
        "max_stream_duration": _WAITS,
        "retry_policy": _WAITS,
        "max_grpc_timeout": _WAITS,
    }
    route = {
        "name": _COUNTS,
        "decorator": _COUNTS,
        "match": one_of(rule, {"prefix": "/"}),
        "route": message(rule, action, need=("cluster",), unknown=rule),
        **_changes(known),
    }
    host = {
        "name": _COUNTS,
        "domains": one_of(rule, ["*"]),
        "routes": each(message(rule, route, need=("match", "route"), unknown=rule)),
        **_changes(known),
    }
    return _config(known, message(rule, host, need=("domains", "routes"), unknown=rule))


@cache
def outbound(known: Known, *, hop: bool) -> Shape:
    """Routes to Services: of a sidecar's app, or at a hop of everybody's requests."""
    changes = _changes(known)
    weighted = {
        "clusters": each(
            message(
                Rule.ROUTE_CHOICE,
                {
                    "name": _leads_to,
                    "weight": _SELECTS,
                    "metadata_match": _SELECTS,
                    "host_rewrite_literal": _LATER,
                    **changes,
                },
                need=("name",),
            )
        ),
        "total_weight": _SELECTS,
        "runtime_key_prefix": _SELECTS,
    }
    mirror = {
        "cluster": _leads_to,
        "runtime_fraction": _SELECTS,
        "trace_sampled": _COUNTS,
        "disable_shadow_host_suffix_append": _LATER,
    }
    action = {
        "cluster": _leads_to,
        "weighted_clusters": message(Rule.ROUTE_CHOICE, weighted),
        "request_mirror_policies": each(message(Rule.ROUTE_CHOICE, mirror)),
        "metadata_match": _SELECTS,
        "hash_policy": _SELECTS,
        "cors": harmless("it answers browsers' questions"),
        "priority": _WAITS,
        "cluster_not_found_response_code": _BACK,
        **dict.fromkeys(
            (
                "host_rewrite_literal",
                "auto_host_rewrite",
                "append_x_forwarded_host",
                "prefix_rewrite",
                "regex_rewrite",
            ),
            _LATER,
        ),
        **dict.fromkeys(
            (
                "timeout",
                "idle_timeout",
                "max_stream_duration",
                "max_grpc_timeout",
                "grpc_timeout_offset",
                "retry_policy",
            ),
            _WAITS,
        ),
    }
    route = {
        "name": _COUNTS,
        "decorator": _COUNTS,
        "metadata": harmless("istiod says whose route it is; there is no second source"),
        "match": _chosen_by if hop else _SELECTS,
        "route": message(Rule.ROUTE_CHOICE, action, unknown=Rule.ROUTE_CHOICE),
        "redirect": _BACK,
        "direct_response": _BACK,
        **changes,
    }
    host = {
        "name": _COUNTS,
        "domains": _SELECTS,
        "routes": each(message(Rule.ROUTE_CHOICE, route)),
        "include_request_attempt_count": _COUNTS,
        "include_attempt_count_in_response": _BACK,
        "require_tls": _BACK,
        "retry_policy": _WAITS,
        "hedge_policy": _WAITS,
        **changes,
    }
    return _config(known, message(Rule.ROUTE_CHOICE, host))


def _config(known: Known, host: Shape) -> Shape:
    fields = {
        "name": _COUNTS,
        "virtual_hosts": each(host),
        "validate_clusters": harmless("a route to a cluster that is not there leads nowhere"),
        "ignore_port_in_host_matching": _SELECTS,
        "max_direct_response_body_size_bytes": _BACK,
        **_changes(known),
    }
    return message(Rule.ROUTE_CHOICE, fields, need=("virtual_hosts",))


@cache
def _changes(known: Known) -> dict[str, Shape]:
    """What a route, or anything above or below it, does to requests and to our filters."""
    return {
        "typed_per_filter_config": _overrides(known),
        "request_headers_to_add": _added(known),
        "request_headers_to_remove": _removed(known),
        "response_headers_to_add": _BACK,
        "response_headers_to_remove": _BACK,
    }


def _overrides(known: Known) -> Shape:
    def check(value: Any, path: str) -> Iterator[Odd]:
        for name, item in value.items():
            if name in known.ours:
                yield Odd(Rule.ROUTE_OVERRIDE, path, f"overrides {name}")
            elif name not in _OVERRIDES:
                what = f"is {short(item)}: the doctor does not know this filter"
                yield Odd(Rule.UNKNOWN_FILTER, f"{path}.{name}", what)

    return check


def _added(known: Known) -> Shape:
    def check(value: Any, path: str) -> Iterator[Odd]:
        for it in value:
            if it.get("header", {}).get("key", "").lower() in known.token_headers:
                yield Odd(Rule.ROUTE_HEADER, path, f"sets {it['header']['key']}")

    return check


def _removed(known: Known) -> Shape:
    def check(value: Any, path: str) -> Iterator[Odd]:
        for name in value:
            if name.lower() in known.token_headers:
                yield Odd(Rule.ROUTE_HEADER, path, f"removes {name}")

    return check


def _leads_to(value: Any, path: str) -> Iterator[Odd]:
    if not _LEADS.fullmatch(value):
        what = f"is {short(value)}: no cluster of istiod's, so nobody can tell where it leads"
        yield Odd(Rule.ROUTE_CHOICE, path, what)


def _chosen_by(value: Any, path: str) -> Iterator[Odd]:
    for header in value.get("headers", ()):
        if header.get("name", "").lower() not in _CHOSEN_BY:
            what = f"chooses by the header {header.get('name')}, which callers write as they like"
            yield Odd(Rule.ROUTE_CHOICE, path, what)
