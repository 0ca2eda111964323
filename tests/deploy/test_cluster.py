"""What the manifests allow is enough: the Job, the empty Secret, servers, policy from the cluster.

The API double takes its RBAC from the rendered manifests.
"""

import asyncio
import base64
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.cli.settings import load_settings
from authz.config import Settings
from authz.keystore.keks import KEK_BYTES
from authz.lab.harness.certs import Certificate
from authz.testing import check_request
from tests.deploy.manifests import (
    DEPLOY,
    INSTALLS,
    Json,
    environment,
    load,
    one,
    with_component,
)
from tests.kube_double import ApiDouble, Object
from tests.support.clients import connected, http_get, outcome
from tests.support.processes import Folder, Process, authz, serving
from tests.support.waiting import at_last

STORE = "kubernetes:authz-system/tenant-authz-keys"
SECRET = ("secrets", "authz-system", "tenant-authz-keys")


@pytest.fixture
def manifests(tmp_path: Path) -> list[Json]:
    (tmp_path / "rendered").mkdir()
    return with_component("base", "policy-from-cluster", tmp_path / "rendered")


def policy(manifests: list[Json], *, enforce: bool) -> Json:
    """The policy that ships, or with the one word that an operator changes."""
    shipped = one(tuple(manifests), "ConfigMap", "tenant-authz-policy")
    text = shipped["data"]["policy.yaml"]
    assert text.count("default_mode: shadow") == 1
    if enforce:
        text = text.replace("default_mode: shadow", "default_mode: enforce")
    return {**shipped, "data": {"policy.yaml": text}}


def rules(manifests: list[Json], account: str) -> list[tuple[str, Object]]:
    """What an account of ours may do, and in which namespace."""
    found: list[tuple[str, Object]] = []
    for binding in manifests:
        if binding["kind"] not in {"RoleBinding", "ClusterRoleBinding"}:
            continue
        (subject,) = binding["subjects"]
        assert subject["namespace"] == "authz-system"
        if subject["name"] == account:
            ref = binding["roleRef"]
            role = one(tuple(manifests), ref["kind"], ref["name"])
            place = binding["metadata"].get("namespace", "")
            found += [(place, rule) for rule in role["rules"]]
    return found


@pytest.fixture
def api(manifests: list[Json]) -> Iterator[ApiDouble]:
    """A cluster in which these are applied; an account's token is its name."""
    with ApiDouble.running() as double:
        double.put("secrets", one(tuple(manifests), "Secret", "tenant-authz-keys"))
        double.put("configmaps", policy(manifests, enforce=True))
        accounts = ("authz", "authz-keys")
        double.rules = {account: rules(manifests, account) for account in accounts}
        yield double


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "servers").mkdir()
    made = Folder(tmp_path / "servers")
    made.store = STORE
    return made


def kubeconfig(folder: Folder, api: ApiDouble, account: str) -> str:
    return str(api.kubeconfig(folder.path / account, token=account))


def job(folder: Folder, api: ApiDouble, *args: str, **variables: str) -> Any:
    """Run the Job, with these arguments and variables or its own."""
    (it,) = load(DEPLOY / "keys/job.yaml")
    (container,) = it["spec"]["template"]["spec"]["containers"]
    account = it["spec"]["template"]["spec"]["serviceAccountName"]
    given = {**environment(container), "AUTHZ_KEK_FILES": str(folder.kek_file), **variables}
    assert given["AUTHZ_STORE"] == STORE
    kube = kubeconfig(folder, api, account)
    return authz(*(args or container["args"]), KUBECONFIG=kube, **given)


