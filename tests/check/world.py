"""A cluster on which everything is as it must be, as objects, and an API server that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from authz import __version__, manifests
from authz.check import Wanted
from authz.envoyfilters import directory, shipped
from authz.kube import KubeError, Resource
from authz.policysource.file import read_policy
from tests.admission.rows import Json, changed, plural, thing

Key = tuple[str, str, str]
"""Kind, namespace or "", name."""

APPS: Final = "apps/v1"
RBAC: Final = "rbac.authorization.k8s.io/v1"
HOME: Final = "authz-system"
SHOP: Final = "shop"
SIDE_PORT: Final = 9001
METRICS: Final = f"""\
authz_build_info{{python="3.13.1",version="{__version__}"}} 1
authz_certificate_expires_seconds 80000
authz_keyring_refused 0
authz_keyring_version 3
authz_age_seconds{{what="keyring"}} 4
authz_age_seconds{{what="policy"}} 5
authz_unverified_namespaces 0
"""
VERSION: Final = "v1.37.2"


def key(item: Json) -> Key:
    """Which object it is."""
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def wanted() -> Wanted:
    """What `authz check` looks for."""
    overlays = {it: shipped(it) for it in ("enforce", "reuse", "shadow", "break-glass")}
    return Wanted(
        filters=overlays["enforce"],
        usual=read_policy(directory() / "policy.yaml"),
        overlays=overlays,
        admission=manifests.objects("admission"),
        version=__version__,
        platform=frozenset({"monitoring"}),
    )


def world() -> dict[Key, Json]:
    """All objects, in the order in which an API server takes them."""
    made = [*_spaces(), *_platform(), *_service(), *_pods(), *_tenant(), *_mesh()]
    made += manifests.objects("filters-enforce")
    made += manifests.objects("admission")
    return {key(it): deepcopy(it) for it in made}


def _spaces() -> Iterator[Json]:
    injected = {"metadata labels": {"istio-injection": "enabled"}}
    yield thing("v1", "Namespace", "istio-system", None)
    yield thing("v1", "Namespace", "monitoring", None)
    for name in ("knative-serving", "knative-eventing"):
        yield changed(thing("v1", "Namespace", name, None), injected)
    labels = {"istio-injection": "enabled", "tenant-authz.dev/tenant": "shop"}
    labels |= {"pod-security.kubernetes.io/enforce": "baseline"}
    yield changed(thing("v1", "Namespace", SHOP, None), {"metadata labels": labels})
    yield changed(thing("v1", "Namespace", "lab-1", None), injected)


def _platform() -> Iterator[Json]:
    mesh = "trustDomain: cluster.local\nextensionProviders: []\n"
    yield thing("v1", "ConfigMap", "istio", "istio-system", data={"mesh": mesh})
    yield thing("v1", "ConfigMap", "config-network", "knative-serving", data={"_example": ""})
    for place, name, version in (
        ("knative-serving", "controller", "1.23.0"),
        ("knative-serving", "net-istio-controller", "1.22.1"),
        ("knative-eventing", "eventing-controller", "1.22.0"),
    ):
        labels = {"app.kubernetes.io/version": version}
        template = _template({"app": name}, _container("controller", "registry.test/x:1"))
        spec: Json = {"selector": {"matchLabels": {"app": name}}, "template": template}
        yield changed(
            thing(APPS, "Deployment", name, place, spec=spec), {"metadata labels": labels}
        )
    cni = _template({"app": "cni"}, _container("install-cni", "registry.test/cni:1"))
    spec = {"selector": {"matchLabels": {"app": "cni"}}, "template": cni}
    yield thing(APPS, "DaemonSet", "istio-cni-node", "istio-system", spec=spec)
    yield _hooks("MutatingWebhookConfiguration", "istio-sidecar-injector", "istiod", 15017)
    yield _hooks("ValidatingWebhookConfiguration", "validation.serving", "webhook", 443)
    ports = [{"name": "https-webhook", "port": 443, "targetPort": 8443}]
    spec = {"selector": {"app": "webhook"}, "ports": ports}
    yield thing("v1", "Service", "webhook", "knative-serving", spec=spec)


def _hooks(kind: str, name: str, service: str, port: int) -> Json:
    """Webhooks that nothing matches."""
    place = "istio-system" if service == "istiod" else "knative-serving"
    hook: Json = {
        "name": f"{name}.example.test",
        "clientConfig": {"service": {"namespace": place, "name": service, "port": port}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "objectSelector": {"matchLabels": {"example.test/nothing": "has-this"}},
        "rules": [
            {
                "operations": ["CREATE"],
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["pods"],
            }
        ],
    }
    return thing("admissionregistration.k8s.io/v1", kind, name, None, webhooks=[hook])


def _service() -> Iterator[Json]:
    for it in manifests.objects("base"):
        item = it
        if it["kind"] == "DaemonSet":
            numbers = ("desiredNumberScheduled", "numberReady", "updatedNumberScheduled")
            status = dict.fromkeys(numbers, 1) | {"currentNumberScheduled": 1}
            status |= {"numberMisscheduled": 0, "observedGeneration": 1}
            item = changed(it, {"status": status, "metadata generation": 1})
        yield item
    yield thing("v1", "Secret", "tenant-authz-kek", HOME, data={"kek": "c2VjcmV0"})
    end = {"addresses": ["10.0.0.9"], "conditions": {"ready": True}}
    ends = thing(
        "discovery.k8s.io/v1", "EndpointSlice", "authz-1", HOME,
        addressType="IPv4", endpoints=[end], ports=[{"name": "grpc", "port": 9000}],
    )  # fmt: skip
    yield changed(ends, {"metadata labels": {"kubernetes.io/service-name": "authz"}})


def _pods() -> Iterator[Json]:
    proxy = _container("istio-proxy", "registry.test/proxyv2:1.29.2")
    istiod = _container("discovery", "registry.test/pilot:1.29.2")
    yield from pod("istio-system", "istiod-1", {"app": "istiod"}, "istiod", istiod)
    gateway = "istio-ingressgateway-service-account"
    yield from pod("istio-system", "gateway-1", {"istio": "ingressgateway"}, gateway, proxy)
    app = _container("app", "registry.test/app:1")
    serving = "knative-serving"
    yield from pod(serving, "activator-1", {"app": "activator"}, "activator", app, proxy)
    yield from pod(serving, "webhook-1", {"app": "webhook"}, "webhook", app, proxy)
    broker = {"eventing.knative.dev/brokerRole": "ingress"}
    yield from pod("knative-eventing", "broker-1", broker, "mt-broker-ingress", app, proxy)
    (workload,) = (it for it in manifests.objects("base") if it["kind"] == "DaemonSet")
    template = workload["spec"]["template"]
    server = {**thing("v1", "Pod", "authz-1", HOME), "spec": deepcopy(template["spec"])}
    server["metadata"]["labels"] = dict(template["metadata"]["labels"])
    yield {**server, "status": _running()}
    yield from pod(SHOP, "till-1", {"app": "till"}, "till", app, proxy)
    yield from pod("lab-1", "lab-1", {"app": "lab"}, "lab", app, proxy)


def pod(place: str, name: str, labels: Json, account: str, *containers: Json) -> Iterator[Json]:
    """A running pod and its account."""
    yield thing("v1", "ServiceAccount", account, place)
    made = thing("v1", "Pod", name, place, spec={"containers": [*containers]}, status=_running())
    made["spec"] |= {"serviceAccountName": account, "automountServiceAccountToken": False}
    yield changed(made, {"metadata labels": labels})


def _running() -> Json:
    return {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def _container(name: str, image: str) -> Json:
    return {"name": name, "image": image}


def _template(labels: Json, container: Json) -> Json:
    return {"metadata": {"labels": labels}, "spec": {"containers": [container]}}


def _tenant() -> Iterator[Json]:
    rules = [
        {"apiGroups": [""], "resources": ["services"], "verbs": ["*"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["create"]},
        {"apiGroups": ["messaging.knative.dev"], "resources": ["*"], "verbs": ["update"]},
    ]
    yield thing(RBAC, "Role", "developer", SHOP, rules=rules)
    yield bound("RoleBinding", "developers", SHOP, "Role/developer", "ann")
    yield bound("ClusterRoleBinding", "operators", None, "ClusterRole/cluster-admin", "olga")


def bound(kind: str, name: str, place: str | None, role: str, user: str) -> Json:
    """A binding of a user's to `Role/NAME` or `ClusterRole/NAME`."""
    group = "rbac.authorization.k8s.io"
    of, _, name_of_role = role.partition("/")
    ref = {"apiGroup": group, "kind": of, "name": name_of_role}
    subjects = [{"apiGroup": group, "kind": "User", "name": user}]
    return thing(RBAC, kind, name, place, roleRef=ref, subjects=subjects)


