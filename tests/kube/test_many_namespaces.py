"""A server as it ships, on a real API server, with its own account and policy from the cluster."""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from authz.cli.settings import load_settings
from authz.config import Settings
from authz.testing import check_request
from authz.wire import MODE_LABEL, TENANT_LABEL
from tests.admission.rows import Json, changed, thing
from tests.deploy.manifests import DEPLOY, rendered
from tests.kube.conftest import Installed
from tests.support.clients import connected, http_get, outcome
from tests.support.processes import Folder, Process, authz, serving
from tests.support.waiting import PATIENCE

pytestmark = [
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="renders with kubectl"),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

NAMESPACES: Final = 1000
CHANGES: Final = 5
"""Of each kind."""
SECONDS: Final = 1.0
"""In which a change counts."""
FIRST: Final = 10.0
"""Seconds that a server may take longer until it is ready, since there are so many."""
MEMORY: Final = 32 * 2**20
"""Bytes that they may take."""
HOME: Final = "authz-system"
GRANT: Final = "tenant-authz.dev/v1alpha1"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def applied(installed: Installed) -> Installed:
    """The service's own objects and kinds, enforced, and an empty Secret for its keys."""
    for folder in ("base", "components/policy-from-cluster"):
        await installed.apply(rendered(folder))
    policy = thing("v1", "ConfigMap", "tenant-authz-policy", HOME)
    text = (await installed.get(policy))["data"]["policy.yaml"]
    enforced = text.replace("default_mode: shadow", "default_mode: enforce")
    change = {"data": {"policy.yaml": enforced}}
    assert not await installed.change(policy, change, really=True)
    return installed


async def kubeconfig(cluster: Installed, account: str, to: Path) -> str:
    """A kubeconfig of one of our accounts, with a token as the kubelet fetches it."""
    path = f"/api/v1/namespaces/{HOME}/serviceaccounts/{account}/token"
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await cluster.send("POST", path, body=wanted)
    content = json.loads(cluster.plane.kubeconfig.read_text())
    content["users"] = [{"name": "admin", "user": {"token": answer.json()["status"]["token"]}}]
    to.write_text(json.dumps(content))
    return str(to)


@contextmanager
def running(folder: Folder, name: str, kube: str) -> Iterator[Process]:
    """A server with the settings that ship, but for its addresses and certificate."""
    place = folder.path / name
    place.mkdir()
    ships = load_settings(Settings, {}, DEPLOY / "base" / "settings.yaml")
    flags = folder.flags(policy_file=None, policy_configmap=str(ships.policy_configmap))
    env = {"KUBECONFIG": kube, "AUTHZ_POLICY_FROM_CLUSTER": "true"}
    with serving(place, flags, **env) as server:
        yield server


async def ready(server: Process) -> float:
    """Wait until it is; the seconds."""
    begun = time.monotonic()
    await asyncio.to_thread(lambda: server.port)

    async def is_ready() -> bool:
        return (await asyncio.to_thread(http_get, f"{server.http}/readyz"))[0] == 200

    return await until(is_ready) - begun


async def until(condition: Callable[[], Awaitable[bool]]) -> float:
    """Look again until it is so; when that was."""
    deadline = time.monotonic() + 3 * PATIENCE
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return time.monotonic()


def memory(server: Process) -> int:
    """What a server holds, in bytes."""
    status = Path(f"/proc/{server.popen.pid}/status").read_text()
    (line,) = (it for it in status.splitlines() if it.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _many() -> Iterator[Json]:
    """Each with a tenant of its own and a grant."""
    for number in range(NAMESPACES):
        name = f"tenant-{number:04}"
        space = thing("v1", "Namespace", name, None)
        labels = {TENANT_LABEL: name, MODE_LABEL: "enforce"}
        yield changed(space, {"metadata labels": labels})
        yield thing(GRANT, "Grant", "one", name, spec={"from": f"tenant-{number // 2:04}"})


async def test_a_thousand_namespaces(applied: Installed, tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    folder = Folder(tmp_path / "servers")
    folder.store = f"kubernetes:{HOME}/tenant-authz-keys"
    keys = await kubeconfig(applied, "authz-keys", tmp_path / "keys")
    flags = ["--store", folder.store, "--kek-files", str(folder.kek_file)]
    done = await asyncio.to_thread(authz, "keys", "init", *flags, KUBECONFIG=keys)
    assert done.returncode == 0, done.stderr
    kube = await kubeconfig(applied, "authz", tmp_path / "servers.kubeconfig")

    with running(folder, "before", kube) as server:
        few, small = await ready(server), memory(server)
    await applied.apply(_many())
    with running(folder, "after", kube) as server:
        many, large = await ready(server), memory(server)
        took = await changes(applied, folder, server)
    told = {
        "ready, s": [round(few, 2), round(many, 2)],
        "memory, MiB": [round(it / 2**20, 1) for it in (small, large)],
        "a change, s": [round(it, 3) for it in sorted(took)],
    }
    print(told)  # noqa: T201 - `pytest -rP` shows it
    assert many - few < FIRST, told
    assert large - small < MEMORY, told
    assert statistics.median(took) < SECONDS, told  # a machine may be busy once


async def changes(cluster: Installed, folder: Folder, server: Process) -> list[float]:
    """How long it takes until a grant and a label count, and until they do no more; seconds."""
    door = folder.workload("tenant-0999")
    request = check_request(principal="spiffe://cluster.local/ns/shop/sa/till")
    space = thing("v1", "Namespace", "tenant-0999", None)
    grant = thing(GRANT, "Grant", "shop", "tenant-0999", spec={"from": "shop"})
    took = []
    async with connected(server.port, door) as client:

        async def lets_in() -> bool:
            return outcome(await client.check("verify", request)) == "allowed"

        async def keeps_out() -> bool:
            return not await lets_in()

        async def counts(change: Awaitable[None], result: Callable[[], Awaitable[bool]]) -> None:
            begun = time.monotonic()
            await change
            took.append(await until(result) - begun)

        def mode(name: str) -> Awaitable[None]:
            labels = {MODE_LABEL: name, TENANT_LABEL: "tenant-0999"}
            return cluster.apply([changed(space, {"metadata labels": labels})])

        assert await keeps_out()
        for _ in range(CHANGES):
            await counts(cluster.apply([grant]), lets_in)
            await counts(cluster.delete([grant]), keeps_out)
            await counts(mode("shadow"), lets_in)
            await counts(mode("enforce"), keeps_out)
    return took
