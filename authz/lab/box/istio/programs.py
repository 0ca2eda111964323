"""What runs in the pods beside the proxies: apps in this process, Knative's stand-ins in theirs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from authz.lab.box.istio import agent
from authz.lab.box.istio.client import Seen
from authz.lab.box.istio.network import NetworkNamespace
from authz.lab.box.istio.rules import APP_UID
from authz.lab.box.knative.app import App
from authz.lab.box.knative.autoscaler import Autoscaler
from authz.lab.box.knative.messages import Request
from authz.lab.box.knative.net import call, serve
from authz.lab.harness.processes import Child, child
from authz.lab.world import cluster
from authz.lab.world.model import Pod, World

TCP_PORT: Final = 7000
UNLISTED_TCP_PORT: Final = 7001
"""Where the `plain` pods greet before the client has said a word; the second is in no Service."""

GREETING: Final = b"220 welcome\r\n"
_EVENTING: Final = {
    "broker-ingress": ["--ingress-port", "8080"],
    "broker-filter": ["--filter-port", "8080"],
    "imc-dispatcher": ["--channel-port", "8080"],
    "pingsource": [],
}
_SINKS: Final = {
    "job-sink": ["--job-sink-port", "8080"],
    "request-reply": ["--request-reply-port", "8080"],
}
_ANY: Final = "0.0.0.0"  # noqa: S104 - within a pod's own namespace


@dataclass
class Inside:
    """An app in this process, on sockets in its pod."""

    app: App
    stack: AsyncExitStack
    connections: int = 0
    """How many the greeter has had."""

    async def seen(self) -> list[Seen]:
        """What the app saw."""
        return [Seen(it) for it in self.app.seen]

    async def forget(self) -> None:
        """Let the app forget it."""
        self.app.seen.clear()

    async def kill(self) -> None:
        """End it at once."""
        await self.stack.aclose()


@dataclass
class Outside:
    """A program of its own, asked by its Unix socket."""

    process: Child
    control: Path

    async def seen(self) -> list[Seen]:
        """What the app saw."""
        return [Seen(it) for it in await self.ask("GET", "/seen")]

    async def forget(self) -> None:
        """Let the app forget it."""
        await self.ask("DELETE", "/seen")

    async def ask(self, method: str, path: str, content: object = None) -> Any:
        """Ask its control socket."""
        sent = b"" if content is None else json.dumps(content).encode()
        head, answer = await call(self.control, Request(method, path, "control"), sent)
        if head.status != 200:
            raise ValueError(f"{method} {path}: {head.status} {answer.decode()}")
        return json.loads(answer or b"null")

    async def kill(self) -> None:
        """End it at once."""
        await self.process.kill()


@asynccontextmanager
async def running(
    world: World, pod: Pod, namespace: NetworkNamespace, directory: Path
) -> AsyncIterator[Inside | Outside | None]:
    """Run what belongs into `pod` as long as the block lasts."""
    match pod.role:
        case "none" | "gateway" | "authz":
            yield None
        case "revision":
            options = ["--address", _ANY, "--app-address", _ANY, "--name", pod.id]
            async with (
                _process("pod", pod, namespace, directory, options) as program,
                agent.running(pod, namespace),
            ):
                yield program
        case "activator":
            autoscaler = world.service("autoscaler", "knative-serving")
            options = ["--address", _ANY, "--mesh"]
            options += ["--autoscaler", f"{autoscaler.address}:8080"]
            options += ["--autoscaler-host", f"{autoscaler.host}:8080"]
            async with _process("activator", pod, namespace, directory, options) as program:
                yield program
        case role if role in _EVENTING | _SINKS:
            # Any address but its own, which is not captured: its sidecar goes by port and Host.
            via = world.service(pod.name, pod.namespace).address
            options = ["--address", _ANY, "--via", f"{via}:80", *(_EVENTING | _SINKS)[role]]
            name = "sinks" if role in _SINKS else "eventing"
            async with _process(name, pod, namespace, directory, options) as program:
                yield program
        case _:
            async with _app(pod, namespace) as inside:
                yield inside


@asynccontextmanager
async def _process(
    name: str, pod: Pod, namespace: NetworkNamespace, directory: Path, options: Iterable[str]
) -> AsyncIterator[Outside]:
    stem = pod.id.replace("/", ".")
    control, log = directory / f"{stem}.control", directory / f"{stem}.log"
    control.unlink(missing_ok=True)
    argv = [
        *namespace.argv(APP_UID),
        *(sys.executable, "-m", f"authz.lab.box.knative.{name}"),
        *options,
        *("--control", str(control)),
    ]

    async def ready() -> bool:
        return "ready" in log.read_text()

    async with child(f"{name} {pod.id}", argv, log) as process:
        await process.until(ready)
        yield Outside(process, control)


@asynccontextmanager
async def _app(pod: Pod, namespace: NetworkNamespace) -> AsyncIterator[Inside]:
    async with AsyncExitStack() as stack:
        inside = Inside(App(pod.id), stack)
        handle = Autoscaler().handle if pod.role == "autoscaler" else inside.app.handle
        for port in pod.listens:
            await stack.enter_async_context(serve(handle, sock=_bound(namespace, port)))
        if pod.name == "plain":

            async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                inside.connections += 1
                writer.write(GREETING)
                try:
                    while part := await reader.read(1 << 16):
                        writer.write(part)
                        await writer.drain()
                except ConnectionError:
                    pass
                finally:
                    writer.close()

            for port in (TCP_PORT, UNLISTED_TCP_PORT):
                server = await asyncio.start_server(greet, sock=_bound(namespace, port))
                stack.callback(server.close)
        yield inside


def _bound(namespace: NetworkNamespace, port: int) -> Any:
    made = namespace.socket(APP_UID)
    made.bind((_ANY, port))
    return made


async def scale(world: World, activator: Outside, pod: Pod, *, up: bool) -> None:
    """Tell the activator of a revision's pods, as its endpoints would."""
    revision = f"{pod.name}-{cluster.REVISION}"
    private = world.service(f"{revision}-private", pod.namespace)
    content = {
        "pods": [f"{pod.address}:8012"] if up else [],
        "cluster_ip": f"{private.address}:80",
    }
    await activator.ask("PUT", f"/revisions/{pod.namespace}/{revision}", content)
