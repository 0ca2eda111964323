"""Clients that do with a connection what no client should."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from hpack import Decoder, Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame

from authz.lab.harness.certs import Certificate
from authz.testing import workload
from tests.http2 import wire
from tests.support.certificates import SERVER_NAME
from tests.support.waiting import soon
from tests.transport.support import INSECURE

FROM = ((INSECURE, str(workload("shop", "till"))),)


class Raw:
    """A connection on which a test writes frames, and reads what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.frames: list[Frame] = []
        self.bodies: dict[int, bytes] = {}
        self.statuses: dict[int, str] = {}
        """gRPC statuses by stream, in the order in which they came."""
        self.resets: dict[int, int] = {}
        self._encoder, self._decoder = Encoder(), Decoder()

    def begin(self, initial: dict[int, int] | None = None) -> None:
        """With all the window that there is, but for streams if `initial` settings say so."""
        all_of_it = wire.window_update(0, 2**31 - 1 - 65_535)
        self.write(wire.PREFACE + wire.settings(initial or {}) + all_of_it)

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def request(
        self,
        stream_id: int,
        message: bytes = b"hello",
        *,
        path: str = wire.CHECK,
        metadata: Sequence[tuple[str, str]] = FROM,
    ) -> bytes:
        fields = [(name, path if name == ":path" else value) for name, value in wire.FIELDS]
        block = self._encoder.encode([*fields, *metadata])
        head = wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, block)
        return head + wire.data(stream_id, wire.framed(message))

    def requests(self, first: int, count: int, message: bytes = b"hello") -> bytes:
        """Many of them, on streams from `first` on."""
        ids = range(first, first + 2 * count, 2)
        return b"".join(self.request(stream_id, message) for stream_id in ids)

    async def ask(self, stream_id: int, message: bytes = b"hello") -> str:
        """The status of one Check."""
        self.write(self.request(stream_id, message))
        await self.until(lambda: stream_id in self.statuses or stream_id in self.resets)
        return self.statuses.get(stream_id) or f"reset {self.resets[stream_id]}"

    async def until(self, seen: Callable[[], bool]) -> None:
        """Read until something was seen."""
        while not seen():
            assert await self.next() is not None, "the connection ended before"

    async def rest(self) -> None:
        """Read until the connection ends."""
        while await self.next() is not None:
            pass

    async def next(self) -> Frame | None:
        """One frame; `None` once the connection has ended."""
        try:
            head = await soon(self.reader.readexactly(9))
            frame, length = Frame.parse_frame_header(memoryview(head), strict=True)
            body = await soon(self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None
        frame.parse_body(memoryview(body))
        self._note(frame)
        return frame

    def _note(self, frame: Frame) -> None:
        if isinstance(frame, HeadersFrame):
            fields = {str(name): str(value) for name, value in self._decoder.decode(frame.data)}
            if "grpc-status" in fields:
                self.statuses[frame.stream_id] = fields["grpc-status"]
        elif isinstance(frame, DataFrame):
            self.bodies[frame.stream_id] = self.bodies.get(frame.stream_id, b"") + frame.data
        elif isinstance(frame, RstStreamFrame):
            self.resets[frame.stream_id] = frame.error_code
        self.frames.append(frame)

    @property
    def goaways(self) -> list[tuple[int, int]]:
        """Last stream and error code of each."""
        found = [one for one in self.frames if isinstance(one, GoAwayFrame)]
        return [(one.last_stream_id, one.error_code) for one in found]


def h2_context(certificate: Certificate, *protocols: str) -> ssl.SSLContext:
    """TLS with a client certificate and these protocols, by default only `h2`."""
    context = certificate.client_context()
    context.set_alpn_protocols(list(protocols or ("h2",)))
    return context


@asynccontextmanager
async def raw(
    to: int | Path, tls: ssl.SSLContext | None = None, *, begin: bool = True
) -> AsyncIterator[Raw]:
    """A connection to a port or path; it speaks HTTP/2 from the start, unless told not to."""
    if isinstance(to, Path):
        opened = asyncio.open_unix_connection(to, ssl=tls, server_hostname=tls and SERVER_NAME)
    else:
        opened = asyncio.open_connection(
            "127.0.0.1", to, ssl=tls, server_hostname=tls and SERVER_NAME
        )
    reader, writer = await soon(opened)
    connection = Raw(reader, writer)
    if begin:
        connection.begin()
    try:
        yield connection
    finally:
        writer.transport.abort()
