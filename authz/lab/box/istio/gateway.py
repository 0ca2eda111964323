"""The ingress gateway: public listeners, and Knative's local one in the same process.

pilot/pkg/networking/core/gateway.go of istio 1.30; the Gateways are net-istio's
(config/202-gateway.yaml, config/203-local-gateway.yaml), or what documents say instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from authz.lab.box.istio import authorization, http, tls
from authz.lab.box.istio.inbound import ANY, listener_filter
from authz.lab.box.istio.objects import Objects
from authz.lab.box.istio.routes import Routes
from authz.lab.box.istio.world import GATEWAYS, Gateway, Json, Pod, World
from authz.lab.harness.certs import Certificate

PUBLIC_PORT: Final = 8080
PUBLIC_TLS_PORT: Final = 8443
LOCAL_PORT: Final = 8081


@dataclass(frozen=True)
class IngressGateway:
    """The gateway of a mesh."""

    world: World
    objects: Objects
    pod: Pod
    routes: Routes

    def listeners(self, certificate: Certificate, public: Certificate) -> list[Json]:
        """Its listeners: with `certificate` for the mesh, and `public` for the world."""
        simple = tls.public(public)
        https = f"https.443.https.{GATEWAYS['public'].replace('/', '.')}"
        return [
            self._listener("public", PUBLIC_PORT, f"http.{PUBLIC_PORT}", None),
            self._listener("public", PUBLIC_TLS_PORT, https, simple),
            self._local(certificate),
        ]

    def _local(self, certificate: Certificate) -> Json:
        server = self.objects.gateway_server(GATEWAYS["local"], LOCAL_PORT)
        if server.get("tls", {}).get("mode") != "ISTIO_MUTUAL":
            return self._listener("local", LOCAL_PORT, f"http.{LOCAL_PORT}", None)
        namespace, name = GATEWAYS["local"].split("/")
        routes = f"https.{LOCAL_PORT}.{server['port']['name']}.{name}.{namespace}"
        mutual = tls.downstream(certificate, tls.HTTP_ALPN)
        return self._listener("local", LOCAL_PORT, routes, mutual)

    def _listener(self, gateway: Gateway, port: int, routes: str, socket: Json | None) -> Json:
        name = f"0.0.0.0_{port}"
        manager = http.manager(
            f"outbound_{name};",
            self.routes.refer("gateway", routes, lambda: self._route_config(gateway, port, routes)),
            rbac=authorization.filters(self.objects, self.pod, "http"),
            client_certificate="SANITIZE_SET",
            use_remote_address=True,
        )
        listener: Json = {
            "name": name,
            "address": {"socket_address": {"address": ANY, "port_value": port}},
            "traffic_direction": "OUTBOUND",
            "filter_chains": [{"filters": [manager]}],
        }
        if socket is not None:
            listener["filter_chains"][0]["transport_socket"] = socket
            inspector = listener_filter("tls_inspector", "tls_inspector.v3.TlsInspector")
            listener["listener_filters"] = [inspector]
        return listener

    def _route_config(self, gateway: Gateway, port: int, name: str) -> Json:
        hosts = [
            http.virtual_host(f"{host}:{port}", [host], http.virtual_service_routes(virtual, host))
            for virtual in self.world.virtual_services
            if gateway in virtual.gateways
            for host in virtual.hosts
        ]
        return http.route_config(name, hosts or [http.virtual_host(f"blackhole:{port}", ["*"], [])])
