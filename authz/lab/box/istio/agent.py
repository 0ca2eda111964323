"""What of Istio's agent a pod's kubelet talks to: port 15020, which is not captured.

The injected sidecar takes the place of the container's HTTP probes and, from Istio 1.25 on, of its
lifecycle handlers: the kubelet asks the agent, and the agent asks the container, from 127.0.0.6,
which capture leaves alone (pilot/cmd/pilot-agent/status/server.go; tools/istio-iptables). Here it
knows the two paths that matter to Knative's pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from authz.lab.box.istio.network import NetworkNamespace
from authz.lab.box.istio.rules import PROXY_UID
from authz.lab.box.knative.messages import Headers, Request, Stream, reply
from authz.lab.box.knative.net import ask, exchange, serve
from authz.lab.world.model import Pod

PORT: Final = 15020
READINESS: Final = "/app-health/queue-proxy/readyz"
PRE_STOP: Final = "/app-lifecycle/user-container/prestopz"

_SOURCE: Final = "127.0.0.6"
# What Knative's probe and hook ask: serving pkg/reconciler/revision/resources/{queue,deploy}.go.
_TARGETS: Final = {
    READINESS: (8012, "/", [("k-network-probe", "queue")]),
    PRE_STOP: (8022, "/wait-for-drain", []),
}


@asynccontextmanager
async def running(pod: Pod, namespace: NetworkNamespace) -> AsyncIterator[None]:
    """Run the agent of a Knative pod as long as the block lasts."""

    async def handle(request: Request, stream: Stream) -> None:
        if request.target not in _TARGETS:
            await reply(stream, 404)
            return
        port, target, headers = _TARGETS[request.target]
        agent = request.headers.get("user-agent")
        inner = Request("GET", target, f"localhost:{port}", Headers([("user-agent", agent)]))
        inner.headers += headers
        sock = namespace.socket(PROXY_UID)
        sock.bind((_SOURCE, 0))
        await asyncio.get_running_loop().sock_connect(sock, (pod.address, port))
        reader, writer = await asyncio.open_connection(sock=sock)
        async with exchange(reader, writer) as onwards:
            head, content = await ask(onwards, inner)
        await reply(stream, head.status, content)

    listening = namespace.socket(PROXY_UID)
    listening.bind((pod.address, PORT))
    async with serve(handle, sock=listening):
        yield
