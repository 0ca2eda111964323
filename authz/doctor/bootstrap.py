"""What Istio's agent starts an Envoy with: its admin endpoint, its own listeners, runtime, streams.

istio/istio tools/packaging/common/envoy_bootstrap.json. Nothing of it comes from istiod, and no
filter of ours is in it, so its listeners must lead nowhere but to the agent.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Final

from authz.doctor.dump import Json, Workload, port_of
from authz.doctor.finding import Finding, Rule
from authz.doctor.shape import Odd, Shape, each, harmless, message, one_of, short, typed

_COUNTS: Final = harmless("it is for statistics, logs and traces")
_LIMITS: Final = harmless("it limits what Envoy uses")
_AGENT: Final = {"/stats/prometheus": "prometheus_stats", "/healthz/ready": "agent"}
"""What the agent's listeners serve, and the cluster of each."""
_OWN_CLUSTERS: Final[dict[str, list[Json]]] = {
    "prometheus_stats": [],  # the admin endpoint
    "agent": [
        {"socket_address": {"address": host, "port_value": 15020}} for host in ("127.0.0.1", "::1")
    ],
    "sds-grpc": [{"pipe": {"path": "./var/run/secrets/workload-spiffe-uds/socket"}}],
    "xds-grpc": [{"pipe": {"path": "./etc/istio/proxy/XDS"}}],
}
"""The agent's clusters, and where they may lead."""
_OBSERVES: Final = frozenset({"zipkin", "envoy_accesslog_service", "envoy_metrics_service"})
"""Clusters that the agent adds where a mesh has them; routes cannot name them, see `routes`."""
_ORIGINAL_DST: Final = (
    "envoy.deprecated_features:envoy.config.listener.v3.Listener."
    "hidden_envoy_deprecated_use_original_dst"
)
_RUNTIME: Final = frozenset(
    {
        _ORIGINAL_DST,
        "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update",
        "envoy.reloadable_features.fixed_heap_use_allocated",
        "envoy.reloadable_features.http_reject_path_with_fragment",
        "overload.global_downstream_max_connections",
        "re2.max_program_size.error_level",
    }
)
_STREAM: Final = {
    "api_type": "DELTA_GRPC",
    "transport_api_version": "V3",
    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
    "set_node_on_first_message_only": True,
}


def bootstrap(workload: Workload) -> Iterator[Finding]:
    """What of it is not the agent's, or open."""
    for odd in _BOOTSTRAP(workload.bootstrap, ""):
        yield Finding(workload.name, "bootstrap", str(odd), odd.rule)


def agents_listener(listener: Json) -> Iterator[Odd]:
    """What of a static listener is not the agent's."""
    yield from _LISTENER(listener, "")


def agents_cluster(name: str, cluster: Json, admin: Json) -> Iterator[Odd]:
    """What of a static cluster is not the agent's, where Envoy's admin endpoint is at `admin`."""
    if name in _OBSERVES:
        return
    if name not in _OWN_CLUSTERS:
        what = f"{name} is neither istiod's nor the agent's: where does it lead?"
        yield Odd(Rule.UNKNOWN_CLUSTER, "", what)
        return
    yield from _CLUSTER(cluster, "")
    wanted = [admin] if name == "prometheus_stats" else _OWN_CLUSTERS[name]
    for found in _addresses(cluster.get("load_assignment")):
        bare = {k: v for k, v in found.get("socket_address", {}).items() if k != "protocol"}
        if (({"socket_address": bare}) if bare else found) not in wanted:
            what = f"leads to {short(found)}, which is not the agent's"
            yield Odd(Rule.AGENT, "load_assignment", what)


def is_agents_listener(listener: Json, workload: Workload) -> bool:
    """Whether it is on a port that is the agent's by what the agent says."""
    said = (workload.metadata.get(it) for it in ("ENVOY_PROMETHEUS_PORT", "ENVOY_STATUS_PORT"))
    ports = {int(it) for it in said if it is not None} or {15090, 15021}
    return port_of(listener) in ports


def _admin(value: Any, path: str) -> Iterator[Odd]:
    if not _is_own(value):
        what = f"is {short(value)}, must be loopback: whoever reaches it reconfigures the proxy"
        yield Odd(Rule.ADMIN, path, what)


def _is_own(address: Any) -> bool:
    """Whether nobody outside of the pod reaches it."""
    if address.keys() == {"pipe"}:
        return True
    host = address.get("socket_address", {}).get("address", "")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _addresses(value: Any) -> Iterator[Json]:
    match value:
        case dict():
            if "address" in value and isinstance(value["address"], dict):
                yield value["address"]
            else:
                for it in value.values():
                    yield from _addresses(it)
        case list():
            for it in value:
                yield from _addresses(it)


