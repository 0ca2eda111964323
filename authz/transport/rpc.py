"""The requests of one connection: which method, who asks, and the answer."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from authz.domain.facts import Asked
from authz.domain.identity import SpiffeId
from authz.errors import InvalidIdentity
from authz.http2 import Connection, GrpcStatus, Request
from authz.http2.events import Head
from authz.transport.callers import CallerSource
from authz.transport.health import Health
from authz.transport.interface import AUTHORIZATION, HEALTH, UNDECIDED, Service

_CHECK: Final = f"/{AUTHORIZATION}/Check"
_HEALTH_CHECK: Final = f"/{HEALTH}/Check"
_HEALTH_WATCH: Final = f"/{HEALTH}/Watch"

MAX_WATCHES: Final = 10
"""Watches of health on one connection: each is a task, and a prober has one."""


class Answering(Protocol):
    """What answers, the same for all connections."""

    @property
    def service(self) -> Service:
        """Answers Checks."""
        ...

    @property
    def health(self) -> Health:
        """Answers whether we do."""
        ...

    @property
    def caller_of(self) -> CallerSource | None:
        """Says who asks, by a request's metadata; `None`: the connection does."""
        ...

    def failed(self, error: Exception) -> None:
        """Something raised that should not."""
        ...


class Calls:
    """Answers on one connection. `send` is called when a watch has something to say."""

    __slots__ = ("_by", "_connection", "_send", "_watches", "caller", "checks")

    def __init__(
        self, by: Answering, connection: Connection[Asked], send: Callable[[], None]
    ) -> None:
        self.caller: SpiffeId | None = None
        """Who asks all that is asked here, if the connection says so."""
        self.checks = 0
        """Checks that were answered; whoever counts them sets it back."""
        self._by = by
        self._connection = connection
        self._send = send
        self._watches: dict[int, asyncio.Task[None]] = {}

    def answer(self, request: Request[Asked]) -> None:
        """Answer, or begin to."""
        path = request.head.path
        if path == _CHECK:
            self._check(request)
        elif path == _HEALTH_CHECK:
            self._answer_health(request)
        elif path == _HEALTH_WATCH:
            self._begin_watch(request)
        else:
            text = "there is no such method here"
            self._connection.fail(request.stream_id, GrpcStatus.UNIMPLEMENTED, text)

    def cancel(self, stream_id: int) -> None:
        """Nobody waits for this answer any more."""
        watch = self._watches.pop(stream_id, None)
        if watch is not None:
            watch.cancel()

    def end(self) -> None:
        """Nobody waits for any answer any more."""
        for watch in self._watches.values():
            watch.cancel()
        self._watches.clear()

    # -- Check ---------------------------------------------------------------------------------

    def _check(self, request: Request[Asked]) -> None:
        self.checks += 1
        try:
            asked = request.head.note or request.head.noted(self._asked)
            answer = self._by.service.check(request.message, asked)
        except Exception as error:  # noqa: BLE001 - this request fails, and no other
            self._by.failed(error)
            answer = None
        if answer is None:
            self._connection.fail(request.stream_id, GrpcStatus.UNAVAILABLE, UNDECIDED)
        else:
            self._connection.respond(request.stream_id, answer)

    def _asked(self, head: Head[Asked]) -> Asked:
        """What connection and header block say of a Check: the same for all with this block."""
        metadata = [pair for pair in head.metadata if not pair[0].endswith("-bin")]
        return self._by.service.asked(self._who(metadata), metadata)

    def _who(self, metadata: list[tuple[str, str]]) -> SpiffeId | None:
        if self._by.caller_of is None:
            return self.caller
        try:
            return self._by.caller_of(metadata)
        except InvalidIdentity:
            return None

    # -- health --------------------------------------------------------------------------------

    def _answer_health(self, request: Request[Asked]) -> None:
        try:
            answer = self._by.health.check(request.message)
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

    def _begin_watch(self, request: Request[Asked]) -> None:
        if len(self._watches) >= MAX_WATCHES:
            self._connection.count("watches")
            text = f"more than {MAX_WATCHES} watches on one connection"
            self._connection.fail(request.stream_id, GrpcStatus.RESOURCE_EXHAUSTED, text)
            return
        watch = asyncio.get_running_loop().create_task(self._watch(request))
        self._watches[request.stream_id] = watch

    async def _watch(self, request: Request[Asked]) -> None:
        try:
            async for state in self._by.health.watch(request.message):
                self._connection.send(request.stream_id, state)
                self._send()
            self._connection.finish(request.stream_id)
        except DecodeError:
            self._refuse_health(request.stream_id)
        except Exception as error:  # noqa: BLE001 - this request fails, and no other
            self._by.failed(error)
            self._connection.finish(request.stream_id, GrpcStatus.INTERNAL)
        self._send()
        self._watches.pop(request.stream_id, None)
