"""Envoy configuration in the shape, and with the names, that istiod gives it.

The filters that ship read those names: `%UPSTREAM_CLUSTER_RAW%` must say where a request goes as it
does in a mesh. Beside its name, each cluster has istiod's other one for statistics, which must not
count. What the demo does not need is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from authz.domain.identity import SpiffeId
from authz.lab.harness.certs import Certificate
from authz.lab.harness.ports import Endpoint
from authz.wire import cluster_name, inbound_cluster_name, server_name

Json: TypeAlias = dict[str, Any]

CLUSTER_DOMAIN = "cluster.local"
AUTHZ_HOST = f"authz.authz-system.svc.{CLUSTER_DOMAIN}"
AUTHZ_PORT = 9000
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - what istiod writes; nothing here listens on it
PASSTHROUGH = "PassthroughCluster"
ORIGINAL_DESTINATION = "x-envoy-original-dst-host"
REVISION = "knative-serving-revision"
SERVING_NAMESPACE = "knative-serving-namespace"

_TYPE = "type.googleapis.com/envoy"
_FILTER = f"{_TYPE}.extensions.filters"
_TLS = f"{_TYPE}.extensions.transport_sockets.tls.v3"

ROUTER: Json = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{_FILTER}.http.router.v3.Router"},
}


@dataclass(frozen=True)
class Service:
    """A Kubernetes Service with one endpoint, spoken to over mTLS."""

    name: str
    namespace: str
    endpoint: Endpoint
    identity: SpiffeId
    cluster_ip: str
    port: int = 80
    http2: bool = False
    revision: str = ""
    """Behind Knative's activator: what its VirtualService tells the activator to wake."""

    @property
    def host(self) -> str:
        """The full DNS name."""
        return f"{self.name}.{self.namespace}.svc.{CLUSTER_DOMAIN}"

    @property
    def cluster(self) -> str:
        """The name of its cluster in every sidecar."""
        return cluster_name(self.host, self.port)


def envoy_config(listeners: Iterable[Json], clusters: Iterable[Json]) -> Json:
    """A whole static configuration, but for the admin endpoint."""
    return {"static_resources": {"listeners": list(listeners), "clusters": list(clusters)}}


# ---- listeners ----


def outbound_listener(name: str, address: Endpoint, services: Sequence[Service]) -> Json:
    """Takes the app's own calls, in plaintext; what no service claims passes through."""
    hosts = [_service_host(service) for service in services]
    anything = {"name": "allow_any", "domains": ["*"], "routes": [_route("allow_any", PASSTHROUGH)]}
    manager = _manager(f"outbound_{name}", name.rpartition("_")[2], [*hosts, anything])
    return _listener(name, address, manager) | {"traffic_direction": "OUTBOUND"}


def inbound_listener(address: Endpoint, port: int, cert: Certificate) -> Json:
    """Takes calls to the pod, with mutual TLS only (PeerAuthentication STRICT)."""
    host = {
        "name": f"inbound|http|{port}",
        "domains": ["*"],
        "routes": [_route("default", inbound_cluster_name(port))],
    }
    manager = _manager(f"inbound_0.0.0.0_{port}", inbound_cluster_name(port), [host])
    manager |= {
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
    }
    listener = _listener("virtualInbound", address, manager, downstream_tls(cert))
    (chain,) = listener["filter_chains"]
    chain |= {"name": f"0.0.0.0_{port}", "filter_chain_match": {"destination_port": port}}
    return listener | {"traffic_direction": "INBOUND"}


def gateway_listener(address: Endpoint, virtual_hosts: Sequence[Json]) -> Json:
    """Takes calls from outside the mesh, in plaintext."""
    port = address.port
    manager = _manager(f"outbound_0.0.0.0_{port}", f"http.{port}", virtual_hosts)
    manager["forward_client_cert_details"] = "SANITIZE_SET"
    return _listener(f"0.0.0.0_{port}", address, manager)


def gateway_host(domain: str, service: Service) -> Json:
    """A public name, routed by a VirtualService in the service's namespace."""
    config = (
        f"/apis/networking.istio.io/v1alpha3/namespaces/{service.namespace}"
        f"/virtual-service/{service.name}-ingress"
    )
    route = _service_route(service)
    route["metadata"] = {"filter_metadata": {"istio": {"config": config}}}
    return {"name": f"{domain}:80", "domains": [domain], "routes": [route]}


