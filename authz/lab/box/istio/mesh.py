"""A running mesh: who calls whom from it, what it saw, and what can be done to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from authz.lab.box.istio import programs, proxies
from authz.lab.box.istio.client import Answer, Client, Connection, Seen, Tls
from authz.lab.box.istio.configurations import Configurations
from authz.lab.box.istio.network import Network
from authz.lab.box.istio.proxies import Proxy
from authz.lab.box.istio.rules import APP_UID, PROXY_UID
from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority, Certificate
from authz.lab.harness.service import AuthzServer
from authz.lab.world import cluster
from authz.lab.world.model import Json, Pod, World

AUTHZ: Final = "authz-system/authz"
GATEWAY: Final = "istio-system/gateway"
AUTHZ_HTTP_PORT: Final = 9001
_PUBLIC: Final = {80: 8080, 443: 8443}
_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02


class Mesh:
    """A running mesh; `box.running` makes it."""

    def __init__(
        self,
        world: World,
        pods: Iterable[Pod],
        network: Network,
        directory: Path,
        stack: AsyncExitStack,
    ) -> None:
        self.world = world
        self.pods = {it.id: it for it in pods}
        """Those that run."""
        self.network = network
        self.directory = directory
        self._stack = stack
        self.authority = Authority(directory / "certs")
        self.authz: AuthzServer
        self.configurations: Configurations
        self.shipped: tuple[Json, ...]
        """The documents of ours that are installed."""
        self.proxies: dict[str, Proxy] = {}
        self.programs: dict[str, programs.Inside | programs.Outside | None] = {}
        self.configs: dict[str, Json] = {}
        """What each proxy was told, by pod."""
        self._certificates: dict[str, Certificate] = {}

    # ---- who ----

    def pod(self, pod: str) -> Pod:
        """A pod by its id, `namespace/name`."""
        return self.pods[pod] if pod in self.pods else self.world.pods[pod]

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
        """Call as a process in `pod`, with the given method, headers and body.

        The name in the URL is resolved as the cluster's DNS does for `pod`; a header `host`
        replaces the Host that it says. `via` is an `address:port` to connect to instead. `tls` says
        how to speak TLS: by default without a certificate, and only for https. `uid` is the user:
        1337 is the sidecar's, which iptables lets pass, and `through_sidecar=False` short for it.

        Raises:
            NoAnswer: refused, broken or silent.
            KeyError: nobody has that name.
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
        if "/" in name:
            return self.pod(name).address
        return self.world.resolve(name, namespace)

    def _address(self, pod: str, host: str, port: int, via: str | None) -> tuple[str, int]:
        if via is not None:
            host, _, number = via.rpartition(":")
            port = int(number)
        if host.replace(".", "").isdecimal():
            return host, port
        if host.endswith(f".{cluster.PUBLIC_DOMAIN}"):  # the load balancer in front of the gateway
            return self.pod(GATEWAY).address, _PUBLIC.get(port, port)
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
        for pod in pods or filter(self._is_app, self.pods):
            await self._program(pod).forget()

    @property
    def reuse(self) -> bool:
        """Whether proxies give answers again."""
        return any(it["metadata"]["name"] == "tenant-authz-reuse" for it in self.shipped)

    async def checks(self, pod: str, *, kept: bool = True) -> Counter[tuple[str, str]]:
        """How often a pod's proxy has asked, or gave an answer again; see `Proxy.checks`."""
        return await self.proxies[pod].checks(kept=kept and self.reuse)

    async def config_dump(self, pod: str) -> str:
        """What a pod's Envoy has in force."""
        return await self.proxies[pod].admin("/config_dump")

    def log(self, pod: str) -> str:
        """What the server (`authz-system/authz`), or a pod's program, has written."""
        stem = "authz" if pod == AUTHZ else pod.replace("/", ".")
        return (self.directory / f"{stem}.log").read_text()

    async def revisions(self) -> Any:
        """What the activator knows: wake-ups, requests that wait, destinations."""
        return await self.control("knative-serving/activator", "GET", "/revisions")

    async def control(self, pod: str, method: str, path: str, content: object = None) -> Any:
        """Ask the control socket of one of Knative's stand-ins; JSON both ways."""
        program = self._program(pod)
        if not isinstance(program, programs.Outside):
            raise TypeError(f"{pod} has no control socket")
        return await program.ask(method, path, content)

    # ---- acting ----

    async def scale(self, pod: str, *, up: bool) -> None:
        """Let a revision have its pod, or none, as far as the activator can tell."""
        await programs.scale(self.world, self._activator(), self.pod(pod), up=up)

    async def settled(self) -> None:
        """Wait until the activator has found the way to every revision that has a pod."""

        async def found() -> bool:
            known = (await self.revisions()).values()
            return all(it["destination"] for it in known if it["pods"])

        await _until(found, "the activator's probes")

    async def set_policy(self, text: str) -> None:
        """Give the server another policy, and wait until it is in force.

        Raises:
            ValueError: the policy has a problem, and the old one stays.
        """
        file = self.authz.policy_file
        if text == file.read_text():
            return
        already = len(self.log(AUTHZ))
        new = file.with_suffix(".new")
        new.write_text(text)
        new.replace(file)
        if "policy loaded" not in await self._logged(
            already, "policy loaded", "new version is bad"
        ):
            raise ValueError(self.log(AUTHZ)[already:])

    async def kill(self, pod: str) -> None:
        """End the program of a pod, or the server, at once."""
        if pod == AUTHZ:
            await self.authz.crash()
        else:
            await self._program(pod).kill()

    async def start_authz(self) -> None:
        """Start the server again after it was killed."""
        await self.authz.start()

    async def install(self, documents: Sequence[Json], pods: Iterable[str]) -> None:
        """Have these documents in the cluster, all there are, and start some pods' proxies again.

        Raises:
            AuthzError: there is no configuration for a cluster with these.
        """
        await self.configurations.install(documents)
        for pod in pods:
            await self.start_proxy_again(pod)

    async def start_proxy(self, pod: str, config: Json | None = None) -> None:
        """Start a pod's Envoy, with `config` or what it is told."""
        self.configs[pod] = config or await self.configurations.of(self.pod(pod))
        argv = self.network[pod].argv(PROXY_UID)
        started = proxies.running(pod, self.configs[pod], self.directory, envoy.binary(), argv)
        self.proxies[pod] = await self._stack.enter_async_context(started)

    async def start_proxy_again(self, pod: str, config: Json | None = None) -> None:
        """End a pod's Envoy at once, and start it as `start_proxy` does."""
        await self.kill_proxy(pod)
        await self.start_proxy(pod, config)

    async def kill_proxy(self, pod: str) -> None:
        """End a pod's Envoy at once."""
        await self.proxies[pod].child.kill()

    async def kill_everything(self) -> None:
        """End all processes at once."""
        outside = [it for it in self.programs.values() if isinstance(it, programs.Outside)]
        children = [it.process for it in outside] + [proxy.child for proxy in self.proxies.values()]
        await asyncio.gather(*(child.kill() for child in children))

    async def keys(self, *arguments: str) -> str:
        """Run `authz keys …` as an operator beside the server, and wait until that is in force."""
        already = len(self.log(AUTHZ))
        said = await self.authz.command("keys", *arguments)
        if arguments[0] in {"rotate", "revoke"}:
            await self._logged(already, "keyring loaded")
        return said

    async def _logged(self, already: int, *words: str) -> str:
        """What the server has logged after `already` characters, once it has one of `words`."""

        async def found() -> bool:
            return any(word in self.log(AUTHZ)[already:] for word in words)

        await _until(found, f"the server to say: {' or '.join(words)}")
        return self.log(AUTHZ)[already:]

    async def metrics(self) -> str:
        """The server's own metrics."""
        answer = await self._client(AUTHZ, 0, True).call(
            ("127.0.0.1", AUTHZ_HTTP_PORT), "a", "/metrics"
        )
        return answer.body.decode()

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


Source: TypeAlias = Callable[["Mesh"], AbstractAsyncContextManager[Configurations]]
"""Makes them for a mesh whose network is there and in which nothing runs yet."""


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(_SECONDS):
            while True:
                if await condition():
                    return
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"waited in vain for {what}") from None


def _port(parts: SplitResult) -> int:
    return int(parts.port or (443 if parts.scheme == "https" else 80))
