"""The chart on a real API server (`pytest --istiod`): installed, upgraded, taken over, removed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from authz import __version__
from authz.lab import controlplane
from authz.lab.controlplane.api import Api
from authz.lab.controlplane.running import Plane, _crds
from authz.lab.controlplane.versions import ISTIO
from tests.admission.rows import Json, changed, thing
from tests.deploy import helm
from tests.deploy.helm import CHART, HOME
from tests.deploy.manifests import DEPLOY, ROOT, load, rendered
from tests.deploy.newcomer import Newcomer, commands, controllers, world

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

SERVER = ("apps/v1", "DaemonSet", "authz", HOME)
KEYS = ("v1", "Secret", "tenant-authz-keys", HOME)
POLICY = ("v1", "ConfigMap", "tenant-authz-policy", HOME)
GRANTS = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "grants.tenant-authz.dev", None)
VERIFY = ("networking.istio.io/v1alpha3", "EnvoyFilter", "tenant-authz-verify", "istio-system")
REUSE = (*VERIFY[:2], "tenant-authz-reuse", "istio-system")
GATEWAY = ("networking.istio.io/v1", "Gateway", "knative-local-gateway", "knative-serving")
SKIPS = "filter_enabled_metadata"
HOSTS = (
    *("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "tenant-authz-hosts"),
    None,
)
What = tuple[str, str, str, str | None]


class Installed:
    """An API server with Istio's kinds, and Helm as its admin."""

    def __init__(self, plane: Plane, api: Api) -> None:
        self.plane = plane
        self.api = api

    async def helm(self, *arguments: str | Path, values: Json | None = None) -> str:
        done = await asyncio.to_thread(
            helm.run,
            *(*arguments, "-n", HOME, *(("-f", "-") if values else ())),
            given=json.dumps(values or {}),
            kubeconfig=self.plane.kubeconfig,
        )
        return done.stderr if done.returncode else ""

    async def get(self, what: What) -> Json | None:
        """An object; `None` if there is none."""
        version, kind, name, place = what
        answer = await self.api.http.get(await self.api.path(thing(version, kind, name, place)))
        found: Json = answer.json()
        return found if answer.status_code == 200 else None

    async def has(self, what: What) -> Json:
        """An object that is there."""
        found = await self.get(what)
        assert found is not None, what
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(control_plane: None) -> AsyncIterator[Installed]:
    helm.program()
    async with controlplane.running(istio=None) as plane, plane.api() as api:
        await api.apply(await asyncio.to_thread(_crds, ISTIO))
        names = (HOME, "istio-system", "knative-serving", "knative-eventing", "monitoring")
        await api.apply(thing("v1", "Namespace", name, None) for name in names)
        await api.apply(load(DEPLOY / "base/namespace.yaml"))
        yield Installed(plane, api)


def image(workload: Json) -> str:
    """Of the service's container."""
    containers = workload["spec"]["template"]["spec"]["containers"]
    (found,) = (container["image"] for container in containers if container["name"] == "authz")
    return str(found)


