"""A mesh in a box: everything started, callable, breakable, and gone at the end."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from authz.demo import envoy, patches
from authz.demo.certs import Authority, Certificate
from authz.demo.istio import cluster, programs, proxies, rules
from authz.demo.istio.client import Answer, Client, Connection, NoAnswer, Seen, Tls
from authz.demo.istio.istiod import Istiod
from authz.demo.istio.network import Network
from authz.demo.istio.objects import Objects
from authz.demo.istio.policy import POLICY
from authz.demo.istio.proxies import Proxy
from authz.demo.istio.routes import Routes
from authz.demo.istio.rules import APP_UID, PROXY_UID
from authz.demo.istio.world import Json, Pod, World
from authz.demo.service import AuthzServer, Site

Patched = Callable[[tuple[Json, ...]], Iterable[Json]]
"""Changes the shipped documents, such as to take one rule away."""

_AUTHZ: Final = "authz-system/authz"
_GATEWAY: Final = "istio-system/gateway"
_HTTP_PORT: Final = 9001
_PUBLIC: Final = {80: 8080, 443: 8443}
_SECONDS: Final = 20.0


class Mesh:
    """A running box; `running` makes it."""

    def __init__(self, world: World, network: Network, directory: Path) -> None:
        self.world = world
        self.network = network
        self.directory = directory
        self.authority = Authority(directory / "certs")
        self.authz: AuthzServer
        self.proxies: dict[str, Proxy] = {}
        self.programs: dict[str, programs.Inside | programs.Outside | None] = {}
        self.configs: dict[str, Json] = {}
        """What each proxy was told, by pod."""
        self._certificates: dict[str, Certificate] = {}

    # ---- who ----

    def pod(self, pod: str) -> Pod:
        """A pod by its id, `namespace/name`."""
        return self.world.pods[pod]

    def certificate(self, pod: str) -> Certificate:
        """The certificate of a pod, which whoever controls the pod can use as well."""
        identity = self.pod(pod).identity
        if str(identity) not in self._certificates:
            self._certificates[str(identity)] = self.authority.issue(identity)
        return self._certificates[str(identity)]

    def tls(self, pod: str, *, sni: str = "", alpn: Sequence[str] = ()) -> Tls:
        """TLS with the certificate of a pod."""
        return Tls(self.certificate(pod), sni, tuple(alpn))

    # ---- calling ----

    async def call(
        self,
        pod: str,
        url: str,
        *,
        via: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        method: str = "GET",
        body: bytes = b"",
        http2: bool = False,
        tls: Tls | None = None,
        uid: int = APP_UID,
        through_sidecar: bool = True,
    ) -> Answer:
        """Call as a process in `pod`.

        Args:
            url: names are resolved as the cluster's DNS does for `pod`; a header `host` replaces
                the Host that it says.
            via: `address:port` to connect to instead, whatever the URL says.
            tls: how to speak TLS; by default without a certificate, and only for https.
            uid: the user; 1337 is the sidecar's, which iptables lets pass.
            through_sidecar: False is short for 1337.

        Raises:
            NoAnswer: refused, broken or silent.
        """
        parts = urlsplit(url)
        address = self._address(pod, parts.hostname or "", _port(parts), via)
        given = list(headers)
        named = [value for key, value in given if key.lower() == "host"]
        if parts.scheme == "https" and tls is None:
            tls = Tls(sni=parts.hostname or "")
        return await self._client(pod, uid, through_sidecar).call(
            address,
            named[0] if named else parts.netloc,
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            method=method,
            headers=[pair for pair in given if pair[0].lower() != "host"],
            body=body,
            http2=http2,
            tls=tls,
        )

    @asynccontextmanager
    async def connected(
        self,
        pod: str,
        to: str,
        *,
        tls: Tls | None = None,
        uid: int = APP_UID,
        through_sidecar: bool = True,
    ) -> AsyncIterator[Connection]:
        """A raw connection from `pod` to `name:port` or `address:port`.

        Raises:
            NoAnswer: nobody is there, or the handshake failed.
        """
        host, _, port = to.rpartition(":")
        address = self._address(pod, host, int(port), None)
        client = self._client(pod, uid, through_sidecar)
        async with client.connected(address, tls) as connection:
            yield connection

    def address(self, name: str, namespace: str = "") -> str:
        """The address of a pod (`namespace/name`) or of a Service's name."""
        if name in self.world.pods:
            return self.world.pods[name].address
        return self.world.resolve(name, namespace)

    def _address(self, pod: str, host: str, port: int, via: str | None) -> tuple[str, int]:
        if via is not None:
            host, _, number = via.rpartition(":")
            port = int(number)
        if host.replace(".", "").isdecimal():
            return host, port
        if host.endswith(f".{cluster.PUBLIC_DOMAIN}"):  # the load balancer in front of the gateway
            return self.pod(_GATEWAY).address, _PUBLIC.get(port, port)
        if host == "outside.test":
            return self.pod("outside/server").address, port
        return self.world.resolve(host, self.pod(pod).namespace), port

    def _client(self, pod: str, uid: int, through_sidecar: bool) -> Client:
        return Client(self.network[pod], uid if through_sidecar else PROXY_UID)

    # ---- looking ----

    async def seen(self, pod: str) -> list[Seen]:
        """Which requests the app of a pod saw since `forget`."""
        return await self._program(pod).seen()

    async def forget(self, *pods: str) -> None:
        """Let the apps of pods, or of all, forget what they saw."""
        for pod in pods or [it for it in self.world.pods if self._is_app(it)]:
            await self._program(pod).forget()

    async def checks(self, pod: str) -> Counter[tuple[str, str]]:
        """How often a pod's proxy has asked: by question and outcome (ok, denied, error)."""
        return await self.proxies[pod].checks()

    async def config_dump(self, pod: str) -> str:
        """What a pod's Envoy has in force."""
        return await self.proxies[pod].admin("/config_dump")

    def log(self, pod: str) -> str:
        """What the server (`authz-system/authz`), or a pod's program, has written."""
        stem = "authz" if pod == _AUTHZ else pod.replace("/", ".")
        return (self.directory / f"{stem}.log").read_text()

    async def revisions(self) -> Any:
        """What the activator knows: wake-ups, requests that wait, destinations."""
        return await self._activator().ask("GET", "/revisions")

    # ---- acting ----

    async def scale(self, pod: str, *, up: bool) -> None:
        """Let a revision have its pod, or none, as far as the activator can tell."""
        await programs.scale(self.world, self._activator(), self.pod(pod), up=up)

    async def settled(self) -> None:
        """Wait until the activator has found the way to every revision that has a pod."""

        async def found() -> bool:
            known = (await self.revisions()).values()
            return all(it["destination"] for it in known if it["ready"])

        await _until(found, "the activator's probes")

    async def set_policy(self, text: str) -> None:
        """Give the server another policy, and wait until it has taken it.

        Raises:
            TimeoutError: it did not, for the policy has a problem; `log` says which.
        """
        before = await self._metrics("policy")
        self.authz.policy_file.write_text(text)

        async def taken() -> bool:
            return await self._metrics("policy") != before

        await _until(taken, "the policy")

    async def kill(self, pod: str) -> None:
        """End the program of a pod, or the server, at once."""
        if pod == _AUTHZ:
            await self.authz.crash()
        else:
            await self._program(pod).kill()

    async def kill_proxy(self, pod: str) -> None:
        """End a pod's Envoy at once."""
        await self.proxies[pod].child.kill()

    async def kill_everything(self) -> None:
        """End all processes at once."""
        outside = [it for it in self.programs.values() if isinstance(it, programs.Outside)]
        children = [it.process for it in outside] + [it.child for it in self.proxies.values()]
        await asyncio.gather(*(child.kill() for child in children))

    async def keys(self, *arguments: str) -> str:
        """Run `authz keys …`, as an operator beside the server."""
        return await self.authz.command("keys", *arguments)

    async def metrics(self) -> str:
        """The server's own metrics."""
        answer = await self._client(_AUTHZ, 0, True).call(("127.0.0.1", _HTTP_PORT), "a", "/metrics")
        return answer.body.decode()

    async def _metrics(self, word: str) -> list[str]:
        return [line for line in (await self.metrics()).splitlines() if word in line]

    def _program(self, pod: str) -> programs.Inside | programs.Outside:
        program = self.programs[pod]
        if program is None:
            raise KeyError(f"nothing of its own runs in {pod}")
        return program

    def _activator(self) -> programs.Outside:
        program = self.programs["knative-serving/activator"]
        assert isinstance(program, programs.Outside)  # noqa: S101 - for the type checker
        return program

    def _is_app(self, pod: str) -> bool:
        program = self.programs.get(pod)
        return program is not None and self.pod(pod).role in {"app", "revision"}


