"""A mesh in a box: everything is started, and gone at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from copy import deepcopy
from types import MappingProxyType

from authz import envoyfilters
from authz.lab.box.istio import programs, rules
from authz.lab.box.istio.client import Client, NoAnswer
from authz.lab.box.istio.directory import own_directory
from authz.lab.box.istio.mesh import AUTHZ, AUTHZ_HTTP_PORT, Mesh, Source
from authz.lab.box.istio.network import Network
from authz.lab.box.istio.recorded import recorded
from authz.lab.harness.service import KEPT, AuthzServer, Site
from authz.lab.world import cluster
from authz.lab.world.model import Json, Pod, World
from authz.lab.world.standard_policy import standard_policy

Patched = Callable[[tuple[Json, ...]], Iterable[Json]]
"""Changes the shipped documents, such as to take one rule away."""


def without(*names: str) -> Patched:
    """Everything that is shipped but the objects of these names."""

    def patched(documents: tuple[Json, ...]) -> Iterable[Json]:
        unknown = set(names) - {it["metadata"]["name"] for it in documents}
        if unknown:
            raise KeyError(f"not shipped: {', '.join(sorted(unknown))}")
        return [document for document in documents if document["metadata"]["name"] not in names]

    return patched


def patient(documents: tuple[Json, ...]) -> Iterable[Json]:
    """Everything that is shipped, but proxies wait for answers as long as a busy machine takes."""
    changed = deepcopy(documents)
    for it in changed:
        for patch in it["spec"].get("configPatches", ()):
            typed = patch["patch"].get("value", {}).get("typed_config", {})
            if "grpc_service" in typed:
                typed["grpc_service"]["timeout"] = "10s"
    return changed


@asynccontextmanager
async def running(
    world: World | None = None,
    *,
    tenants: Iterable[str] = cluster.TENANTS,
    beside: Iterable[Pod] = (),
    reuse: bool = False,
    patched: Patched = tuple,
    policy: str | None = None,
    settings: Mapping[str, object] = MappingProxyType({}),
    extra: Iterable[Json] = (),
    source: Source | None = None,
) -> AsyncIterator[Mesh]:
    """Run a world as long as the block lasts.

    Args:
        world: who is there; by default `cluster.standard`.
        tenants: whose pods run, beside the platform's; the others are in the cluster, and dead.
        beside: pods on the network of which the cluster knows nothing.
        reuse: proxies give answers again: that overlay is installed, with the settings for it.
        patched: changes the shipped documents, such as to take a rule away.
        policy: the server's, YAML; by default `standard_policy`.
        settings: more of the server's.
        extra: more Istio objects, as an operator might have them.
        source: where the proxies' configurations come from; by default `recorded`.

    Raises:
        CouldNotStart: something did not come up.
    """
    world = world or cluster.standard()
    shipped = envoyfilters.shipped("reuse" if reuse else "")
    ours = tuple(patched(shipped))
    documents = [*world.documents, *ours, *extra]
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(own_directory())
        dead = set(cluster.TENANTS) - set(tenants)
        alive = (pod for pod in world.pods.values() if pod.role != "absent")
        pods = [it for it in alive if it.namespace not in dead] + [*beside]
        network = Network({it.id: it.address for it in pods}, rules.cluster_ips(world))
        stack.callback(network.close)
        mesh = Mesh(world, pods, network, directory, stack)
        mesh.shipped = ours
        try:
            mesh.configurations = await stack.enter_async_context((source or recorded)(mesh))
            await mesh.configurations.install(documents)
            more = {**(KEPT if reuse else {}), **settings}
            await _start(mesh, policy or standard_policy(), more, stack)
            yield mesh
        finally:
            await mesh.kill_everything()  # sooner than one asking after the other


async def _start(
    mesh: Mesh, policy: str, settings: Mapping[str, object], stack: AsyncExitStack
) -> None:
    async def program(pod: Pod) -> None:
        started = programs.running(mesh.world, pod, mesh.network[pod.id], mesh.directory)
        mesh.programs[pod.id] = await stack.enter_async_context(started)

    for pod in mesh.pods.values():
        if pod.proxy == "sidecar":
            mesh.network[pod.id].run(["iptables-restore"], rules.capture())
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_authz(mesh, policy, settings, stack))
            for pod in mesh.pods.values():
                group.create_task(program(pod))
                if pod.proxy != "none":
                    group.create_task(mesh.start_proxy(pod.id))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    for pod in mesh.pods.values():
        if pod.role == "revision":
            await mesh.scale(pod.id, up=True)


async def _authz(
    mesh: Mesh, policy: str, settings: Mapping[str, object], stack: AsyncExitStack
) -> None:
    pod = mesh.pod(AUTHZ)

    async def ready() -> bool:
        client = Client(mesh.network[pod.id], 0)
        try:
            answer = await client.call(("127.0.0.1", AUTHZ_HTTP_PORT), "authz", "/readyz")
        except NoAnswer:
            return False
        return answer.status == 200

    certificate = mesh.authority.issue(
        pod.identity, dns_name=mesh.world.service("authz", pod.namespace).host
    )
    site = Site(
        f"{pod.address}:9000",
        f"127.0.0.1:{AUTHZ_HTTP_PORT}",
        certificate,
        policy,
        ready,
        mesh.network[pod.id].argv(0),
        settings,
    )
    mesh.authz = AuthzServer(site, mesh.directory, stack)
    await mesh.authz.command("keys", "init", "--generate-kek")
    await mesh.authz.start()
