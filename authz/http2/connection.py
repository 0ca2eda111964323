"""One connection: a server's side of RFC 9113 for unary gRPC.

Feed it bytes, take events and bytes. It never raises for what a client sends: a fault of a stream
becomes RST_STREAM, one of the connection GOAWAY, after which `closed` is true and all that comes is
ignored.

Here every frame is taken (section 6, in its order). Next to it: `frame_reader` cuts bytes into
frames, `streams` says what each means for its stream, `hpack` and `request_head` make requests of
header blocks, `flow_control` keeps the windows of both directions, `encoder` makes the frames of
answers, `budget` counts what should not be many.
"""

from collections.abc import Callable
from typing import Any, Final, Generic

from authz.http2 import frames, settings
from authz.http2.budget import Budget
from authz.http2.encoder import Encoder
from authz.http2.events import Cancelled, Event, N, Request
from authz.http2.faults import ConnectionFault, ErrorCode, HttpFault, Malformed, StreamFault
from authz.http2.flow_control import Receiver, Sender
from authz.http2.frame_reader import Reader
from authz.http2.grpc import GrpcFault, GrpcStatus, message_of
from authz.http2.hpack import Block, Decoder
from authz.http2.limits import Limits
from authz.http2.request_head import check_trailers
from authz.http2.streams import ANSWERING, ASKED, IDLE, LATE, OPEN, TABLE, Stream, Streams, Wrong

_LEAST_CONTENT: Final = 64
"""Bytes in a DATA frame, other than the last of a request, below which it is counted."""

FRAMES: Final = 64
"""Frames that `events` reads before it returns: not all of them make events, and the smallest have
9 bytes. A request has two as a rule."""

WORK: Final = 1024
"""Bytes of header blocks that it reads before it returns, and the rest of a block: each may take
half a microsecond. Of messages, eight bytes count as one: that is what answering may take."""


class _Unfinished:
    """A header block that CONTINUATION goes on with."""

    def __init__(self, stream_id: int, fragment: bytes, since: float, *, ends: bool) -> None:
        self.stream_id = stream_id
        self.block = bytearray(fragment)
        self.ends = ends  # the stream
        self.since = since


