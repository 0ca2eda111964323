"""Worlds beside the standard one: what an attacker and careless victims put into it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from authz.lab.world import cluster
from authz.lab.world.model import (
    DOMAIN,
    GATEWAYS,
    Gateway,
    Json,
    Pod,
    Port,
    Route,
    Service,
    VirtualService,
    World,
)

ATTACKED: Final = ("acme-web", "acme-db", "initech", "mallory")
"""Whose pods play a part in `attacked`."""

_VICTIM: Final = f"plain.acme-web.svc.{DOMAIN}"
"""A private Service in a namespace that takes public traffic."""
_LEGACY: Final = Pod(
    "acme-db", "legacy", "10.244.9.9", "default", {"app": "legacy"}, listens=(8012,)
)
"""An app on the port of queue-proxy that has no queue-proxy."""
_ALIASES: Final = {
    "public": _VICTIM,
    "unlisted": f"plain.initech.svc.{DOMAIN}",
    "local": cluster.LOCAL_GATEWAY,
    "broker": f"broker-ingress.knative-eventing.svc.{DOMAIN}",
    "autoscaler": f"autoscaler.knative-serving.svc.{DOMAIN}",
    "authz": f"authz.authz-system.svc.{DOMAIN}",
    "short": "plain.acme-web.svc",
    "dotted": f"{_VICTIM}.",
    "elsewhere": "plain.acme-web.svc.elsewhere.example",
}
"""What mallory's Services stand for; each is behind an Ingress of its name, too."""
_PORTS: Final = {"autoscaler": 8080, "authz": 9000}
_GATEWAY_API: Final = "gateway.networking.k8s.io/v1"
PUT_ON_BY_ENVOY: Final = (
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-client-cert",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
)
"""On a request that a gateway passes on; a route may take each of them away."""


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
        *(Service("mallory", name, "", external_name=to) for name, to in _ALIASES.items()),
        Service("acme-db", "legacy", "10.96.1.3", (Port(80, 8012),), (_LEGACY.id,)),
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
        _route(
            "acme-db",
            "legacy",
            "public",
            "legacy.example.com",
            (f"legacy.acme-db.svc.{DOMAIN}", 80, 100),
        ),
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
        # The same with a Service of mallory's own, which is an alias.
        cluster.domain_mapping("mallory", "remapped-alias.example.com", _host("public")),
        cluster.domain_mapping("mallory", "mapped-authz.example.com", _host("authz")),
        _route("mallory", "direct", "public", "direct.example.com", (_VICTIM, 80, 100)),
        _route("acme-web", "split", "mesh", "split.acme-web", (private, 80, 50), (trap, 80, 50)),
        _route(
            "acme-web", "copied", "mesh", "copied.acme-web", (private, 80, 100), mirror=(trap, 80)
        ),
    )
    return replace(
        standard,
        pods={**standard.pods, _LEGACY.id: _LEGACY},
        services=(*standard.services, *services),
        virtual_services=(*standard.virtual_services, *routes),
        documents=(*standard.documents, *_ingresses(), *_delegated(), *_http_routes()),
    )


def _ingresses() -> tuple[Json, ...]:
    """Of one host, istiod makes one VirtualService, filed under the oldest Ingress."""
    return (
        _ingress("acme-web", "first", "hijacked.example.com", "/shop", "plain"),
        _ingress("mallory", "second", "hijacked.example.com", "/", "trap"),
        # To a name that stands for somebody else's private service.
        _ingress("mallory", "aliased", "aliased.example.com", "/", "alias"),
        *(_ingress("mallory", name, f"{name}.example.com", "/", name) for name in _ALIASES),
        _ingress("mallory", "snatched", "snatched.example.com", "/", "snatch"),
        # Under a name that is somebody else's, on either side of theirs in age.
        _ingress("mallory", "a-shop", "shop.acme-web.example.com", "/", "trap"),
        _ingress("initech", "a-listed", "listed.example.com", "/shop", "hello-00001"),
        _ingress("mallory", "b-listed", "listed.example.com", "/private", "unlisted"),
        _ingress("mallory", "a-older", "older.example.com", "/mine", "plain"),
        _ingress("acme-web", "b-older", "older.example.com", "/", "plain"),
    )


