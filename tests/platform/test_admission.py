"""What tenants' objects may not say, each rule with its attack and what it must leave alone."""

from copy import deepcopy
from typing import Any

import pytest

from tests.platform.admission import AdmissionPolicy

PODS = AdmissionPolicy("pods.yaml")
NAMESPACES = AdmissionPolicy("namespaces.yaml")
HOSTS = AdmissionPolicy("hosts.yaml")
SERVICES = AdmissionPolicy("services.yaml")


def changed(original: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with one field set; steps of the path are divided by spaces."""
    copy = deepcopy(original)
    *steps, last = path.split(" ")
    at: Any = copy
    for step in steps:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    at[last] = value
    return copy


# Pods ------------------------------------------------------------------------------------------

POD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {
        "name": "hello-00001-deployment-5d8",
        "namespace": "acme",
        "labels": {"security.istio.io/tlsMode": "istio", "serving.knative.dev/service": "hello"},
        # As the injector leaves them, with the CNI plugin.
        "annotations": {
            "istio.io/rev": "default",
            "kubectl.kubernetes.io/default-container": "user-container",
            "sidecar.istio.io/interceptionMode": "REDIRECT",
            "sidecar.istio.io/status": "{}",
            "traffic.sidecar.istio.io/includeOutboundIPRanges": "*",
            "traffic.sidecar.istio.io/includeInboundPorts": "*",
            "traffic.sidecar.istio.io/excludeInboundPorts": "15020,15021,15090",
            "autoscaling.knative.dev/target": "100",
        },
    },
    "spec": {
        "initContainers": [{"name": "istio-validation", "securityContext": {"runAsUser": 1337}}],
        "containers": [
            {"name": "user-container", "securityContext": {"runAsNonRoot": True}},
            {"name": "queue-proxy"},
            {"name": "istio-proxy", "securityContext": {"runAsUser": 1337, "runAsGroup": 1337}},
        ],
    },
}
NATIVE = changed(
    changed(POD, "spec containers", [{"name": "user-container"}]),
    "spec initContainers",
    [{"name": "istio-proxy", "restartPolicy": "Always", "securityContext": {"runAsUser": 1337}}],
)
_A = "metadata annotations "


@pytest.mark.parametrize(
    "pod",
    [
        POD,
        NATIVE,
        changed(POD, "metadata labels sidecar.istio.io/inject", "true"),
        changed(POD, _A + "sidecar.istio.io/inject", "true"),
        changed(POD, _A + "sidecar.istio.io/proxyCPU", "50m"),
        changed(POD, _A + "sidecar.istio.io/rewriteAppHTTPProbers", "true"),
        changed(POD, _A + "traffic.sidecar.istio.io/excludeOutboundPorts", ""),
        changed(POD, "spec securityContext", {"runAsUser": 1000, "fsGroup": 1337}),
        changed(POD, "spec hostNetwork", False),
    ],
)
def test_an_ordinary_pod_passes(pod: dict[str, Any]) -> None:
    assert PODS.refusals(pod) == []


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (changed(POD, "spec containers", [{"name": "user-container"}]), "no sidecar"),
        (changed(POD, "metadata labels sidecar.istio.io/inject", "false"), "inject"),
        (changed(POD, "metadata labels sidecar.istio.io/inject", "False"), "inject"),
        (changed(POD, "metadata labels istio.io/dataplane-mode", "none"), "dataplane-mode"),
        (changed(POD, _A + "sidecar.istio.io/inject", "false"), "sidecar.istio.io/*"),
        (changed(POD, _A + "sidecar.istio.io/proxyImage", "evil"), "sidecar.istio.io/*"),
        (changed(POD, _A + "sidecar.istio.io/bootstrapOverride", "mine"), "sidecar.istio.io/*"),
        (changed(POD, _A + "sidecar.istio.io/userVolume", "[]"), "sidecar.istio.io/*"),
        (changed(POD, _A + "sidecar.istio.io/interceptionMode", "NONE"), "sidecar.istio.io/*"),
        (changed(POD, _A + "sidecar.istio.io/somethingNew", "x"), "sidecar.istio.io/*"),
        *(
            (changed(POD, f"{_A}traffic.sidecar.istio.io/{key}", value), "traffic.sidecar")
            for key, value in {
                "excludeInboundPorts": "15020,8080",
                "includeInboundPorts": "8012",
                "excludeOutboundPorts": "80",
                "excludeOutboundIPRanges": "0.0.0.0/0",
                "includeOutboundIPRanges": "10.0.0.0/8",
                "includeOutboundPorts": "443",
                "excludeInterfaces": "eth0",
                "kubevirtInterfaces": "eth0",
            }.items()
        ),
        (changed(POD, _A + "traffic.sidecar.istio.io/excludeInboundPorts", "150201"), "traffic"),
        (changed(POD, _A + "proxy.istio.io/config", "concurrency: 1"), "proxy.istio.io/*"),
        (changed(POD, _A + "proxy.istio.io/overrides", "{}"), "named istio-proxy"),
        (changed(POD, _A + "inject.istio.io/templates", "gateway"), "inject.istio.io/*"),
        (changed(POD, _A + "status.sidecar.istio.io/port", "0"), "status.sidecar.istio.io/*"),
        (changed(POD, "spec hostNetwork", True), "hostNetwork"),
        (changed(POD, "spec securityContext", {"runAsUser": 1337}), "1337"),
        (changed(POD, "spec securityContext", {"runAsGroup": 1337}), "1337"),
        (changed(POD, "spec containers 0 securityContext", {"runAsUser": 1337}), "1337"),
        (changed(POD, "spec containers 1 securityContext", {"runAsGroup": 1337}), "1337"),
        (
            changed(
                POD, "spec initContainers", [{"name": "a", "securityContext": {"runAsUser": 1337}}]
            ),
            "1337",
        ),
        (
            changed(
                POD,
                "spec ephemeralContainers",
                # Named as the sidecar's, to slip through.
                [{"name": "istio-init", "securityContext": {"runAsUser": 1337}}],
            ),
            "1337",
        ),
    ],
)
def test_a_pod_that_opts_out_of_its_sidecar_is_refused(pod: dict[str, Any], said: str) -> None:
    (message,) = PODS.refusals(pod)
    assert said in message


def test_pods_are_judged_when_they_are_made_and_when_a_process_is_added() -> None:
    rules = PODS.spec["matchConstraints"]["resourceRules"]
    assert {(o, r) for rule in rules for o in rule["operations"] for r in rule["resources"]} == {
        ("CREATE", "pods"),
        ("UPDATE", "pods/ephemeralcontainers"),
    }


# Namespaces ------------------------------------------------------------------------------------


def namespace(name: str = "acme", **labels: str) -> dict[str, Any]:
    """A tenant's namespace; keys of labels have _ for / and . where Python wants it."""
    names = {"tenant": "tenant-authz.dev/tenant", "injection": "istio-injection"}
    names |= {"rev": "istio.io/rev", "mode": "istio.io/dataplane-mode"}
    return {"metadata": {"name": name, "labels": {names[k]: v for k, v in labels.items()}}}


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (namespace(tenant="acme", injection="enabled"), None),
        (namespace(tenant="acme", rev="stable"), namespace(tenant="acme", injection="enabled")),
        (namespace("kube-system"), None),
        (namespace("knative-serving", injection="enabled"), None),
        ({"metadata": {"name": "plain"}}, None),
        (namespace(tenant="acme", injection="enabled"), {"metadata": {"name": "acme"}}),
    ],
)
def test_an_ordinary_namespace_passes(new: dict[str, Any], old: dict[str, Any] | None) -> None:
    assert NAMESPACES.refusals(new, old=old) == []


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        ({"metadata": {"name": "svc"}}, None, "svc"),
        (namespace("cluster", tenant="acme", injection="enabled"), None, "cluster"),
        (namespace("kube-evil", tenant="acme", injection="enabled"), None, "kube-*"),
        (namespace("authz-system", tenant="acme", injection="enabled"), None, "*-system"),
        (namespace("istio-x", tenant="acme", injection="enabled"), None, "istio-*"),
        (namespace(tenant="acme"), None, "istio-injection"),
        (namespace(tenant="acme", injection="disabled"), None, "istio-injection"),
        (namespace(tenant="acme", injection="disabled", rev="stable"), None, "istio-injection"),
        (namespace(tenant="acme", injection="enabled", mode="ambient"), None, "other mode"),
        (
            namespace(tenant="globex", injection="enabled"),
            namespace(tenant="acme", injection="enabled"),
            "never changes",
        ),
        (namespace(injection="enabled"), namespace(tenant="acme"), "never changes"),
        ({"metadata": {"name": "acme"}}, namespace(tenant="acme"), "never changes"),
    ],
)
def test_a_namespace_that_steps_out_of_line_is_refused(
    new: dict[str, Any], old: dict[str, Any] | None, said: str
) -> None:
    (message,) = NAMESPACES.refusals(new, old=old)
    assert said in message