def activator_listener(address: Endpoint, services: Iterable[Service], next_hop: str) -> Json:
    """Knative's activator: sends a request to the revision that two headers name.

    They do not reach the revision, and the request leaves by the cluster `next_hop`.
    """
    routes = []
    for service in services:
        wanted = [_header(REVISION, service.name), _header(SERVING_NAMESPACE, service.namespace)]
        route = _route(f"{service.name}.{service.namespace}", next_hop)
        route["match"]["headers"] = wanted
        route["route"]["host_rewrite_literal"] = service.host
        route["request_headers_to_remove"] = [REVISION, SERVING_NAMESPACE]
        routes.append(route)
    host = {"name": "revisions", "domains": ["*"], "routes": routes}
    return _listener("activator", address, _manager("activator", "activator", [host]))


def _service_host(service: Service) -> Json:
    host, full = f"{service.name}.{service.namespace}", service.host
    domains = [full, f"{host}.svc", host, service.cluster_ip]
    name = f"{full}:{service.port}"
    return {"name": name, "domains": domains, "routes": [_service_route(service)]}


def _service_route(service: Service) -> Json:
    route = _route("default", service.cluster)
    if service.revision:
        named = {REVISION: service.revision, SERVING_NAMESPACE: service.namespace}
        route["request_headers_to_add"] = [
            {
                "header": {"key": key, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for key, value in named.items()
        ]
    return route


def _header(name: str, value: str) -> Json:
    return {"name": name, "string_match": {"exact": value}}


def _route(name: str, cluster: str) -> Json:
    return {"name": name, "match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}


def _manager(stat_prefix: str, route_config: str, hosts: Sequence[Json]) -> Json:
    return {
        "@type": f"{_FILTER}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": stat_prefix,
        "server_name": "istio-envoy",
        "route_config": {
            "name": route_config,
            "ignore_port_in_host_matching": True,
            "virtual_hosts": list(hosts),
        },
        "http_filters": [ROUTER],
    }


def _listener(name: str, address: Endpoint, manager: Json, tls: Json | None = None) -> Json:
    chain: Json = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    if tls is not None:
        chain["transport_socket"] = tls
    return {"name": name, "address": socket_address(address), "filter_chains": [chain]}


# ---- clusters ----


def service_cluster(service: Service, cert: Certificate) -> Json:
    """A service's cluster: mutual TLS, and only with the identity that serves it."""
    cluster = static_cluster(service.cluster, service.endpoint, http2=service.http2)
    return cluster | {"transport_socket": _upstream_tls(service, cert)}


def static_cluster(name: str, endpoint: Endpoint, *, http2: bool = False) -> Json:
    """A cluster of one endpoint, in plaintext."""
    locality = {"lb_endpoints": [{"endpoint": {"address": socket_address(endpoint)}}]}
    cluster = {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [locality]},
    }
    return cluster | _explicit_http2() if http2 else cluster


def passthrough_cluster() -> Json:
    """Sends a request to where the app addressed it, in plaintext.

    In a pod, iptables remembers that address; here a header stands for it.
    """
    return {
        "name": PASSTHROUGH,
        "alt_stat_name": f"{PASSTHROUGH};",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "original_dst_lb_config": {
            "use_http_header": True,
            "http_header_name": ORIGINAL_DESTINATION,
        },
    }


def _explicit_http2() -> Json:
    options = {
        "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        }
    }


# ---- TLS ----


def downstream_tls(cert: Certificate) -> Json:
    """Mutual TLS, with a certificate of the mesh on both sides."""
    context = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            **_certificates(cert),
            "alpn_protocols": ["h2", "http/1.1"],
            "validation_context": {"trusted_ca": {"filename": str(cert.ca_file)}},
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _upstream_tls(service: Service, cert: Certificate) -> Json:
    serves = {"san_type": "URI", "matcher": {"exact": str(service.identity)}}
    context = {
        "@type": f"{_TLS}.UpstreamTlsContext",
        "sni": server_name(service.host, service.port),
        "common_tls_context": {
            **_certificates(cert),
            "alpn_protocols": ["istio-peer-exchange", "istio", *(["h2"] if service.http2 else [])],
            "validation_context": {
                "trusted_ca": {"filename": str(cert.ca_file)},
                "match_typed_subject_alt_names": [serves],
            },
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _certificates(cert: Certificate) -> Json:
    files = {
        "certificate_chain": {"filename": str(cert.cert_file)},
        "private_key": {"filename": str(cert.key_file)},
    }
    return {"tls_certificates": [files]}


def socket_address(endpoint: Endpoint) -> Json:
    """An endpoint as Envoy writes it."""
    return {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}
