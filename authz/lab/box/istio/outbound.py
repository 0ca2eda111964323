"""What a pod sends: `virtualOutbound`, and a listener for each port and each TCP service behind it.

pilot/pkg/networking/core/listener.go and httproute.go of istio 1.30.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from authz.lab.box.istio import http
from authz.lab.box.istio.clusters import outbound_name
from authz.lab.box.istio.inbound import ANY, black_hole, listener_filter
from authz.lab.box.istio.objects import imported
from authz.lab.box.istio.routes import Routes
from authz.lab.box.istio.rules import OUTBOUND_PORT
from authz.lab.box.istio.world import Json, Pod, Port, Service, VirtualService, World


class View:
    """What of the world a pod's proxy is told: a Sidecar object may hide the rest."""

    def __init__(self, world: World, pod: Pod, imports: list[str] | None) -> None:
        self._world = world
        self._namespace = pod.namespace
        self._imports = imports
        self.key = " ".join((pod.namespace, *(imports or ["*/*"])))
        """What else sees the same."""

    @cached_property
    def services(self) -> list[Service]:
        """The visible Services, ExternalNames too."""
        return [it for it in self._world.services if self._sees(it.namespace, it.host)]

    @cached_property
    def concrete(self) -> list[Service]:
        """Those that have endpoints of their own."""
        return [it for it in self.services if not it.external_name]

    @cached_property
    def virtual_services(self) -> list[VirtualService]:
        """The visible VirtualServices of the gateway `mesh`."""
        return [
            it
            for it in self._world.virtual_services
            if "mesh" in it.gateways and any(self._sees(it.namespace, host) for host in it.hosts)
        ]

    @cached_property
    def aliases(self) -> dict[str, list[Service]]:
        """ExternalNames, by the host of the Service that they lead to.

        All of them: istiod gives them to whoever sees that Service (model/push_context.go,
        resolveServiceAliases).
        """
        found: dict[str, list[Service]] = {}
        for it in self._world.services:
            if it.external_name and (target := self._world.concrete(it)) is not None:
                found.setdefault(target.host, []).append(it)
        return found

    def domains(self, service: Service) -> list[str]:
        """The names by which this pod may call a Service."""
        short, host = f"{service.name}.{service.namespace}", service.host
        near = [service.name] if service.namespace == self._namespace else []
        address = [service.address] if service.address else []
        return [host, f"{host}.", *near, f"{short}.svc", short, *address]

    def _sees(self, namespace: str, host: str) -> bool:
        return imported(self._imports, self._namespace, namespace, host)


def listeners(view: View, routes: Routes) -> list[Json]:
    """All outbound listeners of a sidecar."""
    ports = [(service, port) for service in view.concrete for port in service.ports]
    numbers = sorted({port.number for _, port in ports if port.protocol != "tcp"})
    tcp = [(service, port) for service, port in ports if port.protocol == "tcp"]
    return [
        *(_tcp_listener(service, port) for service, port in tcp),
        *(_http_listener(view, number, routes) for number in numbers),
        _virtual_outbound(),
    ]


def route_config(view: View, number: int) -> Json:
    """What RDS calls `80`, and so on: every virtual host of a port."""
    taken: set[str] = set()
    hosts = [
        http.virtual_host(name, free, routes)
        for name, domains, routes in _virtual_hosts(view, number)
        if (free := _claim(domains, taken))
    ]
    anything = http.virtual_host("allow_any", ["*"], [http.route(http.PASSTHROUGH, "allow_any")])
    return http.route_config(str(number), [*hosts, anything])


def _virtual_hosts(view: View, number: int) -> Iterator[tuple[str, list[str], list[Json]]]:
    """Names, domains and routes; the first to claim a domain has it."""
    by_host = {service.host: service for service in view.services}
    for virtual in view.virtual_services:
        for host in virtual.hosts:
            routes = http.virtual_service_routes(virtual, host)
            service = by_host.get(host)
            if service is None:
                yield f"{host}:{number}", [host], routes
            elif number in _numbers(view, service):
                # The short name is a domain too, but the routes ask for the long one: 404.
                yield f"{host}:{number}", view.domains(service), routes
    for service in view.concrete:
        for port in service.ports:
            if port.number == number and port.protocol != "tcp":
                names = [*view.domains(service)]
                for alias in view.aliases.get(service.host, ()):
                    names += view.domains(alias)
                cluster = outbound_name(service, port)
                yield f"{service.host}:{number}", names, [http.route(cluster)]


def _numbers(view: View, service: Service) -> set[int]:
    leads_to = [it for it in view.concrete if service in (it, *view.aliases.get(it.host, ()))]
    return {port.number for it in leads_to for port in it.ports} or {80}


def _claim(domains: Iterable[str], taken: set[str]) -> list[str]:
    free = [it for it in dict.fromkeys(domains) if it not in taken]
    taken.update(free)
    return free


def _http_listener(view: View, number: int, routes: Routes) -> Json:
    name = f"0.0.0.0_{number}"
    delivered = routes.refer(view.key, str(number), lambda: route_config(view, number))
    manager = http.manager(f"outbound_{name};", delivered)
    match = {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}
    chains = [{"filter_chain_match": match, "filters": [manager]}]
    return _listener(name, ANY, number, chains) | {
        "default_filter_chain": {
            "name": "PassthroughFilterChain",
            "filters": [http.tcp_proxy(http.PASSTHROUGH)],
        },
        "listener_filters": [
            listener_filter("tls_inspector", "tls_inspector.v3.TlsInspector"),
            listener_filter("http_inspector", "http_inspector.v3.HttpInspector"),
        ],
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": True,
    }


def _tcp_listener(service: Service, port: Port) -> Json:
    chain = {"filters": [http.tcp_proxy(outbound_name(service, port))]}
    name = f"{service.address}_{port.number}"
    return _listener(name, service.address, port.number, [chain])


def _virtual_outbound() -> Json:
    chains = [
        black_hole("virtualOutbound-blackhole", OUTBOUND_PORT),
        {
            "name": "virtualOutbound-catchall-tcp",
            "filters": [http.tcp_proxy(http.PASSTHROUGH)],
        },
    ]
    listener = _listener("virtualOutbound", ANY, OUTBOUND_PORT, chains)
    del listener["bind_to_port"]
    return listener | {"use_original_dst": True}


def _listener(name: str, address: str, port: int, chains: Sequence[Json]) -> Json:
    return {
        "name": name,
        "address": {"socket_address": {"address": address, "port_value": port}},
        "traffic_direction": "OUTBOUND",
        "bind_to_port": False,
        "filter_chains": list(chains),
    }
