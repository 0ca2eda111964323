"""A client's side of HTTP/2, as little as Checks need: it must not be what a measurement measures.

Frames are canned: of a call only its stream, its id and its header block are new. Answers are read
without copies, and one that is known to be right is recognised by its bytes. It speaks to our own
servers alone and believes that their frames make sense.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from struct import Struct
from time import perf_counter_ns
from typing import Final, cast

from hpack import HPACKError

from loadtest.headers import Answers, Encoder
from loadtest.traffic import Call

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_HEADER_BYTES: Final = 9
_HEADER: Final = Struct(">BHBBL").unpack_from
_PACK: Final = Struct(">BHBBL").pack
_START: Final = Struct(">BHBB").pack  # of a frame's header, up to its stream
_STREAM: Final = Struct(">L").pack
_SETTING: Final = Struct(">HL")
_MAX_STREAMS: Final = 0x3

_OUR_WINDOW: Final = 0x0100_0000  # of each stream, as Envoy's
_OUR_CONNECTION_WINDOW: Final = 0x0180_0000
_OPENING: Final = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _PACK(0, 3 * _SETTING.size, _SETTINGS, 0, 0)
    + _SETTING.pack(0x1, 4096)  # HEADER_TABLE_SIZE
    + _SETTING.pack(0x2, 0)  # ENABLE_PUSH
    + _SETTING.pack(0x4, _OUR_WINDOW)  # INITIAL_WINDOW_SIZE
    + _PACK(0, 4, _WINDOW_UPDATE, 0, 0)
    + _STREAM(_OUR_CONNECTION_WINDOW - 0xFFFF)
)
_RIGHT_HEAD: Final = {b":status": b"200", b"content-type": b"application/grpc"}


class Tally:
    """What came of calls. `latencies` counts them by microseconds."""

    def __init__(self) -> None:
        self.right = 0
        self.latencies: Counter[int] = Counter()
        self.problems: Counter[str] = Counter()
        """What went wrong, in a few words, and how often."""

    @property
    def done(self) -> int:
        """All calls that have ended."""
        return self.right + self.problems.total()


class Connection(asyncio.Protocol):
    """Makes calls, at most `in_flight` at once, and keeps the tally.

    `on_room` is called when calls have ended, with their number.
    """

    def __init__(self, in_flight: int, on_room: Callable[[Connection, int], None]) -> None:
        self.tally = Tally()
        self._most = in_flight
        self._on_room = on_room
        self._encoder = Encoder()
        self._answers = Answers()
        self._calls: dict[int, tuple[Call, int]] = {}
        self._data: dict[int, bytes] = {}
        self._next_stream = 1
        self._rest = b""
        self._output: list[bytes] = []
        self._window = 0xFFFF  # what the server takes
        self._taken = 0
        self._waiting: deque[tuple[Call, int]] = deque()
        self._transport: asyncio.Transport
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server's settings are there."""
        self.gone = False

    @property
    def busy(self) -> bool:
        """Whether calls have not ended yet."""
        return bool(self._calls or self._waiting)

    # -- asking --------------------------------------------------------------------------------

    def call(self, call: Call, intended: int) -> None:
        """Make a call that was to start at `intended`, in nanoseconds, as soon as there is room.

        It is sent by the next `flush`.
        """
        if self.gone:
            self.tally.problems["the connection is gone"] += 1
        elif self._waiting or not self._has_room(call):
            self._waiting.append((call, intended))
        else:
            self._start(call, intended)

    def flush(self) -> None:
        """Send what was called."""
        if self._output and not self.gone:
            self._transport.write(b"".join(self._output))
            self._output.clear()

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _has_room(self, call: Call) -> bool:
        return len(self._calls) < self._most and self._window >= call.size

    def _start(self, call: Call, intended: int) -> None:
        stream_id = self._next_stream
        self._next_stream = stream_id + 2
        self._calls[stream_id] = call, intended
        self._window -= call.size
        block = self._encoder.encode(call.head())
        stream = _STREAM(stream_id)
        self._output += (
            _START(0, len(block), _HEADERS, _END_HEADERS),
            stream,
            block,
            call.data_start,
            stream,
            *call.message(),
        )

    # -- answers -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_OPENING)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._end_all("the connection is gone")
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionResetError("the server has hung up"))

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        now = perf_counter_ns()
        if self._rest:
            data = self._rest + data
        position, size = 0, len(data)
        ended = 0
        while size - position >= _HEADER_BYTES:
            high, low, kind, flags, stream_id = _HEADER(data, position)
            start = position + _HEADER_BYTES
            end = start + (high << 16 | low)
            if end > size:
                break
            position = end
            if kind == _DATA:
                self._taken += end - start
                content = data[start:end]
                held = self._data.get(stream_id)
                self._data[stream_id] = content if held is None else held + content
                if flags & _END_STREAM:
                    ended += self._end(stream_id, now, "an answer without trailers")
            elif kind == _HEADERS:
                ended += self._on_headers(flags, stream_id, data[start:end], now)
            else:
                ended += self._on_other(kind, flags, stream_id, data[start:end], now)
        self._rest = data[position:]
        if self._taken * 2 > _OUR_CONNECTION_WINDOW:
            self._output += (_PACK(0, 4, _WINDOW_UPDATE, 0, 0), _STREAM(self._taken))
            self._taken = 0
        if ended:
            self._send_waiting()
            self._on_room(self, ended)
        self.flush()

    def _on_headers(self, flags: int, stream_id: int, block: bytes, now: int) -> int:
        try:
            fields = self._answers.decode(block)
        except HPACKError as error:
            self._end_all(f"a header block cannot be decoded: {error}")
            self._transport.abort()
            return 0
        if not flags & _END_STREAM:
            if fields.items() >= _RIGHT_HEAD.items():
                return 0
            return self._end(stream_id, now, f"HTTP status {_text(fields.get(b':status'))}")
        status = fields.get(b"grpc-status")
        if status == b"0":
            return self._end(stream_id, now, "")
        message = _text(fields.get(b"grpc-message"))
        return self._end(stream_id, now, f"gRPC status {_text(status)} {message}".rstrip())

    def _end(self, stream_id: int, now: int, problem: str) -> int:
        call, intended = self._calls.pop(stream_id, (None, 0))
        data = self._data.pop(stream_id, b"")
        if call is None:
            return 0
        tally = self.tally
        if not problem:
            problem = "" if data in call.expected.known else call.expected.judge(data)
        if problem:
            tally.problems[problem] += 1
        else:
            tally.right += 1
            tally.latencies[(now - intended) // 1000] += 1
        return 1

    def _on_other(self, kind: int, flags: int, stream_id: int, payload: bytes, now: int) -> int:
        if kind == _RST_STREAM:
            return self._end(stream_id, now, f"reset with code {payload.hex()}")
        if kind == _SETTINGS and not flags & _ACK:
            self._on_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._output.append(_PACK(0, len(payload), _PING, _ACK, 0) + payload)
        elif kind == _GOAWAY:
            self._end_all(f"GOAWAY with code {payload[4:8].hex()} {_text(payload[8:])}".strip())
        elif kind == _WINDOW_UPDATE and stream_id == 0:  # messages are smaller than any stream's
            self._window += int.from_bytes(payload, "big")
            self._send_waiting()
        return 0

    def _on_settings(self, payload: bytes) -> None:
        for name, value in _SETTING.iter_unpack(payload):
            if name == _MAX_STREAMS:
                self._most = min(self._most, value)
        self._output.append(_PACK(0, 0, _SETTINGS, _ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)

    def _send_waiting(self) -> None:
        waiting = self._waiting
        while waiting and self._has_room(waiting[0][0]):
            self._start(*waiting.popleft())

    def _end_all(self, problem: str) -> None:
        self.gone = True
        ended = len(self._calls) + len(self._waiting)
        if ended:
            self.tally.problems[problem] += ended
            self._calls.clear()
            self._waiting.clear()
            self._on_room(self, ended)


def _text(value: bytes | None) -> str:
    return "missing" if value is None else value.decode("ascii", "replace")
