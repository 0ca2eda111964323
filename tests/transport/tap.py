"""A tap on the wire: passes bytes on, and notes which calls were sent, answered and refused."""

import asyncio
from contextlib import suppress

from tests.http2 import wire


class Wire:
    """What went over one connection. Streams by their ids."""

    def __init__(self) -> None:
        self.sent: dict[int, bytes] = {}
        """The message of each stream that the client opened; empty until it has come."""
        self.taken_back: set[int] = set()
        """Streams that the client reset."""
        self.answered: set[int] = set()
        self.refused: set[int] = set()
        """Streams that the server reset."""
        self.last: int | None = None
        """From the last GOAWAY of the server."""

    def note(self, kind: int, flags: int, stream_id: int, payload: bytes, *, up: bool) -> None:
        if up and kind == wire.HEADERS:
            self.sent[stream_id] = b""
        elif up and kind == wire.DATA:
            self.sent[stream_id] += payload
        elif kind == wire.RST_STREAM:
            (self.taken_back if up else self.refused).add(stream_id)
        elif not up and kind == wire.GOAWAY:
            self.last = int.from_bytes(payload[:4], "big")
        elif not up and flags & wire.END_STREAM and kind in (wire.HEADERS, wire.DATA):
            self.answered.add(stream_id)


class Tap:
    """Listens before a server without TLS."""

    def __init__(self, server: int) -> None:
        self.wires: list[Wire] = []
        self._to = server
        self._server: asyncio.Server

    async def start(self) -> int:
        """The port to connect to."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Take no more connections."""
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        seen = Wire()
        self.wires.append(seen)
        await asyncio.gather(
            _pass_on(reader, ours, seen, up=True), _pass_on(theirs, writer, seen, up=False)
        )


async def _pass_on(
    source: asyncio.StreamReader, to: asyncio.StreamWriter, seen: Wire, *, up: bool
) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        if up:
            to.write(await source.readexactly(len(wire.PREFACE)))
        while True:
            head = await source.readexactly(9)
            payload = await source.readexactly(int.from_bytes(head[:3], "big"))
            stream_id = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
            seen.note(head[3], head[4], stream_id, payload, up=up)
            to.write(head + payload)
    to.close()
