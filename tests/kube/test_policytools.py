"""The policy tools on a real API server, with the kind that ships: `pytest --kube`."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import Run, in_process
from tests.deploy.manifests import DEPLOY

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="applies with kubectl")
Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(given_kubeconfig: str) -> Kubectl:
    def run(*arguments: str, given: Any = None) -> str:
        text = None if given is None else json.dumps(given)
        command = ["kubectl", "--kubeconfig", str(Path(given_kubeconfig).expanduser()), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def web(kubectl: Kubectl) -> Iterator[str]:
    """A namespace of a tenant, with a Grant and a policy in a ConfigMap; with `-db` another."""
    name = f"tenant-authz-test-{secrets.token_hex(4)}"
    tenant = {"tenant-authz.dev/tenant": name}
    kubectl("apply", "-f", str(DEPLOY / "crds/grants.yaml"))
    kubectl("wait", "--for", "condition=established", "crd/grants.tenant-authz.dev")
    names = [name, f"{name}-db"]
    spec = {"from": "bank", "serviceAccount": "till", "port": 8080}
    things = [
        *(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": it, "labels": tenant}}
            for it in names
        ),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "policy", "namespace": name},
            "data": {"policy.yaml": "default_mode: enforce\n"},
        },
        {
            "apiVersion": "tenant-authz.dev/v1alpha1",
            "kind": "Grant",
            "metadata": {"name": "till", "namespace": name},
            "spec": spec,
        },
    ]
    try:
        for thing in things:
            kubectl("apply", "-f", "-", given=thing)
        yield name
    finally:
        kubectl("delete", "namespace", *names, "--wait=false")


def test_labels_and_grants_count_as_they_do_in_servers(
    given_kubeconfig: str,
    web: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", given_kubeconfig)
    run: Run = in_process(monkeypatch, capsys)
    policy = f"configmap:{web}/policy/policy.yaml"
    asked = ("policy", "explain", policy, "bank/till", web, "--port", "8080", "--json")
    assert [it["grant"] for it in run(*asked).json] == [None]
    (row,) = run(*asked, "--cluster").json
    assert row["grant"] == f"{web} from bank/till, port 8080"
    proof = ("policy", "prove", policy, "--cluster", "--no-path")
    assert run(*proof, "bank", f"{web}-db").code == 0
    assert run(*proof, "bank", f"{web}-db", "--through").code == 1
    assert run(*proof, "bank", f"tenant:{web}").code == 1
    assert run("policy", "matrix", policy, "--cluster").code == 0
