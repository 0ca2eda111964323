"""A mesh in a box: everything is started, and gone at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from authz import envoyfilters
from authz.lab.box.istio import cluster, programs, proxies, rules
from authz.lab.box.istio.client import Client, NoAnswer
from authz.lab.box.istio.directory import own_directory
from authz.lab.box.istio.istiod import Istiod
from authz.lab.box.istio.mesh import AUTHZ, AUTHZ_HTTP_PORT, Mesh
from authz.lab.box.istio.network import Network
from authz.lab.box.istio.objects import Objects
from authz.lab.box.istio.routes import Routes
from authz.lab.box.istio.rules import PROXY_UID
from authz.lab.box.istio.standard_policy import standard_policy
from authz.lab.box.istio.world import DOMAIN, Json, Pod, World
from authz.lab.harness import envoy
from authz.lab.harness.service import AuthzServer, Site

Patched = Callable[[tuple[Json, ...]], Iterable[Json]]
"""Changes the shipped documents, such as to take one rule away."""


def without(*names: str) -> Patched:
    """Everything that is shipped but the objects of these names."""

    def patched(documents: tuple[Json, ...]) -> Iterable[Json]:
        unknown = set(names) - {it["metadata"]["name"] for it in documents}
        if unknown:
            raise KeyError(f"not shipped: {', '.join(sorted(unknown))}")
        return [it for it in documents if it["metadata"]["name"] not in names]

    return patched


@asynccontextmanager
async def running(
    world: World | None = None,
    *,
    overlay: str = "",
    patched: Patched = tuple,
    policy: str | None = None,
    extra: Iterable[Json] = (),
) -> AsyncIterator[Mesh]:
    """Run a world as long as the block lasts.

    Args:
        world: who is there; by default `cluster.standard`.
        overlay: which of the shipped overlays is installed.
        patched: changes the shipped documents, such as to take a rule away.
        policy: the server's, YAML; by default `standard_policy`.
        extra: more Istio objects, as an operator might have them.

    Raises:
        CouldNotStart: something did not come up.
    """
    world = world or cluster.standard()
    documents = [*world.documents, *patched(envoyfilters.shipped(overlay)), *extra]
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(own_directory())
        addresses = {pod.id: pod.address for pod in world.pods.values()}
        network = Network(addresses, rules.cluster_ips(world))
        stack.callback(network.close)
        mesh = Mesh(world, network, directory)
        try:
            await _start(mesh, documents, policy or standard_policy(), stack)
            yield mesh
        finally:
            await mesh.kill_everything()  # sooner than one asking after the other


async def _start(mesh: Mesh, documents: list[Json], policy: str, stack: AsyncExitStack) -> None:
    executable = envoy.binary()
    public = mesh.authority.issue(mesh.pod("outside/server").identity)
    control = Istiod(mesh.world, Objects(documents), public, Routes())
    engine = envoyfilters.Patches.of(documents)

    async def program(pod: Pod) -> None:
        started = programs.running(mesh.world, pod, mesh.network[pod.id], mesh.directory)
        mesh.programs[pod.id] = await stack.enter_async_context(started)

    async def proxy(pod: Pod) -> None:
        assert pod.proxy != "none"  # noqa: S101 - for the type checker
        who = envoyfilters.Proxy(pod.proxy, pod.namespace, pod.labels)
        told = engine.applied(who, control.config(pod, mesh.certificate(pod.id)))
        config = control.routes.written_into(told) | {"node": node(pod, who.istio_version)}
        mesh.configs[pod.id] = config
        argv = mesh.network[pod.id].argv(PROXY_UID)
        started = proxies.running(pod.id, config, mesh.directory, executable, argv)
        mesh.proxies[pod.id] = await stack.enter_async_context(started)

    for pod in mesh.world.pods.values():
        if pod.proxy == "sidecar":
            mesh.network[pod.id].run(["iptables-restore"], rules.capture())
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_authz(mesh, policy, stack))
            for pod in mesh.world.pods.values():
                group.create_task(program(pod))
                if pod.proxy != "none":
                    group.create_task(proxy(pod))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    for pod in mesh.world.pods.values():
        if pod.role == "revision":
            await mesh.scale(pod.id, up=True)


async def _authz(mesh: Mesh, policy: str, stack: AsyncExitStack) -> None:
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
    )
    mesh.authz = AuthzServer(site, mesh.directory, stack)
    await mesh.authz.command("keys", "init", "--generate-kek")
    await mesh.authz.start()


def node(pod: Pod, istio_version: str) -> Json:
    """What Istio's agent tells Envoy about its pod: `bootstrap.node` in a config_dump."""
    kind = "router" if pod.proxy == "gateway" else "sidecar"
    place = f"{pod.name}.{pod.namespace}~{pod.namespace}.svc.{DOMAIN}"
    return {
        "id": f"{kind}~{pod.address}~{place}",
        "cluster": f"{pod.name}.{pod.namespace}",
        "metadata": {
            "NAME": pod.name,
            "NAMESPACE": pod.namespace,
            "SERVICE_ACCOUNT": pod.service_account,
            "ISTIO_VERSION": istio_version,
            "INTERCEPTION_MODE": "REDIRECT",
            "LABELS": dict(pod.labels),
            "ANNOTATIONS": {},
        },
    }
