"""Who is there: pods, Services and routing, as Kubernetes, Knative and an operator made them.

A world is data. `network` builds its pods, `istiod` configures their proxies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace

Json: TypeAlias = dict[str, Any]
Protocol: TypeAlias = Literal["http", "http2", "tcp"]
ProxyKind: TypeAlias = Literal["sidecar", "gateway", "none"]
Gateway: TypeAlias = Literal["mesh", "local", "public"]

DOMAIN: Final = "cluster.local"
ROOT_NAMESPACE: Final = "istio-system"
GATEWAYS: Final[Mapping[str, str]] = {
    "local": "knative-serving/knative-local-gateway",
    "public": "knative-serving/knative-ingress-gateway",
}
"""What Knative calls the Gateway objects that `VirtualService.gateways` may name."""


@dataclass(frozen=True)
class Port:
    """A port of a Service; istiod knows its protocol from its name or `appProtocol`."""

    number: int
    target: int
    protocol: Protocol = "http"
    name: str = ""
    """By default that of the protocol."""
    target_name: str = ""
    """What the pods call `target`, where the Service names it so."""


@dataclass(frozen=True)
class Pod:
    """A pod, its place and what runs in it beside the proxy."""

    namespace: str
    name: str
    address: str
    service_account: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    proxy: ProxyKind = "sidecar"
    listens: tuple[int, ...] = ()
    """Ports of its containers."""
    role: str = "app"
    """Which program its container runs: see `programs`; an `absent` pod does not run in a box."""
    port_names: Mapping[int, str] = field(default_factory=dict)
    """What its containers call ports, as far as a Service leads to them by name."""

    @property
    def id(self) -> str:
        """How tests and scenarios call it: `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def identity(self) -> SpiffeId:
        """Its SPIFFE ID."""
        return SpiffeId(DOMAIN, Namespace(self.namespace), self.service_account)


@dataclass(frozen=True)
class Service:
    """A Kubernetes Service and its endpoints."""

    namespace: str
    name: str
    address: str
    """Its cluster IP; empty for an ExternalName."""
    ports: tuple[Port, ...] = ()
    endpoints: tuple[str, ...] = ()
    """Ids of pods."""
    external_name: str = ""
    selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of its pods; none if somebody else writes its endpoints."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """Its full DNS name."""
        return f"{self.name}.{self.namespace}.svc.{DOMAIN}"


@dataclass(frozen=True)
class Route:
    """One HTTP route: by prefix of the authority, to weighted clusters."""

    authority: str
    to: tuple[tuple[str, int, int], ...]
    """Host, port and weight of each destination."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers that are set, whatever was there."""
    probe_hash: str = ""
    """Only requests that ask for this hash to be put in: net-istio's probes."""
    rewrite: str = ""
    """What becomes of the authority: a DomainMapping's, once the route is chosen."""
    gateway: Gateway | None = None
    """At which of the VirtualService's gateways alone it counts; at all if None."""
    mirror: tuple[str, int] | None = None
    """Host and port to which a copy of each request goes."""


@dataclass(frozen=True)
class VirtualService:
    """A VirtualService."""

    namespace: str
    name: str
    gateways: frozenset[Gateway]
    hosts: tuple[str, ...]
    routes: tuple[Route, ...]


@dataclass(frozen=True)
class World:
    """Everything that is in the cluster, and one server that is not."""

    pods: Mapping[str, Pod]
    services: tuple[Service, ...]
    virtual_services: tuple[VirtualService, ...]
    documents: tuple[Json, ...] = ()
    """Istio objects that are there without us: PeerAuthentication and the like."""

    def service(self, name: str, namespace: str) -> Service:
        """One Service.

        Raises:
            KeyError: there is none.
        """
        for service in self.services:
            if (service.name, service.namespace) == (name, namespace):
                return service
        raise KeyError(f"{name}.{namespace}")

    def concrete(self, service: Service) -> Service | None:
        """The Service that an ExternalName leads to; itself, if it is none."""
        seen: set[str] = set()
        current: Service | None = service
        while current is not None and current.external_name:
            if current.host in seen:
                return None
            seen.add(current.host)
            wanted = current.external_name.rstrip(".")
            current = next((it for it in self.services if it.host == wanted), None)
        return current

    def of_pod(self, pod: Pod) -> Iterator[tuple[Service, Port]]:
        """Ports of Services that lead to `pod`, in the order in which they were created."""
        for service in self.services:
            if pod.id in service.endpoints:
                for port in service.ports:
                    yield service, port

    def resolve(self, name: str, namespace: str) -> str:
        """What the cluster's DNS answers a pod in `namespace`.

        CoreDNS's `pods insecure` included, which answers for any address in any namespace.

        Raises:
            KeyError: nobody has that name.
        """
        labels = name.rstrip(".").removesuffix(f".{DOMAIN}").split(".")
        match labels:
            case [dashed, _, "pod"]:
                return dashed.replace("-", ".")
            case [service, space, "svc"] | [service, space]:
                pass
            case [service]:
                space = namespace
            case _:
                raise KeyError(name)
        found = self.concrete(self.service(service, space))
        if found is None:
            raise KeyError(name)
        return found.address
