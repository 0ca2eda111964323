"""A rendered tenant works: it makes what it may, and the controllers make what follows from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from authz.tenants.file import parse_tenants
from authz.tenants.render import manifests
from tests.admission.cluster import Cluster, binding
from tests.admission.rows import (
    CERT_MANAGER,
    EVENTING,
    IMC,
    SERVING,
    Account,
    Json,
    changed,
    thing,
)
from tests.admission.table.controllers import ENDPOINTS
from tests.admission.table.hosts import ingress
from tests.admission.table.pods import KUBELET
from tests.admission.table.services import alias

SPACE: Final = "shop-1"
OWNER: Final = Account("ann")
"""Bound to the Role that is rendered."""
EDITOR: Final = Account("bob")
"""Bound to Kubernetes' `edit`, with what Serving and Eventing add to it."""
FILE: Final = f"""\
domain: apps.example.com
tenants:
  shop:
    namespaces: [{SPACE}]
    owners: ["user:{OWNER.name}"]
    domains: [shop.example]
"""
JOB_SINK: Final = Account.of("knative-eventing", "job-sink")
JOBS, SETS, DEPLOYMENTS = (
    Account.of("kube-system", f"{name}-controller") for name in ("job", "replicaset", "deployment")
)
COLLECTOR: Final = Account.of("kube-system", "generic-garbage-collector")

pytestmark = pytest.mark.timeout(300)
session = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tenant(cluster: Cluster) -> AsyncIterator[Cluster]:
    """The tenant's objects, applied as the platform would, with the policies in force."""
    objects = list(manifests(parse_tenants(FILE), "shop"))
    await cluster.apply(objects)
    await cluster.apply([thing("v1", "ServiceAccount", "default", SPACE)])
    bob = binding("RoleBinding", "bob", "edit", {"kind": "User", "name": EDITOR.name})
    await cluster.apply([changed(bob, {"metadata namespace": SPACE})])
    await cluster.may(thing("v1", "ConfigMap", "own", SPACE), EDITOR)
    # Who counts is a controller, and there is none here.
    (quota,) = (it for it in objects if it["kind"] == "ResourceQuota")
    hard = quota["spec"]["hard"]
    counted = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
    assert not await cluster.change(quota, counted, subresource="status", really=True)
    yield cluster


def of(version: str, kind: str, name: str, **more: object) -> Json:
    """An object in the tenant's namespace."""
    return thing(version, kind, name, SPACE, **more)


_APP: Final[Json] = {"containers": [{"name": "user-container", "image": "example.test/app:1"}]}
_JOB: Final = {"template": {"spec": {**_APP, "restartPolicy": "Never"}}}
_REF: Final = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello"}

THEIRS: Final = [
    of("serving.knative.dev/v1", "Service", "hello", spec={"template": {"spec": _APP}}),
    of("serving.knative.dev/v1beta1", "DomainMapping", "www.shop.example", spec={"ref": _REF}),
    of("eventing.knative.dev/v1", "Broker", "default", spec={}),
    of("eventing.knative.dev/v1", "Trigger", "hello", spec={"broker": "default"}),
    of("messaging.knative.dev/v1", "Channel", "news", spec={}),
    of("messaging.knative.dev/v1", "Subscription", "hello", spec={}),
    of("sinks.knative.dev/v1alpha1", "JobSink", "work", spec={"job": {"spec": _JOB}}),
    of("sources.knative.dev/v1", "PingSource", "tick", spec={}),
    of("batch/v1", "Job", "once", spec=_JOB),
    of("v1", "ConfigMap", "settings", data={}),
]


@session
@pytest.mark.parametrize("who", [OWNER, EDITOR], ids=["the Role", "edit"])
@pytest.mark.parametrize("item", THEIRS, ids=lambda it: it["kind"])
async def test_a_tenant_makes_what_it_may(tenant: Cluster, item: Json, who: Account) -> None:
    assert not await tenant.create(item, who)


def _labelled(item: Json, **labels: str) -> Json:
    return changed(item, {f"metadata labels {key}": value for key, value in labels.items()})


