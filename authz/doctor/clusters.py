"""Where clusters lead, and whom they trust there.

Envoy: config.cluster.v3 (cluster.proto). istiod names them `inbound|<port>||` for the app and
`outbound|<port>|<subset>|<host>` for Services; whatever is named otherwise is not istiod's. The way
to our own service has rules of its own, see `to_service`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from authz.doctor import transport
from authz.doctor.bootstrap import agents_cluster
from authz.doctor.dump import Json, Workload
from authz.doctor.expected import Expected, Known
from authz.doctor.finding import Finding, Rule
from authz.doctor.shape import Odd, Shape, each, harmless, kind_of, message, one_of, short, typed
from authz.wire import host_of_cluster

_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_INBOUND: Final = re.compile(r"inbound\|(?P<port>\d+)\|\|")
_PROTOCOLS: Final = harmless("in which HTTP it speaks, and for how long")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_SOURCES: Final = ("127.0.0.6", "::6")
"""From where istiod lets a proxy call its app, so that iptables let it through."""

_COMMON: Final[dict[str, Shape]] = {
    "name": harmless("it is how it was found"),
    "alt_stat_name": harmless("for statistics; filters send %UPSTREAM_CLUSTER_RAW%"),
    "metadata": harmless("the Services that it stands for, as istiod says"),
    "filters": each(
        message(
            Rule.UNKNOWN_FILTER,
            {
                "name": harmless("a name"),
                "typed_config": typed(
                    Rule.UNKNOWN_FILTER,
                    {"MetadataExchange": harmless("it tells statistics who the peer is")},
                ),
            },
            need=("typed_config",),
        )
    ),
    "typed_extension_protocol_options": message(
        Rule.UNKNOWN_FIELD,
        {
            _OPTIONS: message(
                Rule.UNKNOWN_FIELD,
                dict.fromkeys(
                    (
                        "common_http_protocol_options",
                        "explicit_http_config",
                        "use_downstream_protocol_config",
                        "auto_config",
                        "upstream_http_protocol_options",  # SNI by host, certificate by SNI
                    ),
                    _PROTOCOLS,
                ),
            )
        },
    ),
    "max_requests_per_connection": _PROTOCOLS,
    **dict.fromkeys(
        (
            "lb_policy",
            "lb_subset_config",
            "load_balancing_policy",
            "common_lb_config",
            "ring_hash_lb_config",
            "maglev_lb_config",
            "least_request_lb_config",
            "round_robin_lb_config",
            "outlier_detection",
            "circuit_breakers",
            "connect_timeout",
            "cleanup_interval",
            "per_connection_buffer_limit_bytes",
            "upstream_connection_options",
            "ignore_health_on_host_removal",
            "warm_timeout",
        ),
        harmless("it chooses among the endpoints of one cluster, or waits for them"),
    ),
}


def clusters(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """What of each cluster is not as it should be."""
    known = expected.known(workload)
    admin = workload.bootstrap.get("admin", {}).get("address", {})
    for name, cluster in workload.clusters.items():
        shape = _shape(known, name)
        found = agents_cluster(name, cluster, admin) if shape is None else shape(cluster, "")
        for odd in found:
            yield Finding(workload.name, f"cluster {name}", str(odd), odd.rule)


@cache
def _shape(known: Known, name: str) -> Shape | None:
    """What a cluster should be by its name; None where it is not istiod's."""
    if name in {"PassthroughCluster", "BlackHoleCluster"}:
        return _fixed({"PassthroughCluster": "ORIGINAL_DST"}.get(name, "STATIC"))
    if name == "InboundPassthroughCluster" or _INBOUND.fullmatch(name):
        return _to_the_app()
    if (host := host_of_cluster(name)) is None:
        return None
    if host.endswith(f".svc.{known.domain}"):
        return _in_the_mesh(known, name, host)
    return _outside(name)


def _fixed(kind: str) -> Shape:
    fields = {**_COMMON, "type": one_of(Rule.CLUSTER_LEADS, kind)}
    return message(Rule.CLUSTER_LEADS, fields, need=("type",), unknown=Rule.CLUSTER_LEADS)


def _to_the_app() -> Shape:
    def bound(value: Any, path: str) -> Iterator[Odd]:
        if value.get("source_address", {}).get("address") not in _SOURCES:
            yield Odd(Rule.CLUSTER_LEADS, path, f"is {short(value)}, must be {_SOURCES[0]}")

    def assigned(value: Any, path: str) -> Iterator[Odd]:
        for address in _endpoints(value):
            if "pipe" not in address and address.get("address") not in _LOOPBACK:
                what = f"leads to {short(address)}, not to the app"
                yield Odd(Rule.CLUSTER_LEADS, path, what)

    fields = {
        **_COMMON,
        "type": one_of(Rule.CLUSTER_LEADS, "ORIGINAL_DST", "STATIC"),
        "upstream_bind_config": bound,
        "load_assignment": assigned,
    }
    return message(Rule.CLUSTER_LEADS, fields, need=("type",), unknown=Rule.CLUSTER_LEADS)


