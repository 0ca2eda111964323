"""The life of a stream: its phases, and what each frame means in each of them, as one table.

Source: RFC 9113 section 5.1, as far as a server of unary calls knows it. We never end an answer
before its request, so no stream is "half-closed (local)"; where a request cannot be heard to its
end the stream is reset. PRIORITY changes nothing in any phase (section 5.3.2).
"""

import enum
from collections import deque
from typing import Any, Final, NamedTuple

from authz.http2 import frames
from authz.http2.events import Head
from authz.http2.faults import ConnectionFault, ErrorCode, StreamFault

STREAM_BYTES: Final = 512
"""What an open stream is counted as holding, beside its head and its data."""
_HEAD_FACTOR: Final = 4
"""How much more than its header list a head holds, at most: fields may be many and short."""

_RANGES_REMEMBERED: Final = 16
_LEAST_RESETS_REMEMBERED: Final = 256


class Phase(enum.IntEnum):
    """Where a stream is on its way."""

    OURS = enum.auto()
    """Its id is even: only a server may open it, and we do not."""
    IDLE = enum.auto()
    """Its id is above all that were used."""
    LATE = enum.auto()
    """The same, and above all that our last GOAWAY lets in."""
    OPEN = enum.auto()
    """The request has not all come."""
    ASKED = enum.auto()
    """It has, and was told: there is somebody who will answer. "Half-closed (remote)", as below."""
    ANSWERING = enum.auto()
    """The head of the answer is sent."""
    ANSWERED = enum.auto()
    """The answer is all given, and waits to be taken."""
    CLOSED = enum.auto()
    """The answer is all sent, or the client has reset the stream."""
    RESET = enum.auto()
    """We have closed it, and the client may not know yet: its frames mean nothing any more."""
    UNUSED = enum.auto()
    """A higher id was used before it, which closed it."""


OURS, IDLE, LATE, OPEN, ASKED, ANSWERING, ANSWERED, CLOSED, RESET, UNUSED = Phase


class Wrong(NamedTuple):
    """A frame must not come in this phase."""

    fault: type[ConnectionFault] | type[StreamFault]
    code: ErrorCode
    text: str
    section: str
    """Of RFC 9113."""

    def made_by(self, frame: str) -> ConnectionFault | StreamFault:
        """What to raise for a frame."""
        return self.fault(self.code, f"{frame} {self.text}")


class Row(NamedTuple):
    """What comes after a phase, by the frame that the client sends or by what we do.

    `last_` is with END_STREAM. Of what we do, `None` stands for: nothing is to be done.
    """

    headers: Phase | Wrong
    last_headers: Phase | Wrong
    data: Phase | Wrong
    last_data: Phase | Wrong
    rst_stream: Phase | Wrong
    window_update: Phase | Wrong
    message: Phase | None
    """A message of the answer is given."""
    end: Phase | None
    """The end of the answer is given."""


_C, _S, _E = ConnectionFault, StreamFault, ErrorCode
_OURS: Final = Wrong(_C, _E.PROTOCOL_ERROR, "on a stream of a server", "5.1.1")
_IDLE: Final = Wrong(_C, _E.PROTOCOL_ERROR, "on an idle stream", "5.1")
_AMID: Final = Wrong(_S, _E.PROTOCOL_ERROR, "amid the data", "8.1")
_ENDED: Final = Wrong(_S, _E.STREAM_CLOSED, "after END_STREAM", "5.1")
_CLOSED: Final = Wrong(_C, _E.STREAM_CLOSED, "on a closed stream", "5.1")
_LOW: Final = Wrong(_C, _E.PROTOCOL_ERROR, "on a stream whose id is too low", "5.1.1")

