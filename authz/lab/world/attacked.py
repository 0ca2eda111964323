"""Worlds beside the standard one: what an attacker and careless victims put into it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from authz.lab.world import cluster
from authz.lab.world.model import (
    DOMAIN,
    Gateway,
    Json,
    Port,
    Route,
    Service,
    VirtualService,
    World,
)

ATTACKED: Final = ("acme-web", "acme-db", "initech", "mallory")
"""Whose pods play a part in `attacked`."""


def attacked() -> World:
    """The standard cluster, and what the attacker and careless victims put into it."""
    standard = cluster.standard()
    dispatcher = f"imc-dispatcher.knative-eventing.svc.{DOMAIN}"
    services = (
        # A Service in front of the attacker's pod that has no sidecar, so that it sees everything.
        Service("mallory", "trap", "10.96.1.1", (Port(80, 8000),), ("mallory/bare",)),
        # An EndpointSlice that names somebody else's pod.
        Service("mallory", "snatch", "10.96.1.2", (Port(80, 8012),), ("acme-db/hello",)),
        Service("mallory", "alias", "", external_name=f"plain.acme-db.svc.{DOMAIN}"),
        Service("acme-web", "payments", "", external_name=f"trap.mallory.svc.{DOMAIN}"),
        Service("acme-web", "database", "", external_name=f"plain.acme-db.svc.{DOMAIN}"),
        Service("acme-web", "split", "", external_name=cluster.LOCAL_GATEWAY),
        Service("acme-web", "copied", "", external_name=cluster.LOCAL_GATEWAY),
        Service("acme-web", "events-kn-channel", "", external_name=dispatcher),
        Service("mallory", "events-kn-channel", "", external_name=dispatcher),
    )
    private, trap = f"hello-00001.acme-db.svc.{DOMAIN}", f"trap.mallory.svc.{DOMAIN}"
    routes = (
        # Somebody has put a private service on the public gateway.
        _route("acme-db", "slip", "public", "slip.example.com", (private, 80, 100)),
        # A DomainMapping: from the public gateway through the local one.
        cluster.domain_mapping("acme-web", "mapped.example.com", f"hello.acme-web.svc.{DOMAIN}"),
        # And what one would be that names a Service of another namespace.
        _route(
            "mallory",
            "remapped",
            "public",
            "remapped.example.com",
            (cluster.LOCAL_GATEWAY, 80, 100),
            rewrite=f"hello.acme-db.svc.{DOMAIN}",
        ),
        _route("acme-web", "split", "mesh", "split.acme-web", (private, 80, 50), (trap, 80, 50)),
        _route(
            "acme-web", "copied", "mesh", "copied.acme-web", (private, 80, 100), mirror=(trap, 80)
        ),
    )
    return replace(
        standard,
        services=(*standard.services, *services),
        virtual_services=(*standard.virtual_services, *routes),
        documents=(*standard.documents, *_ingresses()),
    )


def _ingresses() -> tuple[Json, ...]:
    """Of one host, istiod makes one VirtualService, filed under the oldest Ingress."""
    return (
        _ingress("acme-web", "first", "hijacked.example.com", "/shop", "plain"),
        _ingress("mallory", "second", "hijacked.example.com", "/", "trap"),
        # To a name that stands for somebody else's private service.
        _ingress("mallory", "aliased", "aliased.example.com", "/", "alias"),
    )


def _ingress(namespace: str, name: str, host: str, path: str, service: str) -> Json:
    backend = {"service": {"name": service, "port": {"number": 80}}}
    paths = [{"path": path, "pathType": "Prefix", "backend": backend}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"kubernetes.io/ingress.class": "istio"},
        },
        "spec": {"rules": [{"host": host, "http": {"paths": paths}}]},
    }


def _route(
    namespace: str,
    name: str,
    gateway: Gateway,
    host: str,
    *to: tuple[str, int, int],
    rewrite: str = "",
    mirror: tuple[str, int] | None = None,
) -> VirtualService:
    hosts = (host, f"{host}.svc.{DOMAIN}") if gateway == "mesh" else (host,)
    route = Route(host, to, rewrite=rewrite, mirror=mirror)
    return VirtualService(namespace, name, frozenset({gateway}), hosts, (route,))


def examined() -> World:
    """The standard cluster, and the service has a sidecar: what the doctor's tests look at."""
    standard = cluster.standard()
    authz = replace(standard.pods["authz-system/authz"], proxy="sidecar")
    return replace(standard, pods={**standard.pods, authz.id: authz})


HIDES_THE_SERVICE: Final[Json] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Sidecar",
    "metadata": {"name": "default", "namespace": "globex"},
    "spec": {"egress": [{"hosts": ["./*", "istio-system/*"]}]},
}


def mutual_tls(namespace: str, mode: str) -> Json:
    """A namespace's own word about mutual TLS; the root namespace's is the mesh's."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"mtls": {"mode": mode}},
    }