def _mesh() -> Iterator[Json]:
    strict = {"mtls": {"mode": "STRICT"}}
    yield thing(
        "security.istio.io/v1", "PeerAuthentication", "default", "istio-system", spec=strict
    )


class Fake:
    """As much of `kube.ApiServer` as `authz check` needs, without one."""

    def __init__(self, objects: Mapping[Key, Json]) -> None:
        self.objects = objects
        self.git_version = VERSION
        self.allowed = True
        self.metrics = METRICS
        self.absent: set[str] = set()
        """Kinds that are not installed."""
        self.refused: set[str] = set()
        """Kinds that we may not read."""

    async def version(self) -> Json:
        return {"gitVersion": self.git_version}

    async def list(
        self, resource: Resource, keep: Callable[[Json], Json | None] = lambda it: it
    ) -> tuple[list[Json], str]:
        if resource.plural in self.refused:
            raise KubeError(f"may not list {resource.plural}", status=403)
        if resource.plural in self.absent:
            raise KubeError(f"no {resource.plural}", status=404)
        group = f"{resource.group}/{resource.version}".lstrip("/")
        found = [
            keep(_named(it))
            for it in self.objects.values()
            if plural(it["kind"]) == resource.plural
            and it["apiVersion"] == group
            and resource.namespace in {None, it["metadata"].get("namespace")}
            and resource.name in {None, it["metadata"]["name"]}
        ]
        return [it for it in found if it is not None], "1"

    async def create(self, resource: Resource, made: Json) -> Json:
        assert resource.plural == "selfsubjectaccessreviews"
        return {**made, "status": {"allowed": self.allowed}}

    async def page(self, pod: Resource, port: int, path: str) -> bytes:
        assert (pod.namespace, port, path) == (HOME, SIDE_PORT, "metrics")
        return self.metrics.encode()

    def upgraded(self, *_: Any, **__: Any) -> Any:
        raise KubeError("no port is forwarded here")


