"""One connection of the HTTP/2 transport: bytes from asyncio to `http2`, events to the service."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

from google.protobuf.message import DecodeError

from authz.errors import InvalidIdentity
from authz.http2 import Cancelled, Connection, GrpcStatus, Request
from authz.http2.events import Head
from authz.identity import SpiffeId, workload_of_uris
from authz.transport.base import AUTHORIZATION, HEALTH, Asked, Limits, Service
from authz.transport.callers import CallerSource
from authz.transport.fairness import Shares
from authz.transport.health import Health

_CHECK: Final = f"/{AUTHORIZATION}/Check"
_HEALTH_CHECK: Final = f"/{HEALTH}/Check"
_HEALTH_WATCH: Final = f"/{HEALTH}/Watch"

SLICE: Final = 64
"""Requests of one connection that are answered before others have their turn."""
ROUND_TRIP: Final = 0.2
"""Seconds between the two GOAWAYs: what the client sent before it saw the first is here by then."""
LINGER: Final = 2.0
"""Seconds for the client to hang up by itself when it is done."""

_MAX_HEADS = 64


class Owner(Protocol):
    """What a peer needs of its listener."""

    service: Service
    health: Health
    limits: Limits
    shares: Shares[SpiffeId | None]
    caller_of: CallerSource | None

    def opened(self, peer: "Peer") -> bool:
        """Whether there is room for this connection."""
        ...

    def lost(self, peer: "Peer", reason: str) -> None:
        """The connection is gone."""
        ...


class Peer(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._connection: Connection
        self._heads: dict[Head, Asked] = {}
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._waiting: asyncio.Handle | None = None
        self._blocked = False  # the client does not take what we send
        self._ending = False
        self._reason = "client"
        self.caller: SpiffeId | None = None
        self.since = self._loop.time()
        self.active = self.since

    # -- asyncio -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected, and proven who it is if that is by TLS."""
        self._transport = cast(asyncio.Transport, transport)
        certificate = transport.get_extra_info("peercert")
        if certificate is not None:
            self.caller = _workload_of(certificate)
        self._connection = Connection(self._owner.limits.http2(), self._loop.time())
        if not self._owner.opened(self):
            self._hang_up("limit")
            return
        if certificate is not None:
            alpn = transport.get_extra_info("ssl_object").selected_alpn_protocol()
            if alpn != "h2":
                self._hang_up("alpn")
                return
        self._transport.set_write_buffer_limits(high=self._owner.limits.unsent_bytes)
        self._send()

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        self.active = now = self._loop.time()
        self._connection.feed(data, now)
        if self._waiting is None and not self._blocked:
            self._turn()

    def pause_writing(self) -> None:
        """The client does not take our answers: take no more questions."""
        self._blocked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client takes our answers again."""
        self._blocked = False
        self._continue()

    def eof_received(self) -> None:
        """The client has said all that it will say; the transport closes by itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._waiting is not None:
            self._waiting.cancel()
        for watch in self._watches.values():
            watch.cancel()
        self._owner.lost(self, self._reason)

    # -- turns ---------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Answer a slice of what has come; go on in another turn if there is more."""
        connection = self._connection
        events = connection.events(SLICE)
        for event in events:
            if type(event) is Request:
                self._answer(event)
            elif type(event) is Cancelled:
                self._end_watch(event.stream_id)
        self._send()
        if connection.closed:
            self._hang_up(connection.fault.code.name if connection.fault else "client")
            return
        wait = 0.0
        if events and self._owner.caller_of is None:
            wait = self._owner.shares.take(self.caller, len(events), self._loop.time())
        if wait > 0:
            self._pause(lambda: self._loop.call_later(wait, self._continue))
        elif connection.has_more and len(events) == SLICE:
            self._pause(lambda: self._loop.call_soon(self._continue))

    def _pause(self, schedule: Callable[[], asyncio.Handle]) -> None:
        self._transport.pause_reading()
        self._waiting = schedule()

    def _continue(self) -> None:
        self._waiting = None
        if self._blocked or self._transport.is_closing():
            return
        self._transport.resume_reading()
        self._turn()

    def _send(self) -> None:
        data = self._connection.output()
        if data:
            self._transport.write(data)

    # -- requests ------------------------------------------------------------------------------

    def _answer(self, request: Request) -> None:
        path = request.head.path
        if path == _CHECK:
            answer = self._owner.service.check(request.message, self._asked(request.head))
            if answer is None:
                self._connection.fail(
                    request.stream_id, GrpcStatus.UNAVAILABLE, "cannot decide now"
                )
            else:
                self._connection.respond(request.stream_id, answer)
        elif path == _HEALTH_CHECK:
            self._answer_health(request)
        elif path == _HEALTH_WATCH:
            watch = self._loop.create_task(self._watch(request))
            self._watches[request.stream_id] = watch
        else:
            self._connection.fail(
                request.stream_id, GrpcStatus.UNIMPLEMENTED, "there is no such method here"
            )

    def _asked(self, head: Head) -> Asked:
        """What connection and header block say of a Check: the same for all with this block."""
        asked = self._heads.get(head)
        if asked is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            asked = self._owner.service.asked(self._caller(head), head.metadata)
            self._heads[head] = asked
        return asked

    def _caller(self, head: Head) -> SpiffeId | None:
        if self._owner.caller_of is None:
            return self.caller
        try:
            return self._owner.caller_of(head.metadata)
        except InvalidIdentity:
            return None

    def _answer_health(self, request: Request) -> None:
        try:
            answer = self._owner.health.check(request.message)
        except DecodeError:
            self._refuse_health(request.stream_id)
            return
        if answer is None:
            text = "there is no such service here"
            self._connection.fail(request.stream_id, GrpcStatus.NOT_FOUND, text)
        else:
            self._connection.respond(request.stream_id, answer)

    def _refuse_health(self, stream_id: int) -> None:
        text = "not a HealthCheckRequest"
        self._connection.fail(stream_id, GrpcStatus.INVALID_ARGUMENT, text)

    async def _watch(self, request: Request) -> None:
        try:
            async for state in self._owner.health.watch(request.message):
                self._connection.send(request.stream_id, state)
                self._send()
            self._connection.finish(request.stream_id)
        except DecodeError:
            self._refuse_health(request.stream_id)
        self._send()
        self._watches.pop(request.stream_id, None)

    def _end_watch(self, stream_id: int) -> None:
        watch = self._watches.pop(stream_id, None)
        if watch is not None:
            watch.cancel()

    # -- the end -------------------------------------------------------------------------------

    def retire(self, reason: str) -> None:
        """Ask the client to go elsewhere, in two steps, so that no request of its is lost."""
        if self._ending or self._transport.is_closing():
            return
        self._ending = True
        self._reason = reason
        self._connection.announce_end()
        self._send()
        self._loop.call_later(ROUND_TRIP, self._end)

    def _end(self) -> None:
        if not self._transport.is_closing():
            self._connection.end()
            self._send()
            self._loop.call_later(LINGER, self._close_when_done)

    def _close_when_done(self) -> None:
        if self._connection.open_streams:
            self._loop.call_later(LINGER, self._close_when_done)
        else:
            self._transport.close()

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._connection.open_streams > 0

    def expire(self, before: float) -> None:
        """Give up requests that began before a time and are not complete yet."""
        self._connection.expire(before)
        self._send()

    def abort(self) -> None:
        """Hang up at once."""
        self._transport.abort()

    def _hang_up(self, reason: str) -> None:
        self._reason = reason
        self._transport.close()


def _workload_of(certificate: object) -> SpiffeId | None:
    """The identity in a certificate as `ssl` describes it, whose chain has been verified."""
    names = cast("dict[str, tuple[tuple[str, str], ...]]", certificate).get("subjectAltName", ())
    try:
        return workload_of_uris([value for kind, value in names if kind == "URI"])
    except InvalidIdentity:
        return None
