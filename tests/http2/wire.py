"""A client that says whatever a test wants: frames made by hand, answers read by `hyperframe`."""

import struct
from collections.abc import Iterable, Mapping, Sequence

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from authz.http2 import Cancelled, Connection, Event, Limits, Request

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

CHECK = "/envoy.service.auth.v3.Authorization/Check"
FIELDS: tuple[tuple[str, str], ...] = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", CHECK),
    (":authority", "authz"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)

BLOCK = b"\x83\x86\x04\x04/a/b\x00\x0ccontent-type\x10application/grpc"
"""A request's header block that needs no table: its stream can be any."""

LARGEST = 0x7FFFFFFF
LARGE = 0x4000  # bytes in the largest frame

Fields = Iterable[tuple[str, str]]


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    size = len(payload).to_bytes(3, "big")
    return size + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


def settings(values: Mapping[int, int] | Sequence[tuple[int, int]] = ()) -> bytes:
    pairs = values.items() if isinstance(values, Mapping) else values
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", *pair) for pair in pairs))


def data(stream_id: int, payload: bytes, flags: int = END_STREAM) -> bytes:
    return frame(DATA, flags, stream_id, payload)


def rst(stream_id: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def ping(payload: bytes = b"12345678", flags: int = 0) -> bytes:
    return frame(PING, flags, 0, payload)


def goaway(code: int = NO_ERROR) -> bytes:
    return frame(GOAWAY, 0, 0, bytes(4) + code.to_bytes(4, "big"))


def parsed(output: bytes) -> list[Frame]:
    """All of it must be whole and valid frames."""
    found = []
    view = memoryview(output)
    while view:
        next_frame, length = Frame.parse_frame_header(view[:9], strict=True)
        next_frame.parse_body(view[9 : 9 + length])
        assert len(view) >= 9 + length
        found.append(next_frame)
        view = view[9 + length :]
    return found


def requests(events: Iterable[object]) -> list[Request[None]]:
    """Events that are requests, all of them."""
    found = [event for event in events if isinstance(event, Request)]
    assert found == [*events]
    return found


class Answer:
    """What a stream was answered."""

    def __init__(self) -> None:
        self.blocks: list[list[tuple[str, str]]] = []
        self.data = b""
        self.ended = False
        self.reset: int | None = None

    @property
    def head(self) -> dict[str, str]:
        return dict(self.blocks[0])

    @property
    def status(self) -> str:
        return dict(self.blocks[-1])["grpc-status"]

    @property
    def message(self) -> bytes:
        assert self.data[0] == 0
        assert int.from_bytes(self.data[1:5], "big") == len(self.data) - 5
        return self.data[5:]


class Client:
    """A client, and the connection that it talks to.

    It opens the connection by itself, unless told not to. Requests are left to the test.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        opened: bool = True,
        initial: Mapping[int, int] | None = None,
    ) -> None:
        self.now = 0.0
        self.connection: Connection[None] = Connection(limits or Limits(), self.now)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.answers: dict[int, Answer] = {}
        self.frames: list[Frame] = []
        self.events: list[Event[None]] = []
        if opened:
            self.send(PREFACE + settings(initial or {}))
            self.frames.clear()

    # -- saying something

    def headers(
        self, stream_id: int, fields: Fields = FIELDS, flags: int = END_HEADERS, *, raw: bytes = b""
    ) -> bytes:
        block = raw or self.encoder.encode(list(fields))
        return frame(HEADERS, flags, stream_id, block)

    def request(self, stream_id: int, message: bytes = b"hello", fields: Fields = FIELDS) -> bytes:
        return self.headers(stream_id, fields) + data(stream_id, framed(message))

    def send(self, *sent: bytes, most: int = 100) -> list[Event[None]]:
        """Have the connection read all of this; what comes of it."""
        self.connection.feed(b"".join(sent), self.now)
        events = self.connection.events(most)
        while self.connection.has_more:
            events = events + self.connection.events(most)
        self.events += events
        self.take()
        return events

    def respond(self, message: bytes = b"well") -> None:
        """Answer everything that was asked and not taken back."""
        gone = {event.stream_id for event in self.events if isinstance(event, Cancelled)}
        for event in self.events:
            if isinstance(event, Request) and event.stream_id not in gone:
                self.connection.respond(event.stream_id, message)
        self.events.clear()
        self.take()

    def take(self) -> list[Frame]:
        """Read what the connection has to say."""
        taken = parsed(self.connection.output())
        for one in taken:
            self._note(one)
        self.frames += taken
        return taken

    def _note(self, one: Frame) -> None:
        if one.stream_id == 0:
            return
        answer = self.answers.setdefault(one.stream_id, Answer())
        assert answer.reset is None, "a frame after RST_STREAM"
        if isinstance(one, RstStreamFrame):
            answer.reset = one.error_code
            return
        if isinstance(one, WindowUpdateFrame):
            return
        assert not answer.ended, "a frame after END_STREAM"
        if isinstance(one, HeadersFrame):
            block = self.decoder.decode(one.data)
            answer.blocks.append([(str(name), str(value)) for name, value in block])
        else:
            assert isinstance(one, DataFrame)
            answer.data += one.data
        answer.ended = "END_STREAM" in one.flags

    # -- what must have happened

    @property
    def goaways(self) -> list[GoAwayFrame]:
        return [one for one in self.frames if isinstance(one, GoAwayFrame)]

    @property
    def held(self) -> int:
        """Bytes of requests that are not all there."""
        return self.connection._receiver.held

    def failed(self) -> int | None:
        """The code with which the connection has failed."""
        if not self.connection.closed:
            return None
        assert self.connection.fault is not None
        last = self.frames[-1]
        assert isinstance(last, GoAwayFrame)
        assert last.error_code == self.connection.fault.code
        return last.error_code

    def resets(self) -> dict[int, int]:
        return {
            one.stream_id: one.error_code for one in self.frames if isinstance(one, RstStreamFrame)
        }

    def alive(self) -> bool:
        """Whether the connection still answers a new request."""
        stream_id = self.connection._streams.highest + 2
        self.send(self.request(stream_id | 1))
        self.respond()
        answer = self.answers.get(stream_id | 1)
        return answer is not None and answer.ended and answer.status == "0"

    def acknowledged(self) -> int:
        return sum(isinstance(one, SettingsFrame) and "ACK" in one.flags for one in self.frames)