async def test_it_is_installed_upgraded_and_uninstalled(cluster: Installed) -> None:
    values: Json = {"image": {"repository": "r.example/a"}, "policyFromCluster": True}
    assert not await cluster.helm("install", "tenant-authz", CHART, values=values)
    first = await cluster.has(SERVER)
    assert image(first) == f"r.example/a:{__version__}"
    assert await cluster.get(VERIFY) is None
    # The Job fills the Secret, and tenants grant.
    keys = await cluster.has(KEYS)
    path = await cluster.api.path(keys)
    filled = await cluster.api.http.put(path, json=keys | {"data": {"keyring": "c2VhbGVk"}})
    assert filled.status_code == 200
    spec = {"from": "shop"}
    grant = thing("tenant-authz.dev/v1alpha1", "Grant", "till", "monitoring", spec=spec)
    await cluster.api.apply([grant])

    more = {**values, "filters": "enforce", "admission": True, "policy": "default_mode: enforce\n"}
    assert not await cluster.helm("upgrade", "tenant-authz", CHART, values=more)
    second = await cluster.has(SERVER)
    assert second["metadata"]["generation"] == first["metadata"]["generation"]  # no pod is replaced
    assert (await cluster.has(POLICY))["data"] == {"policy.yaml": "default_mode: enforce\n"}
    assert (await cluster.has(KEYS))["data"] == {"keyring": "c2VhbGVk"}
    await cluster.has(VERIFY)
    await cluster.has(HOSTS)

    new = changed(more, {"image tag": "9", "settings": {"token_seconds": 900}})
    assert not await cluster.helm("upgrade", "tenant-authz", CHART, values=new)
    third = await cluster.has(SERVER)
    assert (image(third), third["metadata"]["generation"]) == ("r.example/a:9", 2)

    # Answers are kept, by filters and settings, and are not again.
    kept = changed({**new, "filters": "reuse"}, {"settings": {"reuse_verify_seconds": 2}})
    assert not await cluster.helm("upgrade", "tenant-authz", CHART, values=kept)
    await cluster.has(REUSE)
    pod = (await cluster.has(SERVER))["spec"]["template"]["spec"]
    (settings,) = (it["configMap"]["name"] for it in pod["volumes"] if it["name"] == "settings")
    given = await cluster.has(("v1", "ConfigMap", settings, HOME))
    assert "reuse_verify_seconds: 2" in given["data"]["settings.yaml"]
    assert SKIPS in json.dumps(await cluster.has(VERIFY))
    assert not await cluster.helm("upgrade", "tenant-authz", CHART, values=new)
    assert await cluster.get(REUSE) is None
    assert SKIPS not in json.dumps(await cluster.has(VERIFY))

    none = {**new, "filters": "none"}
    assert not await cluster.helm("upgrade", "tenant-authz", CHART, values=none)
    assert await cluster.get(VERIFY) is None  # sooner than what it asks
    await cluster.has(SERVER)
    assert not await cluster.helm("uninstall", "tenant-authz")
    for what in (SERVER, POLICY, HOSTS):
        assert await cluster.get(what) is None
    assert (await cluster.has(KEYS))["data"] == {"keyring": "c2VhbGVk"}
    await cluster.has(GRANTS)
    assert await cluster.get(("tenant-authz.dev/v1alpha1", "Grant", "till", "monitoring"))
    # What was kept is taken up again.
    assert not await cluster.helm("install", "tenant-authz", CHART, values=values)
    assert (await cluster.has(KEYS))["data"] == {"keyring": "c2VhbGVk"}
    assert not await cluster.helm("uninstall", "tenant-authz")


async def test_an_installation_by_kustomize_is_taken_over(cluster: Installed) -> None:
    await cluster.api.apply(rendered("base"))
    before = await cluster.has(SERVER)
    refused = await cluster.helm("install", "tenant-authz", CHART)
    assert "cannot be imported into the current release" in refused
    assert not await cluster.helm("install", "tenant-authz", CHART, "--take-ownership")
    after = await cluster.has(SERVER)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert not await cluster.helm("uninstall", "tenant-authz")
    assert await cluster.get(SERVER) is None


async def test_the_pages_commands_install_and_remove_it(cluster: Installed, tmp_path: Path) -> None:
    (tmp_path / "helm").symlink_to(helm.program())
    for name in ("deploy", "envoyfilters"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **helm.folders()}
    newcomer = Newcomer(tmp_path, cluster.plane, "r.example/a", environment)
    *_, install = commands("deploy/README.md", "Install")
    _, uninstall = commands("deploy/README.md", "Uninstall")
    assert install.count("helm ") == 2
    async with controllers(cluster.api):
        await cluster.api.apply(world())
        port = {"number": 8081, "name": "http", "protocol": "HTTP"}
        servers = {
            "selector": {"istio": "ingressgateway"},
            "servers": [{"port": port, "hosts": ["*"]}],
        }
        await cluster.api.apply([thing(*GATEWAY, spec=servers)])  # net-istio's
        await newcomer.types(install)
        (server,) = (await cluster.has(GATEWAY))["spec"]["servers"]
        assert server["port"]["protocol"] == "HTTPS"
        again = ("upgrade", "tenant-authz", CHART, "--reuse-values", "--set", "filters=shadow")
        assert "cannot be imported into the current release" in await cluster.helm(*again)
        assert image(await cluster.has(SERVER)) == f"r.example/a:{__version__}"
        job = await cluster.has(("batch/v1", "Job", "authz-keys", HOME))
        assert job["spec"]["template"]["spec"]["containers"][0]["image"].startswith("r.example/a:")
        await cluster.has(VERIFY)
        await cluster.has(HOSTS)
        assert "\ndefault_mode: enforce\n" in (await cluster.has(POLICY))["data"]["policy.yaml"]
        await newcomer.types(uninstall)
    for what in (SERVER, VERIFY, HOSTS, ("v1", "Namespace", HOME, None)):
        assert await cluster.get(what) is None


async def test_an_old_kubernetes_is_refused(cluster: Installed) -> None:
    (chart,) = load(CHART / "Chart.yaml")
    assert chart["kubeVersion"] == ">=1.30.0-0"
    done = await asyncio.to_thread(
        helm.run, "template", "tenant-authz", CHART, "-n", HOME, "--kube-version", "1.29.0"
    )
    assert "incompatible with Kubernetes v1.29.0" in done.stderr
