"""Where the activator reports what it holds: the autoscaler's WebSocket server.

What it takes in is counted, not read. On the control socket:

    GET /connections    {"open": N, "ever": N}
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from authz.lab.box.knative.command import listening, main, parser, socket_option
from authz.lab.box.knative.messages import End, Request, Stream, error, reply
from authz.lab.box.knative.websocket import accept


class Autoscaler:
    """How many are and were connected."""

    def __init__(self) -> None:
        self.open = self.ever = 0

    async def handle(self, request: Request, stream: Stream) -> None:
        """knative/serving pkg/autoscaler/statserver/server.go: Handler."""
        kubelet = request.headers.get("user-agent").startswith("kube-probe/")
        if kubelet or request.headers.get("k-kubelet-probe"):
            await reply(stream, 200)
            return
        if request.headers.get("upgrade").lower() != "websocket":
            await error(stream, 400, "Bad Request")  # gorilla/websocket server.go
            return
        await accept(request, stream)
        self.open += 1
        self.ever += 1
        try:
            while not isinstance(await stream.receive(), End):
                pass
            await stream.send(End())
        finally:
            self.open -= 1

    async def tell(self, _rest: str, _content: bytes) -> bytes:
        """The counts."""
        return json.dumps({"open": self.open, "ever": self.ever}).encode()


@asynccontextmanager
async def run(options: argparse.Namespace) -> AsyncIterator[None]:
    """Serve as long as the block lasts."""
    autoscaler = Autoscaler()
    handlers, routes = [(autoscaler.handle, options.port)], {"GET /connections": autoscaler.tell}
    async with listening(options.address, handlers, options.control, routes):
        yield


if __name__ == "__main__":
    arguments = parser("autoscaler", __doc__)
    arguments.add_argument("--address", default="127.0.0.1", help="to listen on (127.0.0.1)")
    arguments.add_argument("--port", type=int, default=8080, help="(8080)")
    socket_option(arguments, "tells the connections")
    main(run, arguments.parse_args())
