"""What the tests of the transports share: a service that remembers, and listeners around it."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from authz.domain.facts import Asked
from authz.domain.identity import SpiffeId
from authz.lab.harness.certs import Certificate
from authz.testing import workload
from authz.transport import (
    CallerSource,
    Health,
    Http2Listener,
    Limits,
    TlsFiles,
    TlsMaterial,
    from_insecure_metadata,
    load_tls,
)
from authz.transport.reference import GrpcioListener
from tests.support.certificates import SERVICE
from tests.support.clients import Client, connected
from tests.support.waiting import soon

SHOP, BANK = workload("shop", "till"), workload("bank", "vault")
LIMITS = Limits(streams=100, message_bytes=4096, connection_age=3600)
XFCC = "x-forwarded-client-cert"
INSECURE = "x-authz-insecure-caller"

AnyListener = type[GrpcioListener] | type[Http2Listener]


class Answering:
    """A service that answers everything with `answer` and remembers what it was asked."""

    answer: bytes | None = b"answer"

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.callers: list[SpiffeId | None] = []
        self.metadata: list[list[tuple[str, str]]] = []

    def asked(self, caller: SpiffeId | None, metadata: Sequence[tuple[str, str]]) -> Asked:
        self.metadata.append(list(metadata))
        return Asked(caller)

    def check(self, request: bytes, asked: Asked) -> bytes | None:
        self.requests.append(request)
        self.callers.append(asked.caller)
        return self.answer


class Running:
    """A listener that listens."""

    def __init__(self, kind: AnyListener, options: dict[str, Any]) -> None:
        self.asked = Answering()
        self.health = Health()
        self.closed: list[str] = []
        self.limited: Counter[str] = Counter()
        self.took: list[tuple[float, int]] = []
        self.errors: list[Exception] = []
        options = {"took": lambda *one: self.took.append(one), **options}
        if kind is Http2Listener:
            options = {
                "closed": self.closed.append,
                "limited": self._met,
                "failed": self.errors.append,
                **options,
            }
        if "path" not in options:
            options = {"host": "127.0.0.1", "port": 0, **options}
        service = options.pop("service", self.asked)
        self.listener = kind(service, self.health, **{"limits": LIMITS, **options})
        self.port = 0

    def _met(self, limit: str, count: int) -> None:
        self.limited[limit] += count

    @property
    def http2(self) -> Http2Listener:
        assert isinstance(self.listener, Http2Listener)
        return self.listener


Listening = Callable[..., AbstractAsyncContextManager[Running]]
Plain = Callable[..., AbstractAsyncContextManager[tuple[Running, Client]]]


@asynccontextmanager
async def listener_of(kind: AnyListener, **options: Any) -> AsyncIterator[Running]:
    """A listener with these options, until the end of the block."""
    running = Running(kind, options)
    running.port = await running.listener.start()
    try:
        yield running
    finally:
        await soon(running.listener.stop(0))


@asynccontextmanager
async def listening(
    *,
    tls: TlsMaterial | None = None,
    caller_of: CallerSource | None = None,
    **options: Any,
) -> AsyncIterator[Running]:
    """Our own HTTP/2; without TLS, metadata say who asks unless something else does."""
    if tls is None and caller_of is None:
        caller_of = from_insecure_metadata()
    async with listener_of(Http2Listener, tls=tls, caller_of=caller_of, **options) as running:
        yield running


@asynccontextmanager
async def plain_of(
    kind: AnyListener, limits: Limits = LIMITS
) -> AsyncIterator[tuple[Running, Client]]:
    """A listener without TLS, and a client."""
    caller_of = from_insecure_metadata()
    async with (
        listener_of(kind, caller_of=caller_of, limits=limits) as server,
        connected(server.port) as client,
    ):
        yield server, client


def material(certificate: Certificate, ca: Path | None = None) -> TlsMaterial:
    return load_tls(
        TlsFiles(certificate.cert_file, certificate.key_file, ca or certificate.ca_file)
    )


def element(who: SpiffeId, by: SpiffeId = SERVICE) -> str:
    """What a sidecar appends to x-forwarded-client-cert."""
    return f'By={by};Hash=00ff;Subject="";URI={who}'