_SELECTOR: Final = {"matchLabels": {"app": "hello"}}
_TEMPLATE: Final[Json] = {
    "metadata": {
        "labels": {"app": "hello", "serving.knative.dev/revision": "hello-00001"},
        "annotations": {"autoscaling.knative.dev/target": "100"},
    },
    "spec": {
        "containers": [
            {"name": "user-container", "image": "example.test/app:1"},
            {
                "name": "queue-proxy",
                "image": "example.test/queue:1",
                "ports": [{"containerPort": 8012}],
            },
        ]
    },
}
_HTTP: Final = [{"name": "http", "port": 80, "targetPort": 8012}]
_SOLVER: Final[Json] = {
    "containers": [{"name": "acmesolver", "image": "example.test/acmesolver:1"}]
}


def _in(item: Json) -> Json:
    """The same in the tenant's namespace."""
    return changed(item, {"metadata namespace": SPACE})


def _deployment(name: str) -> Json:
    return of("apps/v1", "Deployment", name, spec={"selector": _SELECTOR, "template": _TEMPLATE})


def _pod(spec: Json, **annotations: str) -> Json:
    made = of("v1", "Pod", "made-by-a-controller", spec=spec)
    made["metadata"] |= {"labels": {"app": "hello"}, "annotations": annotations}
    return made


MADE: Final[list[tuple[str, Account, Json]]] = [
    ("Configuration", SERVING, of("serving.knative.dev/v1", "Configuration", "hello", spec={})),
    ("Route", SERVING, of("serving.knative.dev/v1", "Route", "hello", spec={})),
    ("Revision", SERVING, of("serving.knative.dev/v1", "Revision", "hello-00001", spec=_APP)),
    ("Deployment of a revision", SERVING, _deployment("hello-00001-deployment")),
    (
        "ReplicaSet",
        DEPLOYMENTS,
        of("apps/v1", "ReplicaSet", "hello-1", spec={"selector": _SELECTOR, "template": _TEMPLATE}),
    ),
    ("Pod of a revision", SETS, _pod(_TEMPLATE["spec"], **_TEMPLATE["metadata"]["annotations"])),
    (
        "private Service of a revision",
        SERVING,
        of("v1", "Service", "hello-1-private", spec={"ports": _HTTP, "selector": {"app": "hello"}}),
    ),
    (
        "public Service of a revision, without selector",
        SERVING,
        of("v1", "Service", "hello-1", spec={"ports": _HTTP}),
    ),
    (
        "Endpoints of it: the activator's",
        SERVING,
        of("v1", "Endpoints", "hello-1", subsets=[{"addresses": [{"ip": "10.244.3.3"}]}]),
    ),
    ("alias of a route, at first", SERVING, _in(alias(f"hello.{SPACE}.svc.cluster.local"))),
    ("alias of a route outside", SERVING, _in(alias(f"hello.{SPACE}.apps.example.com"))),
    (
        "alias of a route, ready",
        SERVING,
        _in(alias("knative-local-gateway.istio-system.svc.cluster.local")),
    ),
    *(
        (kind, SERVING, of(f"{group}.internal.knative.dev/v1alpha1", kind, "hello", spec={}))
        for group, kind in (
            ("networking", "Ingress"),
            ("networking", "ServerlessService"),
            ("networking", "Certificate"),
            ("autoscaling", "PodAutoscaler"),
            ("caching", "Image"),
        )
    ),
    (
        "VirtualService of net-istio",
        SERVING,
        of("networking.istio.io/v1", "VirtualService", "hello-ingress", spec={}),
    ),
    (
        "Certificate of net-certmanager",
        SERVING,
        of("cert-manager.io/v1", "Certificate", "c", spec={}),
    ),
    (
        "addresses of a Service",
        ENDPOINTS,
        _labelled(
            of(
                "discovery.k8s.io/v1",
                "EndpointSlice",
                "hello-1-x",
                addressType="IPv4",
                endpoints=[{"addresses": ["10.244.0.5"]}],
            ),
        ),
    ),
    (
        "Subscription of a Trigger",
        EVENTING,
        of("messaging.knative.dev/v1", "Subscription", "x", spec={}),
    ),
    (
        "channel of a Broker",
        EVENTING,
        of("messaging.knative.dev/v1", "InMemoryChannel", "default-kne-trigger", spec={}),
    ),
    (
        "Service of a channel",
        IMC,
        changed(
            _in(alias("imc-dispatcher.knative-eventing.svc.cluster.local")),
            {"metadata name": "news-kn-channel"},
        ),
    ),
    ("Deployment of a ContainerSource", EVENTING, _deployment("source")),
    ("Job of a JobSink", JOB_SINK, of("batch/v1", "Job", "work-1", spec=_JOB)),
    ("event of a JobSink", JOB_SINK, of("v1", "Secret", "work-1", data={})),
    ("Pod of a Job", JOBS, _pod({**_APP, "restartPolicy": "Never"})),
    ("Secret of a certificate", CERT_MANAGER, of("v1", "Secret", "tls", data={})),
    (
        "CertificateRequest",
        CERT_MANAGER,
        of("cert-manager.io/v1", "CertificateRequest", "c-1", spec={}),
    ),
    ("solver's Pod", CERT_MANAGER, _pod(_SOLVER, **{"sidecar.istio.io/inject": "false"})),
    (
        "solver's Service, with serviceType: ClusterIP",
        CERT_MANAGER,
        of("v1", "Service", "cm-acme", spec={"ports": _HTTP, "selector": {"acme": "1"}}),
    ),
    ("solver's Ingress", CERT_MANAGER, _in(ingress("www.shop.example"))),
]


