"""What the filter `istio.alpn` does: HTTP that a sidecar sends on says so by ALPN.

The chains of the other side tell HTTP, which a sidecar has seen, from other TCP by it. The filter
sets the list for each request, by the protocol in which the cluster speaks; upstream's Envoy lacks
it, so the TLS contexts of the clusters get the list that the filter's own configuration has. A
cluster that speaks whichever protocol the client does is left: it has no TLS in what istiod sends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from authz.lab.recordings.reading import Json, Sent

FILTER: Final = "istio.alpn"

_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_SWITCH: Final = "alpn_override"
"""Metadata of a cluster by which istiod switches it off; and the filter's field."""


def overrides(sent: Sent) -> Mapping[str, Mapping[str, list[str]]]:
    """ALPN by upstream protocol, HTTP10, HTTP11 or HTTP2, for each cluster that it is for."""
    routes = {route["name"]: route for route in sent.routes}
    found: dict[str, Mapping[str, list[str]]] = {}
    for manager in _managers(sent.listeners):
        for it in manager["http_filters"]:
            if it["name"] == FILTER:
                by_protocol = {
                    one.get("upstream_protocol", "HTTP10"): one[_SWITCH]
                    for one in it["typed_config"][_SWITCH]
                }
                config = manager.get("route_config") or routes[manager["rds"]["route_config_name"]]
                found |= dict.fromkeys(_clusters(config), by_protocol)
    return found


def overridden(cluster: Json, by_cluster: Mapping[str, Mapping[str, list[str]]]) -> Json:
    """The cluster, changed in place."""
    istio = cluster.get("metadata", {}).get("filter_metadata", {}).get("istio", {})
    if cluster["name"] in by_cluster and istio.get(_SWITCH) != "false":
        explicit = _explicit(cluster)
        protocol = "HTTP2" if "http2_protocol_options" in explicit else "HTTP11"
        for context in _contexts(cluster):
            context["common_tls_context"]["alpn_protocols"] = list(
                by_cluster[cluster["name"]][protocol]
            )
    return cluster


def _explicit(cluster: Json) -> Json:
    options = cluster.get("typed_extension_protocol_options", {}).get(_OPTIONS, {})
    found: Json = options.get("explicit_http_config", {})
    return found


def _contexts(cluster: Json) -> Iterator[Json]:
    sockets = [match["transport_socket"] for match in cluster.get("transport_socket_matches", ())]
    if "transport_socket" in cluster:
        sockets.append(cluster["transport_socket"])
    for socket in sockets:
        if "common_tls_context" in socket["typed_config"]:
            yield socket["typed_config"]


def _managers(value: Any) -> Iterator[Json]:
    """Whatever manages HTTP, in the order in which it stands there."""
    if isinstance(value, dict):
        if "http_filters" in value:
            yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for it in value:
            yield from _managers(it)


def _clusters(value: Any) -> Iterator[str]:
    """Names that routes have for clusters: of one, of several with weights, of mirrors."""
    if isinstance(value, dict):
        route = value.get("route", {})
        if "cluster" in route:
            yield route["cluster"]
        for it in route.get("weighted_clusters", {}).get("clusters", ()):
            yield it["name"]
        for it in route.get("request_mirror_policies", ()):
            yield it["cluster"]
        value = list(value.values())
    if isinstance(value, list):
        for it in value:
            yield from _clusters(it)