@asynccontextmanager
async def running(
    world: World | None = None,
    *,
    overlay: str = "",
    patched: Patched = tuple,
    policy: str = POLICY,
    extra: Iterable[Json] = (),
) -> AsyncIterator[Mesh]:
    """Run a world as long as the block lasts.

    Args:
        overlay: which of the shipped overlays is installed.
        patched: changes the shipped documents, such as to take a rule away.
        policy: the server's.
        extra: more Istio objects, as an operator might have them.

    Raises:
        CouldNotStart: something did not come up.
    """
    world = world or cluster.standard()
    documents = [*world.documents, *patched(patches.shipped(overlay)), *extra]
    async with AsyncExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-"))
        addresses = {pod.id: pod.address for pod in world.pods.values()}
        network = Network(addresses, rules.cluster_ips(world))
        stack.callback(network.close)
        mesh = Mesh(world, network, Path(name))
        try:
            await _start(mesh, documents, policy, stack)
            yield mesh
        finally:
            await mesh.kill_everything()  # sooner than one asking after the other


async def _start(
    mesh: Mesh, documents: list[Json], policy: str, stack: AsyncExitStack
) -> None:
    executable = envoy.binary()
    public = mesh.authority.issue(mesh.pod("outside/server").identity)
    control = Istiod(mesh.world, Objects(documents), public, Routes())
    engine = patches.Patches.of(documents)

    async def program(pod: Pod) -> None:
        started = programs.running(mesh.world, pod, mesh.network[pod.id], mesh.directory)
        mesh.programs[pod.id] = await stack.enter_async_context(started)

    async def proxy(pod: Pod) -> None:
        kind = "gateway" if pod.proxy == "gateway" else "sidecar"
        who = patches.Proxy(kind, pod.namespace, pod.labels)
        told = engine.applied(who, control.config(pod, mesh.certificate(pod.id)))
        config = control.routes.written_into(told)
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
    pod = mesh.pod(_AUTHZ)

    async def ready() -> bool:
        client = Client(mesh.network[pod.id], 0)
        try:
            answer = await client.call(("127.0.0.1", _HTTP_PORT), "authz", "/readyz")
        except NoAnswer:
            return False
        return answer.status == 200

    certificate = mesh.authority.issue(
        pod.identity, dns_name=mesh.world.service("authz", pod.namespace).host
    )
    site = Site(
        f"{pod.address}:9000",
        f"127.0.0.1:{_HTTP_PORT}",
        certificate,
        policy,
        ready,
        mesh.network[pod.id].argv(0),
    )
    mesh.authz = AuthzServer(site, mesh.directory, stack)
    await mesh.authz.command("keys", "init", "--generate-kek")
    await mesh.authz.start()


async def _until(condition: Callable[[], Any], what: str) -> None:
    try:
        async with asyncio.timeout(_SECONDS):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise TimeoutError(f"waited in vain for {what}") from None


def _port(parts: Any) -> int:
    return int(parts.port or (443 if parts.scheme == "https" else 80))
