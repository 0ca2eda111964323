"""`authz doctor --cluster` by way of a real API server, with the rights that ship and no others.

The node is a program around the code by which kubelets forward ports, see `kubelet`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from authz.lab import controlplane
from authz.lab.controlplane import build
from authz.lab.controlplane.api import Api
from authz.lab.controlplane.running import Plane, namespace
from tests.deploy.manifests import DEPLOY, load
from tests.doctor import kubelet
from tests.doctor.admin import answering
from tests.doctor.proxies import Bench
from tests.kube_double import Object

pytestmark = pytest.mark.timeout(600)
PLAIN, HELLO = "globex/plain", "globex/hello"
ROLE = DEPLOY / "doctor" / "rbac.yaml"


@pytest_asyncio.fixture
async def plane(control_plane: None) -> AsyncIterator[Plane]:
    build.built(kubelet.program(), lambda _: None)
    async with controlplane.running(istio=None) as running:
        yield running


def _pod(name: str) -> Object:
    space, _, name = name.partition("/")
    spec = {
        "nodeName": kubelet.NODE,
        "serviceAccountName": "default",
        "automountServiceAccountToken": False,
        "containers": [{"name": "istio-proxy", "image": "example.test/proxy:1"}],
    }
    metadata = {"namespace": space, "name": name}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": "Running"},
    }


def _account(space: str, name: str) -> Object:
    metadata = {"namespace": space, "name": name}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def _bound(kind: str, space: str = "") -> Object:
    made: Object = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": "doctor"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": kind,
            "name": "tenant-authz-doctor",
        },
        "subjects": [{"kind": "ServiceAccount", "namespace": "globex", "name": "doctor"}],
    }
    if space:
        made["metadata"]["namespace"] = space
    return made


async def _doctor(kubeconfig: Path, *arguments: str) -> tuple[int | None, Any, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "authz", "doctor", "--cluster", "--json", *arguments),
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": "/nowhere"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, json.loads(out) if out else None, err.decode()


async def _kubeconfig(plane: Plane, api: Api, file: Path) -> Path:
    """The doctor's own, with the token of its service account."""
    path = "/api/v1/namespaces/globex/serviceaccounts/doctor/token"
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await api.http.post(path, json=wanted)
    config = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": answer.json()["status"]["token"]}
    file.write_text(json.dumps(config))
    return file


async def test_the_rights_that_ship_are_enough_and_needed(
    plane: Plane, bench: Bench, tmp_path: Path
) -> None:
    [cluster_role, role] = load(ROLE)
    async with plane.api() as api, kubelet.running(api, tmp_path) as ports:
        await api.apply([namespace("globex"), namespace("knative-serving")])
        await api.apply([_account("globex", "default"), _account("globex", "doctor")])
        await api.apply([_pod(PLAIN), _pod(HELLO), cluster_role, role])
        await api.apply([_bound("ClusterRole"), _bound("Role", "knative-serving")])
        kubeconfig = await _kubeconfig(plane, api, tmp_path / "kubeconfig")
        with (
            answering(json.dumps(bench.dump(PLAIN, dynamic=True))) as (plain, asked),
            answering(json.dumps(bench.dump(HELLO, dynamic=True))) as (hello, _),
        ):
            (ports / "globex.plain.15000").write_text(plain.removeprefix("http://"))
            (ports / "globex.hello.15000").write_text(hello.removeprefix("http://"))
            code, said, err = await _doctor(kubeconfig)
            assert (code, said["findings"], said["unreadable"], err) == (0, [], [], "")
            assert sorted(said["examined"]) == [HELLO, PLAIN]
            assert asked == ["/config_dump"]

            (ports / "globex.hello.15000").unlink()
            code, said, err = await _doctor(kubeconfig)
            assert (code, said["examined"]) == (3, [PLAIN])
            assert "connection refused" in err

            [forward] = [
                rule for rule in cluster_role["rules"] if rule["resources"] == ["pods/portforward"]
            ]
            others = [it for it in cluster_role["rules"] if it != forward]
            for it in ("get", "create"):
                rules = [*others, {**forward, "verbs": [it]}]
                await api.apply([{**cluster_role, "rules": rules}])
                code, said, err = await _doctor(kubeconfig)
                assert (code, said["examined"]) == (3, []), it
                assert "pods/portforward" in err
            await api.delete([cluster_role])
            code, said, err = await _doctor(kubeconfig)
            assert (code, said) == (3, None)
            assert 'resources: ["pods"], verbs: ["list"]' in err
