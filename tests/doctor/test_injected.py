"""How pods stand to the mesh that a real istiod has injected: native sidecars, gateways, agents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from authz.doctor import pods
from authz.doctor.pods import ADMIN_PORT, Standing
from authz.lab import controlplane
from authz.lab.controlplane.running import Plane, namespace
from authz.lab.controlplane.versions import ISTIO
from tests.admission.injector import injecting
from tests.doctor.proxies import Json

pytestmark = pytest.mark.timeout(600)
SPACE: Final = "globex"
NATIVE: Final = "sidecar.istio.io/nativeSidecar"
TEMPLATES: Final = "inject.istio.io/templates"

PODS: Final = {
    "plain": (Standing.PROXY, {}),
    "native": (Standing.PROXY, {NATIVE: "true"}),
    "classic": (Standing.PROXY, {NATIVE: "false"}),
    "agent": (Standing.AGENT_ALONE, {TEMPLATES: "grpc-agent"}),
    "edge": (Standing.PROXY, {TEMPLATES: "gateway"}),
    "port": (Standing.PROXY, {"proxy.istio.io/config": "proxyAdminPort: 15999"}),
    "off": (Standing.BARE, {}),
}
"""What each is, and the annotations that make it so."""


@pytest_asyncio.fixture
async def plane(control_plane: None) -> AsyncIterator[Plane]:
    async with controlplane.running() as running:
        yield running


def _pod(name: str, annotations: dict[str, str]) -> Json:
    container = {"name": "app", "image": "example.test/app:1"}
    if annotations.get(TEMPLATES) == "gateway":
        container = {"name": "istio-proxy", "image": "auto"}
    metadata: Json = {"namespace": SPACE, "name": name, "annotations": annotations}
    if name == "off":
        metadata["labels"] = {"sidecar.istio.io/inject": "false"}
    spec = {"automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def test_pods_as_the_injector_makes_them(plane: Plane) -> None:
    space = namespace(SPACE)
    space["metadata"]["labels"] = {"istio-injection": "enabled"}
    account = {"namespace": SPACE, "name": "default"}
    async with plane.api() as api, injecting(plane, ISTIO) as injector:
        await api.apply([space, injector])
        await api.apply([{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}])
        await api.apply([_pod(name, annotations) for name, (_, annotations) in PODS.items()])
        items = (await api.read(f"/api/v1/namespaces/{SPACE}/pods"))["items"]
    read = {pod.name: pod for pod in pods.pods(map(pods.slim, items))}
    assert {name: it.standing for name, it in read.items()} == {
        name: standing for name, (standing, _) in PODS.items()
    }
    ports = {name: it.admin_port for name, it in read.items()}
    assert ports == {name: 15999 if name == "port" else ADMIN_PORT for name in PODS}
    assert {it.waits for it in read.values() if it.standing is Standing.PROXY} == {"it is pending"}
    spec = {item["metadata"]["name"]: item["spec"] for item in items}
    assert "istio-proxy" in {container["name"] for container in spec["native"]["initContainers"]}
    assert "istio-proxy" in {it["name"] for it in spec["classic"]["containers"]}
    assert {it.revision for it in read.values()} == {"default"}
