"""A way from pods to istiod: a Unix socket, since a pod has no other way out of the box."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_PART: Final = 1 << 16


@asynccontextmanager
async def relaying(path: Path, host: str, port: int) -> AsyncIterator[None]:
    """Pass bytes on between the socket at `path` and a TCP port, as long as the block lasts."""
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        running.add(task)
        try:
            there, onwards = await asyncio.open_connection(host, port)
            with contextlib.closing(onwards):
                await asyncio.gather(_pass_on(reader, onwards), _pass_on(there, writer))
        except OSError:
            pass  # nobody is there: the caller tries again
        finally:
            writer.close()
            running.discard(task)

    server = await asyncio.start_unix_server(connected, path)
    try:
        yield
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while part := await reader.read(_PART):
            writer.write(part)
            await writer.drain()
    writer.close()
