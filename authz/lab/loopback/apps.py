"""What runs behind the sidecars: an app that answers with what reached it.

HTTP/1.1 by hand, as little as Envoy needs. All apps live in the demo's own process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from authz.lab.harness.ports import Endpoint

_MAX_BODY: Final = 1 << 16


@asynccontextmanager
async def echo(name: str, address: Endpoint) -> AsyncIterator[None]:
    """Serve as the app `name` as long as the block lasts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path, headers = _parse(head.decode("latin-1"))
                length = min(int(dict(headers).get("content-length", "0")), _MAX_BODY)
                await reader.readexactly(length)
                writer.write(_answer({"app": name, "path": path, "headers": headers}))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, *address)
    try:
        yield
    finally:
        server.close()


def _parse(head: str) -> tuple[str, list[tuple[str, str]]]:
    request, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return request.split(" ")[1], [(name.lower(), value.strip()) for name, _, value in pairs]


def _answer(seen: dict[str, object]) -> bytes:
    body = json.dumps(seen).encode() + b"\n"
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
