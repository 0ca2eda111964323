"""One connection of the HTTP/2 transport: bytes from asyncio to `http2`, and back."""

import asyncio
import weakref
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import Final, Protocol, cast

from authz import http2
from authz.domain.facts import Asked
from authz.domain.identity import SpiffeId, workload_of_uris
from authz.errors import InvalidIdentity
from authz.http2 import Connection, Request
from authz.transport.closing import Ending
from authz.transport.fairness import TURN_SECONDS, Share
from authz.transport.rpc import Answering, Calls

SLICE: Final = 8
"""Requests that are answered before the clock is looked at, whether the turn is over."""
PIECE: Final = 16_384
"""Bytes of one connection that are looked at before others have their turn: not all that a client
can send becomes requests."""
BYTES_PER_CHECK: Final = 4096
"""A share is charged one Check for so many, for what the kernel and TLS do before we measure."""
UNSENT: Final = 131_072
"""Bytes that wait in the transport, above which we read no more of what asks for others."""

UNREAD: Final = 32_768
"""Bytes that wait in TLS to be read, while we read no more."""


class Owner(Answering, Protocol):
    """What a connection needs of its listener."""

    @property
    def http2_limits(self) -> http2.Limits:
        """What one connection may use."""
        ...

    @property
    def idle_seconds(self) -> float:
        """After how long without a request it should go."""
        ...

    @property
    def request_seconds(self) -> float:
        """How long a request may take to arrive, and an answer to be taken."""
        ...

    def opened(self, connection: "ServerConnection") -> tuple[Share, float]:
        """Take a connection in: its share, and when it will be too old.

        Raises:
            Refused: it may not stay.
        """
        ...

    def lost(self, connection: "ServerConnection", reason: str) -> None:
        """The connection is gone."""
        ...

    def holds(self, connection: "ServerConnection", size: int) -> None:
        """It keeps so many bytes now, which it did not before."""
        ...

    def limited(self, limit: str, count: int) -> None:
        """A limit, by its name, was met so often."""
        ...

    def took(self, seconds: float, checks: int) -> None:
        """So many Checks were answered so long after they were read."""
        ...


class Refused(Exception):
    """A connection may not stay, for a reason of one word."""


