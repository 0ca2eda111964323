"""The policy's ConfigMap on a real API server, with the Role that ships: `pytest --kube`."""

import secrets
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import lightkube
import pytest
from lightkube.core.exceptions import ApiError
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Namespace, ServiceAccount, ServiceAccountToken
from lightkube.resources.rbac_authorization_v1 import Role, RoleBinding
from ruamel.yaml import YAML

from tests.deploy.manifests import DEPLOY, load
from tests.support.processes import Folder, serving

_NAME, _KEY = "tenant-authz-policy", "policy.yaml"
CHANGES = 10
SECONDS = 1.0


@pytest.fixture
def namespace(given_kubeconfig: str) -> Iterator[tuple[lightkube.Client, str]]:
    """A namespace with the servers' account and what it may do there."""
    name = f"tenant-authz-test-{secrets.token_hex(4)}"
    here = ObjectMeta(name=name)
    with closing(
        lightkube.Client(lightkube.KubeConfig.from_file(given_kubeconfig).get())
    ) as client:
        client.create(Namespace(metadata=here))
        try:
            client.create(ServiceAccount(metadata=ObjectMeta(name="authz", namespace=name)))
            for thing in load(DEPLOY / "base/keys.yaml"):
                if thing["metadata"]["name"] == "authz":
                    thing["metadata"]["namespace"] = name
                    for subject in thing.get("subjects", ()):
                        subject["namespace"] = name
                    client.create(_of(thing))
            yield client, name
        finally:
            client.delete(Namespace, name)


def _of(thing: dict[str, Any]) -> Role | RoleBinding:
    kind: Any = {"Role": Role, "RoleBinding": RoleBinding}[thing["kind"]]
    made: Role | RoleBinding = kind.from_dict(thing)
    return made


def configmap(namespace: str, text: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=_NAME, namespace=namespace), data={_KEY: text})


def kubeconfig(given: str, client: lightkube.Client, namespace: str, to: Path) -> Path:
    """A kubeconfig of the servers' account: the same cluster, another user."""
    token = client.create(
        ServiceAccountToken(metadata=ObjectMeta(), spec=TokenRequestSpec(audiences=[])),
        "authz",
        namespace=namespace,
    )
    assert token.status is not None
    found = YAML(typ="safe").load(Path(given).expanduser().read_text())
    (cluster,) = found["clusters"]
    user = {"name": "authz", "user": {"token": token.status.token}}
    context = {"cluster": cluster["name"], "user": "authz", "namespace": namespace}
    content = {
        "current-context": "authz",
        "clusters": [cluster],
        "users": [user],
        "contexts": [{"name": "authz", "context": context}],
    }
    with to.open("w") as file:
        YAML().dump(content, file)
    return to


async def test_a_change_counts_within_a_second(
    given_kubeconfig: str, namespace: tuple[lightkube.Client, str], tmp_path: Path
) -> None:
    client, name = namespace
    (tmp_path / "server").mkdir()
    folder = Folder(tmp_path / "server")
    await folder.make_keys()
    flags = folder.flags(policy_file=None, policy_configmap=f"{name}/{_NAME}/{_KEY}")
    env = {"KUBECONFIG": str(kubeconfig(given_kubeconfig, client, name, tmp_path / "kubeconfig"))}
    client.create(configmap(name, "grants: []"))
    with serving(folder.path, flags, **env) as server:
        server.ready()
        took = []
        for number in range(CHANGES):
            client.replace(configmap(name, f"grants: [{{to: a, from: t{number}}}]\n"))
            begun = time.monotonic()
            server.line("policy loaded", number + 2)
            took.append(time.monotonic() - begun)
        assert statistics.median(took) < SECONDS, took  # a machine may be busy once
        client.replace(configmap(name, "nonsense: 1\n"))
        server.line("new version is bad, the last good one stays")
        client.delete(ConfigMap, _NAME, namespace=name)
        server.line("new version is bad, the last good one stays", 2)
        client.create(configmap(name, "grants: []"))
        server.line("policy loaded", CHANGES + 2)


async def test_the_account_may_read_nothing_else(
    given_kubeconfig: str, namespace: tuple[lightkube.Client, str], tmp_path: Path
) -> None:
    client, name = namespace
    config = lightkube.KubeConfig.from_file(
        kubeconfig(given_kubeconfig, client, name, tmp_path / "kubeconfig")
    ).get()
    client.create(configmap(name, "grants: []"))
    with ExitStack() as stack:
        own = stack.enter_context(closing(lightkube.Client(config)))
        chosen: Any = {"metadata.name": _NAME}
        (found,) = own.list(ConfigMap, namespace=name, fields=chosen)
        assert found.data == {_KEY: "grants: []"}
        for attempt in (
            lambda: list(own.list(ConfigMap, namespace=name)),
            lambda: list(own.list(ConfigMap, namespace="kube-system", fields=chosen)),
            lambda: own.replace(configmap(name, "default_mode: off\n")),
            lambda: own.delete(ConfigMap, _NAME),
        ):
            with pytest.raises(ApiError, match="forbidden"):
                attempt()