@pytest.fixture
def two(folder: Folder, api: ApiDouble) -> Iterator[tuple[Process, Process]]:
    """Two servers, as the manifests let them."""
    places = [folder.path / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
    env = {"KUBECONFIG": kubeconfig(folder, api, "authz"), "AUTHZ_POLICY_FROM_CLUSTER": "true"}
    theirs = load_settings(Settings, {}, DEPLOY / "base/settings.yaml")
    flags = folder.flags(policy_file=None, policy_configmap=str(theirs.policy_configmap))
    with serving(places[0], flags, **env) as first, serving(places[1], flags, **env) as second:
        yield first, second


async def lets_in(folder: Folder, server: Process) -> str:
    """What the server says to `shop`, at the door of `bank`."""
    request = check_request(principal="spiffe://cluster.local/ns/shop/sa/till")
    async with connected(server.port, bank(folder)) as client:
        return outcome(await client.check("verify", request))


@functools.cache
def bank(folder: Folder) -> Certificate:
    return folder.workload("bank")


async def test_the_job_fills_the_empty_secret_and_servers_go_on_by_themselves(
    folder: Folder, api: ApiDouble, two: tuple[Process, Process]
) -> None:
    for server in two:
        assert "holds no keyring: " in server.line("key store not usable")["problem"]
        assert http_get(f"{server.http}/readyz")[0] == 503
    done = await asyncio.to_thread(job, folder, api)
    assert done.returncode == 0, done.stderr
    for server in two:
        server.ready()
        assert await lets_in(folder, server) == "token-missing"
    before = api.get(*SECRET)["data"]
    again = await asyncio.to_thread(job, folder, api)
    assert again.returncode == 3
    assert "holds a keyring already" in again.stderr
    assert api.get(*SECRET)["data"] == before
    changed = await asyncio.to_thread(job, folder, api, "keys", "rotate", "--root")
    assert changed.returncode == 0, changed.stderr
    assert not api.asked("create")
    assert api.get(*SECRET)["metadata"]["labels"]["app.kubernetes.io/name"] == "tenant-authz"


async def test_the_job_changes_the_kek_as_it_says(
    folder: Folder, api: ApiDouble, two: tuple[Process, Process]
) -> None:
    assert (await asyncio.to_thread(job, folder, api)).returncode == 0
    mounted = folder.kek_file.parent
    (mounted / "next").write_text(base64.b64encode(b"n" * KEK_BYTES).decode())
    (mounted / "next").chmod(0o600)

    def here(text: str) -> str:
        text = text.replace("/etc/tenant-authz/kek/kek", str(folder.kek_file))
        return text.replace("/etc/tenant-authz/kek", str(mounted))

    said = (DEPLOY / "keys/job.yaml").read_text()
    [(args, keks)] = re.findall(r"#   args: \[(.*)\]\n#   AUTHZ_KEK_FILES: (.*)\n", said)
    run = functools.partial(job, folder, api, *here(args).split(", "))
    one = await asyncio.to_thread(run, AUTHZ_KEK_FILES=str(folder.kek_file))
    assert one.returncode == 3
    both = await asyncio.to_thread(run, AUTHZ_KEK_FILES=here(keks))
    assert both.returncode == 0, both.stderr


async def test_the_servers_account_reads_policy_and_tells_grants_and_changes_no_keys(
    folder: Folder, api: ApiDouble, two: tuple[Process, Process]
) -> None:
    assert (await asyncio.to_thread(job, folder, api)).returncode == 0
    for server in two:
        server.ready()
    metadata = {"name": "till", "namespace": "bank", "generation": 1}
    api.put("grants", {"metadata": metadata, "spec": {"from": "shop", "serviceAccount": "till"}})
    at_last(lambda: "status" in api.get("grants", "bank", "till"), "the grant is told")
    (condition,) = api.get("grants", "bank", "till")["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Accepted", "True")
    for server in two:
        assert await lets_in(folder, server) == "allowed"
    done = await asyncio.to_thread(
        authz,
        *("keys", "rotate", "--root", "--store", STORE, "--kek-files", str(folder.kek_file)),
        KUBECONFIG=kubeconfig(folder, api, "authz"),
    )
    assert done.returncode == 3
    assert "does not let us update secrets" in " ".join(done.stderr.split())


async def test_a_changed_policy_counts_at_once(
    folder: Folder, api: ApiDouble, manifests: list[Json], two: tuple[Process, Process]
) -> None:
    assert (await asyncio.to_thread(job, folder, api)).returncode == 0
    for enforce, expected in ((True, "token-missing"), (False, "allowed")):
        api.put("configmaps", policy(manifests, enforce=enforce))
        for server in two:
            server.line("policy loaded", 1 if enforce else 2)
            server.ready()
            assert await lets_in(folder, server) == expected


@pytest.mark.parametrize("name", INSTALLS)
def test_policy_from_the_cluster_is_switched_on_with_all_that_it_needs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = with_component(name, "policy-from-cluster", tmp_path)
    (workload,) = [it for it in manifests if it["kind"] in {"DaemonSet", "Deployment"}]
    spec = workload["spec"]["template"]["spec"]
    (server,) = [container for container in spec["containers"] if container["name"] == "authz"]
    for variable, value in environment(server).items():
        monkeypatch.setenv(variable, value)
    assert load_settings(Settings, {}, DEPLOY / "base/settings.yaml").policy_from_cluster
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in {
        mount["mountPath"] for mount in server["volumeMounts"]
    }
    (binding,) = [manifest for manifest in manifests if manifest["kind"] == "ClusterRoleBinding"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": spec["serviceAccountName"], "namespace": "authz-system"}
    ]
    assert one(tuple(manifests), "ClusterRole", binding["roleRef"]["name"])["rules"]
    assert one(tuple(manifests), "CustomResourceDefinition", "grants.tenant-authz.dev")
    assert one(tuple(manifests), "Namespace", "authz-system")
