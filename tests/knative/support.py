"""The stand-ins wired together on the loopback interface."""

import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from authz.lab.box.knative.activator import Activator
from authz.lab.box.knative.app import App
from authz.lab.box.knative.messages import Headers, Request, Response
from authz.lab.box.knative.net import Handler, call
from authz.lab.box.knative.queue_proxy import QueueProxy

REVISION = "shop/hello-00001"
HOST = "hello-00001.shop.svc.cluster.local"
ROUTED = [("knative-serving-namespace", "shop"), ("knative-serving-revision", "hello-00001")]


def get(
    target: str = "/",
    headers: Iterable[tuple[str, str]] = (),
    *,
    host: str = HOST,
    version: int = 1,
) -> Request:
    """A GET."""
    return Request("GET", target, host, Headers(headers), version=version)


@dataclass
class Stand:
    """Who listens where."""

    app: App
    proxy: QueueProxy
    activator: Activator
    app_at: str
    proxy_at: str
    activator_at: str

    @classmethod
    async def start(
        cls, listen: Callable[[Handler], Awaitable[str]], stack: AsyncExitStack
    ) -> "Stand":
        app = App("hello")
        app_at = await listen(app.handle)
        proxy = QueueProxy(app_at, pod="hello-1", quiet_seconds=0.01)
        activator = Activator(domain="cluster.local", mesh=False, wait_seconds=10)
        stack.push_async_callback(activator.close)
        await activator.put(REVISION, b'{"pods": []}')
        places = app_at, await listen(proxy.handle), await listen(activator.handle)
        return cls(app, proxy, activator, *places)

    async def scale(self, *pods: str, cluster_ip: str = "") -> None:
        """Tell the activator what the revision's endpoints are."""
        wanted = {"pods": pods, "cluster_ip": cluster_ip}
        await self.activator.put(REVISION, json.dumps(wanted).encode())

    async def up(self) -> None:
        """Scale to one pod."""
        await self.scale(self.proxy_at)

    def status(self) -> dict[str, Any]:
        """What the activator knows of the revision."""
        return self.activator.revisions[REVISION].status()

    async def ask(self, at: str, request: Request, content: bytes = b"") -> tuple[Response, Any]:
        """Call, and read what the app tells if it is the app that answers."""
        response, answer = await call(at, request, content)
        told = response.headers.get("content-type") == "application/json"
        return response, json.loads(answer) if told else answer


def headers_of(seen: dict[str, Any]) -> Headers:
    """The headers that the app saw."""
    return Headers((name, value) for name, value in seen["headers"])


def told(look: Callable[[], object]) -> Callable[[], Awaitable[bool]]:
    """For `eventually`."""

    async def ask() -> bool:
        return bool(look())

    return ask


EVENT = [
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-type", "order"),
    ("ce-source", "shop"),
    ("content-type", "text/plain"),
]
