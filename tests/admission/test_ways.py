"""The ways by which a pod comes to be, and what the policies rest on."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest

from authz.lab.controlplane import build
from authz.lab.controlplane.versions import ISTIO
from tests.admission.cluster import Cluster, binding
from tests.admission.injection import STATUS, injected
from tests.admission.rows import (
    MALLORY,
    SPACE,
    Account,
    Json,
    Row,
    changed,
    thing,
)
from tests.admission.table import ROWS
from tests.admission.table.controllers import STATUSES
from tests.admission.table.hosts import FOREIGN, ingress
from tests.admission.table.hosts import OWN as HOST
from tests.admission.table.namespaces import namespace
from tests.admission.table.pods import POD, RUNNING
from tests.admission.table.services import service
from tests.platform.admission import Request, policies

pytestmark = pytest.mark.timeout(300)
session = pytest.mark.asyncio(loop_scope="session")

FORGED: Final = next(row for row in ROWS if row.name == "istio-proxy, said to be injected")
HOSTILE: Final[Json] = {
    "metadata": {**FORGED.evil["metadata"], "labels": {"app": "x"}},
    "spec": {**FORGED.evil["spec"], "restartPolicy": "Always"},
}
for _key in ("name", "namespace"):
    HOSTILE["metadata"].pop(_key)
_ONCE: Final[Json] = {**HOSTILE, "spec": {**HOSTILE["spec"], "restartPolicy": "Never"}}
_APPS: Final[Json] = {"selector": {"matchLabels": {"app": "x"}}, "template": HOSTILE}

# Kind, spec, and who makes the pods (or what makes them) in the end.
TEMPLATES: Final[list[tuple[str, str, Json, str]]] = [
    ("batch/v1", "Job", {"template": _ONCE}, "job-controller"),
    (
        "batch/v1",
        "CronJob",
        {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": _ONCE}}},
        "job-controller",
    ),
    ("apps/v1", "Deployment", _APPS, "replicaset-controller"),
    ("apps/v1", "ReplicaSet", _APPS, "replicaset-controller"),
    ("apps/v1", "StatefulSet", {**_APPS, "serviceName": "x"}, "statefulset-controller"),
    ("apps/v1", "DaemonSet", _APPS, "daemon-set-controller"),
    ("v1", "ReplicationController", {"template": HOSTILE}, "replication-controller"),
    ("serving.knative.dev/v1", "Service", {"template": HOSTILE}, "replicaset-controller"),
    ("serving.knative.dev/v1", "Configuration", {"template": HOSTILE}, "replicaset-controller"),
    ("serving.knative.dev/v1", "Revision", HOSTILE["spec"], "replicaset-controller"),
    ("sources.knative.dev/v1", "ContainerSource", {"template": HOSTILE}, "replicaset-controller"),
    (
        "sinks.knative.dev/v1alpha1",
        "JobSink",
        {"job": {"spec": {"template": _ONCE}}},
        "job-controller",
    ),
]


@session
@pytest.mark.parametrize(
    ("version", "kind", "spec", "maker"), TEMPLATES, ids=lambda it: str(it)[:40]
)
async def test_whatever_the_template_is_of_its_pod_is_refused(
    cluster: Cluster, version: str, kind: str, spec: Json, maker: str
) -> None:
    assert not await cluster.create(thing(version, kind, "hostile", spec=spec), MALLORY)
    template = _ONCE if maker == "job-controller" else HOSTILE
    pod = thing("v1", "Pod", "hostile-x", spec=template["spec"])
    pod["metadata"] |= template["metadata"]
    refusal = await cluster.create(pod, Account.of("kube-system", maker))
    assert FORGED.policy in refusal
    assert FORGED.said in refusal


@session
async def test_every_way_to_create_a_pod_is_looked_at(cluster: Cluster) -> None:
    path = f"/api/v1/namespaces/{SPACE}/pods"
    dry = {"dryRun": "All"}
    unnamed = changed(FORGED.evil, {"metadata name": None, "metadata generateName": "plain-"})
    assert FORGED.said in (await cluster.send("POST", path, MALLORY, unnamed, params=dry)).text
    apply = {**dry, "fieldManager": "mallory"}
    kind = "application/apply-patch+yaml"
    applied = await cluster.send(
        "PATCH", f"{path}/plain", MALLORY, FORGED.evil, params=apply, content_type=kind
    )
    assert FORGED.said in applied.text
    tame = await cluster.send(
        "PATCH", f"{path}/plain", MALLORY, POD, params=apply, content_type=kind
    )
    assert tame.status_code == 201


@session
@pytest.mark.parametrize(
    "patch", ["merge-patch", "strategic-merge-patch", "json-patch", "apply-patch"]
)
async def test_a_change_by_patch_is_a_change(cluster: Cluster, patch: str) -> None:
    key = "istio.io/reroute-virtual-interfaces"
    body: Any = {"metadata": {"annotations": {key: "eth0"}}}
    if patch == "json-patch":
        at = f"/metadata/annotations/{key.replace('/', '~1')}"
        body = [{"op": "add", "path": at, "value": "eth0"}]
    if patch == "apply-patch":
        body = changed(RUNNING, {f"metadata annotations {key}": "eth0", "spec": None})
    if not await cluster.there(RUNNING):
        assert not await cluster.create(RUNNING, really=True)
    answer = await cluster.send(
        "PATCH",
        f"/api/v1/namespaces/{SPACE}/pods/running",
        MALLORY,
        body,
        params={"dryRun": "All", **({"fieldManager": "x"} if patch == "apply-patch" else {})},
        content_type=f"application/{patch}+{'yaml' if patch == 'apply-patch' else 'json'}",
    )
    assert "tenant-authz-pod-changes" in answer.text


@session
async def test_a_resize_changes_nothing_but_resources(cluster: Cluster) -> None:
    """The API server itself drops the rest, so that no policy is needed there."""
    pod = changed(RUNNING, {"metadata name": "resized"})
    assert not await cluster.create(pod, really=True)
    evil = {
        "spec containers app image": "evil.test/app:1",
        "spec containers app resources": {"requests": {"cpu": "10m"}},
        "metadata annotations istio.io/reroute-virtual-interfaces": "eth0",
    }
    assert not await cluster.change(pod, evil, MALLORY, "resize", really=True)
    after = await cluster.get(pod)
    (app,) = after["spec"]["containers"]
    assert app["image"] == "example.test/app:1"
    assert app["resources"] == {"requests": {"cpu": "10m"}}
    assert "istio.io/reroute-virtual-interfaces" not in after["metadata"]["annotations"]


@session
async def test_without_the_mutating_policy_a_forged_status_is_believed(cluster: Cluster) -> None:
    """So it is needed, and on servers that have none a tenant opens its own pods."""
    async with cluster.without("tenant-authz-injection", FORGED):
        rows = [row for row in ROWS if "said to be injected" in row.name]
        assert len(rows) == 2
        for row in rows:
            assert not await cluster.play(row)


@session
async def test_a_namespace_without_injection_has_no_pods(cluster: Cluster) -> None:
    """As if it had been labelled before the policies were there."""
    labels = {"istio-injection": None, "pod-security.kubernetes.io/enforce": None}
    space = namespace("bare-1", {f"metadata labels {key}": None for key in labels})
    row = next(row for row in ROWS if row.policy == "tenant-authz-namespaces")
    async with cluster.without(row.policy, row):
        await cluster.apply([space, thing("v1", "ServiceAccount", "default", "bare-1")])
    for pod in (POD, FORGED.evil, changed(POD, {"spec hostNetwork": True})):
        refusal = await cluster.create(changed(pod, {"metadata namespace": "bare-1"}))
        assert "tenant-authz-pods" in refusal
        assert "this pod has no sidecar" in refusal


@session
async def test_the_default_class_makes_no_difference(cluster: Cluster) -> None:
    made = thing("networking.k8s.io/v1", "IngressClass", "istio", None)
    made["metadata"]["annotations"] = {"ingressclass.kubernetes.io/is-default-class": "true"}
    made["spec"] = {"controller": "istio.io/ingress-controller"}
    await cluster.apply([made])
    classless = ingress(FOREIGN["another's"])
    assert "spec.rules[].host" in await cluster.create(classless, MALLORY)
    assert not await cluster.create(ingress(HOST), MALLORY)
    await cluster.delete([made])


@session
async def test_an_address_of_a_load_balancer_is_refused_by_the_api_server(cluster: Cluster) -> None:
    """A Service of type ClusterIP has none, so that no policy is needed there."""
    item = service("balanced")
    assert not await cluster.create(item, MALLORY, really=True)
    evil = {"status loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    assert "may only be used when" in await cluster.change(item, evil, MALLORY, "status")


# Who may do what -------------------------------------------------------------------------------

EDITOR: Final = Account("eve")


@session
async def test_what_edit_suffices_for(cluster: Cluster) -> None:
    """Of what is refused here, Kubernetes' `edit` allows most: RBAC alone is no protection."""
    await cluster.apply(
        [binding("RoleBinding", "eve", "edit", {"kind": "User", "name": EDITOR.name})]
    )
    await cluster.may(service("own-1"), EDITOR)
    policy_said: list[str] = []
    rbac_said: list[str] = []
    for row in ROWS:
        if row.by == MALLORY:
            refusal = await cluster.play(Row(**{**vars(row), "by": EDITOR}))
            (policy_said if row.policy in refusal else rbac_said).append(row.name)
            assert refusal
    assert len(policy_said) >= 128
    assert {f"status of a {kind}" for _, kind, *_ in STATUSES} <= set(policy_said)
    assert "EndpointSlice: a pod of another's" in rbac_said
    assert "another tenant, by way of status" in rbac_said


