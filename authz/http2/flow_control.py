"""Flow control: what the client's windows allow us to send, and what we let it send.

The window of the connection is given back as soon as data has come: what is held back is bounded
otherwise, so that streams which do not end cannot stop those that do. The window of a stream is as
large as a request may be, and a frame larger, so that one which is too large is seen to be.

Source: RFC 9113 sections 5.2 and 6.9.
"""

from authz.http2 import frames
from authz.http2.faults import ConnectionFault, ErrorCode, StreamFault
from authz.http2.grpc import PREFIX_BYTES, GrpcFault, GrpcStatus, framed
from authz.http2.limits import Limits
from authz.http2.streams import Stream, Streams


class _Answer:
    """What is given of an answer and not sent."""

    __slots__ = ("end", "unsent")

    def __init__(self) -> None:
        self.unsent = bytearray()
        self.end = b""  # what to send after that, once it is known


class Sender:
    """What a connection gives out: answers, cut to what the windows allow.

    A stream's window is the client's INITIAL_WINDOW_SIZE, as it is now, and the stream's `credit`:
    what WINDOW_UPDATE gave, less what was sent. So a change of the setting changes all windows at
    once, by the same, as section 6.9.2 has it.

    Streams whose answers are all sent are taken out of `streams`.

    While the window of the connection is open, what waits does so for the windows of its streams.
    So a frame that opens no window costs nothing, however many answers wait.
    """

    def __init__(self, streams: Streams, output: list[bytes], limit: int) -> None:
        self._streams = streams
        self._output = output
        self._limit = limit
        self._window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._waiting: dict[int, _Answer] = {}
        self.unsent = 0
        """Bytes of messages that wait."""

    def may_send(self, stream: Stream, message: bytes) -> bool:
        """Whether a whole message may go out at once, in one frame. If so it is counted."""
        size = len(message) + PREFIX_BYTES
        if (
            size > self._initial_window + stream.credit
            or size > self._window
            or size > frames.FRAME_SIZE
        ):
            return False
        self._window -= size
        return True

    def queue(self, stream_id: int, stream: Stream, message: bytes, now: float) -> None:
        """Send a message as far as the windows allow; the rest waits.

        Raises:
            ConnectionFault: too much is waiting: the client takes nothing and goes on asking.
        """
        answer = self._waiting.get(stream_id)
        if answer is None:
            answer = self._waiting[stream_id] = _Answer()
            stream.since = now
        answer.unsent += framed(message)
        self.unsent += len(message) + PREFIX_BYTES
        self._flush(stream_id, stream, answer)
        if self.unsent > self._limit:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"more than {self._limit} bytes of answers wait",
                limit="unsent",
            )

    def end(self, stream_id: int, trailers: bytes) -> None:
        """End an answer, once all of it is sent."""
        answer = self._waiting.get(stream_id)
        if answer is None:
            self._output.append(trailers)
            self._streams.close(stream_id)
        else:
            answer.end = trailers

    def waits(self, stream_id: int) -> bool:
        """Whether something of an answer waits."""
        return stream_id in self._waiting

    def forget(self, stream_id: int) -> None:
        """A stream is reset, and with it what it had to send."""
        answer = self._waiting.pop(stream_id, None)
        if answer is not None:
            self.unsent -= len(answer.unsent)

    def widen(self, increment: int) -> None:
        """WINDOW_UPDATE for the connection.

        Raises:
            ConnectionFault: the window becomes too large.
        """
        was_open = self._window > 0
        self._window += increment
        if self._window > frames.LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the window becomes too large")
        if not was_open:
            self._flush_all()

    def widen_stream(self, stream_id: int, stream: Stream, increment: int) -> None:
        """WINDOW_UPDATE for one stream.

        Raises:
            StreamFault: the window becomes too large.
        """
        stream.credit += increment
        if self._initial_window + stream.credit > frames.LARGEST_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "a window becomes too large")
        answer = self._waiting.get(stream_id)
        if answer is not None:
            self._flush(stream_id, stream, answer)

    def resize(self, windows: list[int]) -> None:
        """The client changed INITIAL_WINDOW_SIZE, in one frame perhaps more than once.

        Raises:
            ConnectionFault: the window of a stream becomes too large.
        """
        most = frames.LARGEST_WINDOW - max(windows)
        if any(stream.credit > most for stream in self._streams.values()):
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window becomes too large")
        was, self._initial_window = self._initial_window, windows[-1]
        if self._initial_window > was:
            self._flush_all()

    def _flush_all(self) -> None:
        for stream_id, answer in list(self._waiting.items()):
            if self._window <= 0:
                return
            self._flush(stream_id, self._streams[stream_id], answer)

    def _flush(self, stream_id: int, stream: Stream, answer: _Answer) -> None:
        unsent = answer.unsent
        while unsent:
            window = min(self._initial_window + stream.credit, self._window)
            if window <= 0:
                return
            piece = bytes(unsent[: min(window, frames.FRAME_SIZE)])
            del unsent[: len(piece)]
            self._output.append(frames.frame(frames.DATA, 0, stream_id, piece))
            stream.credit -= len(piece)
            self._window -= len(piece)
            self.unsent -= len(piece)
        del self._waiting[stream_id]
        if answer.end:
            self._output.append(answer.end)
            self._streams.close(stream_id)