@session
@pytest.mark.parametrize(
    ("name", "by", "item"), MADE, ids=lambda it: it if isinstance(it, str) else ""
)
async def test_controllers_make_what_follows(
    tenant: Cluster, name: str, by: Account, item: Json
) -> None:
    assert not await tenant.create(item, by), name


@session
async def test_what_controllers_change(tenant: Cluster) -> None:
    async def changes(item: Json, change: Json, by: Account, way: str = "") -> None:
        assert not await tenant.change(item, change, by, way, really=True), (item["kind"], way)

    pod = changed(
        _pod(_TEMPLATE["spec"]), {"metadata finalizers": ["batch.kubernetes.io/job-tracking"]}
    )
    assert not await tenant.create(pod, JOBS, really=True)
    address = {"status podIP": "10.244.0.7", "status podIPs": [{"ip": "10.244.0.7"}]}
    await changes(pod, address, KUBELET, "status")
    await changes(pod, {"metadata finalizers": []}, JOBS)
    channel = of("messaging.knative.dev/v1", "InMemoryChannel", "live", spec={})
    assert not await tenant.create(channel, EVENTING, really=True)
    await changes(channel, {"status address": {"url": "http://x.test"}}, IMC, "status")
    await changes(channel, {"spec subscribers": []}, EVENTING)
    route = _in(alias(f"hello.{SPACE}.svc.cluster.local", "hello"))
    assert not await tenant.create(route, SERVING, really=True)
    ready = {"spec externalName": "knative-local-gateway.istio-system.svc.cluster.local"}
    await changes(route, ready, SERVING)
    await changes(route, {"metadata labels": {"orphan": "true"}}, COLLECTOR)
    routes = of("networking.internal.knative.dev/v1alpha1", "Ingress", "live", spec={})
    assert not await tenant.create(routes, SERVING, really=True)
    await changes(routes, {"status privateLoadBalancer": {"ingress": []}}, SERVING, "status")


@session
async def test_a_solver_that_needs_a_port_of_the_node_is_told_why_not(tenant: Cluster) -> None:
    """cert-manager's default; with `serviceType: ClusterIP` in the issuer it is not needed."""
    wants = {"type": "NodePort", "ports": _HTTP, "selector": {"acme": "1"}}
    refusal = await tenant.create(of("v1", "Service", "cm-acme", spec=wants), CERT_MANAGER)
    assert "tenant-authz-services" in refusal
    assert "spec.type: must be ClusterIP" in refusal


@session
async def test_a_tenants_namespace_can_be_deleted(tenant: Cluster) -> None:
    """By whom and as its controller does it."""
    leaves = list(manifests(parse_tenants("tenants: {gone: {namespaces: [gone-1]}}"), "gone"))
    await tenant.apply(leaves)
    (space,) = (leaf for leaf in leaves if leaf["kind"] == "Namespace")
    path = "/api/v1/namespaces/gone-1"
    assert (await tenant.send("DELETE", path)).status_code == 200
    there = await tenant.get(space)
    by = Account.of("kube-system", "namespace-controller")
    done = await tenant.send("PUT", f"{path}/finalize", by, changed(there, {"spec": {}}))
    assert done.status_code == 200, done.text