@session
async def test_edit_may_write_no_status_and_its_controllers_may(cluster: Cluster) -> None:
    for version, kind, account, change in STATUSES:
        item = thing(version, kind, "own", spec={})
        assert not await cluster.create(item, EDITOR, really=True)
        refusal = await cluster.change(item, change, EDITOR, "status")
        assert "tenant-authz-controllers" in refusal
        assert "change the spec" in refusal
        assert not await cluster.change(item, change, account, "status", really=True)
        assert not await cluster.change(item, {"metadata labels": {"a": "b"}}, EDITOR)


# The double of the injector, and what Istio knows ----------------------------------------------


@session
async def test_the_double_is_like_the_injector(cluster: Cluster) -> None:
    path = f"/api/v1/namespaces/{SPACE}/pods"
    answer = await cluster.send("POST", path, MALLORY, POD, params={"dryRun": "All"})
    real, ours = answer.json(), injected(POD)
    theirs = {
        key: value
        for key, value in real["metadata"]["annotations"].items()
        if key.partition("/")[0].endswith("istio.io")
    }
    named, listed = theirs.pop(STATUS), ours["metadata"]["annotations"].pop(STATUS)
    assert theirs == ours["metadata"]["annotations"]
    for key in ("initContainers", "containers"):
        assert json.loads(named)[key] == json.loads(listed)[key]
        assert [it["name"] for it in real["spec"][key]] == [it["name"] for it in ours["spec"][key]]
    for one, other in zip(
        real["spec"]["initContainers"], ours["spec"]["initContainers"], strict=True
    ):
        assert other["securityContext"].items() <= one["securityContext"].items()


