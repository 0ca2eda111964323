"""Clusters, as istiod names and configures them.

pilot/pkg/networking/core/cluster.go, cluster_builder.go, cluster_tls.go. Endpoints are written into
the cluster, where istiod delivers them by EDS.
"""

from __future__ import annotations

from typing import Final

from authz.lab.box.istio import tls
from authz.lab.box.istio.http import BLACK_HOLE, PASSTHROUGH
from authz.lab.box.istio.objects import Objects
from authz.lab.box.istio.world import Json, Port, Service, World
from authz.lab.harness.certs import Certificate
from authz.wire import cluster_name, inbound_cluster_name, server_name

INBOUND_PASSTHROUGH: Final = "InboundPassthroughCluster"
_INBOUND_SOURCE: Final = "127.0.0.6"
_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# What the filter istio.alpn makes of the list of protocols, so that the chains of the other side
# can tell HTTP, which a sidecar has seen, from other TCP.
_ALPN: Final = {
    "http": ("istio-http/1.1", "istio", "http/1.1"),
    "http2": ("istio-h2", "istio", "h2"),
    "tcp": ("istio-peer-exchange", "istio"),
}


def outbound_name(service: Service, port: Port) -> str:
    """What the cluster of a Service's port is called everywhere."""
    return cluster_name(service.host, port.number)


def outbound(
    world: World, objects: Objects, certificate: Certificate, service: Service, port: Port
) -> Json:
    """The cluster of a Service's port, as the owner of `certificate` reaches it."""
    name = outbound_name(service, port)
    pods = [world.pods[pod] for pod in service.endpoints]
    policy = objects.traffic_policy(service.host)
    cluster: Json = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [_endpoint(pod.address, port.target) for pod in pods]},
            ],
        },
        "metadata": {
            "filter_metadata": {
                "istio": {
                    "services": [
                        {
                            "host": service.host,
                            "name": service.name,
                            "namespace": service.namespace,
                        }
                    ]
                }
            }
        },
        **policy_fields(policy),
    }
    if port.protocol != "tcp":
        cluster |= _protocol(_speaks(port) | connection_age(policy))
    mode = policy.get("tls", {}).get("mode")
    # Automatic mutual TLS: to pods that have a sidecar. Else only what a DestinationRule says.
    if mode == "ISTIO_MUTUAL" or (mode is None and all(it.proxy == "sidecar" for it in pods)):
        peers = policy.get("tls", {}).get("subjectAltNames") or [str(it.identity) for it in pods]
        sni = server_name(service.host, port.number)
        cluster["transport_socket"] = tls.upstream(certificate, sni, _ALPN[port.protocol], peers)
    return cluster


def inbound(port: Port) -> Json:
    """From the sidecar to its own app: to where the request was addressed, from 127.0.0.6."""
    cluster = _original_destination(inbound_cluster_name(port.target)) | _from_the_sidecar()
    return cluster if port.protocol == "tcp" else cluster | _protocol(_speaks(port))


def common(*, sidecar: bool) -> list[Json]:
    """Those that every proxy has."""
    black_hole = {"name": BLACK_HOLE, "type": "STATIC", "connect_timeout": "10s"}
    if not sidecar:
        return [black_hole]
    any_protocol = _protocol({"use_downstream_protocol_config": {"http2_protocol_options": {}}})
    return [
        black_hole,
        _original_destination(PASSTHROUGH) | any_protocol,
        _original_destination(INBOUND_PASSTHROUGH) | any_protocol | _from_the_sidecar(),
    ]


def policy_fields(policy: Json) -> Json:
    """The fields of a DestinationRule's trafficPolicy that the model knows."""
    fields: Json = {}
    pool = policy.get("connectionPool", {}).get("tcp", {})
    if "connectTimeout" in pool:
        fields["connect_timeout"] = pool["connectTimeout"]
    outlier = policy.get("outlierDetection")
    if outlier:
        fields["outlier_detection"] = {
            "consecutive_5xx": outlier["consecutive5xxErrors"],
            "interval": outlier["interval"],
            "base_ejection_time": outlier["baseEjectionTime"],
            "max_ejection_percent": outlier["maxEjectionPercent"],
        }
        threshold = {"value": outlier.get("minHealthPercent", 0)}
        fields["common_lb_config"] = {"healthy_panic_threshold": threshold}
    return fields


def connection_age(policy: Json) -> Json:
    """How long a connection may last, as a DestinationRule says."""
    duration = policy.get("connectionPool", {}).get("tcp", {}).get("maxConnectionDuration")
    if duration is None:
        return {}
    return {"common_http_protocol_options": {"max_connection_duration": _seconds(duration)}}


def _speaks(port: Port) -> Json:
    version = "http2_protocol_options" if port.protocol == "http2" else "http_protocol_options"
    return {"explicit_http_config": {version: {}}}


def _seconds(duration: str) -> str:
    unit = {"s": 1, "m": 60, "h": 3600}[duration[-1]]
    return f"{int(duration[:-1]) * unit}s"


def _original_destination(name: str) -> Json:
    return {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
    }


def _from_the_sidecar() -> Json:
    source = {"address": _INBOUND_SOURCE, "port_value": 0}
    return {"upstream_bind_config": {"source_address": source}}


def _protocol(options: Json) -> Json:
    typed = {"@type": f"type.googleapis.com/{_OPTIONS}", **options}
    return {"typed_extension_protocol_options": {_OPTIONS: typed}}


def _endpoint(address: str, port: int) -> Json:
    return {"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}}
