"""The driver for Kubernetes, against a double of the API server. No cluster was at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from authz.conformance import MATRIX, play
from authz.conformance.kubernetes import NAMES, Site, driver
from authz.conformance.matrix import ALLOWED, DENIED, KEPT_OUT
from authz.conformance.run import CouldNotProve
from authz.kube import KubeError
from tests.command import Run, in_process
from tests.kube_double import ApiDouble, Fault

Json = dict[str, Any]
Says = Callable[[str], Json]

IDEAL: Mapping[str, Json] = {
    ALLOWED: {"status": 200},
    DENIED: {"status": 403, "reason": "not-allowed"},
    KEPT_OUT: {"status": 0, "error": "ConnectionResetError"},
}
SITE = Site("registry.example/tenant-authz:0.1.0", patience=3)


class Cluster:
    """What controllers and kubelets would do, at each pause of the driver."""

    def __init__(self, api: ApiDouble) -> None:
        self.api = api
        self.says: Says = lambda must: IDEAL[must]
        self.ready = True
        self.made: dict[str, Json] = {}
        """Everything that there was, by kind, namespace and name."""

    async def pause(self) -> None:
        for (plural, space, name), thing in list(self.api.objects.items()):
            self.made[f"{thing.get('kind', plural)} {space}/{name}"] = thing
            if "status" not in thing and self.ready:
                self._settle(plural, space, name, thing)

    def _settle(self, plural: str, space: str, name: str, thing: Json) -> None:
        if plural == "deployments":
            self.api.put(plural, thing | {"status": {"availableReplicas": 1}})
            self._running(space, {"app": "plain"}, "10.0.0.1")
        elif plural == "services" and "serving" in thing["apiVersion"]:
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            self.api.put(plural, thing | {"status": ready})
            self._running(space, {"serving.knative.dev/service": name}, "10.0.0.2")
        elif name.startswith("probe-"):
            caller = name.split("-")[1]
            results = [self.says(it.expected) for it in MATRIX if it.call.caller == caller]
            ended = {"terminated": {"exitCode": 0, "message": json.dumps(results)}}
            status = {"containerStatuses": [{"name": "probe", "state": ended}]}
            self.api.put(plural, thing | {"status": status})

    def _running(self, space: str, labels: Json, address: str) -> None:
        name = f"pod-{'-'.join(labels.values())}"
        pod = {
            "metadata": {"namespace": space, "name": name, "labels": labels},
            "status": {"podIP": address},
        }
        self.api.put("pods", pod)

    @property
    def left(self) -> set[str]:
        """What of ours is there still; what a namespace takes with it is not."""
        asked = [
            it.body["metadata"] for it in self.api.asked("create") if it.plural == "namespaces"
        ]
        gone = {it["name"] for it in asked}
        gone -= {name for plural, _, name in self.api.objects if plural == "namespaces"}
        ours = {key: it for key, it in self.api.objects.items() if "kind" in it}
        return {f"{plural} {name}" for plural, space, name in ours if space not in gone}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with ApiDouble.running() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
        yield Cluster(api)


async def test_all_is_made_played_and_taken_away(cluster: Cluster) -> None:
    results = await play(driver(SITE, cluster.pause), MATRIX)
    assert [result.case for result in results] == list(MATRIX)
    assert all(it.ok for it in results)
    assert cluster.left == set()
    spaces = [f"Namespace /{name}" for name in NAMES.values()]
    assert all(
        cluster.made[space]["metadata"]["labels"]
        == {"istio-injection": "enabled", "tenant-authz.dev/mode": "enforce"}
        for space in spaces
    )


async def test_the_objects_are_what_kubernetes_expects(cluster: Cluster) -> None:
    await play(driver(SITE, cluster.pause), MATRIX)
    pods = 0
    for thing in cluster.made.values():
        if "kind" not in thing:
            continue
        plain = {key: it for key, it in thing.items() if key != "status"}
        template = plain.get("spec", {}).get("template", plain).get("spec", {})
        for container in template.get("containers", ()):
            pods += 1
            assert container["securityContext"]["runAsNonRoot"] is True
            assert template["automountServiceAccountToken"] is False
        if "serving" not in thing["apiVersion"]:
            kubernetes_validate.validate(plain, kubernetes_validate.latest_version(), strict=True)
    assert pods >= 7
    bare = [it for name, it in cluster.made.items() if "probe-bare" in name]
    assert bare[0]["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"


async def test_calls_name_the_tenants_and_addresses(cluster: Cluster) -> None:
    await play(driver(SITE, cluster.pause), MATRIX)
    [probe] = [it for name, it in cluster.made.items() if "probe-b-" in name]
    calls = json.loads(probe["spec"]["containers"][0]["command"][3])
    urls = {call["url"] for call in calls}
    assert f"http://plain.{NAMES['a']}/" in urls
    assert {"http://10.0.0.1:9999/", "http://10.0.0.2:9090/metrics"} <= urls
    assert not any("{" in url for url in urls)


async def test_a_difference_is_told(cluster: Cluster) -> None:
    cluster.says = lambda must: {"status": 200}
    results = await play(driver(SITE, cluster.pause), MATRIX)
    assert {result.case.expected for result in results if not result.ok} == {DENIED, KEPT_OUT}


async def test_prepared_namespaces_stay_and_what_was_made_in_them_goes(cluster: Cluster) -> None:
    for name in NAMES.values():
        cluster.api.put("namespaces", {"kind": "Namespace", "metadata": {"name": name}})
    site = Site(SITE.image, prepared=True, patience=3)
    await play(driver(site, cluster.pause), MATRIX)
    assert cluster.left == {f"namespaces {it}" for it in NAMES.values()}


async def test_what_is_there_already_is_neither_used_nor_deleted(cluster: Cluster) -> None:
    mine = {"kind": "Namespace", "metadata": {"name": NAMES["b"]}}
    cluster.api.put("namespaces", mine)
    with pytest.raises(CouldNotProve, match=f"{NAMES['b']} is there already"):
        await play(driver(SITE, cluster.pause), MATRIX)
    assert cluster.left == {f"namespaces {NAMES['b']}"}


def ending(name: str) -> Json:
    """A namespace of an earlier run that is being deleted."""
    going = {"name": name, "deletionTimestamp": "2026-11-27T10:00:00Z"}
    return {"kind": "Namespace", "metadata": going}


async def test_what_an_earlier_run_leaves_is_waited_for(cluster: Cluster) -> None:
    cluster.api.put("namespaces", ending(NAMES["a"]))
    pauses = 0

    async def pause() -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 2:
            cluster.api.delete("namespaces", "", NAMES["a"])
        await cluster.pause()

    results = await play(driver(SITE, pause), MATRIX)
    assert all(it.ok for it in results)
    assert cluster.left == set()


async def test_what_never_ends_is_told(cluster: Cluster) -> None:
    cluster.api.put("namespaces", ending(NAMES["a"]))
    with pytest.raises(CouldNotProve, match=f"{NAMES['a']} is there already"):
        await play(driver(SITE, cluster.pause), MATRIX)
    assert cluster.left == {f"namespaces {NAMES['a']}"}


async def test_pods_of_an_earlier_run_that_still_end_are_not_called(cluster: Cluster) -> None:
    def old(pod: Json, address: str) -> Json:
        metadata = {**pod["metadata"], "name": "zz-old", "deletionTimestamp": "2026-11-27T10:00Z"}
        return {"metadata": metadata, "status": {"podIP": address}}

    async def pause() -> None:
        await cluster.pause()
        for key, pod in list(cluster.api.objects.items()):
            if key[0] == "pods" and key[2].startswith("pod-"):
                cluster.api.put("pods", old(pod, "10.9.9.9"))

    async with driver(SITE, pause) as tenants:
        names = await tenants.names()
    assert (names["a_plain"], names["a_hello"]) == ("10.0.0.1", "10.0.0.2")


async def test_what_does_not_come_up_is_told_and_taken_away(cluster: Cluster) -> None:
    cluster.ready = False
    with pytest.raises(CouldNotProve, match=r"plain in namespace .* not ready after 3 polls"):
        await play(driver(SITE, cluster.pause), MATRIX)
    assert cluster.left == set()


async def test_a_refusal_in_the_middle_leaves_nothing(cluster: Cluster) -> None:
    cluster.api.fault("create", Fault(500, after=True))
    with pytest.raises(KubeError, match="500"):
        await play(driver(SITE, cluster.pause), MATRIX)
    assert cluster.left == set()


async def test_a_pod_without_a_sidecar_that_is_not_admitted_is_kept_out(cluster: Cluster) -> None:
    pause = cluster.pause
    refused: list[bool] = []

    async def strict() -> None:
        await pause()
        if any("probe-b-" in name for name in cluster.made) and not refused:
            refused.append(True)
            text = "ValidatingAdmissionPolicy 'tenant-authz' denied request: no opt-out"
            cluster.api.fault("create", Fault(422, text))

    results = await play(driver(SITE, strict), MATRIX)
    bare = [result for result in results if result.case.call.caller == "bare"]
    assert all(it.ok for it in results)
    assert {it.outcome for it in bare} == {"no answer: its pod is not admitted"}


async def test_a_refusal_by_rbac_is_not_taken_for_proof(cluster: Cluster) -> None:
    pause = cluster.pause
    refused: list[bool] = []

    async def strict() -> None:
        await pause()
        if any("probe-b-" in name for name in cluster.made) and not refused:
            refused.append(True)
            cluster.api.fault("create", Fault(403, "pods is forbidden: cannot create"))

    with pytest.raises(KubeError, match="403"):
        await play(driver(SITE, strict), MATRIX)
    assert cluster.left == set()


async def test_a_probe_that_says_nonsense(cluster: Cluster) -> None:
    cluster.says = lambda row: "x"  # type: ignore[assignment,return-value]
    with pytest.raises(CouldNotProve, match="no result"):
        await play(driver(SITE, cluster.pause), MATRIX)
    assert cluster.left == set()


def test_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run: Run = in_process(monkeypatch, capsys)
    assert run("conformance", "--label", "typo").code == 2
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    assert run("conformance").code == 3
