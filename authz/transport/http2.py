"""The default transport: our own HTTP/2 on asyncio, made for many small unary calls."""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final

from authz.identity import SpiffeId
from authz.transport.base import Limits, Service
from authz.transport.callers import CallerSource
from authz.transport.fairness import Shares
from authz.transport.health import Health
from authz.transport.peer import Peer
from authz.transport.tls import TlsMaterial, server_context

_BACKLOG: Final = 1024
_SWEEP: Final = 1.0  # seconds


class Http2Listener:
    """Serves `service` and `health` on one TCP address.

    With `tls` it asks each client for a certificate, which says who asks. Without, `caller_of`
    does. `closed` is told why a connection ended.
    """

    def __init__(
        self,
        service: Service,
        health: Health,
        *,
        host: str,
        port: int,
        limits: Limits,
        tls: TlsMaterial | None = None,
        caller_of: CallerSource | None = None,
        closed: Callable[[str], None] = lambda reason: None,
    ) -> None:
        if (tls is None) == (caller_of is None):
            raise TypeError("give either tls or caller_of")
        self.service = service
        self.health = health
        self.limits = limits
        self.caller_of = caller_of
        self.shares: Shares[SpiffeId | None] = Shares(limits.checks_per_second)
        self._address = host, port
        self._context = None if tls is None else server_context(tls)
        self._closed = closed
        self._peers: dict[Peer, None] = {}
        self._callers: Counter[SpiffeId | None] = Counter()
        self._greeting: dict[asyncio.Task[None], None] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._socket: socket.socket
        self._gone = asyncio.Event()

    async def start(self) -> int:
        """See `Listener.start`."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._socket = socket.create_server(self._address, family=family, backlog=_BACKLOG)
        self._socket.setblocking(False)
        self._tasks = [
            asyncio.create_task(self._accept(), name="accept"),
            asyncio.create_task(self._sweep(), name="sweep"),
        ]
        return int(self._socket.getsockname()[1])

    def use(self, material: TlsMaterial) -> None:
        """See `Listener.use`. A new context also forgets the sessions of the old one."""
        self._context = server_context(material)

    async def stop(self, grace: float) -> None:
        """See `Listener.stop`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()
        for greeting in list(self._greeting):
            greeting.cancel()
        for peer in list(self._peers):
            peer.retire("drain")
        try:
            async with asyncio.timeout(grace):
                while self._peers:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            for peer in list(self._peers):
                peer.abort()

    # -- connections ---------------------------------------------------------------------------

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self._socket)
            except OSError:  # out of file descriptors, or the client is gone already
                self._closed("accept")
                await asyncio.sleep(0.05)
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self._greeting) >= self.limits.handshakes:
                # The one that has taken longest makes room: an honest one takes milliseconds.
                next(iter(self._greeting)).cancel()
            task = loop.create_task(self._greet(client))
            self._greeting[task] = None
            task.add_done_callback(self._greeted)

    async def _greet(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        timeout = self.limits.handshake_seconds if self._context is not None else None
        try:
            await loop.connect_accepted_socket(
                lambda: Peer(self), client, ssl=self._context, ssl_handshake_timeout=timeout
            )
        except (OSError, ssl.SSLError):
            self._closed("handshake")
        except asyncio.CancelledError:
            self._closed("handshake")
            client.close()
            raise

    def _greeted(self, task: asyncio.Task[None]) -> None:
        self._greeting.pop(task, None)

    def opened(self, peer: Peer) -> bool:
        """See `Owner.opened`."""
        if len(self._peers) >= self.limits.connections:
            return False
        if (
            self.caller_of is None
            and self._callers[peer.caller] >= self.limits.connections_per_identity
        ):
            return False
        self._peers[peer] = None
        self._callers[peer.caller] += 1
        return True

    def lost(self, peer: Peer, reason: str) -> None:
        """See `Owner.lost`."""
        self._closed(reason)
        if peer not in self._peers:
            return
        del self._peers[peer]
        self._callers[peer.caller] -= 1
        if not self._callers[peer.caller]:
            del self._callers[peer.caller]
        if not self._peers:
            self._gone.set()

    async def _sweep(self) -> None:
        """Once a second: what is too old, idle too long, or never completes."""
        limits, loop = self.limits, asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP)
            now = loop.time()
            for number, peer in enumerate(list(self._peers)):
                # Spread over a tenth of the age, or all that came together go together.
                jitter = limits.connection_age * (hash(peer) % 100) / 1000
                if now - peer.since > limits.connection_age + jitter:
                    peer.retire("age")
                elif peer.is_busy:
                    peer.expire(now - limits.request_seconds)
                elif now - peer.active > limits.idle_seconds:
                    peer.retire("idle")
                if number % 500 == 499:  # do not hold up Checks for a crowd
                    await asyncio.sleep(0)
