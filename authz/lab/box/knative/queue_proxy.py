"""The sidecar that Knative puts in front of the tenant's app.

Listeners, as knative/serving pkg/queue/sharedmain/servers.go and pkg/networking/constants.go name
them:

    8012, 8013    requests, for HTTP/1.1 and HTTP/2; both take both
    9090          /metrics for the autoscaler
    9091          /metrics for Prometheus
    8022          /wait-for-drain and /drain-complete

The chain in front of the app is `mainHandler` of pkg/queue/sharedmain/handlers.go. Not there:
concurrency limits, timeouts, the route tag, TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from authz.lab.box.knative.command import listening, main, parser
from authz.lab.box.knative.messages import Request, Stream, error, reply
from authz.lab.box.knative.net import address
from authz.lab.box.knative.reverse_proxy import forward

_HEALTH_CHECKS: Final = ("kube-probe/", "Knative-Activator-Probe", "Knative-Autoscaling-Probe")
"""knative/networking pkg/http/header/header.go; which of them count: sharedmain/handlers.go."""

_UNCOUNTED: Final = (*_HEALTH_CHECKS, "Knative-Queue-Proxy-Probe", "Knative-Ingress-Probe")
"""handlers.go: isProbeRequest."""

_NO_TERM_SECONDS: Final = 1.0
"""handlers.go: adminHandler ends a drain that no SIGTERM follows."""


class QueueProxy:
    """One pod's proxy."""

    def __init__(self, app: str, *, pod: str, quiet_seconds: float) -> None:
        self._app, self._pod, self._quiet = app, pod, quiet_seconds
        self._pending = 0
        self._requests = 0
        self._drain: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._terminating = asyncio.Event()

    async def handle(self, request: Request, stream: Stream) -> None:
        """Answer or forward, in the order of sharedmain/handlers.go `mainHandler`."""
        headers = request.headers
        agent, probe = headers.get("user-agent"), headers.get("k-network-probe")
        uncounted = bool(probe or headers.get("k-kubelet-probe")) or agent.startswith(_UNCOUNTED)
        self._pending += not uncounted
        try:
            if agent.startswith(_HEALTH_CHECKS):
                await self._health(stream, probe)
            elif probe == "probe":
                await self._network_probe(stream, headers.get("k-network-hash"))
            else:
                self._postpone()
                await self._forward(request, stream)
        finally:
            self._pending -= not uncounted

    async def _health(self, stream: Stream, probe: str) -> None:
        """knative/pkg network/handlers/drain.go; pkg/queue/health/handler.go."""
        if self._drain is not None:
            await error(stream, 503, "shutting down")
        elif probe != "queue":
            await error(stream, 400, f"unexpected probe header value: {probe}")
        elif not await self._app_listens():
            await reply(stream, 503)
        else:
            await reply(stream, 200, b"queue")

    async def _network_probe(self, stream: Stream, network_hash: str) -> None:
        """drain.go: serveKProbe."""
        if self._drain is not None:
            await error(stream, 503, "shutting down")
        elif not network_hash:
            text = 'a probe request must contain a non-empty "K-Network-Hash" header'
            await error(stream, 400, text)
        else:
            await reply(stream, 200, headers=[("k-network-hash", network_hash)])

    async def _forward(self, request: Request, stream: Stream) -> None:
        """pkg/queue/forwarded_shim.go, then pkg/queue/handler.go `ProxyHandler`."""
        headers = request.headers
        shim_forwarded(request)
        # header.go: IsKubeletProbe. Its user agent never gets here, its header does.
        if not headers.get("k-kubelet-probe"):
            self._requests += 1
            if original := headers.get("k-original-host"):  # header.go: RewriteHostOut
                request.host = original
                headers.drop("k-original-host")
        await forward(request, stream, self._app)

    async def _app_listens(self) -> bool:
        """The readiness probe that Knative sets by default: a TCP connection."""
        try:
            _, writer = await asyncio.open_connection(*address(self._app))
        except OSError:
            return False
        writer.close()
        return True

    async def drain(self) -> None:
        """Fail probes from now on; return when no request came for the quiet period (drain.go)."""
        if self._drain is None:
            self._drain = asyncio.get_running_loop().create_future()
            self._postpone()
        await asyncio.shield(self._drain)

    def _postpone(self) -> None:
        if self._drain is None or self._drain.done():
            return
        if self._timer:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._quiet, _resolve, self._drain)

    def _reset(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._drain:
            _resolve(self._drain)
        self._drain = self._timer = None

    async def terminate(self) -> None:
        """SIGTERM: drain, then wait for the requests under way (sharedmain/main.go)."""
        self._terminating.set()
        await self.drain()
        while self._pending > 0:  # noqa: ASYNC110 - Go looks once a second
            await asyncio.sleep(0.05)

    async def admin(self, request: Request, stream: Stream) -> None:
        """Port 8022 (sharedmain/handlers.go `adminHandler`)."""
        if request.target == "/wait-for-drain":
            asyncio.get_running_loop().call_later(_NO_TERM_SECONDS, self._unless_terminating)
            await self.drain()
            await reply(stream, 200)
        elif request.target == "/drain-complete" and self._pending:
            await error(stream, 503, f"pending requests: {self._pending}")
        elif request.target == "/drain-complete":
            await reply(stream, 200, b"drained")
        else:
            await error(stream, 404, "404 page not found")

    def _unless_terminating(self) -> None:
        if not self._terminating.is_set():
            self._reset()

    async def autoscaler_metrics(self, request: Request, stream: Stream) -> None:
        """Port 9090: a Stat (pkg/autoscaler/metrics/stat.proto), its name and two numbers."""
        if request.target != "/metrics":
            await error(stream, 404, "404 page not found")
            return
        name = self._pod.encode()
        stat = b"\x0a" + bytes([len(name)]) + name
        stat += b"\x11" + struct.pack("<d", self._pending)  # average_concurrent_requests
        stat += b"\x21" + struct.pack("<d", self._requests)  # request_count
        await reply(stream, 200, stat, [("content-type", "application/protobuf")])

    async def user_metrics(self, request: Request, stream: Stream) -> None:
        """Port 9091."""
        if request.target != "/metrics":
            await error(stream, 404, "404 page not found")
            return
        await reply(stream, 200, f"revision_request_count {self._requests}\n".encode())


def _resolve(drained: asyncio.Future[None]) -> None:
    if not drained.done():
        drained.set_result(None)


def shim_forwarded(request: Request) -> None:
    """Add `Forwarded` from what X-Forwarded-For, -Proto and -Host say, unless it is there."""
    headers = request.headers
    if headers.get("forwarded").strip():
        return
    nodes = [node.strip() for node in headers.get("x-forwarded-for").strip().split(",")]
    nodes = [f'"[{node}]"' if ":" in node else node for node in nodes]
    pairs = [("for", nodes[0])]
    pairs += [(name, headers.get(f"x-forwarded-{name}").strip()) for name in ("host", "proto")]
    first = ";".join(f"{name}={value}" for name, value in pairs if value)
    if forwarded := ", ".join([first, *(f"for={node}" for node in nodes[1:])]):
        headers.set("forwarded", forwarded)


@asynccontextmanager
async def run(options: argparse.Namespace) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serve as long as the block lasts."""
    proxy = QueueProxy(options.app, pod=options.pod, quiet_seconds=options.quiet_seconds)
    handlers = [
        (proxy.handle, options.http1_port),
        (proxy.handle, options.http2_port),
        (proxy.autoscaler_metrics, options.autoscaler_port),
        (proxy.user_metrics, options.metrics_port),
        (proxy.admin, options.admin_port),
    ]
    async with listening(options.address, handlers):
        yield proxy.terminate


def add_options(options: argparse.ArgumentParser) -> None:
    """Its part of a command line."""
    options.add_argument("--address", default="127.0.0.1", help="to listen on (127.0.0.1)")
    options.add_argument("--pod", default="pod", help="the pod's name, at most 127 octets (pod)")
    options.add_argument("--quiet-seconds", type=float, default=15, help="of a drain (15)")
    for name, port in (
        ("http1", 8012),
        ("http2", 8013),
        ("autoscaler", 9090),
        ("metrics", 9091),
        ("admin", 8022),
    ):
        options.add_argument(f"--{name}-port", type=int, default=port, help=f"({port})")


if __name__ == "__main__":
    arguments = parser("queue_proxy", __doc__)
    add_options(arguments)
    arguments.add_argument("--app", default="127.0.0.1:8080", help="the app (127.0.0.1:8080)")
    main(run, arguments.parse_args())
