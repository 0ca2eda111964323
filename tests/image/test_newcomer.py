"""From a clone to enforced by the pages' own commands, copied: a real engine, registry, API server.

In their text, only the registry's name is another. What no part of the machine does is done here: a
kubelet's and a controller's status of the DaemonSet, and the end of a namespace.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from authz import __version__
from authz.lab import controlplane
from authz.lab.controlplane import build
from authz.lab.controlplane.api import Api
from authz.lab.controlplane.running import Plane, _crds
from authz.lab.controlplane.versions import ISTIO
from authz.lab.harness.processes import child
from authz.testing import check_request
from tests.admission.rows import Json
from tests.deploy.manifests import ROOT
from tests.deploy.newcomer import (
    DAEMON_SET,
    FENCE,
    HOME,
    JOBS,
    Newcomer,
    commands,
    controllers,
    world,
)
from tests.envoy.bench import free_port
from tests.image.container import Container
from tests.image.engine import make_context
from tests.support.clients import connected, http_get, outcome
from tests.support.processes import Folder
from tests.support.waiting import at_last, eventually

pytestmark = [
    pytest.mark.timeout(1200),  # the first builds a registry, and makes a base image
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl"),
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker to build with"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl"),
]

KUBECONFIG = "/tmp/.kube/config"  # noqa: S108 - the image's home
USER = 65532
"""As the pods run."""


@pytest.fixture(scope="module", autouse=True)
def asked_for(control_plane: None) -> None:
    """Sooner than an engine is started."""
    if os.geteuid() != 0:
        pytest.skip("only root can hand files over to the pod's user")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What git gives, and a wheelhouse, since here is no index within a build."""
    folder = tmp_path / "clone"
    folder.mkdir()
    make_context(folder)
    for name in ("deploy", "envoyfilters"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    return folder


def docker_of(socket: str) -> dict[str, str]:
    """What leads docker to an engine, and to the builder that each has."""
    return {
        "DOCKER_HOST": f"unix://{socket}",
        "DOCKER_BUILDKIT": "0",
    }


@asynccontextmanager
async def registry(folder: Path) -> AsyncIterator[str]:
    """An empty registry, `localhost:<port>`."""
    program = build.registry()
    if not program.file.exists() and (reason := build.missing()):
        pytest.skip(f"no registry: {reason}")
    built = await asyncio.to_thread(build.built, program, lambda _: None)
    place = f"127.0.0.1:{free_port().port}"
    config = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
        "http": {"addr": place},
    }
    (folder / "registry.yaml").write_text(json.dumps(config))
    argv: list[str | Path] = [built, "serve", folder / "registry.yaml"]
    environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    async with child("registry", argv, folder / "registry.log", environment) as process:

        async def answers() -> bool:
            with suppress(httpx.HTTPError):
                async with httpx.AsyncClient(trust_env=False) as client:
                    return (await client.get(f"http://{place}/v2/")).status_code == 200
            return False

        await process.until(answers)
        yield place


async def _kubeconfig(plane: Plane, api: Api, account: str, file: Path) -> Path:
    """One of an account of the manifests', whole in one file, as a pod has it mounted."""
    path = f"/api/v1/namespaces/{HOME}/serviceaccounts/{account}/token"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await api.http.post(path, json=review)
    assert answer.status_code == 201, answer.text
    config = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": answer.json()["status"]["token"]}
    authority = base64.b64encode(plane.ca_file.read_bytes()).decode()
    cluster = config["clusters"][0]["cluster"]
    config["clusters"][0]["cluster"] = {
        "server": cluster["server"],
        "certificate-authority-data": authority,
    }
    _write(file, json.dumps(config).encode(), 0o440)
    return file


def _write(file: Path, content: bytes, mode: int) -> None:
    file.write_bytes(content)
    os.chown(file, 0, USER)
    file.chmod(mode)


async def test_by_the_pages_commands_a_clone_becomes_enforced_and_goes_again(
    client: docker.DockerClient,
    base: Any,
    clone: Path,
    tmp_path: Path,
) -> None:
    own = _of_that_name(client)
    base.tag("python", "3.13-slim")  # whatever Python it is: the Dockerfile's own base
    engine: Any = client.api
    socket = engine._custom_adapter.socket_path
    async with (
        controlplane.running(istio=None) as plane,
        plane.api() as api,
        registry(tmp_path) as place,
        controllers(api),
    ):
        await api.apply(await asyncio.to_thread(_crds, ISTIO))
        await api.apply(world())
        name = f"{place}/tenant-authz"
        newcomer = Newcomer(clone, plane, name, docker_of(socket))
        image = f"{name}:{__version__}"
        cluster, service, enforce, check, _ = commands("deploy/README.md", "Install")
        try:
            await newcomer.types(cluster)
            await newcomer.types(service)
            client.images.remove(image, force=True)  # from now on it is the registry's
            workload, job = await _applied(api)
            assert {_image(workload), _image(job)} == {image}

            await _runs_the_job(client, plane, api, job, tmp_path)
            function = check.partition("check --pre")[0]
            before = await newcomer.types(f"{function}check --pre --wait 6", ok=False)
            assert "kubernetes-version: Kubernetes is 1.30 or newer: v1.37" in before.stdout
            assert before.returncode == 1, before.stderr  # there is no istiod, twice

            await newcomer.types(enforce)
            assert await _answers(client, plane, api, image, tmp_path) == "token-missing"

            await _rotates(newcomer, api)
            await _upgrades(newcomer, api)
            uninstall, _ = commands("deploy/README.md", "Uninstall")
            await newcomer.types(uninstall)
            assert (await api.http.get(f"/api/v1/namespaces/{HOME}")).status_code == 404
            filters = "/apis/networking.istio.io/v1alpha3/envoyfilters"
            names = {item["metadata"]["name"] for item in (await api.read(filters))["items"]}
            assert all(name.startswith("tenant-authz-webhook") for name in names)  # STRICT stays
        finally:
            client.images.remove("python:3.13-slim", force=True)
            if own is not None:
                own.tag("python", "3.13-slim")
            with suppress(docker.errors.ImageNotFound):
                client.images.remove(image, force=True)


