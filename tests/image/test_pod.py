"""The image in the place that the manifests give it: their command, mounts, user and settings."""

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docker
import pytest

from authz.testing import check_request
from tests.deploy.manifests import DEPLOY, pod, server
from tests.image.container import Container
from tests.support.clients import connected, outcome
from tests.support.processes import Folder
from tests.support.waiting import at_last

pytestmark = pytest.mark.timeout(600)

AGENT = "/var/lib/istio/data"  # where Istio's agent writes, and mounts
POLICY = "/etc/tenant-authz/policy"
IN_CLUSTER = "policy_configmap: authz-system/tenant-authz-policy/policy.yaml"


def _put(target: Path, source: Path, group: int, mode: int) -> None:
    """A file as Kubernetes mounts it: root's, readable by the pod's group."""
    target.parent.mkdir(exist_ok=True)
    shutil.copy(source, target)
    os.chown(target, 0, group)
    target.chmod(mode)


@pytest.fixture
def cluster(tmp_path: Path) -> Folder:
    """What a cluster has: an authority, a KEK."""
    if os.geteuid() != 0:
        pytest.skip("only root can hand files over to the pod's group")
    path = tmp_path / "cluster"
    path.mkdir()
    return Folder(path)


@pytest.fixture
def mounts(cluster: Folder, tmp_path: Path) -> dict[str, Path]:
    """A folder for each place where something is mounted, with what the cluster puts there."""
    group = pod("base")["securityContext"]["fsGroup"]
    folders = {mount["name"]: tmp_path / mount["name"] for mount in server("base")["volumeMounts"]}
    settings = tmp_path / "settings.yaml"
    shipped = (DEPLOY / "base/settings.yaml").read_text()
    assert shipped.count(IN_CLUSTER) == 1
    settings.write_text(shipped.replace(IN_CLUSTER, f"policy_file: {POLICY}/policy.yaml"))
    _put(folders["settings"] / "settings.yaml", settings, group, 0o644)
    _put(tmp_path / "policy" / "policy.yaml", DEPLOY / "base/policy.yaml", group, 0o644)
    _put(folders["kek"] / "kek", cluster.kek_file, group, 0o440)
    folders["api"].mkdir()
    folders["kept"].mkdir()  # as the kubelet makes an emptyDir
    os.chown(folders["kept"], 0, group)
    folders["kept"].chmod(0o2777)
    files = cluster.certificate
    agent = {"cert-chain": files.cert_file, "key": files.key_file, "root-cert": files.ca_file}
    for name, source in agent.items():
        _put(tmp_path / "agent" / f"{name}.pem", source, group, 0o644)  # as the agent writes them
    mounted = {it["mountPath"]: folders[it["name"]] for it in server("base")["volumeMounts"]}
    return {**mounted, AGENT: tmp_path / "agent", POLICY: tmp_path / "policy"}


async def test_the_manifests_start_a_server_that_answers(
    client: docker.DockerClient,
    image: Any,
    cluster: Folder,
    mounts: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Keys and policy are files, for here is no API server, and the ports are free ones."""
    manifest, store = server("base"), tmp_path / "store"
    user = manifest["securityContext"]["runAsUser"]
    store.mkdir()
    os.chown(store, user, user)
    places = {**mounts, "/store": store}
    settings = {"store": "sqlite:/store/keys.db", "listen": "127.0.0.1:0"}

    with ExitStack() as stack:

        def run(command: list[str], **more: str) -> Container:
            container = Container(
                client, image.id, command, user=user, settings={**settings, **more}, mounts=places
            )
            stack.callback(container.remove)
            return container

        made = run(["keys", "init"], kek_files="/etc/tenant-authz/kek/kek")
        assert made.ended() == 0, made.output
        started = run(manifest["args"])
        at_last(lambda: started.health == "healthy", "the container is healthy")
        async with connected(started.port, cluster.workload("shop")) as asking:
            answer = await asking.check("verify", check_request())
        assert outcome(answer) == "allowed"  # the policy that ships only watches
        started.line("would deny")
        kept = mounts["/var/lib/tenant-authz/kept"] / "policy.json"
        assert json.loads(kept.read_text())["policy"] == (DEPLOY / "base/policy.yaml").read_text()
