"""Frames out of bytes. Source: RFC 9113, sections 3.4, 4.1 and 4.2."""

from authz.http2 import frames
from authz.http2.faults import ConnectionFault, ErrorCode

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream id, payload."""


class Reader:
    """Cuts what a client sends into frames, however it comes in pieces."""

    def __init__(self, now: float) -> None:
        self._now = self._since = now
        self._input = b""
        self._position = 0  # in `_input`: what is before it is read
        self._later = bytearray()  # what comes after `_input`
        self._opened = False  # the client's preface, and the beginning of its SETTINGS

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes."""
        self._now = now
        if self._position == len(self._input) and not self._later:
            self._input, self._position = data, 0
            if self._opened:
                self._since = now
        else:
            self._later += data

    def clear(self) -> None:
        """Forget what is not read."""
        self._input, self._position, self._later = b"", 0, bytearray()

    def stalls(self, before: float) -> bool:
        """Whether a frame, or the preface, began before this time and is not there as a whole."""
        return self._since < before and (self.unread > 0 or not self._opened)

    @property
    def unread(self) -> int:
        """How many bytes have come and were not read."""
        return len(self._input) - self._position + len(self._later)

    def next(self) -> Frame | None:
        """The next frame, if it is there as a whole.

        Raises:
            ConnectionFault: what comes is not HTTP/2, or a frame is too large.
        """
        if not self._opened and not self._preface():
            return None
        start = self._position + frames.HEADER_BYTES
        if start > len(self._input):
            if not self._has(frames.HEADER_BYTES):
                if not self.unread:
                    self.clear()  # an idle connection keeps nothing that is read
                return None
            start = frames.HEADER_BYTES
        high, low, kind, flags, stream_id = frames.HEADER.unpack_from(
            self._input, start - frames.HEADER_BYTES
        )
        size = high << 16 | low
        if size > frames.FRAME_SIZE:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
        end = start + size
        if end > len(self._input):
            if not self._has(frames.HEADER_BYTES + size):
                return None
            start = frames.HEADER_BYTES
            end = start + size
        self._position, self._since = end, self._now
        return kind, flags, stream_id & frames.LARGEST_STREAM, self._input[start:end]

    def _preface(self) -> bool:
        """Section 3.4: fixed bytes, then SETTINGS."""
        self._has(0)
        fixed = len(frames.PREFACE)
        if not frames.PREFACE.startswith(self._input[:fixed]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
        if len(self._input) < fixed + frames.HEADER_BYTES:
            return False
        _, _, kind, flags, _ = frames.HEADER.unpack_from(self._input, fixed)
        if kind != frames.SETTINGS or flags & frames.ACK:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        self._position = fixed
        self._opened = True
        return True

    def _has(self, size: int) -> bool:
        """Whether so many bytes are unread. If so, they are all in `_input` now, from its start.

        Bytes are moved when a header and when a frame is complete, not whenever some come: a client
        that sends one at a time costs no more for that.
        """
        if self.unread < size:
            return False
        self._input = self._input[self._position :] + self._later
        self._position, self._later = 0, bytearray()
        return True
