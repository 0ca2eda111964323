"""HTTP/2 without TLS, by prior knowledge; the protocol itself is h2's.

What is received is acknowledged only when it is taken, so that a slow reader slows its sender.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import Frame, GoAwayFrame

from authz.lab.box.knative.messages import CHUNK, End, Event, Gone, Headers, Request, Response

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_WINDOW: Final = 1 << 20
"""Octets that may be under way on a stream: Go's transport takes 4 MiB, its server 1 MiB."""

_ONLY_HTTP1: Final = {
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
}

_Dataful = h2.events.DataReceived
_Heads = (
    h2.events.RequestReceived,
    h2.events.ResponseReceived,
    h2.events.InformationalResponseReceived,
)


class _Connection(h2.connection.H2Connection):
    """Lets streams end after a GOAWAY without error, as RFC 9113 section 6.8 has it; h2 does not.

    Envoy sends one when it drains.
    """

    def _receive_goaway_frame(
        self, frame: GoAwayFrame
    ) -> tuple[list[Frame], list[h2.events.Event]]:
        return super()._receive_goaway_frame(frame) if frame.error_code else ([], [])


class Http2:
    """A connection: reads for all of its streams."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        accept: Callable[[Http2Stream], None] | None = None,
    ) -> None:
        """A server's connection, if `accept` takes the streams that the client opens."""
        self._reader, self._writer, self._accept = reader, writer, accept
        self.h2 = _Connection(
            h2.config.H2Configuration(client_side=accept is None, header_encoding="latin-1")
        )
        self._streams: dict[int, Http2Stream] = {}
        self.room = asyncio.Condition()
        peer = writer.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self.h2.increment_flow_control_window(15 * _WINDOW)
        self.flush()

    def open(self) -> Http2Stream:
        """A client's next stream."""
        return self._stream(self.h2.get_next_available_stream_id())

    async def run(self, received: bytes = b"") -> None:
        """Read until the connection ends; then each stream knows."""
        try:
            while data := received or await self._reader.read(CHUNK):
                received = b""
                for event in self.h2.receive_data(data):
                    await self._dispatch(event)
                self.flush()
        except (h2.exceptions.ProtocolError, OSError):
            self.flush()  # with h2's GOAWAY
        finally:
            for stream in list(self._streams.values()):
                stream.end(Gone("the connection has ended"))

    def flush(self) -> None:
        """Write what h2 has to say."""
        if not self._writer.is_closing():
            self._writer.write(self.h2.data_to_send())

    async def drain(self) -> None:
        """Wait until the socket has taken enough.

        Raises:
            Gone: the other side has left.
        """
        try:
            await self._writer.drain()
        except OSError as problem:
            raise Gone(str(problem)) from None

    def forget(self, stream: Http2Stream) -> None:
        """Let go of a stream; reset it if it is still open."""
        self._streams.pop(stream.id, None)
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.h2.reset_stream(stream.id, h2.errors.ErrorCodes.CANCEL)
            self.flush()

    def _stream(self, stream_id: int) -> Http2Stream:
        self._streams[stream_id] = Http2Stream(self, stream_id)
        return self._streams[stream_id]

    async def _dispatch(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived) and self._accept:
            assert event.stream_id  # noqa: S101
            self._accept(self._stream(event.stream_id))
        if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            async with self.room:
                self.room.notify_all()
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if stream is not None:
            stream.arrive(event)
            async with self.room:
                self.room.notify_all()
        elif isinstance(event, _Dataful) and event.flow_controlled_length:
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)


class Http2Stream:
    """One exchange on a connection."""

    def __init__(self, connection: Http2, stream_id: int) -> None:
        self.id = stream_id
        self._connection = connection
        self._inbox: asyncio.Queue[tuple[Event, int] | Gone] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._trailers = Headers()

    def arrive(self, event: h2.events.Event) -> None:
        """Take what the connection read for this stream."""
        if isinstance(event, _Heads):
            self._inbox.put_nowait((self._head(event), 0))
        elif isinstance(event, _Dataful):
            self._inbox.put_nowait((event.data or b"", event.flow_controlled_length or 0))
        elif isinstance(event, h2.events.TrailersReceived):
            self._trailers = _headers(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self._inbox.put_nowait((End(self._trailers), 0))
        elif isinstance(event, h2.events.StreamReset):
            self.end(Gone("reset"))

    def end(self, why: Gone) -> None:
        """Nothing more will come."""
        self._inbox.put_nowait(why)
        self._gone.set()

    async def receive(self) -> Event:
        """See `Stream`."""
        item = await self._inbox.get()
        if isinstance(item, Gone):
            self._inbox.put_nowait(item)
            raise item
        event, acknowledged = item
        if acknowledged:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._connection.h2.acknowledge_received_data(acknowledged, self.id)
                self._connection.flush()
        return event

    async def gone(self) -> None:
        """See `Stream`."""
        await self._gone.wait()

    async def send(self, event: Event) -> None:
        """See `Stream`."""
        try:
            if isinstance(event, bytes):
                await self._send_data(event)
            elif isinstance(event, End):
                self._send_end(event)
            else:
                self._connection.h2.send_headers(self.id, _pseudo(event) + _plain(event.headers))
            self._connection.flush()
        except h2.exceptions.ProtocolError as problem:
            raise Gone(str(problem)) from None
        await self._connection.drain()

    async def _send_data(self, data: bytes) -> None:
        connection, rest = self._connection, memoryview(data)
        while rest:
            async with connection.room:
                await connection.room.wait_for(lambda: self._room() > 0)
            size = min(self._room(), connection.h2.max_outbound_frame_size, len(rest))
            connection.h2.send_data(self.id, bytes(rest[:size]))
            connection.flush()
            await connection.drain()
            rest = rest[size:]

    def _room(self) -> int:
        if self._gone.is_set():
            raise Gone("reset")
        return self._connection.h2.local_flow_control_window(self.id)

    def _send_end(self, event: End) -> None:
        if event.trailers:
            self._connection.h2.send_headers(self.id, _plain(event.trailers), end_stream=True)
        else:
            self._connection.h2.end_stream(self.id)

    def _head(self, event: h2.events.Event) -> Request | Response:
        assert isinstance(event, _Heads)  # noqa: S101
        headers = _headers(event.headers)
        pseudo = {name: value for name, value in headers if name.startswith(":")}
        headers[:] = [pair for pair in headers if not pair[0].startswith(":")]
        if not isinstance(event, h2.events.RequestReceived):
            return Response(int(pseudo[":status"]), headers)
        announced = headers.get("content-length")
        length = 0 if event.stream_ended else int(announced) if announced else None
        host = pseudo.get(":authority") or headers.get("host")
        for name in ("host", "content-length"):
            headers.drop(name)
        return Request(
            pseudo[":method"],
            pseudo.get(":path", ""),
            host,
            headers,
            length,
            2,
            self._connection.peer,
        )


def _headers(decoded: object) -> Headers:
    return Headers(cast("list[tuple[str, str]]", decoded or []))  # by our `header_encoding`


def _pseudo(head: Request | Response) -> list[tuple[str, str]]:
    if isinstance(head, Response):
        return [(":status", str(head.status))]
    pseudo = [(":method", head.method), (":scheme", "http"), (":authority", head.host)]
    length = [("content-length", str(head.length))] if head.length else []
    return [*pseudo, (":path", head.target), *length]


def _plain(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in headers if pair[0].lower() not in _ONLY_HTTP1]