TENANTS_OWN: Final = {
    "sidecar.istio.io/proxyCPU",
    "sidecar.istio.io/proxyMemory",
    "sidecar.istio.io/proxyCPULimit",
    "sidecar.istio.io/proxyMemoryLimit",
    "sidecar.istio.io/rewriteAppHTTPProbers",
    "prometheus.istio.io/merge-metrics",
    # Overwritten by the injector whatever a tenant says.
    "istio.io/rev",
    "sidecar.istio.io/status",
}


def test_every_annotation_that_this_istio_knows_is_decided() -> None:
    if build.missing():
        pytest.skip(build.missing())
    go_mod = (build.istio_module(ISTIO) / "go.mod").read_text()
    (version,) = re.findall(r"^\s*istio\.io/api (\S+)", go_mod, re.MULTILINE)
    source = (build.module("istio.io/api", version) / "annotation/annotations.gen.go").read_text()
    known = re.findall(r'^\s+Name:\s+"([^"]+)"', source, re.MULTILINE)
    assert len(known) > 50
    policy = policies()["tenant-authz-pods"]
    for name in known:
        if name.startswith("kubernetes.io/"):
            continue
        pod = injected(changed(POD, {f"metadata annotations {name}": "anything"}))
        refused = policy.refusals(Request(pod, namespace=namespace(SPACE)))
        assert bool(refused) == (name not in TENANTS_OWN), name