def _named(item: Json) -> Json:
    """A copy, with the label that every namespace has."""
    if item["kind"] != "Namespace":
        return deepcopy(item)
    name = {"kubernetes.io/metadata.name": item["metadata"]["name"]}
    labels = item["metadata"].get("labels", {})
    if not isinstance(labels, dict):
        return deepcopy(item)
    return changed(item, {"metadata labels": labels | name})


class Seen:
    """A real API server, of which a test says some things itself."""

    def __init__(self, server: Any, fake: Fake) -> None:
        self._server, self._fake = server, fake

    async def version(self) -> Json:
        told: Json = await self._server.version()
        assert told["gitVersion"] == VERSION
        return await self._fake.version()

    async def list(
        self, resource: Resource, keep: Callable[[Json], Json | None] = lambda it: it
    ) -> tuple[list[Json], str]:
        if resource.plural in self._fake.refused | self._fake.absent:
            return await self._fake.list(resource, keep)
        found: tuple[list[Json], str] = await self._server.list(resource, keep)
        return found

    async def create(self, resource: Resource, made: Json) -> Json:
        answer: Json = await self._server.create(resource, made)
        assert answer["status"]["allowed"] is True
        return await self._fake.create(resource, made)

    async def page(self, pod: Resource, port: int, path: str) -> bytes:
        text: bytes = await self._server.page(pod, port, path)
        return text

    def upgraded(self, *args: Any, **kwargs: Any) -> Any:
        return self._server.upgraded(*args, **kwargs)
