"""Behind a real Envoy under load: no request is lost when connections end."""

import asyncio
import dataclasses
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from authz.domain.facts import Asked
from authz.domain.identity import SpiffeId
from authz.lab.harness import envoy
from authz.lab.harness.ports import Endpoint
from authz.lab.loopback import apps
from authz.lab.loopback.mesh import AUTHZ_CLUSTER
from authz.testing import workload
from authz.transport import Health, Http2Listener, Limits, TlsMaterial
from authz.transport.callers import CallerSource
from tests.envoy.bench import VERIFY, cluster, configured, free_port
from tests.envoy.scripted import allowing
from tests.support.certificates import Issuer
from tests.support.waiting import eventually, soon
from tests.transport.support import material

pytestmark = pytest.mark.envoy

WORKERS = 16
LIMITS = Limits()


class Allowing:
    """A service that allows everything."""

    def __init__(self) -> None:
        self.checks = 0
        self._answer = allowing().SerializeToString()

    def asked(self, caller: SpiffeId | None, metadata: Sequence[tuple[str, str]]) -> Asked:
        del metadata
        return Asked(caller)

    def check(self, request: bytes, asked: Asked) -> bytes | None:
        del request, asked
        self.checks += 1
        return self._answer


class Proxied:
    """An Envoy whose inbound filter asks us, an app behind it, and clients in front."""

    def __init__(self, issuer: Issuer, tls: TlsMaterial | None) -> None:
        self.issuer = issuer
        self.tls = tls
        self.service = Allowing()
        self.closed: list[str] = []
        self.statuses: Counter[int] = Counter()
        self._caller_of: CallerSource | None = None if tls else lambda _: workload("acme-web")
        self.port = 0
        self.path: Path | None = None

    async def listener(self, limits: Limits = LIMITS) -> Http2Listener:
        """Another listener on the same port."""
        made = Http2Listener(
            self.service,
            Health(),
            host="" if self.path else "127.0.0.1",
            port=self.port,
            path=self.path,
            limits=limits,
            tls=self.tls,
            caller_of=self._caller_of,
            closed=self.closed.append,
        )
        self.port = await made.start(reuse_port=True)
        return made

    @asynccontextmanager
    async def loaded(self, directory: Path) -> AsyncIterator[None]:
        """Clients ask without a pause."""
        address, app = free_port(), free_port()
        certificate = self.issuer.issue(workload("acme-web", "plain"))
        us = Endpoint("127.0.0.1", self.port)
        config = configured(VERIFY, VERIFY.sent(), certificate, address=address, app=app, authz=us)
        ours = cluster(config, AUTHZ_CLUSTER)
        if self.tls is None:  # as our own sidecar sends to us
            del ours["transport_socket"]
        if self.path is not None:
            (locality,) = ours["load_assignment"]["endpoints"]
            locality["lb_endpoints"][0]["endpoint"]["address"] = {"pipe": {"path": str(self.path)}}
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(apps.echo("app", app))
            started = envoy.running("drain", config, directory, envoy.binary())
            await stack.enter_async_context(started)
            enough = asyncio.Event()
            caller = self.issuer.issue(workload("globex")).sidecar_context()
            asking = (self._ask(address, caller, enough) for _ in range(WORKERS))
            workers = [asyncio.create_task(it) for it in asking]
            await self.more()
            yield
            await self.more()
            enough.set()
            await soon(asyncio.gather(*workers))

    async def more(self, count: int = 200) -> None:
        """Wait until so many more requests were answered."""
        least = self.statuses.total() + count

        async def answered() -> bool:
            return self.statuses.total() >= least

        await eventually(answered, "the clients are answered")

    async def _ask(self, address: Endpoint, caller: ssl.SSLContext, enough: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection(*address, ssl=caller)
        while not enough.is_set():
            writer.write(b"GET / HTTP/1.1\r\nhost: app.acme-web.svc.cluster.local\r\n\r\n")
            head = await soon(reader.readuntil(b"\r\n\r\n"))
            self.statuses[int(head[9:12])] += 1
            if b"transfer-encoding: chunked" in head:
                while await reader.readline() != b"0\r\n":
                    pass
                await reader.readline()
            else:
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                await reader.readexactly(int(length))
        writer.close()


@pytest.fixture(params=["plaintext", "mtls"])
def proxied(request: pytest.FixtureRequest, issuer: Issuer) -> Proxied:
    return Proxied(issuer, material(issuer.server()) if request.param == "mtls" else None)


async def test_no_request_is_lost_while_one_listener_after_the_other_drains(
    proxied: Proxied, tmp_path: Path
) -> None:
    listener = await proxied.listener()
    async with proxied.loaded(tmp_path):
        for _ in range(6):
            following = await proxied.listener()
            await soon(listener.stop(10))
            listener = following
            await proxied.more()
    await listener.stop(0)
    assert proxied.closed[:6] == ["drain"] * 6
    assert list(proxied.statuses) == [200], proxied.statuses
    assert proxied.statuses.total() == proxied.service.checks


async def test_an_envoy_asks_over_a_unix_socket(proxied: Proxied, tmp_path: Path) -> None:
    """In plaintext as a sidecar would, and with TLS."""
    proxied.path = tmp_path / "authz.sock"
    listener = await proxied.listener()
    async with proxied.loaded(tmp_path):
        await proxied.more()
    await listener.stop(5)
    assert list(proxied.statuses) == [200], proxied.statuses
    assert proxied.statuses.total() == proxied.service.checks
    assert not proxied.path.exists()


async def test_no_request_is_lost_while_connections_age(
    proxied: Proxied,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authz.transport.listener._SWEEP", 0.05)
    listener = await proxied.listener(dataclasses.replace(LIMITS, connection_age=1))
    async with proxied.loaded(tmp_path):
        while proxied.closed.count("age") < 4:
            await proxied.more(50)
    await listener.stop(0)
    assert list(proxied.statuses) == [200], proxied.statuses
    assert set(proxied.closed) <= {"age", "client", "drain"}
