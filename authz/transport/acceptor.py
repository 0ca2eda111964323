"""Takes connections off a socket and sees them through their TLS handshakes."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

_AT_ONCE: Final = 8
"""Connections taken in one turn of the loop: handshakes are expensive, and Checks wait for them."""
_RETRY_SECONDS: Final = 0.2


class Acceptor:
    """`protocol` makes what serves a connection; `closed` is told why one ended before that.

    `context` is for all handshakes from now on. Without one, there are none. Of at most
    `handshakes` at once, the one that has taken longest makes room for a new one: an honest one
    takes milliseconds, and a crowd that never finishes keeps nobody out. `refused` is given the
    client's address and what OpenSSL says where a handshake breaks a rule of TLS.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        context: ssl.SSLContext | None,
        handshakes: int,
        handshake_seconds: float,
        closed: Callable[[str], None],
        refused: Callable[[str, str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.context = context
        self._loop = asyncio.get_running_loop()
        self._socket = listening
        self._protocol = protocol
        self._most = handshakes
        self._seconds = handshake_seconds
        self._closed = closed
        self._refused = refused
        self._failed = failed
        self._greeting: dict[asyncio.Task[None], None] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._resume()

    def stop(self) -> None:
        """Take those that have connected already, then nobody any more."""
        self._pause()
        try:
            while self._accept():
                pass
        except OSError:  # as in `_on_ready`; those who are connected have to be seen through
            self._closed("accept")
        self._socket.close()

    async def greeted(self) -> None:
        """Return when no handshake is under way."""
        while self._greeting:
            await asyncio.wait(self._greeting)

    def abort(self) -> None:
        """Break off all handshakes."""
        for greeting in self._greeting:
            greeting.cancel()

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._socket, self._on_ready)

    def _pause(self) -> None:
        self._loop.remove_reader(self._socket)
        if self._retry is not None:
            self._retry.cancel()

    def _on_ready(self) -> None:
        try:
            for _ in range(_AT_ONCE):
                if not self._accept():
                    break
        except OSError:  # out of file descriptors or memory: others have to close theirs first
            self._closed("accept")
            self._pause()
            self._retry = self._loop.call_later(_RETRY_SECONDS, self._resume)

    def _accept(self) -> bool:
        """Take one connection, if there is one."""
        try:
            client, address = self._socket.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:  # that one is gone again
            return True
        client.setblocking(False)
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._greeting) >= self._most:
            oldest = next(iter(self._greeting))
            del self._greeting[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._greet(client))
        self._greeting[task] = None
        task.add_done_callback(partial(self._greeted, client, address))
        return True

    async def _greet(self, client: socket.socket) -> None:
        timeout = None if self.context is None else self._seconds
        await self._loop.connect_accepted_socket(
            self._protocol, client, ssl=self.context, ssl_handshake_timeout=timeout
        )

    def _greeted(
        self, client: socket.socket, address: tuple[str, int] | str, task: asyncio.Task[None]
    ) -> None:
        made_room = task not in self._greeting
        self._greeting.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            client.close()  # it may not have come as far as a transport that does
            self._closed("handshake_limit" if made_room else "handshake")
        if isinstance(error, ssl.SSLError):
            self._refused(address[0] if isinstance(address, tuple) else "", _why(error))
        elif isinstance(error, Exception) and not isinstance(error, OSError):
            self._failed(error)


def _why(error: ssl.SSLError) -> str:
    """What OpenSSL says, without the place in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is not accepted: {error.verify_message}"
    return (error.reason or type(error).__name__).lower().replace("_", " ")
