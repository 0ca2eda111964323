"""How Locust's processes speak to the stack: one JSON line each way, over a Unix socket.

The socket lies in a directory that only its owner may enter.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from authz.errors import AuthzError

PATIENCE: Final = 60.0
"""Seconds; what takes long by itself is a replacement, which drains."""

Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class StackFailed(AuthzError):
    """The stack could not do what it was told, or is not there."""


def tell(path: str, do: str, *, patience: float = PATIENCE, **arguments: Any) -> dict[str, Any]:
    """Have the stack at `path` do something; what it says to that.

    Blocks, or lets other greenlets run where sockets are gevent's. `patience` is in seconds.

    Raises:
        StackFailed: it could not, or there is none.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(path)
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
    except OSError as error:
        raise StackFailed(f"no answer from the stack at {path} to {do!r}: {error}") from None
    if not line:
        raise StackFailed(f"the stack at {path} ended before it answered {do!r}")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise StackFailed(f"the stack could not {do!r}: {answer['error']}")
    return answer


@asynccontextmanager
async def listening(path: Path, handle: Handler) -> AsyncIterator[None]:
    """Answer at `path` as long as the block lasts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if line := await reader.readline():
                writer.write(json.dumps(await _answer(handle, line)).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # whoever asked has gone
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()


async def _answer(handle: Handler, line: bytes) -> Mapping[str, Any]:
    try:
        return await handle(json.loads(line))
    except (AuthzError, KeyError, ValueError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
