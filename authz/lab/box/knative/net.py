"""Servers and clients that speak HTTP/1.1 and HTTP/2 on the same port, as Knative's do.

knative/pkg network/h2c.go: every server is wrapped so that it takes HTTP/2 by prior knowledge too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from authz.lab.box.knative.http1 import Http1
from authz.lab.box.knative.http2 import PREFACE, Http2, Http2Stream
from authz.lab.box.knative.messages import (
    End,
    Gone,
    Headers,
    Malformed,
    Request,
    Response,
    Stream,
    body,
)

Handler = Callable[[Request, Stream], Awaitable[None]]
"""Answers one request; what is left open when it returns is reset."""


@asynccontextmanager
async def serve(
    handler: Handler,
    *,
    host: str = "",
    port: int = 0,
    path: Path | None = None,
    sock: socket.socket | None = None,
) -> AsyncIterator[int]:
    """Serve on a TCP port, on a Unix socket or on a bound socket, as long as the block lasts.

    Yields:
        The port, 0 for a Unix socket.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101
        tasks.add(task)
        try:
            await _converse(handler, reader, writer)
        except asyncio.CancelledError:
            pass  # the server ends
        finally:
            tasks.discard(task)
            writer.close()

    tasks: set[asyncio.Task[None]] = set()
    if path is not None:
        server = await asyncio.start_unix_server(connected, path)
    elif sock is not None:
        server = await asyncio.start_server(connected, sock=sock, backlog=1024)
    else:
        server = await asyncio.start_server(connected, host, port, backlog=1024)
    try:
        yield 0 if path is not None else server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _converse(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    received = b""
    while len(received) < len(PREFACE) and PREFACE.startswith(received):
        part = await reader.read(len(PREFACE) - len(received))
        if not part:
            return
        received += part
    if received == PREFACE:
        await _converse2(handler, reader, writer, received)
    else:
        connection = Http1(reader, writer, client=False)
        connection.feed(received)
        await _converse1(handler, connection)


async def _converse1(handler: Handler, connection: Http1) -> None:
    with contextlib.suppress(Gone):
        while True:
            try:
                head = await connection.receive()
            except Malformed:
                await connection.send(Response(400, Headers([("connection", "close")])))
                await connection.send(End())
                return
            assert isinstance(head, Request)  # noqa: S101
            await handler(head, connection)
            if not await connection.again():
                return


async def _converse2(
    handler: Handler,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    received: bytes,
) -> None:
    async def handle(stream: Http2Stream) -> None:
        try:
            head = await stream.receive()
            assert isinstance(head, Request)  # noqa: S101
            await handler(head, stream)
        finally:
            connection.forget(stream)

    def done(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and not isinstance(task.exception(), Gone | None):
            task.result()  # what nobody expected is for the loop to log

    tasks: set[asyncio.Task[None]] = set()

    def accept(stream: Http2Stream) -> None:
        task = asyncio.create_task(handle(stream))
        tasks.add(task)
        task.add_done_callback(done)

    connection = Http2(reader, writer, accept)
    try:
        await connection.run(received)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def address(where: str) -> tuple[str, int]:
    """Host and port of `host:port`.

    Raises:
        ValueError: it is not of this form.
    """
    host, colon, port = where.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError(f"{where!r} is not host:port")
    return host.strip("[]"), int(port)


@asynccontextmanager
async def dial(where: str | Path, version: int = 1) -> AsyncIterator[Stream]:
    """One exchange on a connection of its own, to `host:port` or a Unix socket.

    Raises:
        OSError: nobody answers there.
    """
    if isinstance(where, Path):
        reader, writer = await asyncio.open_unix_connection(where)
    else:
        reader, writer = await asyncio.open_connection(*address(where))
    async with exchange(reader, writer, version) as stream:
        yield stream


@asynccontextmanager
async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int = 1
) -> AsyncIterator[Stream]:
    """One exchange on a connection that is there; it is closed at the end."""
    try:
        if version == 1:
            yield Http1(reader, writer, client=True)
            return
        connection = Http2(reader, writer)
        running = asyncio.create_task(connection.run())
        try:
            yield connection.open()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    finally:
        writer.close()


async def call(where: str | Path, request: Request, content: bytes = b"") -> tuple[Response, bytes]:
    """Send a request whose body is small, and take the answer whole.

    Raises:
        OSError: nobody answers, or not to the end.
    """
    async with dial(where, request.version) as stream:
        return await ask(stream, request, content)


async def ask(stream: Stream, request: Request, content: bytes = b"") -> tuple[Response, bytes]:
    """The same on a stream that is open.

    Raises:
        OSError: there was no answer, or not to the end.
    """
    request.length = len(content)
    await stream.send(request)
    if content:
        await stream.send(content)
    await stream.send(End())
    while True:
        head = await stream.receive()
        assert isinstance(head, Response)  # noqa: S101
        if head.status >= 200:
            return head, await body(stream)
