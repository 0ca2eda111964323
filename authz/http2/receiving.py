"""The receiving half of flow control, and the data of requests that have not all come.

The window of the connection is given back as soon as data has come: what is held back is bounded
otherwise, so that streams which do not end cannot stop those that do. The window of a stream is as
large as a request may be, and a frame larger, so that one which is too large is seen to be.

Source: RFC 9113 sections 5.2 and 6.9.
"""

from authz.http2 import frames
from authz.http2.faults import ConnectionFault, ErrorCode, StreamFault
from authz.http2.grpc import PREFIX_BYTES, GrpcFault, GrpcStatus
from authz.http2.limits import Limits
from authz.http2.streams import Stream


class Receiver:
    """What a connection takes in."""

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
        self._holding: dict[int, Stream] = {}

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

    def hold(self, stream_id: int, stream: Stream, data: bytes, padding: int) -> bytes:
        """Keep data of a request of which more will come. Returns as `count` does.

        Raises:
            StreamFault: there was no window for that.
            GrpcFault: it is more than a request may have.
        """
        stream.received += len(data) + padding
        if stream.received > self.stream_window:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the window of its stream")
        if stream.data is None:
            stream.data = bytearray()
            self._holding[stream_id] = stream
        stream.data += data
        self.held += len(data)
        if len(stream.data) > self._message + PREFIX_BYTES:
            raise GrpcFault(
                GrpcStatus.RESOURCE_EXHAUSTED, f"a message exceeds {self._message} bytes"
            )
        padded = stream.received - len(stream.data)
        if padded * 2 < frames.FRAME_SIZE:
            return b""
        stream.received -= padded
        return frames.window_update(stream_id, padded)

    def release(self, stream_id: int, stream: Stream) -> None:
        """Keep a stream's data no longer."""
        if stream.data is not None:
            self.held -= len(stream.data)
            stream.data = None
            del self._holding[stream_id]

    def overdue(self) -> int:
        """The stream to reset because more is held than may be: the one that began first; or 0."""
        return next(iter(self._holding)) if self.held > self._most else 0
