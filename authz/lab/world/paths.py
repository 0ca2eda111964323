"""The standard cluster, and what is needed to go every path there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from authz.lab.world import cluster
from authz.lab.world.model import DOMAIN, Json, Service, VirtualService, World
from authz.lab.world.standard_policy import standard_policy

CHANNEL: Final = "events-kne-trigger-kn-channel"
"""How a broker calls the channel behind it: eventing pkg/reconciler/broker/broker.go, and the
Service that the channel's controller makes of it."""

HIDDEN: Final[Json] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Sidecar",
    "metadata": {"name": "hidden", "namespace": "acme-web"},
    "spec": {
        "workloadSelector": {"labels": {"app": "plain"}},
        "egress": [{"hosts": ["./*", "istio-system/*", "knative-serving/*", "authz-system/*"]}],
    },
}
"""To acme-web/plain, others' VirtualServices are out of sight: the local gateway is left."""

_DISPATCHER: Final = f"imc-dispatcher.knative-eventing.svc.{DOMAIN}"


def world() -> World:
    """Who is there."""
    standard = cluster.standard()
    return replace(
        standard,
        services=(
            *standard.services,
            *(Service(it, CHANNEL, "", external_name=_DISPATCHER) for it in cluster.TENANTS),
        ),
        virtual_services=(
            *standard.virtual_services,
            *map(_mapped, ("acme-web", "acme-db")),
        ),
    )


def _mapped(namespace: str) -> VirtualService:
    """A DomainMapping: from the public gateway by the local one, as net-istio routes it."""
    host = f"{namespace}-mapped.{cluster.PUBLIC_DOMAIN}"
    return cluster.domain_mapping(namespace, host, f"hello.{namespace}.svc.{DOMAIN}")


def scoped() -> list[Json]:
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
        for namespace in cluster.TENANTS
    ]


def policy() -> str:
    """The shipped policy, enforced, with the tenants of the standard cluster."""
    return standard_policy(grants=[{"to": "acme-db", "from": "initech"}])