# Hosts -----------------------------------------------------------------------------------------

ACME = {"metadata": {"annotations": {"tenant-authz.dev/domains": "acme.apps.example,acme.test"}}}


def ingress(*hosts: str | None, **spec: object) -> dict[str, Any]:
    """An Ingress with a rule for each host."""
    rules = [{"host": host} if host is not None else {} for host in hosts]
    return {"kind": "Ingress", "metadata": {"name": "i"}, "spec": {"rules": rules, **spec}}


def route(*hosts: str) -> dict[str, Any]:
    """An HTTPRoute."""
    return {"kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": {"hostnames": list(hosts)}}


def mapping(host: str) -> dict[str, Any]:
    """A DomainMapping: its name is its host."""
    return {"kind": "DomainMapping", "metadata": {"name": host}, "spec": {"ref": {"name": "x"}}}


@pytest.mark.parametrize(
    "obj",
    [
        ingress("shop.acme.apps.example", "acme.test"),
        ingress("*.acme.test"),
        route("shop.acme.test", "a.b.acme.apps.example"),
        mapping("www.acme.test"),
    ],
)
def test_hosts_under_the_namespaces_domains_pass(obj: dict[str, Any]) -> None:
    assert HOSTS.refusals(obj, namespace=ACME) == []


@pytest.mark.parametrize(
    "obj",
    [
        ingress("shop.acme.test", "api.victim.test"),
        ingress("evilacme.test"),
        ingress("acme.test.evil.example"),
        ingress("*"),
        ingress(""),
        ingress(None),
        ingress(),
        ingress("*.apps.example"),
        {"kind": "Ingress", "metadata": {"name": "i"}, "spec": {}},
        route(),
        route("shop.acme.test", "victim.test"),
        {"kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": {}},
        mapping("victim.test"),
        mapping("hello.victim.svc.cluster.local"),
    ],
)
def test_hosts_of_others_are_refused(obj: dict[str, Any]) -> None:
    (message,) = HOSTS.refusals(obj, namespace=ACME)
    assert "acme.apps.example, acme.test" in message


