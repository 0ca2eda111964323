"""The standard cluster, and what is needed to go every path there is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from authz.lab.box.istio import cluster
from authz.lab.box.istio.standard_policy import standard_policy
from authz.lab.box.istio.world import DOMAIN, Json, Route, Service, VirtualService, World

CHANNEL: Final = "events-kne-trigger-kn-channel"
"""How a broker calls the channel behind it: eventing pkg/reconciler/broker/broker.go, and the
Service that the channel's controller makes of it."""

_DISPATCHER: Final = f"imc-dispatcher.knative-eventing.svc.{DOMAIN}"


def world(tenants: Iterable[str] = cluster.TENANTS) -> World:
    """Who is there."""
    tenants = tuple(tenants)
    standard = cluster.standard(tenants)
    return replace(
        standard,
        services=(
            *standard.services,
            *(Service(it, CHANNEL, "", external_name=_DISPATCHER) for it in tenants),
        ),
        virtual_services=(
            *standard.virtual_services,
            *(_mapped(it) for it in ("acme-web", "acme-db") if it in tenants),
        ),
    )


def _mapped(namespace: str) -> VirtualService:
    """A DomainMapping: from the public gateway by the local one, as net-istio routes it."""
    host = f"{namespace}-mapped.{cluster.PUBLIC_DOMAIN}"
    to = ((cluster.LOCAL_GATEWAY, 80, 100),)
    route = Route(host, to, rewrite=f"hello.{namespace}.svc.{DOMAIN}")
    return VirtualService(namespace, host, frozenset({"public"}), (host,), (route,))


def scoped(tenants: Iterable[str] = cluster.TENANTS) -> list[Json]:
    """Sidecar objects that hide all VirtualServices from the pods called `idle`.

    What is left to them is what a Knative Service's own name leads to: the local gateway.
    """
    return [
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Sidecar",
            "metadata": {"name": "scoped", "namespace": namespace},
            "spec": {
                "workloadSelector": {"labels": {"app": f"idle-{cluster.REVISION}"}},
                "egress": [{"hosts": ["istio-system/*", "knative-serving/*", "authz-system/*"]}],
            },
        }
        for namespace in tenants
    ]


def policy() -> str:
    """The shipped policy, enforced, with the tenants of the standard cluster."""
    return standard_policy(grants=[{"to": "acme-db", "from": "initech"}])
