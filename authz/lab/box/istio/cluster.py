"""The cluster that the tests and the demo play in.

    acme-web, acme-db   two namespaces of the tenant acme; acme-db is not public
    initech             granted into acme-db
    globex              a foreign tenant
    umbrella            a tenant in shadow mode
    mallory             a hostile tenant; it also has a pod without a sidecar, `mallory/bare`

Each of them has three pods: `hello` and `idle` are revisions of Knative Services, the latter
scaled to zero as its public Service sees it (its endpoint is the activator); `plain` is a
Deployment with a Service, and a second port that is in no Service.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Final

from authz.lab.box.istio.world import (
    DOMAIN,
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

_PUBLIC_PORTS: Final = (Port(80, 8012), Port(81, 8013, "http2"))
_PRIVATE_PORTS: Final = (
    *_PUBLIC_PORTS,
    Port(9090, 9090),
    Port(9091, 9091),
    Port(8012, 8012),
    Port(8013, 8013, "http2"),
)
_EVENTING: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "broker-ingress": ("mt-broker-ingress", {"eventing.knative.dev/brokerRole": "ingress"}),
    "broker-filter": ("mt-broker-filter", {"eventing.knative.dev/brokerRole": "filter"}),
    "imc-dispatcher": (
        "imc-dispatcher",
        {
            "messaging.knative.dev/channel": "in-memory-channel",
            "messaging.knative.dev/role": "dispatcher",
        },
    ),
    "pingsource": ("pingsource-mt-adapter", {"sources.knative.dev/role": "adapter"}),
}
_REVISION_LABEL: Final = "serving.knative.dev/revision"


def standard(tenants: Iterable[str] = TENANTS) -> World:
    """The cluster; with fewer `tenants` it starts sooner."""
    building = _Building()
    building.platform()
    for name in tenants:
        building.tenant(name, public=name != "acme-db")
    return building.done()


class _Building:
    """A world that grows."""

    def __init__(self) -> None:
        self._pods: dict[str, Pod] = {}
        self._services: list[Service] = []
        self._virtual: list[VirtualService] = []
        self._pod_numbers = count(2)
        self._service_numbers = count(10)

    def done(self) -> World:
        return World(self._pods, tuple(self._services), tuple(self._virtual), _policies())

    def platform(self) -> None:
        """Istio, Knative, Prometheus and us."""
        self._pod(
            "istio-system",
            "gateway",
            "istio-ingressgateway-service-account",
            {"istio": "ingressgateway"},
            proxy="gateway",
            role="gateway",
        )
        self._pod("istio-system", "prober", "net-istio-controller", proxy="none", role="none")
        self._service("istio-system", "knative-local-gateway", [Port(80, 8081)], "gateway")
        self._service(
            "istio-system",
            "istio-ingressgateway",
            [Port(80, 8080, "http2"), Port(443, 8443, "tcp")],
            "gateway",
        )
        self._pod(
            "knative-serving",
            "activator",
            "activator",
            {"app": "activator"},
            listens=(8012, 8013),
            role="activator",
        )
        self._service("knative-serving", "activator-service", [*_PUBLIC_PORTS], "activator")
        self._pod(
            "knative-serving",
            "autoscaler",
            "controller",
            {"app": "autoscaler"},
            listens=(8080,),
            role="autoscaler",
        )
        self._service("knative-serving", "autoscaler", [Port(8080, 8080)], "autoscaler")
        for name, (service_account, labels) in _EVENTING.items():
            self._pod("knative-eventing", name, service_account, labels, listens=(8080,), role=name)
            self._service("knative-eventing", name, [Port(80, 8080)], name)
        self._pod("monitoring", "prometheus", "prometheus", listens=(9090,))
        self._service("monitoring", "prometheus", [Port(9090, 9090)], "prometheus")
        self._pod("authz-system", "authz", "authz", {"app": "authz"}, proxy="none", role="authz")
        self._service("authz-system", "authz", [Port(9000, 9000, "http2")], "authz")
        self._pod("outside", "server", proxy="none", listens=(80, 443))

    def tenant(self, namespace: str, *, public: bool) -> None:
        """A tenant's namespace."""
        self._knative_service(namespace, "hello", public=public, awake=True)
        self._knative_service(namespace, "idle", public=public, awake=False)
        self._pod(
            namespace, "plain", "plain", {"app": "plain"}, listens=(PLAIN_PORT, UNLISTED_PORT)
        )
        self._service(namespace, "plain", [Port(80, PLAIN_PORT)], "plain")
        self._service(namespace, "plain-tcp", [Port(7000, 7000, "tcp")], "plain")
        if namespace == "mallory":
            self._pod(namespace, "bare", proxy="none", listens=(PLAIN_PORT,))

    def _knative_service(self, namespace: str, name: str, *, public: bool, awake: bool) -> None:
        revision = f"{name}-{REVISION}"
        labels = {"app": revision, _REVISION_LABEL: revision}
        ports = (*QUEUE_PORTS, APP_PORT)
        self._pod(namespace, name, "default", labels, listens=ports, role="revision")
        endpoint = f"{namespace}/{name}" if awake else "knative-serving/activator"
        self._service(namespace, revision, [*_PUBLIC_PORTS], endpoint)
        self._service(namespace, f"{revision}-private", [*_PRIVATE_PORTS], name)
        names = (name, f"{TAG}-{name}")
        for it in names:
            self._services.append(Service(namespace, it, "", external_name=LOCAL_GATEWAY))
        inside = [_host(f"{it}.{namespace}") for it in names]
        self._route(namespace, f"{name}-mesh", {"mesh"}, inside, revision)
        self._route(namespace, f"{name}-ingress", {"local"}, inside, revision)
        if public:
            outside = [(f"{it}.{namespace}.{PUBLIC_DOMAIN}",) for it in names]
            self._route(namespace, f"{name}-public", {"public"}, outside, revision)

    def _route(
        self,
        namespace: str,
        name: str,
        gateways: set[Gateway],
        hosts: Sequence[tuple[str, ...]],
        revision: str,
    ) -> None:
        to = ((f"{revision}.{namespace}.svc.{DOMAIN}", 80, 100),)
        headers = {
            "Knative-Serving-Revision": revision,
            "Knative-Serving-Namespace": namespace,
        }
        routes = []
        for forms in hosts:
            prefix = forms[0]
            probe = headers | {"K-Network-Hash": HASH}
            routes += [Route(prefix, to, probe, HASH), Route(prefix, to, headers)]
        self._virtual.append(
            VirtualService(
                namespace,
                name,
                frozenset(gateways),
                tuple(host for forms in hosts for host in forms),
                tuple(routes),
            )
        )

    def _pod(
        self,
        namespace: str,
        name: str,
        service_account: str = "default",
        labels: dict[str, str] | None = None,
        *,
        proxy: ProxyKind = "sidecar",
        listens: tuple[int, ...] = (),
        role: str = "app",
    ) -> None:
        address = f"10.244.0.{next(self._pod_numbers)}"
        pod = Pod(
            namespace,
            name,
            address,
            service_account,
            labels or {},
            proxy,
            listens,
            role,
        )
        self._pods[pod.id] = pod

    def _service(self, namespace: str, name: str, ports: list[Port], endpoint: str) -> None:
        endpoint = endpoint if "/" in endpoint else f"{namespace}/{endpoint}"
        address = f"10.96.0.{next(self._service_numbers)}"
        self._services.append(Service(namespace, name, address, tuple(ports), (endpoint,)))


def _host(name: str) -> tuple[str, ...]:
    """The three names by which net-istio binds an internal host."""
    return name, f"{name}.svc", f"{name}.svc.{DOMAIN}"


def _policies() -> tuple[Json, ...]:
    """STRICT everywhere but in knative-serving, as Knative's installation guide says."""
    modes = {ROOT_NAMESPACE: "STRICT", "knative-serving": "PERMISSIVE"}
    return tuple(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": namespace},
            "spec": {"mtls": {"mode": mode}},
        }
        for namespace, mode in modes.items()
    )
