"""The mesh that asks: made-up tenants of ten namespaces each, and the policy that knows them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace, parse_namespace
from authz.lab.harness.certs import Certificate

_TENANT_SIZE: Final = 10
_LEAST: Final = 2 * _TENANT_SIZE  # somebody must be foreign

AUTHZ: Final = SpiffeId.parse("spiffe://cluster.local/ns/authz-system/sa/authz")
ACTIVATOR: Final = SpiffeId.parse("spiffe://cluster.local/ns/knative-serving/sa/activator")


def namespace(number: int) -> Namespace:
    """A namespace by its number."""
    return parse_namespace(f"team{number // _TENANT_SIZE:04}-{number % _TENANT_SIZE}")


def sibling(number: int) -> Namespace:
    """The next namespace of the same tenant."""
    first = number - number % _TENANT_SIZE
    return namespace(first + (number + 1) % _TENANT_SIZE)


def stranger(number: int) -> Namespace:
    """A namespace of another tenant."""
    return namespace((number + _TENANT_SIZE) % _LEAST)


def workload(namespace: Namespace) -> SpiffeId:
    """The one workload that asks for a namespace."""
    return SpiffeId.parse(f"spiffe://cluster.local/ns/{namespace}/sa/web")


def certificate(namespace: Namespace, directory: Path) -> Certificate:
    """Its certificate, where the authority in this directory has issued one."""
    who = workload(namespace)
    stem = directory / f"{who.namespace}.{who.service_account}"
    return Certificate(
        stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key"), directory / "ca.pem"
    )


def policy(namespaces: int) -> str:
    """A policy file for at least so many."""
    tenants = -(-max(namespaces, _LEAST) // _TENANT_SIZE)
    lines = ["roles:", f'  transit: ["{ACTIVATOR}"]', "tenants:"]
    for tenant in range(tenants):
        names = [namespace(tenant * _TENANT_SIZE + n) for n in range(_TENANT_SIZE)]
        lines.append(f"  team{tenant:04}: {{namespaces: [{', '.join(names)}]}}")
    return "\n".join(lines) + "\n"
