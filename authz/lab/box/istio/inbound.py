"""What arrives at a pod: the listener `virtualInbound` and its chains.

pilot/pkg/networking/core/listener_inbound.go and filterchain_options.go of istio 1.30.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from authz.lab.box.istio import authorization, clusters, http, tls
from authz.lab.box.istio.objects import PERMISSIVE, STRICT, Objects
from authz.lab.box.istio.rules import INBOUND_PORT
from authz.lab.box.istio.world import Json, Pod, Port
from authz.lab.harness.certs import Certificate
from authz.wire import inbound_cluster_name

ANY: Final = "0.0.0.0"  # noqa: S104 - within a pod's own namespace
_LISTENER_FILTER: Final = "type.googleapis.com/envoy.extensions.filters.listener"
_SIDECAR_HTTP: Final = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
_SIDECAR_TCP: Final = ("istio-peer-exchange", "istio")
_SIDECAR_ALL: Final = ("istio", "istio-peer-exchange", *_SIDECAR_HTTP)
_PLAIN_HTTP: Final = ("http/1.1", "h2c")


@dataclass(frozen=True)
class _Match:
    speaks: str
    transport: str = "tls"
    alpn: tuple[str, ...] = ()
    terminates: bool = True


# By mode and protocol, "" being a port that is in no Service: which chains there are.
_MATCHES: Final = {
    (STRICT, "http"): (_Match("http"),),
    (STRICT, "tcp"): (_Match("tcp"),),
    (STRICT, ""): (_Match("http", alpn=_SIDECAR_HTTP), _Match("tcp")),
    (PERMISSIVE, "http"): (
        _Match("http", alpn=_SIDECAR_ALL),
        _Match("http", "raw_buffer", terminates=False),
    ),
    (PERMISSIVE, "tcp"): (
        _Match("tcp", alpn=_SIDECAR_ALL),
        _Match("tcp", "raw_buffer", terminates=False),
        _Match("tcp", terminates=False),
    ),
    (PERMISSIVE, ""): (
        _Match("http", alpn=_SIDECAR_HTTP),
        _Match("http", "raw_buffer", _PLAIN_HTTP, terminates=False),
        _Match("tcp", alpn=_SIDECAR_TCP),
        _Match("tcp", "raw_buffer", terminates=False),
        _Match("tcp", terminates=False),
    ),
    ("DISABLE", "http"): (_Match("http", "raw_buffer", terminates=False),),
    ("DISABLE", "tcp"): (_Match("tcp", "raw_buffer", terminates=False),),
    ("DISABLE", ""): (
        _Match("http", "raw_buffer", _PLAIN_HTTP, terminates=False),
        _Match("tcp", "raw_buffer", terminates=False),
    ),
}


def listener(objects: Objects, pod: Pod, certificate: Certificate, ports: list[Port]) -> Json:
    """The listener that iptables leads everything to."""
    building = _Chains(objects, pod, certificate)
    return {
        "name": "virtualInbound",
        "address": {"socket_address": {"address": ANY, "port_value": INBOUND_PORT}},
        "traffic_direction": "INBOUND",
        "continue_on_listener_filters_timeout": True,
        "listener_filters_timeout": "0s",
        "listener_filters": [
            listener_filter("original_dst", "original_dst.v3.OriginalDst"),
            listener_filter("tls_inspector", "tls_inspector.v3.TlsInspector"),
            listener_filter("http_inspector", "http_inspector.v3.HttpInspector"),
        ],
        "filter_chains": [
            black_hole("virtualInbound-blackhole", INBOUND_PORT),
            *building.passthrough(0),
            *(
                chain
                for port in sorted(objects.ports_of_their_own(pod))
                if port not in {it.target for it in ports}
                for chain in building.passthrough(port)
            ),
            *(chain for port in ports for chain in building.of(port)),
        ],
    }


def listener_filter(name: str, kind: str) -> Json:
    """A listener filter without options."""
    typed = {"@type": f"{_LISTENER_FILTER}.{kind}"}
    return {"name": f"envoy.filters.listener.{name}", "typed_config": typed}


def black_hole(name: str, port: int) -> Json:
    """Nobody may address the listener's own port: it would call itself."""
    match = {"destination_port": port}
    return {
        "name": name,
        "filter_chain_match": match,
        "filters": [http.tcp_proxy(http.BLACK_HOLE)],
    }


class _Chains:
    """Chains of one pod."""

    def __init__(self, objects: Objects, pod: Pod, certificate: Certificate) -> None:
        self._objects = objects
        self._pod = pod
        self._certificate = certificate

    def of(self, port: Port) -> Iterator[Json]:
        """Those of a port that is in a Service."""
        name = f"0.0.0.0_{port.target}"
        names = {"http": name, "tcp": name}
        protocol = "tcp" if port.protocol == "tcp" else "http"
        cluster = inbound_cluster_name(port.target)
        manager = self._manager(cluster, f"inbound_{name};", port.target, port.protocol)
        for match in _MATCHES[self._objects.mutual_tls(self._pod, port.target), protocol]:
            yield self._chain(names, match, port.target, cluster, manager)

    def passthrough(self, port: int) -> Iterator[Json]:
        """Those of all other ports, or of one that a PeerAuthentication names."""
        names = {"http": "virtualInbound-catchall-http", "tcp": "virtualInbound"}
        cluster = clusters.INBOUND_PASSTHROUGH
        manager = self._manager(cluster, f"{cluster};", port, "http")
        for match in _MATCHES[self._objects.mutual_tls(self._pod, port), ""]:
            yield self._chain(names, match, port, cluster, manager)

    def _chain(
        self, names: dict[str, str], match: _Match, port: int, cluster: str, manager: Json
    ) -> Json:
        wanted: Json = {"transport_protocol": match.transport}
        if match.alpn:
            wanted["application_protocols"] = list(match.alpn)
        if port:
            wanted["destination_port"] = port
        chain: Json = {"name": names[match.speaks], "filter_chain_match": wanted}
        if match.speaks == "http":
            chain["filters"] = [manager]
        else:
            rbac = authorization.filters(self._objects, self._pod, "network")
            chain["filters"] = [*rbac, http.tcp_proxy(cluster)]
        if match.terminates:
            alpn = tls.HTTP_ALPN if match.speaks == "http" else tls.TCP_ALPN
            chain["transport_socket"] = tls.downstream(self._certificate, alpn)
        return chain

    def _manager(self, cluster: str, stat_prefix: str, port: int, protocol: str) -> Json:
        host = http.virtual_host(f"inbound|http|{port}", ["*"], [http.route(cluster)])
        return http.manager(
            stat_prefix,
            {"route_config": http.route_config(cluster, [host])},
            rbac=authorization.filters(self._objects, self._pod, "http"),
            client_certificate="APPEND_FORWARD",
            http2=protocol == "http2",
        )
