"""The ingress gateway: public listeners, and Knative's local one in the same process.

pilot/pkg/networking/core/gateway.go of istio 1.30; the Gateways are net-istio's
(config/202-gateway.yaml, config/203-local-gateway.yaml), or what documents say instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from authz.demo.certs import Certificate
from authz.demo.istio import authorization, http, tls
from authz.demo.istio.inbound import listener_filter
from authz.demo.istio.objects import Objects
from authz.demo.istio.routes import Routes
from authz.demo.istio.world import GATEWAYS, Gateway, Json, Pod, World

PUBLIC_PORT: Final = 8080
PUBLIC_TLS_PORT: Final = 8443
LOCAL_PORT: Final = 8081


def listeners(
    world: World,
    objects: Objects,
    pod: Pod,
    certificate: Certificate,
    public: Certificate,
    routes: Routes,
) -> list[Json]:
    """All listeners of the gateway."""
    rbac = authorization.filters(objects, pod, "http")
    local = objects.gateway_server(GATEWAYS["local"], LOCAL_PORT)
    mode = local.get("tls", {}).get("mode", "")
    name = f"http.{LOCAL_PORT}"
    socket = None
    if mode == "ISTIO_MUTUAL":
        gateway_namespace, gateway = GATEWAYS["local"].split("/")
        name = f"https.{LOCAL_PORT}.{local['port']['name']}.{gateway}.{gateway_namespace}"
        socket = tls.downstream(certificate, tls.HTTP_ALPN)
    https = f"https.443.https.{GATEWAYS['public'].replace('/', '.')}"
    return [
        _listener(world, "public", PUBLIC_PORT, f"http.{PUBLIC_PORT}", rbac, None, routes),
        _listener(world, "public", PUBLIC_TLS_PORT, https, rbac, tls.public(public), routes),
        _listener(world, "local", LOCAL_PORT, name, rbac, socket, routes),
    ]


def _listener(
    world: World,
    gateway: Gateway,
    port: int,
    route_config: str,
    rbac: Sequence[Json],
    socket: Json | None,
    routes: Routes,
) -> Json:
    name = f"0.0.0.0_{port}"
    hosts = [
        http.virtual_host(f"{host}:{port}", [host], http.virtual_service_routes(virtual, host))
        for virtual in world.virtual_services
        if gateway in virtual.gateways
        for host in virtual.hosts
    ]
    if not hosts:
        hosts = [http.virtual_host(f"blackhole:{port}", ["*"], [])]
    manager = http.manager(
        f"outbound_{name};",
        routes.refer("gateway", route_config, lambda: http.route_config(route_config, hosts)),
        rbac=rbac,
        client_certificate="SANITIZE_SET",
        use_remote_address=True,
    )
    chain: Json = {"filters": [manager]}
    if socket is not None:
        chain["transport_socket"] = socket
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},  # noqa: S104
        "traffic_direction": "OUTBOUND",
        "filter_chains": [chain],
        "listener_filters": []
        if socket is None
        else [listener_filter("tls_inspector", "tls_inspector.v3.TlsInspector")],
    }
