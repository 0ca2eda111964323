"""The life of a stream. Source: RFC 9113, section 5.1, as far as a server of unary calls knows it.

    idle      its id is above the highest that was used, or even: only a server may open those
    open      known as a `Stream`, `ended` is false
    half      known as a `Stream`, `ended` is true: the request has all come, the answer is not
              all sent ("half-closed (remote)")
    closed    all others

We never end an answer before its request, so no stream is "half-closed (local)"; where a request
cannot be heard to its end the stream is reset.
"""

from collections import deque
from typing import Final

from authz.http2.events import Head

STREAM_BYTES: Final = 512
"""What an open stream is counted as holding, beside its head and its data."""
_HEAD_FACTOR: Final = 4
"""How much more than its header list a head holds, at most: fields may be many and short."""

_RANGES_REMEMBERED: Final = 16


class Stream:
    """A stream that is open, or whose answer is under way."""

    __slots__ = (
        "answering", "credit", "data", "end", "ended", "head", "held", "received", "since", "unsent"
    )  # fmt: skip

    def __init__(self, head: Head, now: float, *, list_size: int) -> None:
        self.head = head
        self.held = STREAM_BYTES + _HEAD_FACTOR * list_size
        """Bytes that it is counted as holding, without data."""
        self.since = now
        """When it was opened; once its answer waits, since when that waits."""
        self.ended = False
        """The request has all come, and was told: there is somebody who will answer it."""
        self.data: bytearray | None = None
        """Of the request, if it comes in parts, until it has all come."""
        self.received = 0
        """Of the window that we gave: data and padding."""
        self.credit = 0
        """Of the window that the client gave, see `Sender`."""
        self.answering = False
        """The head of the answer is sent."""
        self.unsent: bytearray | None = None
        """Data of the answer that waits, if some ever had to."""
        self.end = b""
        """What to send after that, once it is known."""


class Streams(dict[int, Stream]):
    """Those that are known, by id."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0
        """Bytes that they are counted as holding, without data."""

    def open(self, stream_id: int, stream: Stream) -> None:
        """A stream begins."""
        self[stream_id] = stream
        self.held += stream.held

    def close(self, stream_id: int) -> None:
        """A stream that is known has ended."""
        self.held -= self.pop(stream_id).held

    def close_all(self) -> None:
        """All have ended."""
        self.clear()
        self.held = 0


class Closed:
    """Which streams are closed, and how, as far as it decides what frames on them mean."""

    def __init__(self, most: int) -> None:
        self.highest = 0
        """The highest id that a client used."""
        self._most = most
        self._reset: dict[int, None] = {}
        self._forgotten = 0
        self._skipped: deque[range] = deque(maxlen=_RANGES_REMEMBERED)

    def open(self, stream_id: int) -> None:
        """Use a higher id than all before it. Those between are closed by that (section 5.1.1)."""
        if stream_id > self.highest + 2:
            self._skipped.append(range(self.highest + 1, stream_id))
        self.highest = stream_id

    def reset(self, stream_id: int) -> None:
        """We have reset a stream; frames on it may still be under way."""
        self._reset[stream_id] = None
        if len(self._reset) > self._most:
            oldest = next(iter(self._reset))
            self._forgotten = max(self._forgotten, oldest)
            del self._reset[oldest]

    def is_idle(self, stream_id: int) -> bool:
        """Whether no client may have used this stream."""
        return stream_id > self.highest or stream_id & 1 == 0

    def was_skipped(self, stream_id: int) -> bool:
        """Whether a closed stream was never used."""
        return any(stream_id in skipped for skipped in self._skipped)

    def may_be_in_use(self, stream_id: int) -> bool:
        """Whether the client may not know yet that a closed stream is closed.

        Of many streams that were reset, not all are remembered. Those below one that is forgotten
        get the benefit of the doubt.
        """
        return stream_id in self._reset or stream_id <= self._forgotten
