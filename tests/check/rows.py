"""What is broken, one thing at a time, and the line that then says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from authz import __version__, manifests
from authz.check import Level, Line
from tests.admission.rows import Json, changed, thing
from tests.check.world import HOME, METRICS, RBAC, SHOP, Fake, Key, bound, key, pod

OK, WARNING, PROBLEM, UNREAD = Level.OK, Level.WARNING, Level.PROBLEM, Level.UNREAD
Edit = Callable[[Mapping[Key, Json]], Iterator[tuple[Key, Json | None]]]
"""What is put where; `None` takes it away."""


EXPECTED: Final = {"modes": Level.WARNING}
"""What is no ok in the sound world: the policy that ships begins by watching."""


def found(lines: list[Line], check: str) -> Line:
    """The line of one check."""
    (line,) = (it for it in lines if it.check.name == check)
    return line


@dataclass(frozen=True)
class Row:
    """One break."""

    check: str
    level: Level
    said: str
    """A part of what the line says."""
    edit: Edit = lambda _: iter(())
    answers: Callable[[Fake], object] = lambda _: None
    """What the API server itself, or a pod, says otherwise."""
    before: bool = False
    """Whether it is asked before the installation."""

    def __str__(self) -> str:
        return f"{self.check}: {self.said}"


def without(*keys: Key) -> Edit:
    """These are not there."""
    return lambda _: ((it, None) for it in keys)


def but(kind: str, place: str, name: str, **changes: Any) -> Edit:
    """One is another; in paths, a step is told from the next by two underscores."""
    paths = {path.replace("__", " "): value for path, value in changes.items()}
    return lambda world: iter([((kind, place, name), changed(world[kind, place, name], paths))])


def relabelled(kind: str, place: str, name: str, **labels: str | None) -> Edit:
    """One has other labels: `istio_injection` for `istio-injection`."""

    def edit(world: Mapping[Key, Json]) -> Iterator[tuple[Key, Json]]:
        item = world[kind, place, name]
        old = item["metadata"].get("labels", {})
        new = {it.replace("__", "/").replace("_", "-"): value for it, value in labels.items()}
        kept = {it: value for it, value in {**old, **new}.items() if value is not None}
        yield (kind, place, name), changed(item, {"metadata labels": kept})

    return edit


def also(*items: Json) -> Edit:
    """These are there, too."""
    return lambda _: ((key(item), item) for item in items)


def bare(place: str, name: str) -> Edit:
    """A pod has no sidecar."""

    def edit(world: Mapping[Key, Json]) -> Iterator[tuple[Key, Json]]:
        item = world["Pod", place, name]
        kept = [it for it in item["spec"]["containers"] if it["name"] != "istio-proxy"]
        yield ("Pod", place, name), changed(item, {"spec containers": kept})

    return edit


def imaged(place: str, name: str, container: str, image: str) -> Edit:
    """A container has another image."""
    return but("Pod", place, name, **{f"spec__containers__{container}__image": image})


def policy(*changes: tuple[str, str]) -> Edit:
    """The policy says something else."""
    place = ("ConfigMap", HOME, "tenant-authz-policy")

    def edit(world: Mapping[Key, Json]) -> Iterator[tuple[Key, Json]]:
        item = world[place]
        text = item["data"]["policy.yaml"]
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        yield place, {**item, "data": {"policy.yaml": text}}

    return edit


_REUSE: Final = [
    it
    for it in manifests.objects("filters-reuse")
    if it["kind"] == "EnvoyFilter" and it["metadata"]["name"].startswith("tenant-authz-reuse")
]


def overlay(name: str) -> Edit:
    """Another overlay is applied."""
    return also(*manifests.objects(f"filters-{name}"))


def metric(old: str, new: str) -> Callable[[Fake], object]:
    """The servers say something else."""
    assert old in METRICS
    return lambda fake: setattr(fake, "metrics", METRICS.replace(old, new))


def says(name: str, value: object) -> Callable[[Fake], object]:
    """The API server says something else."""
    return lambda fake: setattr(fake, name, value)


def _rule(name: str) -> Key:
    return "ValidatingAdmissionPolicy", "", f"tenant-authz-{name}"


def _binding(name: str) -> Key:
    return "ValidatingAdmissionPolicyBinding", "", f"tenant-authz-{name}"


def _mesh(text: str) -> Edit:
    return but("ConfigMap", "istio-system", "istio", data={"mesh": text})


def _istiod(image: str, value: str) -> Edit:
    env = [{"name": "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG", "value": value}]
    changes: Json = {"spec__containers__discovery__env": env}
    changes["spec__containers__discovery__image"] = image
    return but("Pod", "istio-system", "istiod-1", **changes)


def _all(*edits: Edit) -> Edit:
    return lambda world: (it for edit in edits for it in edit(world))


_LATE: Final = [{"type": "Ready", "status": "False"}]
_FILTERS: Final = tuple(
    key(it) for it in manifests.objects("filters-enforce") if it["kind"] == "EnvoyFilter"
)
_PLAIN: Final = {"mtls": {"mode": "PERMISSIVE"}}
_OFF: Final = {"mode": "DISABLE"}
_PEER: Final = "security.istio.io/v1"
_APP: Final = {"name": "app", "image": "registry.test/app:1"}
_OTHER: Final = thing(
    "networking.istio.io/v1alpha3", "EnvoyFilter", "theirs", SHOP, spec={"configPatches": []}
)
_DEVELOPERS: Final = ("RoleBinding", SHOP, "developers")
_SERVER: Final = ("DaemonSet", HOME, "authz")


def _anywhere(role: str, *rules: Json) -> Edit:
    group = bound("ClusterRoleBinding", role, None, f"ClusterRole/{role}", "system:authenticated")
    group["subjects"][0]["kind"] = "Group"
    return also(thing(RBAC, "ClusterRole", role, None, rules=[*rules]), group)


def _deployment(world: Mapping[Key, Json]) -> Iterator[tuple[Key, Json]]:
    objects = manifests.objects("deployment")
    (item,) = (it for it in objects if it["kind"] == "Deployment")
    yield key(item), item


def _developer(*rules: Json) -> Edit:
    return but("Role", SHOP, "developer", rules=[*rules])


def _given(kind: str, name: str, rule: Json, place: str | None = "istio-system") -> Edit:
    """A right in a namespace of the platform's, or in all."""
    prefix = "" if place else "Cluster"
    binding = bound(f"{prefix}RoleBinding", "given", place, f"{prefix}Role/given", name)
    subject: Json = {"kind": kind, "name": name}
    if kind == "ServiceAccount":
        subject["namespace"] = "lab-1"
    else:
        subject["apiGroup"] = "rbac.authorization.k8s.io"
    binding["subjects"] = [subject]
    return also(thing(RBAC, f"{prefix}Role", "given", place, rules=[rule]), binding)


