"""How a connection ends: politely, so that no request of the client's is lost, and for certain.

serving     until it is too old, idle for too long, or the listener drains
announced   the first GOAWAY is sent: the client should open no more streams, and those that it
            opens until it knows are answered
ended       the second GOAWAY is sent, and names the last of them
closing     all is said: what is not sent yet still goes out, but the client has to take it
"""

import asyncio
import enum
from typing import Final

from authz.domain.facts import Asked
from authz.http2 import Connection

ROUND_TRIP: Final = 1.0
"""Least seconds between the two GOAWAYs: what the client sent before it saw the first is here by
then. Envoy closes the connection when it is done, and does not wait for the second one."""
LINGER: Final = 1.0
"""Seconds for the client to hang up by itself when it is done, and to take what we sent."""


class _Phase(enum.Enum):
    SERVING = enum.auto()
    ANNOUNCED = enum.auto()
    ENDED = enum.auto()
    CLOSING = enum.auto()


class Ending:
    """Where a connection is on its way to its end. `reason` says in a word why it goes that way."""

    __slots__ = ("_connection", "_phase", "_since", "_transport", "reason")

    def __init__(self, connection: Connection[Asked], transport: asyncio.Transport) -> None:
        self.reason = "client"
        self._connection = connection
        self._transport = transport
        self._phase = _Phase.SERVING
        self._since = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be read any more."""
        return self._phase is _Phase.CLOSING or self._transport.is_closing()

    def announce(self, reason: str, now: float) -> None:
        """Begin to ask the client to go elsewhere. GOAWAYs are left in the connection's output."""
        if self._phase is _Phase.SERVING and not self._transport.is_closing():
            self._enter(_Phase.ANNOUNCED, reason, now)
            self._connection.announce_end()

    def close(self, reason: str, now: float) -> None:
        """Hang up once all that was written is sent."""
        if self._phase is not _Phase.CLOSING:
            self._enter(_Phase.CLOSING, reason, now)
            self._transport.close()

    def fail(self, reason: str, now: float) -> None:
        """The client is at fault: it is told, and not read any more.

        The socket stays open for a while. To close one with unread bytes resets the connection,
        and the client might never see what it did.
        """
        if self._phase is not _Phase.CLOSING:
            self._enter(_Phase.CLOSING, reason, now)
            self._transport.pause_reading()
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def abort(self, reason: str) -> None:
        """Hang up at once."""
        self.reason = reason
        self._transport.abort()

    def move_on(self, now: float, *, behind: bool, idle: bool) -> None:
        """Take the next step, if it is time.

        `behind`: there may be requests that have come and are not read. `idle`: there are none, nor
        any without an answer.
        """
        lasted = now - self._since
        if self._transport.is_closing() and self._phase is not _Phase.CLOSING:
            self._enter(_Phase.CLOSING, self.reason, now)  # the client was first
        elif self._phase is _Phase.ANNOUNCED and lasted >= ROUND_TRIP and not behind:
            self._enter(_Phase.ENDED, self.reason, now)
            self._connection.end()
        elif self._phase is _Phase.ENDED and lasted >= LINGER and idle:
            self.close(self.reason, now)
        elif self._phase is _Phase.CLOSING and lasted >= LINGER:
            self._transport.abort()

    def _enter(self, phase: _Phase, reason: str, now: float) -> None:
        self._phase, self.reason, self._since = phase, reason, now
