"""HTTP/1.1 over asyncio's streams; the protocol itself is h11's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import h11

from authz.lab.box.knative.messages import (
    CHUNK,
    End,
    Event,
    Gone,
    Headers,
    Malformed,
    Request,
    Response,
)

_MAX_HEAD: Final = 1 << 20
"""Go's DefaultMaxHeaderBytes (net/http server.go)."""

_DISCARD: Final = 256 << 10
"""Octets of a body that Go still reads so as to keep a connection (net/http server.go)."""


class Http1:
    """A connection, and the exchange that is under way on it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool
    ) -> None:
        role = h11.CLIENT if client else h11.SERVER
        self._h11 = h11.Connection(role, max_incomplete_event_size=_MAX_HEAD)
        self._reader, self._writer = reader, writer
        self._tunnel = False
        peer = writer.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""

    def feed(self, data: bytes) -> None:
        """Take what was read before."""
        self._h11.receive_data(data)

    async def receive(self) -> Event:
        """See `Stream`; after a 101, what comes is bytes until the End of the connection."""
        while not self._tunnel:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as problem:
                raise Malformed(str(problem)) from None
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    await self.send(Response(100))  # as Go: when the body is first read
                self._h11.receive_data(await self._read())
            elif event is h11.PAUSED:
                raise Malformed("more was received than this exchange")
            elif not isinstance(event, h11.Event) or isinstance(event, h11.ConnectionClosed):
                raise Gone("closed")
            else:
                return self._received(event)
        early, _ = self._h11.trailing_data
        if early:
            self._h11 = h11.Connection(self._h11.our_role)  # has nothing left
            return early
        return await self._read() or End()

    async def send(self, event: Event) -> None:
        """See `Stream`."""
        try:
            if self._tunnel:
                self._send_raw(event)
            else:
                self._writer.write(self._h11.send(self._outgoing(event)) or b"")
                self._tunnel = isinstance(event, Response) and event.status == 101
            await self._writer.drain()
        except (h11.LocalProtocolError, OSError, RuntimeError) as problem:
            raise Gone(str(problem)) from None

    async def gone(self) -> None:
        """See `Stream`."""
        while data := await self._read():
            self._h11.receive_data(data)  # of the next exchange: a client that pipelines

    async def again(self) -> bool:
        """Make ready for the next exchange; not if either side has not finished this one."""
        if self._h11.our_state is not h11.DONE or self._tunnel:
            return False
        left = _DISCARD
        while self._h11.their_state is h11.SEND_BODY and left > 0:
            part = await self.receive()
            left -= len(part) if isinstance(part, bytes) else 0
        if self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def _received(self, event: h11.Event) -> Event:
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return End(_decode(event.headers))
        assert isinstance(event, h11.Request | h11.Response | h11.InformationalResponse)  # noqa: S101
        headers = _decode(event.headers)
        if not isinstance(event, h11.Request):
            self._tunnel = event.status_code == 101
            headers.drop("transfer-encoding")
            return Response(event.status_code, headers)
        length = headers.get("content-length") or "0"
        chunked = bool(headers.get("transfer-encoding"))
        host = headers.get("host")
        for name in ("host", "content-length", "transfer-encoding"):
            headers.drop(name)  # as Go's server does: they are fields of the request
        method, target = event.method.decode(), event.target.decode()
        return Request(
            method, target, host, headers, None if chunked else int(length), 1, self._peer
        )

    def _outgoing(self, event: Event) -> h11.Event:
        if isinstance(event, Request):
            framing = [("host", event.host)]
            if event.length is None:
                framing.append(("transfer-encoding", "chunked"))
            elif event.length or event.method in {"POST", "PUT", "PATCH"}:
                framing.append(("content-length", str(event.length)))
            return h11.Request(
                method=event.method, target=event.target, headers=_encode(framing + event.headers)
            )
        if isinstance(event, Response):
            kind = h11.InformationalResponse if event.status < 200 else h11.Response
            return kind(status_code=event.status, headers=_encode(event.headers))
        return h11.Data(data=event) if isinstance(event, bytes) else _end(event)

    def _send_raw(self, event: Event) -> None:
        if isinstance(event, bytes):
            self._writer.write(event)
        elif self._writer.can_write_eof():
            self._writer.write_eof()

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(CHUNK)
        except OSError as problem:
            raise Gone(str(problem)) from None


def _end(event: Event) -> h11.EndOfMessage:
    return h11.EndOfMessage(headers=_encode(event.trailers if isinstance(event, End) else []))


def _decode(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def _encode(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
