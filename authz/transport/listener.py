"""The default transport: our own HTTP/2 on asyncio, made for many small unary calls."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Final

from authz import http2
from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace
from authz.transport.acceptor import Acceptor
from authz.transport.callers import CallerSource
from authz.transport.connection import Refused, ServerConnection
from authz.transport.fairness import TURN_SECONDS, Share, Shares
from authz.transport.health import Health
from authz.transport.interface import Limits, Service
from authz.transport.memory import Memory
from authz.transport.sockets import listen_tcp, listen_unix, remove_unix
from authz.transport.tls import TlsMaterial, server_context

_SWEEP: Final = 1.0  # seconds
_SWEEP_WHILE_DRAINING: Final = 0.1
_HEADER_BLOCK: Final = 16_384  # bytes, which take a millisecond in Huffman code
_GOLDEN: Final = 0.6180339887  # its multiples, without their integers, are spread evenly
_ABORT_SECONDS: Final = 2.0

_Tenant = tuple[str, Namespace]
"""Trust domain and namespace: what others share with whoever uses more service accounts."""


class Http2Listener:
    """Serves `service` and `health` on one TCP address, or on the Unix socket `path`.

    With `tls` it asks each client for a certificate, which says who asks. Without, `caller_of`
    does.

    `closed` is told why a connection ended, in one word: `client` hung up; it was too old (`age`),
    `idle`, or asked to go (`drain`); TLS failed or took too long (`handshake`, `alpn`) or made room
    (`handshake_limit`); there were too many (`limit`), or of one namespace (`namespace_limit`); a
    request did not come or an answer was not taken (`slow`); all held too much, and it most
    (`memory`); we had no file descriptor for it (`accept`) or raised (`error`); else it is an error
    code of RFC 9113. `limited` is told which limit was met, and how often, be it that this ended a
    request, a connection, or nothing: a field of `http2.Limits`, `slow`, `watches`, or `rate`.
    `took` is told how long so many Checks took, each. `failed` is told what raised, `refused` the
    client's address and why its TLS handshake failed.
    """

    def __init__(
        self,
        service: Service,
        health: Health,
        *,
        host: str = "",
        port: int = 0,
        path: Path | None = None,
        limits: Limits,
        tls: TlsMaterial | None = None,
        caller_of: CallerSource | None = None,
        closed: Callable[[str], None] = lambda reason: None,
        limited: Callable[[str, int], None] = lambda limit, count: None,
        took: Callable[[float, int], None] = lambda seconds, checks: None,
        failed: Callable[[Exception], None] = lambda error: None,
        refused: Callable[[str, str], None] = lambda client, why: None,
    ) -> None:
        if (tls is None) == (caller_of is None):
            raise TypeError("give either tls or caller_of")
        if bool(host) == (path is not None):
            raise TypeError("give either host or path")
        self.service = service
        self.health = health
        self.caller_of = caller_of
        self.failed = failed
        self.limited = limited
        self.took = took
        self.http2_limits = http2.Limits(
            streams=limits.streams,
            message=limits.message_bytes,
            # Else one connection carries many tenants, and none may end it for the others.
            resets_cost=caller_of is None,
            header_block=_HEADER_BLOCK if caller_of is None else http2.Limits().header_block,
        )
        self.idle_seconds = limits.idle_seconds
        self.request_seconds = limits.request_seconds
        self._limits = limits
        self._host, self._port, self._path = host, port, path
        self._context = None if tls is None else server_context(tls)
        self._closed = closed
        self._refused = refused
        self._connections: dict[ServerConnection, None] = {}
        self._memory: Memory[ServerConnection] = Memory(limits.buffered_bytes)
        self.holds = self._memory.note
        self._count = 0
        self._draining = False
        self._gone = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._shares: Shares[_Tenant | None]
        self._sweeper: asyncio.Task[None]
        self._acceptor: Acceptor | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def start(self, *, reuse_port: bool = False) -> int:
        """See `Listener.start`. A Unix socket has port 0, and cannot be shared."""
        if self._path is None:
            listening = listen_tcp(self._host, self._port, reuse_port=reuse_port)
        else:
            listening = listen_unix(self._path)
        self._loop = asyncio.get_running_loop()
        self._shares = Shares(self._limits.checks_per_second, self._loop)
        self._sweeper = self._loop.create_task(self._sweep(_SWEEP), name="sweep")
        self._acceptor = Acceptor(
            listening,
            lambda: ServerConnection(self, self._loop),
            context=self._context,
            handshakes=self._limits.handshakes,
            handshake_seconds=self._limits.handshake_seconds,
            closed=self._closed,
            refused=self._refused,
            failed=self.failed,
        )
        return 0 if self._path is not None else int(listening.getsockname()[1])

    def use(self, material: TlsMaterial) -> None:
        """See `Listener.use`. A new context also forgets the sessions of the old one."""
        self._context = server_context(material)
        if self._acceptor is not None:
            self._acceptor.context = self._context

    async def stop(self, grace: float) -> None:
        """See `Listener.stop`."""
        self.health.end()
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is None:
            return
        self._draining = True
        acceptor.stop()
        if self._path is not None:
            remove_unix(self._path)
        self._sweeper.cancel()
        self._sweeper = self._loop.create_task(self._sweep(_SWEEP_WHILE_DRAINING), name="drain")
        for connection in list(self._connections):
            connection.retire("drain")
        if not await self._all_gone(acceptor, grace):
            acceptor.abort()
            for connection in list(self._connections):
                connection.abort()
            await self._all_gone(acceptor, _ABORT_SECONDS)
        self._sweeper.cancel()

    async def _all_gone(self, acceptor: Acceptor, seconds: float) -> bool:
        """Wait until no connection is left; whether that is so in time."""
        try:
            async with asyncio.timeout(seconds):
                await acceptor.greeted()
                while self._connections:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            return False
        return True

    # -- connections ---------------------------------------------------------------------------

    def opened(self, connection: ServerConnection) -> tuple[Share, float]:
        """See `Owner.opened`."""
        limits = self._limits
        if len(self._connections) >= limits.connections:
            raise Refused("limit")
        if self.caller_of is None:
            share = self._shares.of(_tenant_of(connection.caller))
            if share.connections >= limits.connections_per_namespace:
                raise Refused("namespace_limit")
        else:
            share = Share(0, self._loop)  # its connection takes turns with others
        share.connections += 1
        self._connections[connection] = None
        self._count += 1
        # Up to a tenth earlier than allowed, or all that came together would go together.
        early = limits.connection_age * (self._count * _GOLDEN % 1) / 10
        if self._draining:
            self._loop.call_soon(connection.retire, "drain")
        return share, self._loop.time() + limits.connection_age - early

    def lost(self, connection: ServerConnection, reason: str) -> None:
        """See `Owner.lost`."""
        if connection in self._connections:
            del self._connections[connection]
            self._memory.note(connection, 0)
            connection.tenant.connections -= 1
            if not self._connections:
                self._gone.set()
        self._closed(reason)

    async def _sweep(self, every: float) -> None:
        """Look after all connections, again and again."""
        while True:
            await asyncio.sleep(every)
            now = self._loop.time()
            began = thread_time()
            for connection in list(self._connections):
                connection.tend(now)
                if thread_time() - began >= TURN_SECONDS:
                    await asyncio.sleep(0)
                    began = thread_time()
            self._shares.tidy(now)


def _tenant_of(caller: SpiffeId | None) -> _Tenant | None:
    return None if caller is None else (caller.trust_domain, caller.namespace)