def _endpoints(assignment: Json) -> Iterator[Json]:
    for locality in assignment.get("endpoints", ()):
        for endpoint in locality.get("lb_endpoints", ()):
            address = endpoint.get("endpoint", {}).get("address", {})
            yield address.get("socket_address") or address


def _in_the_mesh(known: Known, name: str, host: str) -> Shape:
    _, port, subset, _ = name.split("|")
    server = f"outbound_.{port}_.{subset}_.{host}"
    tls = {"UpstreamTlsContext": transport.upstream(known, server)}
    context = message(
        Rule.CLUSTER_PLAINTEXT,
        {
            "name": one_of(Rule.CLUSTER_PLAINTEXT, transport.TLS),
            "typed_config": typed(Rule.CLUSTER_PLAINTEXT, tls),
        },
        need=("typed_config",),
    )
    delivered = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    by_eds = {
        "eds_config": one_of(Rule.CLUSTER_LEADS, delivered),
        "service_name": one_of(Rule.CLUSTER_LEADS, name),
    }
    kinds = ("EDS", "ORIGINAL_DST", "STATIC") if known.static else ("EDS", "ORIGINAL_DST")
    fields = {
        **_COMMON,
        "type": one_of(Rule.CLUSTER_LEADS, *kinds),
        "eds_cluster_config": message(
            Rule.CLUSTER_LEADS, by_eds, need=tuple(by_eds), unknown=Rule.CLUSTER_LEADS
        ),
        "transport_socket": context,
        "transport_socket_matches": _matches(context),
    }
    if known.static:
        fields["load_assignment"] = harmless("endpoints of a proxy that no istiod feeds")
    shape = message(Rule.CLUSTER_LEADS, fields, need=("type",), unknown=Rule.CLUSTER_LEADS)

    def check(value: Any, path: str) -> Iterator[Odd]:
        yield from shape(value, path)
        if "transport_socket" not in value and "transport_socket_matches" not in value:
            yield Odd(Rule.CLUSTER_PLAINTEXT, "transport_socket", "is not set: it speaks no TLS")

    return check


def _matches(context: Shape) -> Shape:
    """Automatic mutual TLS: with all endpoints that have a sidecar, plaintext with the others."""
    known = message(
        Rule.UNKNOWN_FIELD,
        dict.fromkeys(("name", "match", "transport_socket"), harmless("looked at here")),
    )
    socket = message(
        Rule.UNKNOWN_FIELD,
        dict.fromkeys(("name", "typed_config"), harmless("looked at here")),
    )

    def check(value: Any, path: str) -> Iterator[Odd]:
        found = [it.get("match") for it in value]
        if found not in ([{"tlsMode": "istio"}, {}], [{"tlsMode": "istio"}]):
            what = f"chooses by {short(found)}, must choose TLS for tlsMode istio, and that first"
            yield Odd(Rule.CLUSTER_PLAINTEXT, path, what)
            return
        for it in value:
            yield from known(it, path)
            yield from socket(it.get("transport_socket", {}), f"{path}.transport_socket")
        yield from context(value[0].get("transport_socket", {}), f"{path}[0].transport_socket")
        for it in value[1:]:
            if kind_of(it.get("transport_socket", {}).get("typed_config", {})) != "RawBuffer":
                what = "is neither mutual TLS nor plaintext"
                yield Odd(Rule.CLUSTER_TRUST, f"{path}[1].transport_socket", what)

    return check


@cache
def _outside(name: str) -> Shape:
    """A host outside the mesh: it gets no token, so nothing depends on whom it is."""
    free = harmless("nobody outside gets a token")
    names = (
        "type",
        "load_assignment",
        "transport_socket",
        "transport_socket_matches",
        "dns_refresh_rate",
        "dns_failure_refresh_rate",
        "dns_lookup_family",
        "dns_jitter",
        "respect_dns_ttl",
        "typed_dns_resolver_config",
        "cluster_type",
    )
    eds = {"eds_config": free, "service_name": one_of(Rule.CLUSTER_LEADS, name)}
    fields = {
        **_COMMON,
        "eds_cluster_config": message(Rule.CLUSTER_LEADS, eds, need=("service_name",)),
        **dict.fromkeys(names, free),
    }
    return message(Rule.CLUSTER_LEADS, fields)
