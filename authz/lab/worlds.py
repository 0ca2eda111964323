"""Worlds beside the standard one: what an attacker and careless victims put into it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from authz.demo.istio import cluster
from authz.demo.istio.world import DOMAIN, Gateway, Port, Route, Service, VirtualService, World

ATTACKED: Final = ("acme-web", "acme-db", "initech", "mallory")
"""The tenants of `attacked`."""


def attacked() -> World:
    """The standard cluster, and what the attacker and careless victims put into it."""
    standard = cluster.standard(ATTACKED)
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
        # An Ingress of mallory's for a host of acme's: istiod files it under the host's owner.
        _route("acme-web", "hijacked", "public", "hijacked.example.com", (trap, 80, 100)),
        # Somebody has put a private service on the public gateway.
        _route("acme-db", "slip", "public", "slip.example.com", (private, 80, 100)),
        # A DomainMapping: from the public gateway through the local one.
        _route(
            "acme-web",
            "mapped",
            "public",
            "mapped.example.com",
            (cluster.LOCAL_GATEWAY, 80, 100),
            rewrite=f"hello.acme-web.svc.{DOMAIN}",
        ),
        # And one of mallory's that names a service of another namespace.
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
    )


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


def with_a_second_server(alone: World) -> World:
    """The same world, and a pod for a second replica of ours."""
    first = alone.pods["authz-system/authz"]
    second = replace(first, name="authz-2", address="10.244.1.2", role="none")
    return replace(alone, pods={**alone.pods, second.id: second})