@pytest.mark.parametrize("annotations", [{}, {"tenant-authz.dev/domains": ""}])
def test_a_namespace_without_domains_has_no_hosts(annotations: dict[str, str]) -> None:
    bare = {"metadata": {"annotations": annotations}}
    assert HOSTS.refusals(mapping("www.acme.test"), namespace=bare)
    assert "it has none" in HOSTS.refusals(mapping("a.b"), namespace={"metadata": {}})[0]


def test_an_ingress_takes_no_hosts_that_nobody_else_has() -> None:
    taking = ingress("shop.acme.test", defaultBackend={"service": {"name": "x"}})
    assert "defaultBackend" in HOSTS.refusals(taking, namespace=ACME)[0]


# Services --------------------------------------------------------------------------------------


def service(**spec: object) -> dict[str, Any]:
    """A Service of the namespace acme."""
    return {"kind": "Service", "metadata": {"name": "s", "namespace": "acme"}, "spec": spec}


@pytest.mark.parametrize(
    "obj",
    [
        service(),
        service(externalName="api.stripe.com"),
        service(externalName="db.acme.svc.cluster.local"),
        service(externalIPs=[]),
    ],
)
def test_an_ordinary_service_passes(obj: dict[str, Any]) -> None:
    assert SERVICES.refusals(obj) == []


