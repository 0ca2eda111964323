"""Attacks on the rules for Services: none is an alias of another's, or a way in of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.admission.rows import IMC, KAFKA, MALLORY, SERVING, SPACE, Account, Json, Row, thing

_POLICY: Final = "tenant-authz-services"

NAMES: Final = {
    "in full": "db.victim-db.svc.cluster.local",
    "with a dot at its end": "db.victim-db.svc.cluster.local.",
    "without the cluster's domain": "db.victim-db.svc",
    "by the search path": "db.victim-db",
    "by another part of the search path": "db.victim-db.svc.cluster",
    "the API server": "kubernetes.default",
    "istiod": "istiod.istio-system",
    "the local gateway": "knative-local-gateway.istio-system.svc.cluster.local",
    "the dispatcher": "imc-dispatcher.knative-eventing.svc.cluster.local",
    "this service": "authz.authz-system.svc.cluster.local",
    "ends like its own namespace": f"db.not{SPACE}.svc.cluster.local",
    "begins like its own namespace": f"db.{SPACE}.victim-db.svc.cluster.local",
    "its namespace alone": f"{SPACE}.svc.cluster.local",
    "a pod by its address": "10-244-0-9.victim-db.pod.cluster.local",
    "in another cluster domain": "db.victim-db.svc.corp.example",
    "a Service's address": "10.96.0.1",
    "a pod's address": "10.244.0.9",
    "the node's metadata by address": "169.254.169.254",
    "loopback": "127.0.0.1",
    "loopback, short": "127.1",
    "loopback as one number": "2130706433",
    "loopback in hexadecimal": "0x7f000001",
    "an address in octal": "010.0140.0.1",
    "localhost": "localhost",
    "below localhost": "x.localhost",
    "the node's metadata by name": "metadata.google.internal",
    "a name that says an address": "10.96.0.1.nip.io",
    "outside, and not agreed upon": "api.example.com",
    "ends like a name agreed upon": "notstripe.com",
    "begins like a name agreed upon": "api.stripe.com.evil.test",
}


def alias(name: str, called: str = "alias") -> Json:
    """A Service that is another name."""
    ports = [{"port": 80}]
    spec = {"type": "ExternalName", "externalName": name, "ports": ports}
    return thing("v1", "Service", called, spec=spec)


def service(called: str = "web", **spec: object) -> Json:
    """A Service of the namespace's pods."""
    own = {"selector": {"app": "a"}, "ports": [{"port": 80}]}
    return thing("v1", "Service", called, spec={**own, **spec})


OWN: Final = alias(f"db.{SPACE}.svc.cluster.local")
_OLD_ALIAS: Final = alias(f"db.{SPACE}.svc.cluster.local", "old-alias")
_OLD_SERVICE: Final = service("old-service")


def _aliases() -> Iterator[Row]:
    for name, target in NAMES.items():
        yield Row(f"an alias: {name}", _POLICY, "spec.externalName", alias(target), OWN)
    listed = alias("api.stripe.com")
    yield Row("an alias of none", _POLICY, "", alias("stripe"), listed)
    victim = alias("db.victim-db.svc.cluster.local")
    controllers: list[tuple[Account, str]] = [
        (SERVING, "knative-local-gateway.istio-system.svc.cluster.local"),
        (SERVING, f"hello.{SPACE}.svc.cluster.local"),
        (SERVING, f"hello.{SPACE}.apps.example.com"),
        (IMC, "imc-dispatcher.knative-eventing.svc.cluster.local"),
    ]
    for account, target in controllers:
        name = account.name.rpartition(":")[2]
        yield Row(f"{name}'s own: {target}", _POLICY, "", victim, alias(target), by=account)
    gateway = alias(NAMES["the local gateway"])
    namesake = Account(f"system:serviceaccount:{SPACE}:controller", MALLORY.groups)
    for account in (IMC, KAFKA, Account.of("knative-serving", "autoscaler"), namesake):
        name = account.name.rpartition(":")[2]
        yield Row(
            f"the gateway, by {name}",
            _POLICY,
            "spec.externalName",
            gateway,
            by=account,
            twin_by=SERVING,
        )
    yield Row(
        "an alias that was honest once",
        _POLICY,
        "spec.externalName",
        {"spec externalName": "db.victim-db.svc.cluster.local"},
        {"metadata labels": {"a": "b"}},
        _OLD_ALIAS,
    )
    yield Row(
        "an alias that was a Service once",
        _POLICY,
        "spec.externalName",
        {"spec": victim["spec"]},
        {"spec": OWN["spec"]},
        _OLD_SERVICE,
    )


def _ways_in() -> Iterator[Row]:
    for kind in ("NodePort", "LoadBalancer"):
        yield Row(f"type {kind}", _POLICY, "spec.type", service(type=kind), service())
        yield Row(
            f"type {kind}, later",
            _POLICY,
            "spec.type",
            {"spec type": kind},
            {"spec sessionAffinity": "ClientIP"},
            _OLD_SERVICE,
        )
    evil = service(externalIPs=["192.0.2.10"])
    yield Row("externalIPs", _POLICY, "spec.externalIPs", evil, service(externalIPs=[]))
    yield Row(
        "externalIPs, later",
        _POLICY,
        "spec.externalIPs",
        {"spec externalIPs": ["192.0.2.10"]},
        {"metadata labels": {"a": "b"}},
        _OLD_SERVICE,
    )


ROWS: Final = [*_aliases(), *_ways_in()]