def _of_that_name(client: docker.DockerClient) -> Any:
    """The image that an engine of the user's has by that name; `None` if there is none."""
    with suppress(docker.errors.ImageNotFound):
        return client.images.get("python:3.13-slim")
    return None


async def _applied(api: Api) -> tuple[Json, Json]:
    """DaemonSet and Job, as the commands have left them."""
    job = await api.read(f"{JOBS}/authz-keys")
    return await api.read(DAEMON_SET), job


def _image(workload: Json) -> str:
    containers = workload["spec"]["template"]["spec"]["containers"]
    (found,) = (it["image"] for it in containers if it["name"] != "istio-proxy")
    return str(found)


async def _runs_the_job(
    client: docker.DockerClient, plane: Plane, api: Api, job: Json, folder: Path
) -> None:
    """As a kubelet would: its image, command, account, user and KEK."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    secret = await api.read(f"/api/v1/namespaces/{HOME}/secrets/tenant-authz-kek")
    (folder / "kek").mkdir()
    _write(folder / "kek" / "kek", base64.b64decode(secret["data"]["kek"]), 0o440)
    config = await _kubeconfig(plane, api, "authz-keys", folder / "keys.kubeconfig")
    await asyncio.to_thread(
        client.containers.run,
        container["image"],
        container["args"],
        environment={it["name"]: it["value"] for it in container["env"]},
        user=f"{USER}:{USER}",
        read_only=True,
        network_mode="host",
        volumes=[f"{folder}/kek:/etc/tenant-authz/kek", f"{config}:{KUBECONFIG}"],
        remove=True,
    )
    keys = await api.read(f"/api/v1/namespaces/{HOME}/secrets/tenant-authz-keys")
    assert keys["data"]


async def _answers(
    client: docker.DockerClient, plane: Plane, api: Api, image: str, folder: Path
) -> str:
    """What a server of that image says at the door of `bank`, with the policy in the cluster."""
    maps = (await api.read(f"/api/v1/namespaces/{HOME}/configmaps"))["items"]
    (settings,) = (it for it in maps if it["metadata"]["name"].startswith("tenant-authz-settings"))
    (folder / "settings").mkdir()
    text = settings["data"]["settings.yaml"]
    _write(folder / "settings" / "settings.yaml", text.encode(), 0o444)
    config = await _kubeconfig(plane, api, "authz", folder / "authz.kubeconfig")
    (folder / "certificates").mkdir()
    files = Folder(folder / "certificates")
    (folder / "agent").mkdir()
    certificate = files.certificate
    for name, source in (
        ("cert-chain", certificate.cert_file),
        ("key", certificate.key_file),
        ("root-cert", certificate.ca_file),
    ):
        _write(folder / "agent" / f"{name}.pem", source.read_bytes(), 0o440)
    container = Container(
        client,
        image,
        ("serve", "--config", "/etc/tenant-authz/settings/settings.yaml"),
        user=USER,
        settings={"listen": "127.0.0.1:0"},
        mounts={
            "/etc/tenant-authz/settings": folder / "settings",
            "/etc/tenant-authz/kek": folder / "kek",
            "/var/lib/istio/data": folder / "agent",
            KUBECONFIG: config,
        },
    )
    try:
        port = await asyncio.to_thread(lambda: container.port)
        ready = f"http://{container.http}/readyz"
        await asyncio.to_thread(at_last, lambda: http_get(ready)[0] == 200, "the server is ready")
        request = check_request(principal="spiffe://cluster.local/ns/shop/sa/till")
        async with connected(port, files.workload("bank")) as asking:
            return outcome(await asking.check("verify", request))
    finally:
        container.remove()


async def _rotates(newcomer: Newcomer, api: Api) -> None:
    """Another command of `authz keys`, in place of the first."""
    text = (ROOT / "deploy/OPERATIONS.md").read_text()
    (block,) = (it for it in FENCE.findall(text) if it.startswith("args="))
    typed, logs = block.rstrip().rsplit("\n", 1)
    assert f"kubectl -n {HOME} logs " in logs  # no kubelet has any
    await newcomer.types(typed)
    _, job = await _applied(api)
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["keys", "rotate", "--root"]


async def _upgrades(newcomer: Newcomer, api: Api) -> None:
    """Another image, and nothing else changes: keys stay."""
    path = f"/api/v1/namespaces/{HOME}/secrets/tenant-authz-keys"
    keys, (workload, _) = (await api.read(path))["data"], await _applied(api)
    sed = f"sed -i 's/newTag: {re.escape(__version__)}/newTag: 9.9.9/' mine/kustomization.yaml"
    await newcomer.types(f"{sed}\nkubectl apply -k mine")

    async def changed() -> bool:
        return _image(await api.read(DAEMON_SET)).endswith(":9.9.9")

    await eventually(changed, "the DaemonSet is another")
    assert (await api.read(path))["data"] == keys
    assert (await api.read(DAEMON_SET))["metadata"]["generation"] == (
        workload["metadata"]["generation"] + 1
    )
