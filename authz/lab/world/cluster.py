"""The cluster that the tests and the demo play in.

    acme-web, acme-db   two namespaces of the tenant acme; acme-db is not public
    initech             granted into acme-db
    globex              a foreign tenant
    umbrella            a tenant in shadow mode
    mallory             a hostile tenant; it also has a pod without a sidecar, `mallory/bare`

Each of them has three pods: `hello` and `idle` are revisions of Knative Services, the latter
scaled to zero as its public Service sees it (its endpoint is the activator); `plain` is a
Deployment with a Service, and a second port that is in no Service.

Knative's objects are as its own programs write them: knative/serving and net-istio of June to
August 2026, knative/eventing of June 2026 (pods' and Services' labels, ports, selectors; the
VirtualServices of net-istio pkg/reconciler/ingress/resources/virtual_service.go). One thing
differs: a revision here takes HTTP/1.1 and h2c, and its Services have the ports of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final
from uuid import NAMESPACE_DNS, uuid5

from authz.lab.world.model import (
    DOMAIN,
    GATEWAYS,
    ROOT_NAMESPACE,
    Gateway,
    Json,
    Pod,
    Port,
    ProxyKind,
    Route,
    Service,
    VirtualService,
    World,
)

TENANTS: Final = ("acme-web", "acme-db", "initech", "globex", "umbrella", "mallory")
TAG: Final = "canary"
REVISION: Final = "00001"
HASH: Final = "0123456789abcdef"
LOCAL_GATEWAY: Final = f"knative-local-gateway.istio-system.svc.{DOMAIN}"
PUBLIC_DOMAIN: Final = "example.com"

QUEUE_PORTS: Final = (8012, 8013, 9090, 9091)
APP_PORT: Final = 8080
PLAIN_PORT: Final = 8000
UNLISTED_PORT: Final = 9999

_HTTPS: Final = Port(443, 8112, "tcp", "https")
_METRICS: Final = (Port(9090, 9090, name="http-metrics"), Port(8008, 8008, name="http-profiling"))
_PUBLIC_PORTS: Final = (Port(80, 8012), Port(81, 8013, "http2"), _HTTPS)
_PRIVATE_PORTS: Final = (
    *_PUBLIC_PORTS,
    Port(9090, 9090, name="http-autometric", target_name="http-autometric"),
    Port(9091, 9091, name="http-usermetric", target_name="http-usermetric"),
    Port(8012, 8012, name="http-istio"),
    Port(8013, 8013, "http2", "http2-istio"),
)
_EVENT_PORTS: Final = (
    Port(80, 8080),
    Port(443, 8443, "tcp", "https"),
    Port(9092, 9092, name="http-metrics"),
)
_CHANNEL_PORTS: Final = (
    Port(80, 8080, name="http-dispatcher"),
    Port(443, 8443, "tcp", "https-dispatcher"),
    Port(9090, 9090, name="http-metrics"),
)
_IMC: Final = {"messaging.knative.dev/channel": "in-memory-channel"}
_EVENTING: Final[Mapping[str, tuple[str, Mapping[str, str], Sequence[Port]]]] = {
    "broker-ingress": (
        "mt-broker-ingress",
        {"eventing.knative.dev/brokerRole": "ingress"},
        _EVENT_PORTS,
    ),
    "broker-filter": (
        "mt-broker-filter",
        {"eventing.knative.dev/brokerRole": "filter"},
        _EVENT_PORTS,
    ),
    "imc-dispatcher": (
        "imc-dispatcher",
        {**_IMC, "messaging.knative.dev/role": "dispatcher"},
        _CHANNEL_PORTS,
    ),
    "pingsource": (
        "pingsource-mt-adapter",
        {
            "eventing.knative.dev/source": "ping-source-controller",
            "sources.knative.dev/role": "adapter",
        },
        (Port(80, 8080),),  # of the box: the real one has no Service
    ),
}


def standard() -> World:
    """The cluster."""
    building = _Building()
    building.platform()
    for number, name in enumerate(TENANTS, 10):
        building.tenant(number, name, public=name != "acme-db")
    return building.done()


class _Building:
    """A world that grows."""

    def __init__(self) -> None:
        self._pods: dict[str, Pod] = {}
        self._services: list[Service] = []
        self._virtual: list[VirtualService] = []
        self._numbering(0)

    def _numbering(self, network: int) -> None:
        self._pod_addresses = (f"10.244.{network}.{it}" for it in count(2))
        self._service_addresses = (f"10.96.{network}.{it}" for it in count(10))

    def done(self) -> World:
        documents = (*_gateways(), *_policies())
        return World(self._pods, tuple(self._services), tuple(self._virtual), documents)

    def platform(self) -> None:
        """Istio, Knative, Prometheus and us."""
        self._istio()
        self._serving()
        self._webhooks()
        for name, (service_account, labels, ports) in _EVENTING.items():
            own = {**labels, **_knative("eventing", name)}
            self._pod("knative-eventing", name, service_account, own, listens=(8080,), role=name)
            self._service("knative-eventing", name, ports, name, selector=labels)
        app = {"app": "prometheus"}
        self._pod("monitoring", "prometheus", "prometheus", app, listens=(9090,))
        ports = [Port(9090, 9090)]
        self._service("monitoring", "prometheus", ports, "prometheus", selector=app)
        self._pod("authz-system", "authz", "authz", {"app": "authz"}, proxy="none", role="authz")
        grpc = Port(9000, 9000, "http2", "grpc")
        self._service("authz-system", "authz", [grpc], "authz", selector={"app": "authz"})
        self._pod("outside", "server", proxy="none", listens=(80, 443))

    def _istio(self) -> None:
        labels = {"app": "istio-ingressgateway", "istio": "ingressgateway"}
        self._pod(
            ROOT_NAMESPACE,
            "gateway",
            "istio-ingressgateway-service-account",
            labels,
            proxy="gateway",
            role="gateway",
        )
        self._pod(ROOT_NAMESPACE, "prober", "net-istio-controller", proxy="none", role="none")
        self._service(
            ROOT_NAMESPACE,
            "knative-local-gateway",
            [Port(80, 8081, name="http2"), Port(443, 8444, "tcp", "https")],
            "gateway",
            selector={"istio": "ingressgateway"},
            labels={"experimental.istio.io/disable-gateway-port-translation": "true"},
        )
        self._service(
            ROOT_NAMESPACE,
            "istio-ingressgateway",
            [
                Port(15021, 15021, "tcp", "status-port"),
                Port(80, 8080, "http2"),
                Port(443, 8443, "tcp", "https"),
            ],
            "gateway",
            selector=labels,
        )

    def _serving(self) -> None:
        activator = {"app": "activator", "role": "activator"}
        self._pod(
            "knative-serving",
            "activator",
            "activator",
            {**activator, **_knative("serving", "activator")},
            listens=(8012, 8013),
            role="activator",
        )
        self._service(
            "knative-serving",
            "activator-service",
            [*_METRICS, *_PUBLIC_PORTS],
            "activator",
            selector={"app": "activator"},
        )
        self._pod(
            "knative-serving",
            "autoscaler",
            "controller",
            {"app": "autoscaler", **_knative("serving", "autoscaler")},
            listens=(8080,),
            role="autoscaler",
        )
        ports = [*_METRICS, Port(8080, 8080)]
        app = {"app": "autoscaler"}
        self._service("knative-serving", "autoscaler", ports, "autoscaler", selector=app)

    def _webhooks(self) -> None:
        """Whom the API server asks, in the cluster and not in a box, and Eventing's sinks by path.

        net-istio config/500-webhook-*.yaml; serving config/core/deployments/webhook.yaml; eventing
        config/core/deployments and config/channels/in-memory-channel/deployments.
        """
        for namespace, name, account, labels in (
            ("knative-serving", "webhook", "controller", _named("webhook")),
            ("knative-serving", "net-istio-webhook", "controller", _named("net-istio-webhook")),
            (
                "knative-eventing",
                "eventing-webhook",
                "eventing-webhook",
                _named("eventing-webhook"),
            ),
            (
                "knative-eventing",
                "inmemorychannel-webhook",
                "imc-controller",
                {**_IMC, "messaging.knative.dev/role": "controller"},
            ),
        ):
            https = Port(443, 8443, "tcp", "https-webhook")
            ports = [https] if name == "eventing-webhook" else [*_METRICS, https]
            own = {**labels, **_knative(namespace.removeprefix("knative-"), name)}
            listens = (8008, 8443, 9090)
            self._pod(namespace, name, account, own, listens=listens, role="absent")
            self._service(namespace, name, ports, name, selector=labels)
        for name, labels in (
            ("job-sink", {"sinks.knative.dev/sink": "job-sink"}),
            ("request-reply", {"eventing.knative.dev/part-of": "request-reply"}),
        ):
            ports = [*_EVENT_PORTS] if name == "job-sink" else [*_EVENT_PORTS[:2]]
            own = {**labels, **_knative("eventing", name)}
            self._pod("knative-eventing", name, name, own, listens=(8080, 8443), role=name)
            self._service("knative-eventing", name, ports, name, selector=labels)

    def tenant(self, network: int, namespace: str, *, public: bool) -> None:
        """A tenant's namespace, with addresses in a range of its own."""
        self._numbering(network)
        self._knative_service(namespace, "hello", public=public, awake=True)
        self._knative_service(namespace, "idle", public=public, awake=False)
        plain = {"app": "plain"}
        self._pod(namespace, "plain", "plain", plain, listens=(PLAIN_PORT, UNLISTED_PORT))
        self._service(namespace, "plain", [Port(80, PLAIN_PORT)], "plain", selector=plain)
        ports = [Port(7000, 7000, "tcp")]
        self._service(namespace, "plain-tcp", ports, "plain", selector=plain)
        if namespace == "mallory":
            self._pod(namespace, "bare", proxy="none", listens=(PLAIN_PORT,))

    def _knative_service(self, namespace: str, name: str, *, public: bool, awake: bool) -> None:
        revision = f"{name}-{REVISION}"
        uid = str(uuid5(NAMESPACE_DNS, f"{revision}.{namespace}"))
        labels = {
            "app": revision,
            "serving.knative.dev/configuration": name,
            "serving.knative.dev/configurationGeneration": "1",
            "serving.knative.dev/revision": revision,
            "serving.knative.dev/revisionUID": uid,
            "serving.knative.dev/service": name,
        }
        ports = (*QUEUE_PORTS, APP_PORT)
        self._pod(
            *(namespace, name, "default", labels),
            listens=ports,
            role="revision",
            port_names={it.target: it.target_name for it in _PRIVATE_PORTS if it.target_name},
        )
        endpoint = f"{namespace}/{name}" if awake else "knative-serving/activator"
        kind = "networking.internal.knative.dev/serviceType"
        own = {
            **labels,
            "networking.internal.knative.dev/serverlessservice": revision,
        }
        self._service(namespace, revision, _PUBLIC_PORTS, endpoint, labels={**own, kind: "Public"})
        self._service(
            namespace,
            f"{revision}-private",
            _PRIVATE_PORTS,
            name,
            selector={"serving.knative.dev/revisionUID": uid},
            labels={**own, kind: "Private"},
        )
        names = (name, f"{TAG}-{name}")
        for it in names:
            self._services.append(_placeholder(namespace, it, name))
        self._virtual += _net_istio(namespace, name, names, revision, public=public)

    def _pod(
        self,
        namespace: str,
        name: str,
        service_account: str = "default",
        labels: Mapping[str, str] | None = None,
        *,
        proxy: ProxyKind = "sidecar",
        listens: tuple[int, ...] = (),
        role: str = "app",
        port_names: Mapping[int, str] | None = None,
    ) -> None:
        pod = Pod(
            namespace,
            name,
            next(self._pod_addresses),
            service_account,
            labels or {},
            proxy,
            listens,
            role,
            port_names or {},
        )
        self._pods[pod.id] = pod

    def _service(
        self,
        namespace: str,
        name: str,
        ports: Sequence[Port],
        endpoint: str,
        *,
        selector: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        endpoint = endpoint if "/" in endpoint else f"{namespace}/{endpoint}"
        address = next(self._service_addresses)
        endpoints = (endpoint,)
        self._services.append(
            Service(
                namespace,
                name,
                address,
                tuple(ports),
                endpoints,
                selector=selector or {},
                labels=labels or {},
            )
        )


def _knative(part: str, component: str) -> Json:
    return {
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/name": f"knative-{part}",
    }


def _named(name: str) -> dict[str, str]:
    return {"app": name, "role": name}


def _placeholder(namespace: str, name: str, route: str) -> Service:
    """The Service whose name is a Route's, or a tag's: the local gateway."""
    labels = {"serving.knative.dev/route": route}
    h2c = Port(80, 80, "http2")
    return Service(namespace, name, "", (h2c,), (), LOCAL_GATEWAY, labels=labels)


def _net_istio(
    namespace: str, name: str, names: Sequence[str], revision: str, *, public: bool
) -> list[VirtualService]:
    """What net-istio makes of a Route: one for sidecars, one for gateways."""
    inside = {it: _host(f"{it}.{namespace}") for it in names}
    mesh = [route for it in names for route in _routes(namespace, inside[it][0], revision, None)]
    ingress: list[Route] = []
    outside: list[str] = []
    for it in names:
        ingress += _routes(namespace, inside[it][0], revision, "local")
        if public:
            outside.append(f"{it}.{namespace}.{PUBLIC_DOMAIN}")
            ingress += _routes(namespace, outside[-1], revision, "public")
    hosts = sorted(host for it in names for host in inside[it])
    gateways: set[Gateway] = {"local", "public"} if public else {"local"}
    everywhere = tuple(sorted([*hosts, *outside]))
    return [
        VirtualService(namespace, f"{name}-mesh", frozenset({"mesh"}), tuple(hosts), tuple(mesh)),
        VirtualService(
            namespace, f"{name}-ingress", frozenset(gateways), everywhere, tuple(ingress)
        ),
    ]


def domain_mapping(namespace: str, host: str, to: str) -> VirtualService:
    """What net-istio makes of a DomainMapping of `host` to a Service's full name.

    knative/serving pkg/reconciler/domainmapping/resources/ingress.go: to that Service, which is
    the local gateway's, with another Host.
    """
    headers = {"K-Original-Host": host}
    probe = headers | {"K-Network-Hash": HASH}
    routes = (
        Route(host, ((to, 80, 100),), probe, HASH, to),
        Route(host, ((to, 80, 100),), headers, rewrite=to),
    )
    return VirtualService(namespace, f"{host}-ingress", frozenset({"public"}), (host,), routes)


def _routes(namespace: str, prefix: str, revision: str, gateway: Gateway | None) -> list[Route]:
    """One rule of an Ingress: for probes, which get its hash, and for all others."""
    to = ((f"{revision}.{namespace}.svc.{DOMAIN}", 80, 100),)
    headers = {
        "Knative-Serving-Revision": revision,
        "Knative-Serving-Namespace": namespace,
    }
    probe = headers | {"K-Network-Hash": HASH}
    return [
        Route(prefix, to, probe, HASH, gateway=gateway),
        Route(prefix, to, headers, gateway=gateway),
    ]


def _host(name: str) -> tuple[str, ...]:
    """The three names by which net-istio binds an internal host."""
    return name, f"{name}.svc", f"{name}.svc.{DOMAIN}"


def _gateways() -> tuple[Json, ...]:
    """net-istio's two (config/202-gateway.yaml, 203-local-gateway.yaml); the public one has TLS."""
    plain = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    tls = {
        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
        "hosts": ["*"],
        "tls": {"mode": "SIMPLE", "credentialName": "public"},
    }
    local = {"port": {"number": 8081, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    servers = {"public": [plain, tls], "local": [local]}
    return tuple(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"istio": "ingressgateway"}, "servers": servers[which]},
        }
        for which, (namespace, name) in ((it, GATEWAYS[it].split("/")) for it in servers)
    )


def _policies() -> tuple[Json, ...]:
    """STRICT everywhere but in knative-serving, as Knative's installation guide says.

    And for net-istio's webhooks, config/400-webhook-peer-authentication.yaml.
    """
    modes = {ROOT_NAMESPACE: "STRICT", "knative-serving": "PERMISSIVE"}
    return (
        *(
            _mutual_tls(namespace, "default", {"mtls": {"mode": mode}})
            for namespace, mode in modes.items()
        ),
        *(
            _mutual_tls(
                "knative-serving",
                name,
                {
                    "selector": {"matchLabels": {"app": name}},
                    "portLevelMtls": {"8443": {"mode": "PERMISSIVE"}},
                },
            )
            for name in ("webhook", "net-istio-webhook")
        ),
    )


def _mutual_tls(namespace: str, name: str, spec: Json) -> Json:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
