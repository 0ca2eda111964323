"""HTTP connection managers, their filters and routes, as istiod orders and names them.

pilot/pkg/networking/core/listener_builder.go, buildHTTPConnectionManager. Filters that only
Istio's own Envoy has are left out: metadata exchange, statistics and `istio.alpn`. What the last
one does is done by the clusters' TLS contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from authz.lab.box.istio.world import Json, Route, VirtualService
from authz.wire import cluster_name

_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters"
MANAGER: Final = "envoy.filters.network.http_connection_manager"
PASSTHROUGH: Final = "PassthroughCluster"
BLACK_HOLE: Final = "BlackHoleCluster"

_CERTIFICATE_DETAILS: Final = {"subject": True, "dns": True, "uri": True}


def manager(
    stat_prefix: str,
    routes: Json,
    *,
    rbac: Sequence[Json] = (),
    client_certificate: str = "SANITIZE",
    use_remote_address: bool = False,
    http2: bool = False,
) -> Json:
    """A network filter that speaks HTTP; `routes` is its field `rds` or `route_config`."""
    typed: Json = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": stat_prefix,
        **routes,
        "http_filters": [
            *rbac,
            _http("grpc_stats", "grpc_stats.v3.FilterConfig", emit_filter_state=True),
            _http("fault", "fault.v3.HTTPFault"),
            _http("cors", "cors.v3.Cors"),
            _http("router", "router.v3.Router"),
        ],
        "server_name": "istio-envoy",
        "use_remote_address": use_remote_address,
        "forward_client_cert_details": client_certificate,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        # Not istiod's: without it a stopping Envoy would wait for idle clients.
        "drain_timeout": "1s",
    }
    if client_certificate != "SANITIZE":
        typed["set_current_client_cert_details"] = _CERTIFICATE_DETAILS
    if http2:
        typed["http2_protocol_options"] = {}
    return {"name": MANAGER, "typed_config": typed}


def tcp_proxy(cluster: str, stat_prefix: str = "") -> Json:
    """A network filter that passes bytes on."""
    typed = {
        "@type": f"{_FILTERS}.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": stat_prefix or cluster,
        "cluster": cluster,
    }
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": typed}


def route_config(name: str, virtual_hosts: Sequence[Json]) -> Json:
    """A named set of virtual hosts; istiod delivers the same by RDS."""
    return {
        "name": name,
        "virtual_hosts": list(virtual_hosts),
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": 1048576,
    }


def virtual_host(name: str, domains: Sequence[str], routes: Sequence[Json]) -> Json:
    """A virtual host."""
    return {"name": name, "domains": list(domains), "routes": list(routes)}


def route(cluster: str, name: str = "default") -> Json:
    """A route to one cluster, whatever is asked for."""
    action = {"cluster": cluster, "timeout": "0s", "max_stream_duration": _NO_LIMIT}
    return {"name": name, "match": {"prefix": "/"}, "route": action}


def virtual_service_routes(service: VirtualService, host: str) -> list[Json]:
    """What istiod makes of net-istio's VirtualService for one of its hosts.

    istiod puts all routes under each host; those that ask for another authority are left out here,
    since they can never match.
    """
    return [_virtual_service_route(service, it) for it in service.routes if _can_match(it, host)]


def _can_match(route: Route, host: str) -> bool:
    return host == route.authority or host.startswith(f"{route.authority}.")


def _virtual_service_route(service: VirtualService, it: Route) -> Json:
    names = [(cluster_name(host, port), weight) for host, port, weight in it.to]
    action: Json = {"timeout": "0s", "max_stream_duration": _NO_LIMIT}
    if len(names) == 1:
        action["cluster"] = names[0][0]
    else:
        clusters = [{"name": name, "weight": weight} for name, weight in names]
        action["weighted_clusters"] = {"clusters": clusters}
    if it.rewrite:
        action["host_rewrite_literal"] = it.rewrite
    if it.mirror is not None:
        action["request_mirror_policies"] = [{"cluster": cluster_name(*it.mirror)}]
    headers = [{"name": ":authority", "string_match": {"prefix": it.authority}}]
    if it.probe_hash:
        headers.append({"name": "K-Network-Hash", "string_match": {"exact": "override"}})
    where = f"/apis/networking.istio.io/v1/namespaces/{service.namespace}"
    config = f"{where}/virtual-service/{service.name}"
    return {
        "match": {"prefix": "/", "headers": headers},
        "route": action,
        "metadata": {"filter_metadata": {"istio": {"config": config}}},
        "request_headers_to_add": [
            {
                "header": {"key": key, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for key, value in it.headers.items()
        ],
    }


_NO_LIMIT: Final = {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}


def _http(name: str, kind: str, **fields: object) -> Json:
    typed = {"@type": f"{_FILTERS}.http.{kind}", **fields}
    return {"name": f"envoy.filters.http.{name}", "typed_config": typed}