def _delegated() -> tuple[Json, ...]:
    """The platform lets a tenant say what is behind a name."""
    api, kind = "networking.istio.io/v1", "VirtualService"
    root = {
        "gateways": [GATEWAYS["public"]],
        "hosts": ["delegated.example.com"],
        "http": [{"delegate": {"name": "leaf", "namespace": "mallory"}}],
    }
    leaf = {"http": [{"route": [{"destination": {"host": _VICTIM, "port": {"number": 80}}}]}]}
    return (
        _document(api, kind, "istio-system", "root", root),
        _document(api, kind, "mallory", "leaf", leaf),
    )


def _http_routes() -> tuple[Json, ...]:
    """The Gateway API on the same gateway, open to routes of all namespaces."""
    gateway = {
        "gatewayClassName": "istio",
        "addresses": [
            {"type": "Hostname", "value": f"istio-ingressgateway.istio-system.svc.{DOMAIN}"}
        ],
        "listeners": [
            {
                "name": "http",
                "port": 80,
                "protocol": "HTTP",
                "allowedRoutes": {"namespaces": {"from": "All"}},
            }
        ],
    }
    copied = {"type": "RequestMirror", "requestMirror": {"backendRef": _backend("public")}}
    renamed = {
        "type": "URLRewrite",
        "urlRewrite": {"hostname": f"hello.acme-db.svc.{DOMAIN}"},
    }
    # All that tells a request which was passed on from one of the gateway's own.
    stripped = {
        "type": "RequestHeaderModifier",
        "requestHeaderModifier": {"remove": list(PUT_ON_BY_ENVOY)},
    }
    asked = {"type": "RequestMirror", "requestMirror": {"backendRef": _backend("authz")}}
    return (
        _document(_GATEWAY_API, "Gateway", "istio-system", "shared", gateway),
        _http_route("acme-web", "own", "route-own.example.com", _backend("plain")),
        _http_route("mallory", "alias", "route-alias.example.com", _backend("public")),
        _http_route(
            "mallory",
            "other",
            "route-other.example.com",
            {**_backend("plain"), "namespace": "acme-web"},
        ),
        _http_route("mallory", "copied", "route-copied.example.com", _backend("plain"), copied),
        _http_route("mallory", "renamed", "route-renamed.example.com", _backend("local"), renamed),
        _http_route("mallory", "authz", "route-authz.example.com", _backend("authz")),
        _http_route(
            "mallory", "stripped", "route-stripped.example.com", _backend("authz"), stripped
        ),
        _http_route(
            "mallory", "asked", "route-asked.example.com", _backend("plain"), asked, stripped
        ),
        _http_route("acme-web", "a-merged", "route-merged.example.com", _backend("plain")),
        _http_route(
            "mallory", "b-merged", "route-merged.example.com", _backend("trap"), path="/trap"
        ),
    )


def _http_route(
    namespace: str, name: str, host: str, backend: Json, *filters: Json, path: str = "/"
) -> Json:
    rule: Json = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "backendRefs": [backend],
    }
    if filters:
        rule["filters"] = list(filters)
    parents = [{"name": "shared", "namespace": "istio-system"}]
    spec = {"parentRefs": parents, "hostnames": [host], "rules": [rule]}
    return _document(_GATEWAY_API, "HTTPRoute", namespace, name, spec)


def _backend(service: str) -> Json:
    return {"name": service, "port": _PORTS.get(service, 80)}


def _document(version: str, kind: str, namespace: str, name: str, spec: Json) -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _host(alias: str) -> str:
    return f"{alias}.mallory.svc.{DOMAIN}"


def _ingress(namespace: str, name: str, host: str, path: str, service: str) -> Json:
    port = _PORTS.get(service, 80)
    backend = {"service": {"name": service, "port": {"number": port}}}
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