class Connection(Generic[N]):
    """A server's side of one connection, for somebody who makes an `N` of each request's head.

    `now` is in seconds on a clock that only goes forward; it is told with every input.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._now = now
        self._reader = Reader(now)
        self._decoder = Decoder(limits.header_list, limits.header_fields)
        self._receiver = Receiver(limits)
        self._budget = Budget(limits.credit, now)
        self._encoder = Encoder()
        self._streams = Streams(limits.streams)
        self._announced = self._ended = False  # by us
        self._leaving = False  # one of the sides is
        self._unfinished: _Unfinished | None = None
        self._events: list[Event[N]] = []
        self._left = WORK  # in this call of `events`
        self._output: list[bytes] = [
            settings.encoded(
                {
                    settings.MAX_CONCURRENT_STREAMS: limits.streams,
                    settings.INITIAL_WINDOW_SIZE: self._receiver.stream_window,
                    settings.MAX_HEADER_LIST_SIZE: limits.header_list,
                }
            )
        ]
        if self._receiver.window > frames.DEFAULT_WINDOW:
            more = self._receiver.window - frames.DEFAULT_WINDOW
            self._output.append(frames.window_update(0, more))
        self._sender = Sender(self._streams, self._output, limits.unsent)
        self.has_more = False
        """`events` stopped at its limit: call it again, before or after feeding more."""
        self.limited: dict[str, int] = {}
        """How often each limit was met, by its name, for whoever counts to take away."""
        self.closed = False
        """After a fault: send the output and hang up."""
        self.fault: ConnectionFault | None = None

    @property
    def done(self) -> bool:
        """Nothing is open, and one side has said that nothing more will be; or `closed`."""
        return self.closed or (self._leaving and not self._streams)

    @property
    def open_streams(self) -> int:
        """Requests that have not all come, are not answered, or whose answers are not all sent."""
        return len(self._streams)

    @property
    def buffered(self) -> int:
        """Bytes that wait here: to be read, to be complete, or to be taken by the client.

        Answers that `output` has given out are not among them.
        """
        held = self._reader.unread + self._receiver.held + self._sender.unsent + self._streams.held
        if self._unfinished is not None:
            held += len(self._unfinished.block)
        return held

    # -- input ---------------------------------------------------------------------------------

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes that the client sent.

        They are kept until `events` has read them, so take all events before reading more.
        """
        self._now = now
        if not self.closed:
            self._reader.feed(data, now)

    def events(self, most: int) -> list[Event[N]]:
        """What the bytes so far mean: stops at `most` events, to be called again.

        It also stops at FRAMES frames, at so much WORK, and after a frame that may let many answers
        go on. So one call, and answering what it told, take a bounded time, however much was fed.
        """
        events, read = self._events, self._reader.next
        self.has_more = False
        self._left = WORK
        try:
            for _ in range(FRAMES):
                frame = None if self.closed else read()
                if frame is None:
                    return events
                kind, flags, stream_id, payload = frame
                handler = _HANDLERS[kind]
                if self._unfinished is not None and (
                    kind != frames.CONTINUATION or stream_id != self._unfinished.stream_id
                ):
                    handler = Connection._on_interruption
                try:
                    handler(self, flags, stream_id, payload)
                except StreamFault as fault:
                    self._reset(stream_id, fault)
                if len(events) >= most or self._left <= 0:
                    break
            self.has_more = True
        except ConnectionFault as fault:
            self._fail(fault)
        finally:
            self._events = []  # an idle connection keeps no requests
        return events

    def _on_unknown(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 5.5."""
        del flags, stream_id, payload
        self._spend("unknown frames")

    def _on_interruption(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.10."""
        del flags, stream_id, payload
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")

    # -- 6.1 DATA ------------------------------------------------------------------------------

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        update = self._receiver.count(size)
        if update:
            self._output.append(update)
        data = payload
        if flags & frames.PADDED:
            data, _ = frames.content(flags, payload)
        ends = flags & frames.END_STREAM
        stream = self._streams.get(stream_id)
        row = TABLE[self._streams.phase_of(stream_id) if stream is None else stream.phase]
        then = row.last_data if ends else row.data
        if type(then) is Wrong:
            raise then.made_by("DATA")
        if stream is None:
            self._spend_on_stream("frames on streams that were reset")
        elif not ends:
            self._hold(stream_id, data, padding=size - len(data))
        elif stream_id not in self._receiver.parts:
            self._complete(stream_id, stream, data)
        else:
            self._hold(stream_id, data, padding=size - len(data), ends=True)
            self._complete(stream_id, stream, bytes(self._receiver.take(stream_id)))

    def _hold(self, stream_id: int, data: bytes, *, padding: int, ends: bool = False) -> None:
        """One part of several."""
        try:
            update = self._receiver.hold(stream_id, data, padding)
        except GrpcFault as fault:
            self._output.append(self._encoder.refusal(stream_id, fault))
            code = ErrorCode.NO_ERROR  # 8.1
            raise StreamFault(code, "the rest is not wanted", limit="message") from None
        if ends:
            return
        if update:
            self._output.append(update)
        if len(data) < _LEAST_CONTENT:
            self._spend("small DATA frames")
        while oldest := self._receiver.overdue():
            overdue = StreamFault(ErrorCode.ENHANCE_YOUR_CALM, "too much is held", limit="buffered")
            self._reset(oldest, overdue)

    # -- 6.2 HEADERS and 6.10 CONTINUATION -----------------------------------------------------

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            priority = frames.PRIORITY_BYTES if flags & frames.HAS_PRIORITY else 0
            payload, depends_on = frames.content(flags, payload, priority)
            if depends_on == stream_id:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
        ends = flags & frames.END_STREAM != 0
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, payload, ends=ends)
        else:
            self._unfinished = _Unfinished(stream_id, payload, self._now, ends=ends)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        unfinished = self._unfinished
        if unfinished is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION continues nothing")
        self._spend("CONTINUATION frames")
        unfinished.block += payload
        if len(unfinished.block) > self._limits.header_block:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large", limit="header_block"
            )
        if flags & frames.END_HEADERS:
            self._unfinished = None
            self._on_block(stream_id, bytes(unfinished.block), ends=unfinished.ends)

    def _on_block(self, stream_id: int, encoded: bytes, *, ends: bool) -> None:
        """Sections 4.3 and 8.1."""
        block = self._decoder.decode(encoded)  # always: it changes what later blocks mean
        self._left -= len(encoded)
        phase = self._streams.phase_of(stream_id)
        row = TABLE[phase]
        then = row.last_headers if ends else row.headers
        if type(then) is Wrong:
            raise then.made_by("HEADERS")
        if phase is IDLE:
            self._streams.use(stream_id)
            self._open(stream_id, block, ends=ends)
        elif phase is OPEN:
            self._end_by_trailers(stream_id, block)
        elif phase is LATE:
            self._streams.use(stream_id)
        else:
            self._spend_on_stream("frames on streams that were reset")

    def _end_by_trailers(self, stream_id: int, block: Block) -> None:
        if block.fields is None:
            raise StreamFault(
                ErrorCode.ENHANCE_YOUR_CALM, "the trailers are too large", limit="header_list"
            )
        check_trailers(block.fields)
        self._complete(stream_id, self._streams[stream_id], bytes(self._receiver.take(stream_id)))

    def _open(self, stream_id: int, block: Block, *, ends: bool) -> None:
        if len(self._streams) >= self._limits.streams:  # 5.1.2
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many streams", limit="streams")
        if block.fields is None:
            self.count("header_list")
        stream = Stream(block.head(), self._now, list_size=block.size)
        self._streams.open(stream_id, stream)
        if ends:
            self._complete(stream_id, stream, b"")

    def _complete(self, stream_id: int, stream: Stream, data: bytes) -> None:
        """The client has sent all that it will send."""
        head = stream.head
        if head.length is not None and head.length != len(data):
            raise Malformed("content-length is wrong")  # 8.1.1
        if head.refusal is not None:
            self._refuse(stream_id, head.refusal)
            return
        try:
            message = message_of(data, limit=self._limits.message, encoding=head.encoding)
        except GrpcFault as fault:
            self._refuse(stream_id, fault)
        else:
            stream.phase = ASKED
            self._left -= len(message) >> 3
            self._events.append(Request(stream_id, head, message))

    def _refuse(self, stream_id: int, fault: HttpFault | GrpcFault) -> None:
        """Answer a request that has all come and cannot be asked."""
        if isinstance(fault, GrpcFault) and fault.status is GrpcStatus.RESOURCE_EXHAUSTED:
            self.count("message")
        self._streams.close(stream_id)
        self._budget.refused()
        self._output.append(self._encoder.refusal(stream_id, fault))

    # -- 6.3 PRIORITY to 6.9 WINDOW_UPDATE -----------------------------------------------------

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.3: deprecated, and without effect here."""
        del flags
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._spend("PRIORITY frames")
        if len(payload) != frames.PRIORITY_BYTES:
            code, text = ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong size"
        elif int.from_bytes(payload[:4], "big") & frames.LARGEST_STREAM == stream_id:
            code, text = ErrorCode.PROTOCOL_ERROR, "a stream depends on itself"
        else:
            return
        if stream_id in self._streams:
            raise StreamFault(code, text)
        raise ConnectionFault(code, text)  # there is no stream to reset (5.4.2 allows it)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.4."""
        del flags
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        then = TABLE[self._streams.phase_of(stream_id)].rst_stream
        if type(then) is Wrong:
            raise then.made_by("RST_STREAM")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._budget.reset_after_answer(self._now)
        else:
            self._spend_on_stream("resets")
            self._drop(stream_id, stream)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.5."""
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        self._spend("SETTINGS frames")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS with ACK and values")
            return
        windows = settings.initial_windows(payload)
        self._output.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if windows:
            self._left = 0
            self._sender.resize(windows)

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.6."""
        del flags, stream_id, payload
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.7."""
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")
        self._spend("PING frames")
        if not flags & frames.ACK:
            self._output.append(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.8: the client is about to leave. What it asked and still asks is answered."""
        del flags
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of a wrong size")
        self._spend("GOAWAY frames")
        self._leaving = True

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.9."""
        del flags
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        self._spend("WINDOW_UPDATE frames")
        increment = int.from_bytes(payload, "big") & frames.LARGEST_WINDOW
        if stream_id == 0:
            if increment == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            self._left = 0
            self._sender.widen(increment)
            return
        then = TABLE[self._streams.phase_of(stream_id)].window_update
        if type(then) is Wrong:
            raise then.made_by("WINDOW_UPDATE")
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if increment == 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        self._sender.widen_stream(stream_id, stream, increment)

    def _spend(self, what: str) -> None:
        self._budget.spent(what, self._now)

    def _spend_on_stream(self, what: str) -> None:
        """The same, where one connection may carry the streams of many who are not to blame."""
        if self._limits.resets_cost:
            self._budget.spent(what, self._now)

    def count(self, limit: str) -> None:
        """A limit was met. Of no name, none was."""
        if limit:
            self.limited[limit] = self.limited.get(limit, 0) + 1

    # -- 5.4 faults ----------------------------------------------------------------------------

    def _fail(self, fault: ConnectionFault) -> None:
        """Section 5.4.1. All streams end with the connection, without an event for each."""
        self.count(fault.limit)
        self.fault = ConnectionFault(fault.code, str(fault))  # holds no traceback
        last = min(self._streams.highest, self._streams.last)
        self._output.append(frames.goaway(last, fault.code, str(fault)))
        self.abandon()

    def abandon(self) -> None:
        """Whatever comes is ignored from now on, and what has come is forgotten at once."""
        self.closed = True
        for stream_id in self._streams:
            self._receiver.take(stream_id)
            self._sender.forget(stream_id)
        self._streams.close_all()
        self._reader.clear()
        self._unfinished = None

    def _reset(self, stream_id: int, fault: StreamFault) -> None:
        """Section 5.4.2: a stream that is known, or one that could not be opened."""
        self.count(fault.limit)
        self._spend_on_stream("faulty streams")
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._drop(stream_id, stream)
        self._streams.reset(stream_id)
        self._output.append(frames.rst_stream(stream_id, fault.code))

    def _drop(self, stream_id: int, stream: Stream) -> None:
        """A stream ends before its answer does."""
        self._streams.close(stream_id)
        self._receiver.take(stream_id)
        self._sender.forget(stream_id)
        if TABLE[stream.phase].end is not None:  # somebody was about to give it
            self._events.append(Cancelled(stream_id))

    def expire(self, before: float) -> list[Event[N]]:
        """End what began before a time and still waits for the client.

        That is a stream whose request has not all come, or whose answer waits for a window; and the
        whole connection, if what has not all come is a preface, a frame or a header block. Have
        `events` read first what has come meanwhile.
        """
        events = self._events
        try:
            if not self.closed:
                self._expire(before)
        except ConnectionFault as fault:
            self._fail(fault)
        finally:
            self._events = []
        return events

    def _expire(self, before: float) -> None:
        if self._unfinished is not None and self._unfinished.since < before:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, "a header block does not end", limit="slow"
            )
        if not self.has_more and self._reader.stalls(before):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a frame does not end", limit="slow")
        for stream_id, stream in list(self._streams.items()):
            if stream.since < before and (stream.phase is OPEN or self._sender.waits(stream_id)):
                fault = StreamFault(ErrorCode.CANCEL, "a stream does not end", limit="slow")
                self._reset(stream_id, fault)

    # -- answers -------------------------------------------------------------------------------

    def respond(self, stream_id: int, message: bytes) -> None:
        """Answer a request with its one message and status OK."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.phase is ASKED and self._sender.may_send(stream, message):
            self._streams.close(stream_id)
            self._budget.answered()
            self._output.append(self._encoder.whole(stream_id, message))
        else:
            self.send(stream_id, message)
            self.finish(stream_id)

    def send(self, stream_id: int, message: bytes) -> None:
        """Send one message of several. It may be that nobody waits for it any more."""
        stream = self._streams.get(stream_id)
        phase = None if stream is None else TABLE[stream.phase].message
        if stream is None or phase is None:
            return
        if stream.phase is not phase:
            stream.phase = phase
            self._output.append(self._encoder.head(stream_id))
        try:
            self._sender.queue(stream_id, stream, message, self._now)
        except ConnectionFault as fault:
            self._fail(fault)

    def finish(self, stream_id: int, status: GrpcStatus = GrpcStatus.OK, text: str = "") -> None:
        """End an answer after its messages, if it has any."""
        stream = self._streams.get(stream_id)
        phase = None if stream is None else TABLE[stream.phase].end
        if stream is None or phase is None:
            return
        if status is GrpcStatus.OK:
            self._budget.answered()
        else:
            self._budget.refused()
        begun = stream.phase is ANSWERING
        end = self._encoder.trailers if begun else self._encoder.status_only
        stream.phase = phase
        self._sender.end(stream_id, end(stream_id, status, text))

    def fail(self, stream_id: int, status: GrpcStatus, text: str) -> None:
        """Answer a request with a status and no message, or no more of them."""
        self.finish(stream_id, status, text)

    def output(self) -> bytes:
        """Take the bytes that are to be sent now."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    # -- the end -------------------------------------------------------------------------------

    def announce_end(self) -> None:
        """First GOAWAY: open no new streams, please; those on their way are still served."""
        if not self.closed and not self._announced:
            self._announced = True
            self._output.append(frames.goaway(frames.LARGEST_STREAM, ErrorCode.NO_ERROR))

    def end(self) -> None:
        """Second GOAWAY, a round trip later: what is not here by now is not served."""
        if self.closed or self._ended:
            return
        self._announced = self._ended = self._leaving = True
        self._streams.last = self._streams.highest
        self._output.append(frames.goaway(self._streams.last, ErrorCode.NO_ERROR))


_Handler = Callable[[Connection[Any], int, int, bytes], None]

# ruff: noqa: SLF001
_KNOWN: Final[dict[int, _Handler]] = {
    frames.DATA: Connection._on_data,
    frames.HEADERS: Connection._on_headers,
    frames.PRIORITY: Connection._on_priority,
    frames.RST_STREAM: Connection._on_rst_stream,
    frames.SETTINGS: Connection._on_settings,
    frames.PUSH_PROMISE: Connection._on_push_promise,
    frames.PING: Connection._on_ping,
    frames.GOAWAY: Connection._on_goaway,
    frames.WINDOW_UPDATE: Connection._on_window_update,
    frames.CONTINUATION: Connection._on_continuation,
}
_HANDLERS: Final = [_KNOWN.get(kind, Connection._on_unknown) for kind in range(256)]
