"""The tenant's workload: answers with what reached it.

HTTP/1.1 and HTTP/2 (prior knowledge) on one port. Every request is recorded; the record is served
on a Unix socket and never on the tenant's port:

    GET /seen       the requests so far, as a JSON list
    DELETE /seen    forget them

What it does is told by the request:

    Upgrade: websocket                  echoes messages
    Content-Type: application/grpc…     echoes the messages of a call, as they come (any method)
    /echo                               echoes the body, as it comes
    /slow?seconds=S                     waits before it answers
    /large?bytes=N                      answers with N octets
    /early                              answers 417 without reading the body
    /metrics, /healthz                  the app's own, not Knative's
    ce-specversion: …                   202 and nothing else, after reading the whole body
    else                                JSON of what it saw, after reading the whole body

A second port, for raw TCP, greets before the client has said a word and then echoes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from authz.lab.box.knative import websocket
from authz.lab.box.knative.command import listening, main, parser, socket_option
from authz.lab.box.knative.messages import CHUNK, End, Headers, Request, Response, Stream, reply

GREETING: Final = b"220 welcome\r\n"


@dataclass
class App:
    """What it is called, and what it saw."""

    name: str
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, request: Request, stream: Stream) -> None:
        """Answer a request."""
        record: dict[str, Any] = {
            "app": self.name,
            "method": request.method,
            "path": request.target,
            "host": request.host,
            "headers": [list(pair) for pair in request.headers],
            "http": request.version,
            "peer": request.peer,
            "length": 0,
        }
        self.seen.append(record)
        url = urlsplit(request.target)
        query = {name: float(values[0]) for name, values in parse_qs(url.query).items()}
        if request.headers.get("upgrade").lower() == "websocket":
            await websocket.accept(request, stream)
            await websocket.echo(stream)
        elif request.headers.get("content-type").startswith("application/grpc"):
            await _echo(stream, "application/grpc", [("grpc-status", "0")])
        elif url.path == "/echo":
            await _echo(stream, "application/octet-stream", [])
        elif url.path == "/early":
            await reply(stream, 417)
        elif url.path == "/large":
            await _large(stream, int(query.get("bytes", 0)))
        else:
            await asyncio.sleep(query.get("seconds", 0) if url.path == "/slow" else 0)
            while isinstance(part := await stream.receive(), bytes):
                record["length"] += len(part)
            await self._tell(stream, url.path, record)

    async def _tell(self, stream: Stream, path: str, record: dict[str, Any]) -> None:
        if path == "/healthz":
            await reply(stream, 200, b"the app is well\n")
        elif path == "/metrics":
            await reply(stream, 200, f"app_requests_total {len(self.seen)}\n".encode())
        elif record_is_event(record):
            await reply(stream, 202)  # an event's consumer may answer with nothing
        else:
            content = json.dumps(record).encode()
            await reply(stream, 200, content, [("content-type", "application/json")])

    async def forget(self, _rest: str, _content: bytes) -> bytes:
        """Forget what was seen."""
        self.seen.clear()
        return b"{}"

    async def tell(self, _rest: str, _content: bytes) -> bytes:
        """What was seen."""
        return json.dumps(self.seen).encode()


def record_is_event(record: dict[str, Any]) -> bool:
    """Whether what was seen is a CloudEvent in binary mode."""
    return any(name == "ce-specversion" for name, _ in record["headers"])


async def _echo(stream: Stream, content_type: str, trailers: list[tuple[str, str]]) -> None:
    await stream.send(Response(200, Headers([("content-type", content_type)])))
    while isinstance(part := await stream.receive(), bytes):
        if part:
            await stream.send(part)
    await stream.send(End(Headers(trailers)))


async def _large(stream: Stream, size: int) -> None:
    await stream.send(Response(200, Headers([("content-length", str(size))])))
    for start in range(0, size, CHUNK):
        await stream.send(b"x" * min(CHUNK, size - start))
    await stream.send(End())


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.write(GREETING)
        while part := await reader.read(CHUNK):
            writer.write(part)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def run(options: argparse.Namespace) -> AsyncIterator[None]:
    """Serve as long as the block lasts."""
    app = App(options.name)
    handlers = [(app.handle, options.port)]
    routes = {"GET /seen": app.tell, "DELETE /seen": app.forget}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            listening(options.app_address, handlers, options.control, routes)
        )
        if options.tcp_port:
            greeter = await asyncio.start_server(_greet, options.app_address, options.tcp_port)
            stack.callback(greeter.close)
        yield


def add_options(options: argparse.ArgumentParser) -> None:
    """Its part of a command line."""
    options.add_argument("--name", default="app", help="what it calls itself (app)")
    options.add_argument("--app-address", default="127.0.0.1", help="to listen on (127.0.0.1)")
    options.add_argument("--port", type=int, default=8080, help="HTTP (8080)")
    options.add_argument("--tcp-port", type=int, default=0, help="the greeter; none if not given")
    socket_option(options, "what the app saw")


if __name__ == "__main__":
    arguments = parser("app", __doc__)
    add_options(arguments)
    main(run, arguments.parse_args())