# fmt: off
TABLE: Final[dict[Phase, Row]] = {
    #              HEADERS   and last  DATA      and last  RST_S.  WINDOW_U.  message    end
    OURS:      Row(_OURS,    _OURS,    _OURS,    _OURS,    _OURS,  _OURS,     None,      None),
    IDLE:      Row(OPEN,     ASKED,    _IDLE,    _IDLE,    _IDLE,  _IDLE,     None,      None),
    LATE:      Row(RESET,    RESET,    _IDLE,    _IDLE,    _IDLE,  _IDLE,     None,      None),
    OPEN:      Row(_AMID,    ASKED,    OPEN,     ASKED,    CLOSED, OPEN,      None,      None),
    ASKED:     Row(_ENDED,   _ENDED,   _ENDED,   _ENDED,   CLOSED, ASKED,     ANSWERING, ANSWERED),
    ANSWERING: Row(_ENDED,   _ENDED,   _ENDED,   _ENDED,   CLOSED, ANSWERING, ANSWERING, ANSWERED),
    ANSWERED:  Row(_ENDED,   _ENDED,   _ENDED,   _ENDED,   CLOSED, ANSWERED,  None,      None),
    CLOSED:    Row(_CLOSED,  _CLOSED,  _CLOSED,  _CLOSED,  CLOSED, CLOSED,    None,      None),
    RESET:     Row(RESET,    RESET,    RESET,    RESET,    RESET,  RESET,     None,      None),
    UNUSED:    Row(_LOW,     _LOW,     _CLOSED,  _CLOSED,  UNUSED, UNUSED,    None,      None),
}
# fmt: on
"""Beside this, a stream ends in two ways: ANSWERED becomes CLOSED when all is sent, and whatever is
wrong with a stream alone makes it RESET. A request that cannot be asked is answered at once, and so
is CLOSED instead of ASKED; a higher id makes UNUSED of one that was IDLE."""


class Stream:
    """A stream that is open, or whose answer is under way."""

    __slots__ = ("credit", "head", "held", "phase", "since")

    def __init__(self, head: Head[Any], now: float, *, list_size: int) -> None:
        self.head = head
        self.held = STREAM_BYTES + _HEAD_FACTOR * list_size
        """Bytes that it is counted as holding, without data."""
        self.since = now
        """When it was opened; once its answer waits, since when that waits."""
        self.phase = OPEN
        self.credit = 0
        """Of the window that the client gave, see `Sender`."""


class Streams(dict[int, Stream]):
    """All streams of a connection: those that are known, by id, and of the others their phase."""

    __slots__ = ("_forgotten", "_most", "_reset", "_skipped", "held", "highest", "last")

    def __init__(self, most: int) -> None:
        self.held = 0
        """Bytes that they are counted as holding, without data."""
        self.highest = 0
        """The highest id that a client used."""
        self.last = frames.LARGEST_STREAM
        """The highest id that is served."""
        self._most = max(most, _LEAST_RESETS_REMEMBERED)
        self._reset: dict[int, None] = {}
        self._forgotten = 0
        self._skipped: deque[range] = deque(maxlen=_RANGES_REMEMBERED)

    def phase_of(self, stream_id: int) -> Phase:
        """The phase of any stream.

        Of many streams that were reset, not all are remembered. Those below one that is forgotten
        get the benefit of the doubt.
        """
        if stream_id & 1 == 0:
            return OURS
        if stream_id > self.highest:
            return IDLE if stream_id <= self.last else LATE
        stream = self.get(stream_id)
        if stream is not None:
            return stream.phase
        if any(stream_id in skipped for skipped in self._skipped):
            return UNUSED
        if stream_id > self.last or stream_id <= self._forgotten or stream_id in self._reset:
            return RESET
        return CLOSED

    def use(self, stream_id: int) -> None:
        """Use a higher id than all before it. Those between are closed by that (section 5.1.1)."""
        if stream_id > self.highest + 2:
            self._skipped.append(range(self.highest + 1, stream_id))
        self.highest = stream_id

    def open(self, stream_id: int, stream: Stream) -> None:
        """A stream begins."""
        self[stream_id] = stream
        self.held += stream.held

    def close(self, stream_id: int) -> None:
        """A stream that is known has ended."""
        self.held -= self.pop(stream_id).held

    def reset(self, stream_id: int) -> None:
        """We have closed a stream; frames on it may still be under way."""
        self._reset[stream_id] = None
        if len(self._reset) > self._most:
            oldest = next(iter(self._reset))
            self._forgotten = max(self._forgotten, oldest)
            del self._reset[oldest]

    def close_all(self) -> None:
        """All have ended."""
        self.clear()
        self.held = 0