@pytest.mark.parametrize(
    "name",
    [
        "db.victim.svc.cluster.local",
        "DB.victim.SVC.cluster.LOCAL",
        "db.victim.svc.cluster.local.",
        "db.victim.svc",
        "knative-local-gateway.istio-system.svc.cluster.local",
        "x.notacme.svc.cluster.local",
        "metadata.google.internal",
        "localhost",
    ],
)
def test_a_service_is_no_alias_of_anothers(name: str) -> None:
    assert "externalName" in SERVICES.refusals(service(externalName=name))[0]


def test_knatives_own_aliases_pass_and_only_knatives() -> None:
    alias = service(externalName="knative-local-gateway.istio-system.svc.cluster.local")
    assert not SERVICES.refusals(alias, user="system:serviceaccount:knative-serving:controller")
    assert SERVICES.refusals(alias, user="system:serviceaccount:acme:controller")


CHANNELS = "system:serviceaccount:knative-eventing:imc-controller"
DISPATCHER = "imc-dispatcher.knative-eventing.svc.cluster.local"


def test_eventing_s_aliases_of_the_channel_s_dispatcher_pass() -> None:
    assert not SERVICES.refusals(service(externalName=DISPATCHER), user=CHANNELS)


@pytest.mark.parametrize(
    ("name", "user"),
    [
        (DISPATCHER, "somebody"),
        (DISPATCHER, "system:serviceaccount:acme:imc-controller"),
        (DISPATCHER, "system:serviceaccount:knative-eventing:mt-broker-ingress"),
        ("app.victim.svc.cluster.local", CHANNELS),
        ("imc-dispatcher.knative-eventing.svc", CHANNELS),
        (f"{DISPATCHER}.", CHANNELS),
        (f"x.{DISPATCHER}", CHANNELS),
        ("broker-ingress.knative-eventing.svc.cluster.local", CHANNELS),
    ],
)
def test_by_nobody_else_and_of_nothing_else(name: str, user: str) -> None:
    assert "externalName" in SERVICES.refusals(service(externalName=name), user=user)[0]


def test_a_channel_s_controller_sets_no_external_ips() -> None:
    both = service(externalName=DISPATCHER, externalIPs=["10.0.0.1"])
    assert "externalIPs" in SERVICES.refusals(both, user=CHANNELS)[0]


def test_external_ips_are_refused() -> None:
    assert "externalIPs" in SERVICES.refusals(service(externalIPs=["10.0.0.1"]))[0]


# All of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [PODS, NAMESPACES, HOSTS, SERVICES], ids=lambda p: p.name)
def test_each_policy_denies_and_fails_closed(policy: AdmissionPolicy) -> None:
    assert policy.spec["failurePolicy"] == "Fail"
    assert policy.binding["spec"] == {"policyName": policy.name, "validationActions": ["Deny"]}
    if policy is not NAMESPACES:
        assert policy.spec["matchConstraints"]["namespaceSelector"] == {
            "matchExpressions": [{"key": "tenant-authz.dev/tenant", "operator": "Exists"}]
        }
