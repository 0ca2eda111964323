"""Attacks on the rules for hosts: nobody takes another's, or what nobody else has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.admission.rows import Json, Row, changed, thing

_POLICY: Final = "tenant-authz-hosts"
_BACKEND: Final = {"service": {"name": "web", "port": {"number": 80}}}

OWN: Final = "shop.acme.example"
FOREIGN: Final = {
    "another's": "hello.victim-db.apps.example.com",
    "ends like its own": "notacme.example",
    "begins like its own": "acme.example.evil.test",
    "the platform's domain": "apps.example.com",
    "all of the platform's domain": "*.apps.example.com",
    "a Service's": "hello.victim-db.svc.cluster.local",
}


def ingress(*hosts: str | None, **spec: object) -> Json:
    """An Ingress with a rule for each host."""
    http = {"paths": [{"path": "/", "pathType": "Prefix", "backend": _BACKEND}]}
    rules = [{"http": http} | ({"host": host} if host is not None else {}) for host in hosts]
    return thing("networking.k8s.io/v1", "Ingress", "web", spec={"rules": rules, **spec})


def route(kind: str, *hosts: str) -> Json:
    """A route of the Gateway API."""
    to = {"parentRefs": [{"name": "shared", "namespace": "istio-system"}]}
    rules = {"rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}
    spec = to | rules | ({"hostnames": list(hosts)} if hosts else {})
    return thing("gateway.networking.k8s.io/v1", kind, "web", spec=spec)


def mapping(host: str) -> Json:
    """A DomainMapping: its name is its host."""
    ref = {"kind": "Service", "name": "web", "apiVersion": "serving.knative.dev/v1"}
    return thing("serving.knative.dev/v1beta1", "DomainMapping", host, spec={"ref": ref})


def gateway(kind: str) -> Json:
    """An object that changes a gateway."""
    listeners = [{"name": "x", "hostname": OWN, "port": 80, "protocol": "HTTP"}]
    spec: Json = {"listeners": listeners}
    if kind == "Gateway":
        at = {"type": "Hostname", "value": "istio-ingressgateway.istio-system.svc.cluster.local"}
        spec |= {"gatewayClassName": "istio", "addresses": [at]}
    elif kind == "ListenerSet":
        spec |= {"parentRef": {"name": "shared", "namespace": "istio-system"}}
    else:
        spec = route(kind)["spec"]
    return thing("gateway.networking.k8s.io/v1", kind, "web", spec=spec)


_OLD: Final = changed(ingress(OWN), {"metadata name": "old"})


def _rows() -> Iterator[Row]:
    for name, host in FOREIGN.items():
        yield Row(
            f"Ingress: a host, {name}",
            _POLICY,
            "spec.rules[].host",
            ingress(OWN, host),
            ingress(OWN, "*.acme.example"),
        )
        yield Row(
            f"Ingress: under tls, {name}",
            _POLICY,
            "spec.tls[].hosts",
            ingress(OWN, tls=[{"hosts": [OWN, host], "secretName": "own"}]),
            ingress(OWN, tls=[{"hosts": [OWN, "acme.example"], "secretName": "own"}]),
        )
        yield Row(
            f"HTTPRoute: {name}",
            _POLICY,
            "spec.hostnames",
            route("HTTPRoute", OWN, host),
            route("HTTPRoute", OWN),
        )
        if "*" not in host:
            yield Row(
                f"DomainMapping: {name}", _POLICY, "metadata.name", mapping(host), mapping(OWN)
            )
    honest = ingress(OWN, tls=[{"hosts": [OWN], "secretName": "own"}])
    for name, said, evil in (
        ("no host", "spec.rules[].host", ingress(OWN, None)),
        ("no rule", "spec.rules[].host", ingress(defaultBackend=_BACKEND)),
        ("defaultBackend", "spec.defaultBackend", ingress(OWN, defaultBackend=_BACKEND)),
        ("tls without hosts", "spec.tls[].hosts", ingress(OWN, tls=[{"secretName": "own"}])),
        (
            "tls with an empty list",
            "spec.tls[].hosts",
            ingress(OWN, tls=[{"hosts": [], "secretName": "own"}]),
        ),
        (
            "a second tls without hosts",
            "spec.tls[].hosts",
            ingress(OWN, tls=[{"hosts": [OWN], "secretName": "own"}, {"secretName": "own"}]),
        ),
        (
            "another's host, of a class that is not Istio's",
            "spec.rules[].host",
            ingress(FOREIGN["another's"], ingressClassName="other"),
        ),
    ):
        yield Row(f"Ingress: {name}", _POLICY, said, evil, honest)
    yield Row(
        "Ingress: another's host, later",
        _POLICY,
        "spec.rules[].host",
        {"spec": ingress(FOREIGN["another's"])["spec"]},
        {"spec": ingress("acme.example")["spec"]},
        _OLD,
    )
    yield Row(
        "Ingress: another's host under tls, later",
        _POLICY,
        "spec.tls[].hosts",
        {"spec tls": [{"hosts": [FOREIGN["another's"]], "secretName": "own"}]},
        {"spec tls": [{"hosts": [OWN], "secretName": "own"}]},
        _OLD,
    )
    for kind in ("HTTPRoute", "GRPCRoute", "TLSRoute"):
        yield Row(f"{kind}: no hostname", _POLICY, "spec.hostnames", route(kind), route(kind, OWN))
    origin = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "victim-db"}
    grant = thing(
        "gateway.networking.k8s.io/v1beta1",
        "ReferenceGrant",
        "web",
        spec={"from": [origin], "to": [{"group": "", "kind": "Service"}]},
    )
    for kind in ("Gateway", "ListenerSet", "TCPRoute", "UDPRoute"):
        yield Row(f"{kind} of its own", _POLICY, f"kind: {kind}", gateway(kind), grant)


ROWS: Final = list(_rows())
