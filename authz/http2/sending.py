"""The sending half of flow control: answers, cut to what the client's windows allow.

Source: RFC 9113 sections 5.2, 6.9.1 and 6.9.2.
"""

from authz.http2 import frames
from authz.http2.faults import ConnectionFault, ErrorCode, StreamFault
from authz.http2.grpc import PREFIX_BYTES, framed
from authz.http2.streams import Stream, Streams


class Sender:
    """What a connection gives out.

    A stream's window is the client's INITIAL_WINDOW_SIZE, as it is now, and the stream's `credit`:
    what WINDOW_UPDATE gave, less what was sent. So a change of the setting changes all windows at
    once, by the same, as section 6.9.2 has it.

    Streams whose answers are all sent are taken out of `streams`.
    """

    def __init__(self, streams: Streams, output: list[bytes], limit: int) -> None:
        self._streams = streams
        self._output = output
        self._limit = limit
        self._window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._waiting: dict[int, Stream] = {}
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
        if not stream.unsent:
            stream.unsent = bytearray()
            stream.since = now
            self._waiting[stream_id] = stream
        stream.unsent += framed(message)
        self.unsent += len(message) + PREFIX_BYTES
        self._flush(stream_id, stream)
        if self.unsent > self._limit:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"more than {self._limit} bytes of answers wait",
                limit="unsent",
            )

    def end(self, stream_id: int, stream: Stream, trailers: bytes) -> None:
        """End an answer, once all of it is sent."""
        stream.end = trailers
        self._flush(stream_id, stream)

    def forget(self, stream_id: int, stream: Stream) -> None:
        """A stream is reset, and with it what it had to send."""
        if stream.unsent:
            self.unsent -= len(stream.unsent)
            del self._waiting[stream_id]

    def widen(self, increment: int) -> None:
        """WINDOW_UPDATE for the connection.

        Raises:
            ConnectionFault: the window becomes too large.
        """
        self._window += increment
        if self._window > frames.LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the window becomes too large")
        self._flush_all()

    def widen_stream(self, stream_id: int, stream: Stream, increment: int) -> None:
        """WINDOW_UPDATE for one stream.

        Raises:
            StreamFault: the window becomes too large.
        """
        stream.credit += increment
        if self._initial_window + stream.credit > frames.LARGEST_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "a window becomes too large")
        if stream.unsent:
            self._flush(stream_id, stream)

    def resize(self, windows: list[int]) -> None:
        """The client changed INITIAL_WINDOW_SIZE, in one frame perhaps more than once.

        Raises:
            ConnectionFault: the window of a stream becomes too large.
        """
        most = frames.LARGEST_WINDOW - max(windows)
        if any(stream.credit > most for stream in self._streams.values()):
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window becomes too large")
        self._initial_window = windows[-1]
        self._flush_all()

    def _flush_all(self) -> None:
        for stream_id, stream in list(self._waiting.items()):
            if self._window <= 0:
                return
            self._flush(stream_id, stream)

    def _flush(self, stream_id: int, stream: Stream) -> None:
        unsent = stream.unsent
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
        self._waiting.pop(stream_id, None)
        if stream.end:
            self._output.append(stream.end)
            self._streams.close(stream_id)