class _Part:
    """What has come of a request's data."""

    __slots__ = ("data", "taken")

    def __init__(self) -> None:
        self.data = bytearray()
        self.taken = 0  # of the window of its stream: data and padding


class Receiver:
    """What a connection takes in, and the data of requests that have not all come."""

    def __init__(self, limits: Limits) -> None:
        self.window = max(frames.DEFAULT_WINDOW, limits.buffered)
        self.stream_window = max(
            frames.DEFAULT_WINDOW, limits.message + PREFIX_BYTES + frames.FRAME_SIZE
        )
        self.held = 0
        """Bytes of data that is kept."""
        self._message = limits.message
        self._most = limits.buffered
        self._taken = 0  # of the connection's window
        self.parts: dict[int, _Part] = {}
        """Of requests of which some data has come and not all, by stream."""

    def count(self, size: int) -> bytes:
        """Count a DATA frame, whatever stream it is on: a WINDOW_UPDATE, if it is time for one.

        Raises:
            ConnectionFault: there was no window for that.
        """
        self._taken += size
        if self._taken * 2 < self.window:
            return b""
        if self._taken > self.window:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the window")
        taken, self._taken = self._taken, 0
        return frames.window_update(0, taken)

    def hold(self, stream_id: int, data: bytes, padding: int) -> bytes:
        """Keep data of a request of which more will come. Returns as `count` does.

        Raises:
            StreamFault: there was no window for that.
            GrpcFault: it is more than a request may have.
        """
        part = self.parts.get(stream_id)
        if part is None:
            part = self.parts[stream_id] = _Part()
        part.taken += len(data) + padding
        if part.taken > self.stream_window:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the window of its stream")
        part.data += data
        self.held += len(data)
        if len(part.data) > self._message + PREFIX_BYTES:
            raise GrpcFault(
                GrpcStatus.RESOURCE_EXHAUSTED, f"a message exceeds {self._message} bytes"
            )
        padded = part.taken - len(part.data)
        if padded * 2 < frames.FRAME_SIZE:
            return b""
        part.taken -= padded
        return frames.window_update(stream_id, padded)

    def take(self, stream_id: int) -> bytearray:
        """The data of a stream that is kept, if there is any; it is kept no longer."""
        part = self.parts.pop(stream_id, None)
        if part is None:
            return bytearray()
        self.held -= len(part.data)
        return part.data

    def overdue(self) -> int:
        """The stream to reset because more is held than may be: the one that began first; or 0."""
        return next(iter(self.parts)) if self.held > self._most else 0