class ServerConnection(asyncio.Protocol):
    """A client's connection."""

    __slots__ = (
        "__weakref__",
        "_active",
        "_blocked_since",
        "_calls",
        "_came",
        "_connection",
        "_ending",
        "_held",
        "_holds",
        "_loop",
        "_owner",
        "_share",
        "_too_old",
        "_transport",
        "_unfed",
        "caller",
    )  # fmt: skip

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport
        self._connection: Connection[Asked]
        self._calls: Calls
        self._ending: Ending
        self._share: Share
        self._too_old = 0.0
        self._active = loop.time()
        self._unfed = b""  # what has come and waits for its turn
        self._came = 0.0  # when the first of that, or of this turn, has come
        self._held = False  # we go on later with what has come
        self._holds = 0  # bytes, as the owner knows
        self._blocked_since: float | None = None  # the client does not take what we send
        self.caller: SpiffeId | None = None
        """Who has connected, if that is proven by mTLS."""

    # -- asyncio calls these; whatever they raise ends this connection and nothing else -----------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected, and proven who it is if that is by TLS."""
        self._transport = cast(asyncio.Transport, transport)
        self._connection = Connection(self._owner.http2_limits, self._active)
        self._ending = Ending(self._connection, self._transport)
        self._calls = Calls(self._owner, self._connection, _sending(weakref.ref(self)))
        try:
            self._begin()
        except Refused as refusal:
            self._ending.abort(str(refusal))
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        self._active = now = self._loop.time()
        if not self._held:
            self._came = perf_counter()
        try:
            if len(data) <= PIECE and not self._unfed:
                self._connection.feed(data, now)
            else:
                self._unfed += data
            share = self._share
            share.charge(len(data) / BYTES_PER_CHECK)
            if not self._held and share.is_used_up(now):
                self._hold()
            if not self._is_stopped:
                self._turn()
            self._tell()
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def pause_writing(self) -> None:
        """The client does not take our answers: take no more questions."""
        self._blocked_since = self._loop.time()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client takes our answers again."""
        self._blocked_since = None
        if not self._held and not self._ending.is_over:
            self._hold()  # in line with others of this share, or this would be a way around it

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._calls.end()
        self._forget()
        self._owner.lost(self, self._ending.reason)

    # -- turns ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        owner, transport = self._owner, self._transport
        if owner.caller_of is None:
            certificate = transport.get_extra_info("peercert")
            self.caller = self._calls.caller = _workload_of(certificate)
            _keep_less(transport)
            if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                raise Refused("alpn")
        transport.set_write_buffer_limits(high=UNSENT)
        self._share, self._too_old = owner.opened(self)
        self._send()

    def _turn(self) -> None:
        """Answer what has come until the turn is over; go on in another one if there is more."""
        connection, calls = self._connection, self._calls
        answer = calls.answer
        began, answered, more = thread_time(), 0, True
        while more:
            if self._unfed and not connection.has_more:
                connection.feed(self._unfed[:PIECE], self._loop.time())
                self._unfed = self._unfed[PIECE:]
            events = connection.events(SLICE)
            for event in events:
                if type(event) is Request:
                    answer(event)
                else:
                    calls.cancel(event.stream_id)
            answered += len(events)
            more = (connection.has_more or bool(self._unfed)) and not connection.closed
            if more and thread_time() - began >= TURN_SECONDS:
                break
        self._send()
        self._share.charge(answered, thread_time() - began)
        if calls.checks:
            self._owner.took(perf_counter() - self._came, calls.checks)
            calls.checks = 0
        if connection.fault is not None:
            self._ending.fail(connection.fault.code.name.lower(), self._loop.time())
        elif more:
            self._hold()

    @property
    def _is_stopped(self) -> bool:
        """Whether what has come waits, and nothing more is read: no end of it either."""
        return self._held or self._blocked_since is not None

    def _hold(self) -> None:
        """Go on when others had their turn: other shares, and other connections of this one."""
        self._held = True
        self._transport.pause_reading()
        if self._share.is_in_debt:
            self._owner.limited("rate", 1)
        self._share.wait(self._go_on)

    def _go_on(self) -> None:
        self._held = False
        if self._blocked_since is not None or self._ending.is_over:
            return
        try:
            self._turn()
            self._tell()
            if not self._is_stopped and not self._ending.is_over:
                self._transport.resume_reading()
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def _tell(self) -> None:
        """Tell the owner what it counts."""
        connection = self._connection
        holds = connection.buffered + len(self._unfed) + self._transport.get_write_buffer_size()
        if holds != self._holds and not self._ending.is_over:
            self._holds = holds
            self._owner.holds(self, holds)
        if connection.limited:
            for limit, count in connection.limited.items():
                self._owner.limited(limit, count)
            connection.limited.clear()

    def _send(self) -> None:
        data = self._connection.output()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    # -- the end -------------------------------------------------------------------------------

    def retire(self, reason: str) -> None:
        """Ask the client to go elsewhere, so that no request of its is lost."""
        self._ending.announce(reason, self._loop.time())
        self._send()

    def abort(self) -> None:
        """Hang up at once."""
        self._transport.abort()

    @property
    def tenant(self) -> Share:
        """See `Holder.tenant`."""
        return self._share

    def shed(self) -> None:
        """See `Holder.shed`."""
        self._forget()
        self._ending.abort("memory")

    def _forget(self) -> None:
        """Free what is held at once, whoever still refers to us."""
        self._unfed = b""
        self._connection.abandon()

    def tend(self, now: float) -> None:
        """Look after the connection, about once a second."""
        try:
            self._end_what_stalls(now)
            behind = self._is_stopped
            idle = not behind and not self._connection.open_streams
            if now > self._too_old:
                self._ending.announce("age", now)
            elif idle and now - self._active > self._owner.idle_seconds:
                self._ending.announce("idle", now)
            self._ending.move_on(now, behind=behind, idle=idle)
            self._send()
            self._tell()
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def _end_what_stalls(self, now: float) -> None:
        before = now - self._owner.request_seconds
        if self._blocked_since is not None:
            if self._blocked_since < before:
                self._ending.abort("slow")
        elif not self._held:
            for event in self._connection.expire(before):
                self._calls.cancel(event.stream_id)
            if self._connection.fault is not None:
                self._send()
                self._ending.fail("slow", now)

    def _fail(self, error: Exception) -> None:
        self._ending.abort("error")
        self._owner.failed(error)


def _keep_less(transport: asyncio.Transport) -> None:
    """Have TLS stop reading sooner, while we do not read it: uvloop's default is 256 KiB."""
    transport.set_read_buffer_limits(high=UNREAD)  # type: ignore[attr-defined]


def _sending(connection: "weakref.ref[ServerConnection]") -> Callable[[], None]:
    """Has a connection send. Calls keep this, and would keep the connection, which keeps them.

    What is in no circle is freed when the connection ends, buffers of TLS included: up to half a
    megabyte. The collector of circles may come much later.
    """

    def send() -> None:
        alive = connection()
        if alive is not None:
            alive._send()  # noqa: SLF001

    return send


def _workload_of(certificate: object) -> SpiffeId | None:
    """The identity in a certificate as `ssl` describes it, whose chain has been verified."""
    names = cast("dict[str, tuple[tuple[str, str], ...]]", certificate).get("subjectAltName", ())
    try:
        return workload_of_uris([value for kind, value in names if kind == "URI"])
    except InvalidIdentity:
        return None
