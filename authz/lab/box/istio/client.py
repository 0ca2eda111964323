"""Calling from inside a pod: with any headers, as any user, past the sidecar, in raw TCP or TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from authz.lab.box.istio.network import NetworkNamespace
from authz.lab.box.knative.messages import Headers, Request
from authz.lab.box.knative.net import ask, exchange
from authz.lab.harness.certs import Certificate
from authz.wire import REASON_HEADER

SECONDS: Final = 10.0


class NoAnswer(ConnectionError):
    """The connection was refused, broken or silent: there is no HTTP status to speak of."""


@dataclass(frozen=True)
class Answer:
    """What a call got."""

    status: int
    headers: Headers
    body: bytes

    @property
    def reason(self) -> str:
        """Why we denied it; empty if we did not."""
        return self.headers.get(REASON_HEADER)

    @property
    def app(self) -> str:
        """Which app answered; empty if none did."""
        if self.headers.get("content-type") != "application/json":
            return ""
        return str(self.json().get("app", ""))

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Tls:
    """How a client speaks TLS: as itself without a sidecar, or as nobody."""

    certificate: Certificate | None = None
    sni: str = ""
    alpn: tuple[str, ...] = ()

    def context(self) -> ssl.SSLContext:
        """TLS that does not mind who the server is: the attacker's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            context.load_cert_chain(self.certificate.cert_file, self.certificate.key_file)
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        return context


@dataclass
class Connection:
    """A connection; closed by `Client.connected`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send."""
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, seconds: float = SECONDS) -> bytes:
        """What comes next; empty when the other side has closed.

        Raises:
            NoAnswer: nothing came in time, or the connection broke.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read(1 << 16)
        except (TimeoutError, OSError) as error:
            raise NoAnswer(f"{type(error).__name__} {error}") from None

    async def everything(self, seconds: float = SECONDS) -> bytes:
        """All that comes until the other side closes, breaks off, or is silent for so long."""
        parts = []
        try:
            while part := await self.receive(seconds):
                parts.append(part)
        except NoAnswer:
            pass
        return b"".join(parts)


@dataclass(frozen=True)
class Client:
    """Somebody in a pod."""

    namespace: NetworkNamespace
    uid: int

    @asynccontextmanager
    async def connected(
        self, address: tuple[str, int], tls: Tls | None = None
    ) -> AsyncIterator[Connection]:
        """Connect to an IPv4 address and a port.

        Raises:
            NoAnswer: nobody is there, or the handshake failed.
        """
        made = self.namespace.socket(self.uid)
        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.get_running_loop().sock_connect(made, address)
                options: dict[str, Any] = {}
                if tls is not None:
                    options = {"ssl": tls.context(), "server_hostname": tls.sni}
                reader, writer = await asyncio.open_connection(sock=made, **options)
        except (OSError, TimeoutError) as error:
            made.close()
            raise NoAnswer(f"{address}: {type(error).__name__} {error}") from None
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()

    async def call(
        self,
        address: tuple[str, int],
        host: str,
        target: str = "/",
        *,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        http2: bool = False,
        tls: Tls | None = None,
    ) -> Answer:
        """One request on a connection of its own; headers go as they are, repeated ones too.

        Raises:
            NoAnswer: there was no answer.
        """
        request = Request(method, target, host, Headers(headers), version=2 if http2 else 1)
        async with self.connected(address, tls) as connection:
            try:
                async with (
                    asyncio.timeout(SECONDS),
                    exchange(connection.reader, connection.writer, request.version) as stream,
                ):
                    head, content = await ask(stream, request, body)
            except (OSError, TimeoutError) as error:
                raise NoAnswer(f"{address}: {type(error).__name__} {error}") from None
        return Answer(head.status, head.headers, content)


@dataclass(frozen=True)
class Seen:
    """A request that reached an app."""

    record: dict[str, Any] = field(repr=False)

    @property
    def path(self) -> str:
        """Its path and query."""
        return str(self.record["path"])

    @property
    def host(self) -> str:
        """Its Host."""
        return str(self.record["host"])

    def header(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for key, value in self.record["headers"] if key.lower() == name.lower()]