def _layers(value: Any, path: str) -> Iterator[Odd]:
    for layer in value:
        keys = layer.keys() - {"name", "static_layer", "admin_layer"}
        unknown = [*sorted(keys), *sorted(layer.get("static_layer", {}).keys() - _RUNTIME)]
        for name in unknown:
            what = f"sets {name}: does it change how requests are read or filters work?"
            yield Odd(Rule.RUNTIME, path, what)


_FROM_ISTIOD: Final = one_of(
    Rule.AGENT,
    {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
)
_BOOTSTRAP: Final[Shape] = message(
    Rule.INCOMPLETE,
    {
        "node": harmless("who it is"),
        "admin": message(
            Rule.ADMIN,
            {
                "address": _admin,
                **dict.fromkeys(("access_log", "access_log_path", "profile_path"), _COUNTS),
            },
        ),
        "static_resources": harmless("they are dumped with the listeners, clusters and secrets"),
        "dynamic_resources": message(
            Rule.AGENT,
            {
                "ads_config": one_of(Rule.AGENT, _STREAM, {**_STREAM, "api_type": "GRPC"}),
                "cds_config": _FROM_ISTIOD,
                "lds_config": _FROM_ISTIOD,
            },
        ),
        "layered_runtime": message(Rule.RUNTIME, {"layers": _layers}),
        "bootstrap_extensions": one_of(
            Rule.UNKNOWN_FIELD,
            [
                {
                    "name": "envoy.bootstrap.internal_listener",
                    "typed_config": {
                        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                        "type_url": "type.googleapis.com/envoy.extensions.bootstrap."
                        "internal_listener.v3.InternalListener",
                        "value": {"buffer_size_kb": 64},
                    },
                }
            ],
        ),
        **dict.fromkeys(
            (
                "application_log_config",
                "deferred_stat_options",
                "stats_config",
                "stats_flush_interval",
                "stats_sinks",
                "stats_server_version_override",
                "tracing",
            ),
            _COUNTS,
        ),
        **dict.fromkeys(("overload_manager", "watchdogs", "header_prefix"), _LIMITS),
    },
)


def _agents_route(value: Any, path: str) -> Iterator[Odd]:
    for host in value.get("virtual_hosts", ()):
        for route in host.get("routes", ()):
            prefix = route.get("match", {}).get("prefix", "")
            if route.get("route") != {"cluster": _AGENT.get(prefix)}:
                yield Odd(Rule.AGENT, path, f"sends {short(route)}, which is not the agent's")


_CLUSTER: Final = message(
    Rule.AGENT,
    {
        "type": one_of(Rule.AGENT, "STATIC"),
        "load_assignment": harmless("its addresses are checked"),
        **dict.fromkeys(
            (
                "name",
                "alt_stat_name",
                "circuit_breakers",
                "connect_timeout",
                "lb_policy",
                "max_requests_per_connection",
                "typed_extension_protocol_options",
                "upstream_connection_options",
            ),
            harmless("nothing of it changes where it leads"),
        ),
    },
    need=("type",),
    unknown=Rule.AGENT,
)
_PLAIN_HTTP: Final = message(
    Rule.AGENT,
    {
        "codec_type": harmless("no request gets to an app here"),
        "stat_prefix": _COUNTS,
        "route_config": _agents_route,
        "http_filters": each(
            message(
                Rule.AGENT,
                {
                    "name": _COUNTS,
                    "typed_config": typed(
                        Rule.AGENT,
                        {
                            "Compressor": harmless("it packs responses"),
                            "Router": message(Rule.AGENT, {}),
                        },
                    ),
                },
            )
        ),
    },
    need=("route_config",),
    unknown=Rule.AGENT,
)
_LISTENER: Final = message(
    Rule.AGENT,
    {
        "name": _COUNTS,
        "address": harmless("its port is how it is known to be the agent's"),
        "bypass_overload_manager": _LIMITS,
        "ignore_global_conn_limit": _LIMITS,
        "filter_chains": each(
            message(
                Rule.AGENT,
                {
                    "filters": each(
                        message(
                            Rule.AGENT,
                            {
                                "name": _COUNTS,
                                "typed_config": typed(
                                    Rule.AGENT, {"HttpConnectionManager": _PLAIN_HTTP}
                                ),
                            },
                            need=("typed_config",),
                            unknown=Rule.AGENT,
                        )
                    )
                },
                unknown=Rule.AGENT,
            )
        ),
    },
    unknown=Rule.AGENT,
)