def _rbac(group: str, resource: str, verb: str = "create") -> Json:
    return {"apiGroups": [group], "resources": [resource], "verbs": [verb]}


def _off(world: Mapping[Key, Json]) -> Iterator[tuple[Key, Json]]:
    """A filter that asks nobody."""
    place = ("EnvoyFilter", "istio-system", "tenant-authz-verify")
    item = deepcopy(world[place])
    config = item["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]
    config["filter_enabled"] = {"default_value": {"numerator": 0}}
    yield place, item


ENFORCE: Final = ("default_mode: shadow", "default_mode: enforce")
BAD: Final = ("default_mode: shadow", "x: 1")
ISTIO: Final = ("ConfigMap", "istio-system", "istio")
CNI: Final = ("DaemonSet", "istio-system", "istio-cni-node")
DOMAIN: Final = "trustDomain: td.example"

ROWS: Final = (
    Row("kubernetes-version", PROBLEM, "it is v1.29.4", answers=says("git_version", "v1.29.4")),
    Row("kubernetes-version", UNREAD, "version 'new'", answers=says("git_version", "new")),
    Row("kubernetes-admission", WARNING, "no Mutating", answers=says("git_version", "v1.35.0")),
    Row("kubernetes-admission", UNREAD, "is unknown", answers=says("git_version", "new")),
    Row("installer", PROBLEM, "may not create names", answers=says("allowed", False), before=True),
    # Istio
    Row("istio-kinds", PROBLEM, "gateways.networking", answers=says("absent", {"gateways"})),
    Row("istio-version", PROBLEM, "no pod in istio", without(("Pod", "istio-system", "istiod-1"))),
    Row("istio-version", PROBLEM, "not ready: istio-system/istiod-1",
        but("Pod", "istio-system", "istiod-1", status__conditions=_LATE)),
    Row("istio-version", PROBLEM, "istiod is 1.23.9",
        imaged("istio-system", "istiod-1", "discovery", "registry.test:5000/pilot:1.23.9")),
    Row("istio-version", UNREAD, "does not tell its version: ",
        imaged("istio-system", "istiod-1", "discovery", "registry.test:5000/pilot@sha256:00")),
    Row("istio-injector", PROBLEM, "is an injector's",
        without(("MutatingWebhookConfiguration", "", "istio-sidecar-injector"))),
    Row("istio-injector", PROBLEM, "failurePolicy is not Fail",
        lambda world: iter([(it := ("MutatingWebhookConfiguration", "", "istio-sidecar-injector"),
        {**world[it], "webhooks": [{**world[it]["webhooks"][0], "failurePolicy": "Ignore"}]})])),
    Row("istio-cni", WARNING, "NET_ADMIN", without(CNI)),
    Row("istio-ambient", PROBLEM, "nobody asks: lab-1",
        relabelled("Namespace", "", "lab-1", **{"istio.io__dataplane_mode": "ambient"})),
    Row("istio-discovery", PROBLEM, "watch knative-eventing, knative-serving, lab-1",
        _mesh("discoverySelectors: [{matchLabels: {tenant-authz.dev/tenant: shop}}, "
              "{matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, "
              "values: [authz-system]}]}]")),
    Row("istio-discovery", PROBLEM, "does not watch authz-system", _all(
        without(ISTIO), also(thing("v1", "ConfigMap", "istio-1-29", "istio-system",
            data={"mesh": "discoverySelectors: [{matchLabels: {istio-injection: enabled}}, "
                  "{matchLabels: {never: so}}]"})),
        relabelled("Namespace", "", HOME, istio_injection="disabled"))),
    Row("istio-trust-domain", PROBLEM, "trust domain is td.example; the",
        also(thing("v1", "ConfigMap", "istio-1-29", "istio-system", data={"mesh": DOMAIN}))),
    Row("istio-discovery", UNREAD, "is not YAML", _mesh("a: [")),
    Row("istio-discovery", UNREAD, "no ConfigMap istio", without(ISTIO)),
    Row("istio-gateway-clusters", PROBLEM, "does not send gateways",
        _istiod("registry.test/pilot:1.25.1", "true")),
    Row("istio-gateway-clusters", UNREAD, "no istiod runs",
        without(("Pod", "istio-system", "istiod-1"))),
    Row("istio-gateway-clusters", UNREAD, "version is unknown", _istiod("pilot@sha256:0", "true")),
    Row("istio-gateway-clusters", OK, "annotation names", _istiod("pilot:1.26.0", "true")),
    Row("istio-gateway-clusters", OK, "extension provider names", _all(
        _istiod("pilot:1.25.0", "true"),
        _mesh("extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: "
              "authz-system/authz.authz-system.svc.cluster.local, port: 9000}}]"))),
    Row("istio-trust-domain", PROBLEM, "is td.example; the policy", _mesh(DOMAIN)),
    Row("istio-trust-domain", WARNING, "is td.example", _mesh(DOMAIN), before=True),
    Row("istio-trust-domain", UNREAD, "cannot be used", policy(BAD)),
    # Knative
    Row("serving-version", PROBLEM, "it is 1.20.0", relabelled(
        "Deployment", "knative-serving", "controller", **{"app.kubernetes.io__version": "1.20.0"})),
    Row("serving-version", UNREAD, "is 'devel'", relabelled(
        "Deployment", "knative-serving", "controller", **{"app.kubernetes.io__version": "devel"})),
    Row("serving-version", PROBLEM, "no Deployment controller",
        without(("Deployment", "knative-serving", "controller"))),
    Row("net-istio-version", PROBLEM, "no Deployment net-istio-controller",
        without(("Deployment", "knative-serving", "net-istio-controller"))),
    Row("ingress-class", PROBLEM, "'kourier", but(
        "ConfigMap", "knative-serving", "config-network",
        data={"ingress-class": "kourier.ingress.networking.knative.dev"})),
    Row("eventing-version", PROBLEM, "it is v1.14", relabelled(
        "Deployment", "knative-eventing", "eventing-controller",
        **{"app.kubernetes.io__version": "v1.14"})),
    # Mesh
    Row("mutual-tls", PROBLEM, "mesh-compatibility-mode in config-network is 'auto'",
        without(("PeerAuthentication", "istio-system", "default"))),
    Row("mutual-tls", WARNING, "PERMISSIVE; Knative's", _all(
        but("PeerAuthentication", "istio-system", "default", spec=_PLAIN),
        but("ConfigMap", "knative-serving", "config-network",
            data={"mesh-compatibility-mode": "enabled"}))),
    Row("plaintext", WARNING, "take plaintext: shop/tenant-authz-webhook", also(thing(
        "security.istio.io/v1", "PeerAuthentication", "tenant-authz-webhook", SHOP,
        spec={"mtls": {"mode": "PERMISSIVE"}}))),
    Row("plaintext", WARNING, "take plaintext: shop/open",
        also(thing(_PEER, "PeerAuthentication", "open", SHOP, spec=_PLAIN))),
    Row("plaintext", WARNING, "take plaintext: shop/port", also(thing(
        _PEER, "PeerAuthentication", "port", SHOP,
        spec={"selector": {"matchLabels": {"app": "till"}}, "portLevelMtls": {"80": _OFF}}))),
    Row("gateway", PROBLEM, "has the label istio=ingressgateway",
        without(("Pod", "istio-system", "gateway-1"))),
    Row("gateway", PROBLEM, "none is ready",
        but("Pod", "istio-system", "gateway-1", status__conditions=_LATE)),
    Row("activator-sidecar", PROBLEM, "without a sidecar: knative-serving/activator-1",
        bare("knative-serving", "activator-1")),
    Row("activator-sidecar", PROBLEM, "no activator runs",
        without(("Pod", "knative-serving", "activator-1"))),
    Row("eventing-sidecars", PROBLEM, "without a sidecar: knative-eventing/broker-1",
        bare("knative-eventing", "broker-1")),
    # Webhooks
    Row("webhooks", PROBLEM, "denied at knative-serving/webhook port 8443",
        without(("EnvoyFilter", "knative-serving", "tenant-authz-webhook"))),
    Row("webhooks", PROBLEM, "denied at knative-serving/webhook port 8443",
        without(("PeerAuthentication", "knative-serving", "tenant-authz-webhook"))),
    Row("webhooks", OK, "1 pods of webhooks", without(*_FILTERS), before=True),
    Row("webhooks", PROBLEM, "knative-serving/webhook port 9443", but(
        "Service", "knative-serving", "webhook",
        spec__ports=[{"name": "https-webhook", "port": 443, "targetPort": 9443}]), before=True),
    # Policy
    Row("policy", PROBLEM, "no ConfigMap authz-system/tenant-authz-policy",
        without(("ConfigMap", HOME, "tenant-authz-policy"))),
    Row("policy", PROBLEM, "x: ", policy(BAD)),
    Row("gateway-roles", PROBLEM, "ns/istio-system/sa/istio-ingressgateway-service-account lacks "
        "gateway and transit", policy(("istio-ingressgateway-service-account", "ingress"))),
    Row("gateway-roles", WARNING, "sa/edge lacks gateway and transit",
        also(*pod("istio-system", "gateway-2", {"istio": "ingressgateway"}, "edge", _APP)),
        before=True),
    Row("activator-role", PROBLEM, "ns/knative-serving/sa/activator lacks transit",
        policy(("knative-serving/sa/activator", "knative-serving/sa/activate"))),
    Row("eventing-roles", PROBLEM, "ns/knative-eventing/sa/mt-broker-ingress lacks transit",
        policy(("sa/mt-broker-ingress", "sa/ingress"))),
    # Rights
    Row("may-istio", PROBLEM, "write Istio's objects: ann in shop", _developer(
        _rbac("networking.istio.io", "envoyfilters"))),
    Row("may-istio", PROBLEM, "system:authenticated everywhere",
        _anywhere("everybody", _rbac("*", "peerauthentications", "*"))),
    Row("may-istio", PROBLEM, "system:authenticated everywhere",
        _anywhere("everybody", _rbac("networking.istio.io", "envoyfilters", "delete"))),
    Row("may-istio", PROBLEM, "lab-1/app in istio-system",
        _given("ServiceAccount", "app", _rbac("networking.istio.io", "envoyfilters"))),
    Row("may-istio", PROBLEM, "system:authenticated in istio-system",
        _given("Group", "system:authenticated", _rbac("networking.istio.io", "*"))),
    Row("may-istio", PROBLEM, "system:serviceaccounts:lab-1 everywhere",
        _given("Group", "system:serviceaccounts:lab-1", _rbac("*", "sidecars"), None)),
    Row("may-istio", PROBLEM, "system:serviceaccount:lab-1:app everywhere",
        _given("User", "system:serviceaccount:lab-1:app", _rbac("*", "sidecars"), None)),
    Row("may-istio", OK, "no tenant may", _given("User", "ann", _rbac("*", "sidecars"))),
    Row("may-istio", OK, "no tenant may",
        _given("Group", "system:serviceaccounts:knative-serving", _rbac("*", "sidecars"), None)),
    Row("may-alias", PROBLEM, "where no admission rule looks: lab-1/app in istio-system",
        _given("ServiceAccount", "app", _rbac("", "services"))),
    Row("may-label", PROBLEM, "system:authenticated everywhere",
        _anywhere("everybody", _rbac("", "namespaces", "patch"))),
    Row("may-ingress", PROBLEM, "Ingresses and routes, and tenant-authz-hosts is not in force",
        without(_binding("hosts"))),
    Row("may-ingress", WARNING, "these may: ann in shop", before=True),
    Row("may-ingress", PROBLEM, "where no admission rule looks: ann in lab-1", also(
        thing(RBAC, "Role", "maker", "lab-1", rules=[_rbac("networking.k8s.io", "*")]),
        bound("RoleBinding", "makers", "lab-1", "Role/maker", "ann"))),
    Row("may-ingress", OK, "no tenant may", without(_DEVELOPERS)),
    Row("may-alias", PROBLEM, "may make ExternalNames, and tenant-authz-services is not in force",
        without(_rule("services"))),
    Row("may-status", PROBLEM, "write status of Knative's, and tenant-authz-controllers",
        but(*_binding("controllers"), spec__validationActions=["Audit"])),
    # The service
    Row("namespace", PROBLEM, "is not injected",
        relabelled("Namespace", "", HOME, istio_injection="disabled")),
    Row("namespace", WARNING, "does not enforce",
        relabelled("Namespace", "", HOME, **{"pod_security.kubernetes.io__enforce": "baseline"})),
    Row("secrets", PROBLEM, "missing: tenant-authz-kek",
        without(("Secret", HOME, "tenant-authz-kek"))),
    Row("workload", PROBLEM, "neither DaemonSet nor Deployment", without(_SERVER)),
    Row("workload", PROBLEM, "are both there", _deployment),
    Row("workload", PROBLEM, "0 of 1 ready", but(*_SERVER, status__numberReady=0)),
    Row("workload", PROBLEM, "0 of this version", but(*_SERVER, status__updatedNumberScheduled=0)),
    Row("workload", PROBLEM, "not been taken up", but(*_SERVER, status__observedGeneration=0)),
    Row("workload", PROBLEM, "wants no pod", but(
        *_SERVER, status__desiredNumberScheduled=0, status__numberReady=0)),
    Row("servers", PROBLEM, "no server runs", without(("Pod", HOME, "authz-1"))),
    Row("servers", PROBLEM, "without a certificate: authz-system/authz-1", bare(HOME, "authz-1")),
    Row("servers", PROBLEM, "not ready: authz-system/authz-1",
        but("Pod", HOME, "authz-1", status__conditions=_LATE)),
    Row("endpoints", PROBLEM, "has no endpoint", without(("EndpointSlice", HOME, "authz-1"))),
    Row("endpoints", PROBLEM, "no Service authz", without(("Service", HOME, "authz"))),
    # What the servers say
    Row("server-version", WARNING, "the servers are 0.0.1, this program is",
        answers=metric(f'version="{__version__}"', 'version="0.0.1"')),
    Row("server-version", WARNING, "several run: 0.0.1, ", answers=metric(
        "authz_keyring_refused", 'authz_build_info{version="0.0.1"} 1\nauthz_keyring_refused')),
    Row("server-version", UNREAD, "tells no authz_build_info", answers=metric("build_info", "a")),
    Row("certificate", PROBLEM, "one expires in 59 s",
        answers=metric("expires_seconds 80000", "expires_seconds 59")),
    Row("certificate", UNREAD, "tells no authz_certificate",
        answers=metric("authz_certificate_expires_seconds 80000\n", "")),
    Row("certificate", UNREAD, "does not answer with metrics", answers=says("metrics", "<html>\n")),
    Row("certificate", UNREAD, "so none tells", without(("Pod", HOME, "authz-1"))),
    Row("keys", PROBLEM, "undoes what was settled", answers=metric("refused 0", "refused 1")),
    Row("keys", PROBLEM, "has no keyring", answers=metric("version 3", "version 0")),
    Row("keys", PROBLEM, "last reached 4,000 s ago",
        answers=metric('"keyring"} 4', '"keyring"} 4000')),
    Row("policy-age", PROBLEM, "last seen 301 s ago",
        answers=metric('"policy"} 5', '"policy"} 301')),
    Row("unverified", WARNING, "2 namespaces", answers=metric("namespaces 0", "namespaces 2")),
    Row("modes", WARNING, "default_mode is shadow, and no"),
    Row("modes", WARNING, "mode off: shop",
        policy(ENFORCE, ("namespaces: {}", 'namespaces: {shop: {mode: "off"}}'))),
    Row("modes", OK, "default_mode is enforce", policy(ENFORCE)),
    Row("modes", OK, "1 enforce", relabelled(
        "Namespace", "", SHOP, **{"tenant-authz.dev__mode": "enforce"})),
    # Filters
    Row("filters", PROBLEM, "missing: EnvoyFilter istio-system/tenant-authz-verify",
        without(("EnvoyFilter", "istio-system", "tenant-authz-verify"))),
    Row("filters-current", PROBLEM, "version has them: EnvoyFilter istio-system/tenant-authz-sign",
        but("EnvoyFilter", "istio-system", "tenant-authz-sign", spec__priority=11)),
    Row("filters-current", PROBLEM, "EnvoyFilter istio-system/tenant-authz-public",
        but("EnvoyFilter", "istio-system", "tenant-authz-public", metadata__annotations=None)),
    Row("filters-current", PROBLEM, "EnvoyFilter istio-system/tenant-authz-verify", _off),
    Row("filters-current", OK, "they are this version's", overlay("reuse")),
    Row("filters-enforce", OK, "no answer is a denial", overlay("reuse")),
    Row("filters-enforce", WARNING, "the overlay shadow is installed", overlay("shadow")),
    Row("filters-enforce", PROBLEM, "tenants are open to each other", overlay("break-glass")),
    Row("filters-enforce", PROBLEM, "no filter is there",
        without(*(key(it) for it in manifests.objects("filters-enforce")))),
    Row("filters-others", WARNING, "others are there, too: shop/theirs", also(_OTHER)),
    Row("filters-others", WARNING, "still there: istio-system/tenant-authz-reuse", also(*_REUSE)),
    Row("filters-others", OK, "no others", overlay("reuse")),
    # Admission
    Row("admission", PROBLEM, "missing: tenant-authz-pods", without(_rule("pods"))),
    Row("admission", PROBLEM, "refuse nothing: tenant-authz-pods",
        but(*_binding("pods"), spec__validationActions=["Warn", "Audit"])),
    Row("admission", WARNING, "missing: tenant-authz-injection",
        without(("MutatingAdmissionPolicy", "", "tenant-authz-injection"))),
    Row("admission-current", PROBLEM, "not this version's: tenant-authz-hosts",
        but(*_rule("hosts"), spec__failurePolicy="Ignore")),
    Row("admission-current", PROBLEM, "not this version's: tenant-authz-hosts",
        but(*_rule("hosts"), spec__matchConditions=[{"name": "never", "expression": "false"}])),
    Row("admission-current", PROBLEM, "not this version's: tenant-authz-hosts",
        but(*_binding("hosts"), spec__matchResources={
            "namespaceSelector": {"matchLabels": {"nothing": "here"}}})),
    Row("admission-current", WARNING, "variables differ from what ships: tenant-authz-services",
        but(*_rule("services"), spec__variables__clusterDomain__expression="'other.example'")),
    Row("admission-types", PROBLEM, "cannot type an expression of tenant-authz-pods",
        but(*_rule("pods"), status={"typeChecking": {"expressionWarnings": [
            {"fieldRef": "spec.validations[0].expression", "warning": "undeclared reference"}]}})),
    # Tenants
    Row("injection", PROBLEM, "namespaces without injection: shop",
        _all(without(_binding("namespaces")),
             relabelled("Namespace", "", SHOP, istio_injection="disabled"))),
    Row("injection", WARNING, "anybody reaches their pods: lab-1",
        relabelled("Namespace", "", "lab-1", istio_injection=None)),
    Row("sidecars", PROBLEM, "without a sidecar: lab-1/lab-1", bare("lab-1", "lab-1")),
)  # fmt: skip
