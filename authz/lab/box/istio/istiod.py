"""The control plane: what each proxy of a world is told, before EnvoyFilters."""

from __future__ import annotations

from dataclasses import dataclass

from authz.lab.box.istio import clusters, gateway, inbound, outbound
from authz.lab.box.istio.objects import Objects
from authz.lab.box.istio.routes import Routes
from authz.lab.box.istio.world import Json, Pod, Port, World
from authz.lab.harness.certs import Certificate


@dataclass(frozen=True)
class Istiod:
    """Writes configurations for the proxies of one world."""

    world: World
    objects: Objects
    public: Certificate
    """What the gateway shows to clients outside."""
    routes: Routes

    def config(self, pod: Pod, certificate: Certificate) -> Json:
        """The whole configuration of the proxy of `pod`."""
        view = outbound.View(self.world, pod, self.objects.imports(pod))
        shared = clusters.common(sidecar=pod.proxy == "sidecar")
        reached = [
            clusters.outbound(self.world, self.objects, certificate, service, port)
            for service in view.concrete
            for port in service.ports
        ]
        if pod.proxy == "gateway":
            ingress = gateway.IngressGateway(self.world, self.objects, pod, self.routes)
            return _config(ingress.listeners(certificate, self.public), [*shared, *reached])
        ports = self._ports(pod)
        listeners = [
            *outbound.listeners(view, self.routes),
            inbound.listener(self.objects, pod, certificate, ports),
        ]
        return _config(listeners, [*shared, *reached, *map(clusters.inbound, ports)])

    def _ports(self, pod: Pod) -> list[Port]:
        """Its ports that are in a Service; where two disagree, the older Service counts."""
        first: dict[int, Port] = {}
        for _, port in self.world.of_pod(pod):
            first.setdefault(port.target, port)
        return [first[number] for number in sorted(first)]


def _config(listeners: list[Json], all_clusters: list[Json]) -> Json:
    # cluster_builder.go: the name for statistics, with the delimiter of Istio's tags.
    named = [it | {"alt_stat_name": f"{it['name']};"} for it in all_clusters]
    return {"static_resources": {"listeners": listeners, "clusters": named}}
