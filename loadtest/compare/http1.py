"""A client's side of HTTP/1.1, as little as a GET needs: one request at a time, no copies.

It speaks to our own Envoys alone, whose answers have a Content-Length.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final, cast

from loadtest.grpc_connection import Tally

_RIGHT: Final = b"HTTP/1.1 200 "
_LENGTH: Final = b"\r\ncontent-length: "


class HttpConnection(asyncio.Protocol):
    """Sends requests one after the other, and keeps the tally; see `connection.Connection`."""

    def __init__(self, in_flight: int, on_room: Callable[[HttpConnection, int], None]) -> None:
        del in_flight  # one
        self.tally = Tally()
        self.gone = False
        self._on_room = on_room
        self._intended: int | None = None
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._output = b""
        self._rest = b""
        self._transport: asyncio.Transport

    def call(self, call: bytes, intended: int) -> None:
        """Send a request that was to start at `intended`, in nanoseconds, when it is its turn."""
        if self.gone:
            self.tally.problems["the connection is gone"] += 1
        elif self._intended is None:
            self._output, self._intended = call, intended
        else:
            self._waiting.append((call, intended))

    def flush(self) -> None:
        """Send what was called."""
        if self._output and not self.gone:
            self._transport.write(self._output)
            self._output = b""

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        now = perf_counter_ns()
        data = self._rest + data if self._rest else data
        head = data.find(b"\r\n\r\n")
        end = -1 if head < 0 else head + 4 + _length(data[:head])
        if head < 0 or len(data) < end:
            self._rest = data
            return
        self._rest = b""
        intended, self._intended = self._intended, None
        if intended is None or len(data) > end:
            self._fail("more than one answer", intended)
            return
        if data.startswith(_RIGHT):
            self.tally.right += 1
            self.tally.latencies[(now - intended) // 1000] += 1
        else:
            self.tally.problems[f"HTTP status {data[9:12].decode('ascii', 'replace')}"] += 1
        if self._waiting:
            self.call(*self._waiting.popleft())
        self._on_room(self, 1)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._fail("the connection is gone", self._intended)

    def _fail(self, problem: str, intended: int | None) -> None:
        """Hang up; whatever was not answered yet has failed."""
        self.gone = True
        self._transport.abort()
        ended = len(self._waiting) + (intended is not None)
        self._intended = None
        if ended:
            self._waiting.clear()
            self.tally.problems[problem] += ended
            self._on_room(self, ended)


def _length(head: bytes) -> int:
    """The length of the body."""
    _, found, rest = head.partition(_LENGTH)
    return int(rest.partition(b"\r\n")[0]) if found else 0
