"""The hop that all tenants' requests may pass, and that holds them while there is no pod.

8012 and 8013 take HTTP/1.1 and HTTP/2. The chain is knative/serving cmd/activator/main.go: kubelet
probes, network probes, the revision, the wait, the proxy. Instead of an API server there is a Unix
socket:

    PUT /revisions/NS/NAME     {"pods": ["IP:PORT", …], "cluster_ip": "IP:PORT"}: no pods is zero
    GET /revisions             {"NS/NAME": {"wakeups", "waiting", "ready", "pods", "probes", …}}

`wakeups` counts the requests that found the revision without a ready pod: what makes the autoscaler
start one (pkg/activator/handler/concurrency_reporter.go). Not there: capacity, timeouts of a
request once it is forwarded, TLS, pod addressability through `K-Passthrough-Lb`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from authz.lab.box.knative import websocket
from authz.lab.box.knative.command import listening, main, parser, socket_option
from authz.lab.box.knative.messages import End, Request, Response, Stream, error, reply
from authz.lab.box.knative.net import address, dial
from authz.lab.box.knative.reverse_proxy import forward
from authz.lab.box.knative.revision import Revision

_RECONNECT_SECONDS: Final = 0.1


class Activator:
    """All revisions, and the chain in front of them."""

    def __init__(self, *, domain: str, mesh: bool, wait_seconds: float) -> None:
        self._domain, self._mesh, self._wait_seconds = domain, mesh, wait_seconds
        self.revisions: dict[str, Revision] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self.autoscaler_connected = True

    async def handle(self, request: Request, stream: Stream) -> None:
        """Answer or forward, in the order of cmd/activator/main.go."""
        headers = request.headers
        probe = headers.get("k-network-probe")
        kubelet = headers.get("user-agent").startswith("kube-probe/")
        if kubelet or headers.get("k-kubelet-probe"):  # healthz_handler.go
            await self._health(stream)
        elif probe == "probe":  # knative/networking pkg/http/probe/handler.go
            await _network_probe(stream, headers.get("k-network-hash"))
        elif probe == "activator":  # probe_handler.go
            await reply(stream, 200, b"activator")
        elif probe:
            await error(stream, 400, f'unexpected probe header value: "{probe}"')
        else:
            headers.drop("k-network-hash")
            await self._activate(request, stream)

    async def _activate(self, request: Request, stream: Stream) -> None:
        key = self.revision_of(request)
        revision = self.revisions.get(key)
        if revision is None:
            name = key.partition("/")[2]
            text = f'revision.serving.knative.dev "{name}" not found'
            await error(stream, 404, f"Error getting active endpoint: {text}")
            return
        try:
            destination = await revision.wait(self._wait_seconds)
        except TimeoutError:
            await error(stream, 503, "context deadline exceeded")
            return
        rewrite_host_in(request)
        request.headers.set("k-proxy-request", "activator")  # handler.go: proxyRequest
        await forward(request, stream, destination)

    def revision_of(self, request: Request) -> str:
        """context_handler.go: the two headers if both are there, else the Host."""
        namespace = request.headers.get("knative-serving-namespace")
        name = request.headers.get("knative-serving-revision")
        if not name or not namespace:
            parts = request.host.split(".", 3)
            if len(parts) == 4 and parts[2] == "svc" and parts[3] == self._domain:
                name, namespace = parts[:2]
        return f"{namespace}/{name}"

    async def _health(self, stream: Stream) -> None:
        if self.autoscaler_connected:
            await reply(stream, 200)
        else:  # knative/pkg websocket/connection.go: ErrConnectionNotEstablished
            await error(stream, 500, "connection has not yet been established")

    async def put(self, rest: str, content: bytes) -> bytes:
        """Set the endpoints of the revision `NS/NAME`."""
        wanted = json.loads(content)
        pods, cluster_ip = list(wanted["pods"]), str(wanted.get("cluster_ip", ""))
        for destination in [*pods, *filter(None, [cluster_ip])]:
            address(destination)
        if rest.count("/") != 1:
            raise ValueError(f"{rest!r} is not NS/NAME")
        if rest not in self.revisions:
            self.revisions[rest] = Revision(self._mesh)
            self._watchers.add(asyncio.create_task(self.revisions[rest].watch()))
        await self.revisions[rest].scale(pods, cluster_ip)
        return b"{}"

    async def get(self, _rest: str, _content: bytes) -> bytes:
        """All revisions."""
        return json.dumps({key: one.status() for key, one in self.revisions.items()}).encode()

    async def close(self) -> None:
        """End the watching."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    async def report(self, autoscaler: str, authority: str) -> None:
        """Keep a WebSocket to the autoscaler (main.go: NewDurableSendingConnection)."""
        while True:
            self.autoscaler_connected = False
            with contextlib.suppress(OSError):
                async with dial(autoscaler) as stream:
                    await stream.send(websocket.ask("/", authority, "Go-http-client/1.1"))
                    await stream.send(End())
                    head = await stream.receive()
                    self.autoscaler_connected = isinstance(head, Response) and head.status == 101
                    while isinstance(await stream.receive(), bytes):
                        pass
            self.autoscaler_connected = False
            await asyncio.sleep(_RECONNECT_SECONDS)


async def _network_probe(stream: Stream, network_hash: str) -> None:
    if not network_hash:
        text = 'a probe request must contain a non-empty "K-Network-Hash" header'
        await error(stream, 400, text)
    else:
        await reply(stream, 200, headers=[("k-network-hash", network_hash)])


def rewrite_host_in(request: Request) -> None:
    """header.go: RewriteHostIn. What the client put into K-Original-Host stays."""
    if not request.headers.get("k-original-host"):
        request.headers.set("k-original-host", request.host)
    request.host = ""


@asynccontextmanager
async def run(options: argparse.Namespace) -> AsyncIterator[None]:
    """Serve as long as the block lasts."""
    activator = Activator(
        domain=options.cluster_domain, mesh=options.mesh, wait_seconds=options.wait_seconds
    )
    handlers = [(activator.handle, port) for port in (options.http1_port, options.http2_port)]
    routes = {"PUT /revisions": activator.put, "GET /revisions": activator.get}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(activator.close)
        await stack.enter_async_context(
            listening(options.address, handlers, options.control, routes)
        )
        if options.autoscaler:
            authority = options.autoscaler_host or options.autoscaler
            reporting = asyncio.create_task(activator.report(options.autoscaler, authority))
            stack.callback(reporting.cancel)
        yield


def add_options(options: argparse.ArgumentParser) -> None:
    """Its command line."""
    options.add_argument("--address", default="127.0.0.1", help="to listen on (127.0.0.1)")
    options.add_argument("--http1-port", type=int, default=8012, help="(8012)")
    options.add_argument("--http2-port", type=int, default=8013, help="(8013)")
    options.add_argument("--cluster-domain", default="cluster.local", help="(cluster.local)")
    options.add_argument("--wait-seconds", type=float, default=300, help="for a pod (300)")
    options.add_argument(
        "--mesh", action="store_true", help="mesh-compatibility-mode: enabled, not auto"
    )
    options.add_argument(
        "--autoscaler", metavar="HOST:PORT", help="to connect to; none if not given"
    )
    options.add_argument("--autoscaler-host", metavar="HOST", help="the Host it asks for")
    socket_option(options, "scales revisions, tells wake-ups")


if __name__ == "__main__":
    arguments = parser("activator", __doc__)
    add_options(arguments)
    main(run, arguments.parse_args())
